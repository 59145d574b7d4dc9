/**
 * The Hugging Face cache on this machine: where it is, and which checkpoints in it are complete. Node only.
 *
 *     <cache>/models--Qwen--Qwen3Guard-Gen-0.6B/
 *       blobs/<SHA-256, or git's SHA-1>            what was downloaded, by content
 *       snapshots/<commit>/config.json             links to ../../blobs/...: a checkpoint folder
 *       refs/main                                  the commit that `main` was when it was last looked up
 *       .no_exist/<commit>/chat_template.jinja     known not to be in the repository
 *
 * The layout is that of Python's huggingface_hub, so what one has downloaded the other finds. A snapshot that is
 * complete is used as it is, without a look at the network and without the package that would look (files.node.ts). The
 * package's own readers of the cache are not used: they take their folders from `process.env` alone, and do not tell
 * whether a snapshot is complete.
 */

import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { bytesFromFile } from "../bytes.node.ts";
import { INDEX_FILE, readIndex, SINGLE_FILE } from "../safetensors-sharded.ts";
import { HUB_ENDPOINT, type HubId, type HubOptions, isCommit } from "./id.ts";

/** What the environment says, under the names that huggingface_hub gave it. */
export interface HubSettings {
  /** HF_ENDPOINT, without a slash at its end. */
  readonly endpoint: string;
  /** HF_HUB_CACHE, else HF_HOME's `hub`. */
  readonly cache: string;
  /** HF_TOKEN, else what the file HF_HOME/token holds. */
  readonly token: string | undefined;
  /** HF_HUB_OFFLINE: never touch the network. */
  readonly offline: boolean;
}

/** Throws RangeError for an endpoint or a token that cannot be one. */
export async function hubSettings(env: HubOptions["env"] = process.env): Promise<HubSettings> {
  const home = expandHome(env.HF_HOME || join(env.XDG_CACHE_HOME || "~/.cache", "huggingface"));
  const endpoint = (env.HF_ENDPOINT || HUB_ENDPOINT).replace(/\/+$/, "");
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint)) {
    throw new RangeError(`HF_ENDPOINT: expected a URL of http or https, got ${endpoint}`);
  }
  const token = (env.HF_TOKEN || (await readFile(join(home, "token"), "utf8").catch(() => ""))).trim();
  // Not a word of it in the message; the platform's own for a bad header would quote it.
  if (!/^[\x21-\x7e]*$/.test(token))
    throw new RangeError("HF_TOKEN: expected a token, got characters that are in none");
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
   * The files that a checkpoint needs and the commit's snapshot has not, as far as can be told without asking the Hub.
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

/** Follows links: one that leads nowhere is no file. */
async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    found => found.isFile(),
    () => false,
  );
}
