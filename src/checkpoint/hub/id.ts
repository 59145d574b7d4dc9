/**
 * Names of models on the Hugging Face Hub: `org/name`, or `org/name@revision` with a branch, a tag or a commit.
 *
 * In: a text. Out: its parts, or undefined where it is not such a name. This file runs anywhere; the cache on disk is
 * in cache.node.ts.
 */

/** A model of the Hub at a revision. */
export interface HubId {
  readonly id: string;
  /** A branch, a tag or a commit. `main` where the user named none. */
  readonly revision: string;
}

/**
 * The state of a download. The byte counts are sums over all files that the checkpoint needs, including those that were
 * there before.
 */
export interface HubProgress {
  /**
   * `waiting`: another process is downloading this model. `checking`: a file is complete and its checksum is being
   * computed.
   */
  readonly state: "waiting" | "downloading" | "checking";
  readonly file: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface HubOptions {
  /** The environment that HF_HOME, HF_TOKEN and so on are read from. `process.env` by default. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly onProgress?: (progress: HubProgress) => void;
}

export const HUB_ENDPOINT: string = "https://huggingface.co";

/** One part of a name, by huggingface_hub's rules: letters, digits and `_`, and in between also `.` and `-`. */
const PART = /^[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?$/;
/** What a ref can be, without the characters that mean something in a URL or to a file system. */
const REVISION = /^[\w][\w.+-]*(?:\/[\w][\w.+-]*)*$/;
const MAX_ID_LENGTH = 96;

/**
 * The parts of a Hub id. `org/name` is a path too, so callers look for a folder of that name first. No id contains `--`
 * or `..`: `--` separates the parts of the name in the cache, and `..` leads out of a folder.
 */
export function parseHubId(text: string): HubId | undefined {
  const at = text.indexOf("@");
  const id = at < 0 ? text : text.slice(0, at);
  const revision = at < 0 ? "main" : text.slice(at + 1);
  const parts = id.split("/");
  const isId =
    parts.length === 2 &&
    parts.every(part => PART.test(part)) &&
    id.length <= MAX_ID_LENGTH &&
    !/--|\.\.|\.git$/.test(id);
  return isId && REVISION.test(revision) && !revision.includes("..") ? { id, revision } : undefined;
}

/** Whether a revision is a commit, which never changes, rather than a branch or a tag. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/** The folder of a model's files, as a URL that browsers are allowed to read. */
export function hubUrl({ id, revision }: HubId): URL {
  return new URL(`${HUB_ENDPOINT}/${id}/resolve/${encodeURIComponent(revision)}/`);
}
