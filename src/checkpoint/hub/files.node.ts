/**
 * From a Hub id to files: out of the cache, and downloaded first where that has not all of them. Node only; reached by
 * `openCheckpointFiles`.
 *
 * Only download.node.ts loads `@huggingface/hub`, and it is loaded only when something must be downloaded.
 */

import type { CheckpointFiles } from "../files.ts";
import { filesFromFolder } from "../folder.node.ts";
import { CachedRepo, hubSettings } from "./cache.node.ts";
import type { HubId, HubOptions } from "./id.ts";

/**
 * The files of a model of the Hub: from the cache, and downloaded first where the cache has not all of them. Throws
 * Error, one line, where they cannot be had.
 */
export async function filesFromHub(hub: HubId, options: HubOptions = {}): Promise<CheckpointFiles> {
  const settings = await hubSettings(options.env);
  const repo = new CachedRepo(hub, settings);
  const commit = await repo.commit(hub.revision);
  if (commit !== undefined && (await repo.missing(commit)).length === 0)
    return filesFromFolder(repo.snapshot(commit), hub.id);
  const { pull } = await import("./download.node.ts");
  const { path } = await pull(hub, settings, options.onProgress).catch(error => {
    if (commit !== undefined) throw error;
    // Nothing of it was ever here: perhaps it was meant as a path, and misspelt.
    throw new Error(`${error.message}; there is no folder of that name either`, { cause: error });
  });
  return filesFromFolder(path, hub.id);
}
