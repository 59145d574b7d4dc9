/**
 * Names of models on the Hugging Face Hub: `org/name`, or `org/name@revision` with a branch, a tag or a commit.
 *
 * In: a text. Out: its parts, or undefined where it is no such name. Everything here runs anywhere; the cache on disk
 * is in cache.node.ts.
 */

/** A model of the Hub at a revision. */
export interface HubId {
  readonly id: string;
  /** A branch, a tag or a commit; `main` where none was named. */
  readonly revision: string;
}

/** How a download stands. Bytes are those of all files that the checkpoint needs, what was there before included. */
export interface HubProgress {
  /** `waiting`: another process downloads this model. `checking`: the checksum of a file that is whole. */
  readonly state: "waiting" | "downloading" | "checking";
  readonly file: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface HubOptions {
  /** Where HF_HOME, HF_TOKEN and so on are read; `process.env` if not given. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly onProgress?: (progress: HubProgress) => void;
}

export const HUB_ENDPOINT: string = "https://huggingface.co";

/** One part of a name, by huggingface_hub's rules: letters, digits, `_`, and within it `.` and `-`. */
const PART = /^[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?$/;
/** What a ref can be, less what means something in a URL or to a file system. */
const REVISION = /^[\w][\w.+-]*(?:\/[\w][\w.+-]*)*$/;
const MAX_ID_LENGTH = 96;

/**
 * The parts of a Hub id. A folder of that name is looked for first, by who calls this: `org/name` is a path too.
 * `--` and `..` are in no id: the first separates the parts of the name in the cache, the second climbs.
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

/** Whether a revision is a commit, which never changes, rather than a name for one. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/** The folder of a model's files, as a URL that every browser may read. */
export function hubUrl({ id, revision }: HubId): URL {
  return new URL(`${HUB_ENDPOINT}/${id}/resolve/${encodeURIComponent(revision)}/`);
}
