/**
 * The Hugging Face cache on this machine: where it is, and which checkpoints in it are complete. Node only.
 *
 *     <cache>/models--Qwen--Qwen3Guard-Gen-0.6B/
 *       blobs/<SHA-256, or git's SHA-1>            the downloaded files, named by their content
 *       snapshots/<commit>/config.json             links to ../../blobs/...: a checkpoint folder
 *       refs/main                                  the commit that `main` was when it was last looked up
 *       .no_exist/<commit>/chat_template.jinja     known not to be in the repository
 *
 * The layout is that of Python's huggingface_hub, so each finds what the other has downloaded. A complete snapshot is
 * used as it is, without a look at the network and without loading the package that would look (files.node.ts). We do
 * not use that package's own readers of the cache: they take their folders from `process.env` alone, and do not say
 * whether a snapshot is complete.
 */

import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { bytesFromFile } from "../bytes.node.ts";
import { INDEX_FILE, readIndex, SINGLE_FILE } from "../safetensors-sharded.ts";
import { HUB_ENDPOINT, type HubId, type HubOptions, isCommit } from "./id.ts";

/** The settings in the environment, under the names that huggingface_hub gave them. */
export interface HubSettings {
  /** HF_ENDPOINT, without a slash at its end. */
  readonly endpoint: string;
  /** HF_HUB_CACHE, else the folder `hub` in HF_HOME. */
  readonly cache: string;
  /** HF_TOKEN, else the contents of the file HF_HOME/token. */
  readonly token: string | undefined;
  /** HF_HUB_OFFLINE: never touch the network. */
  readonly offline: boolean;
}

/**
 * Reads the settings. Throws RangeError for an endpoint that is not a URL, and for a token with characters that no
 * token has.
 */
export async function hubSettings(env: HubOptions["env"] = process.env): Promise<HubSettings> {
  const home = expandHome(env.HF_HOME || join(env.XDG_CACHE_HOME || "~/.cache", "huggingface"));
  const endpoint = (env.HF_ENDPOINT || HUB_ENDPOINT).replace(/\/+$/, "");
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint)) {
    throw new RangeError(`HF_ENDPOINT: expected a URL of http or https, got ${endpoint}`);
  }
  const token = (env.HF_TOKEN || (await readFile(join(home, "token"), "utf8").catch(() => ""))).trim();
  // The message does not quote the token. The platform's own message about a bad header would.
  if (!/^[\x21-\x7e]*$/.test(token))
    throw new RangeError("HF_TOKEN: expected a token, got characters that no token has");
  return {
    endpoint,
    cache: expandHome(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub")),
    token: token || undefined,
    offline: /^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE ?? ""),
  };
}

function expandHome(path: string): string {
  return resolve(path.replace(/^~(?=$|[/\\])/, homedir()));
}

/** Where a model's files are in the cache. */
export class CachedRepo {
  readonly folder: string;
  readonly lock: string;

  constructor({ id }: HubId, { cache }: HubSettings) {
    const name = `models--${id.replace("/", "--")}`;
    this.folder = join(cache, name);
    this.lock = join(cache, ".locks", name, "pull.lock");
  }

  blob(etag: string): string {
    return join(this.folder, "blobs", etag);
  }

  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  ref(revision: string): string {
    return join(this.folder, "refs", ...revision.split("/"));
  }

  noExist(commit: string, file: string): string {
    return join(this.folder, ".no_exist", commit, file);
  }

  /** The commit that the revision was when it was last looked up. */
  async commit(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const commit = (await readFile(this.ref(revision), "utf8").catch(() => "")).trim();
    return isCommit(commit) ? commit : undefined;
  }

  /**
   * The files that a checkpoint needs and that the snapshot of `commit` lacks, as far as we can tell without asking the
   * Hub.
   */
  async missing(commit: string): Promise<string[]> {
    const has = (file: string): Promise<boolean> => isFile(join(this.snapshot(commit), file));
    const missing: string[] = [];
    for (const file of ["config.json", "tokenizer.json", "tokenizer_config.json"]) {
      if (!(await has(file)) && !(await isFile(this.noExist(commit, file)))) missing.push(file);
    }
    if (await has(SINGLE_FILE)) return missing;
    if (!(await has(INDEX_FILE))) return [...missing, SINGLE_FILE];
    // An index that cannot be read is refused by name when the checkpoint is opened.
    const shardOf = await bytesFromFile(join(this.snapshot(commit), INDEX_FILE))
      .then(readIndex)
      .catch(() => new Map<string, string>());
    for (const shard of new Set(shardOf.values())) if (!(await has(shard))) missing.push(shard);
    return missing;
  }
}

/** Whether there is a regular file. Follows links: a broken link is not a file. */
async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    found => found.isFile(),
    () => false,
  );
}
