/**
 * Opens a model of the Hub from the cache, and downloads first what the cache lacks. Node only; reached by
 * `openCheckpointFiles`.
 *
 * Only download.node.ts loads `@huggingface/hub`, and it is loaded only when something must be downloaded.
 */

import type { CheckpointFiles } from "../files.ts";
import { filesFromFolder } from "../folder.node.ts";
import { CachedRepo, hubSettings } from "./cache.node.ts";
import type { HubId, HubOptions } from "./id.ts";

/** Opens a model of the Hub. Throws Error, with a message of one line, where the model cannot be had. */
export async function filesFromHub(hub: HubId, options: HubOptions = {}): Promise<CheckpointFiles> {
  const settings = await hubSettings(options.env);
  const repo = new CachedRepo(hub, settings);
  const commit = await repo.commit(hub.revision);
  if (commit !== undefined && (await repo.missing(commit)).length === 0)
    return filesFromFolder(repo.snapshot(commit), hub.id);
  const { pull } = await import("./download.node.ts");
  const { path } = await pull(hub, settings, options.onProgress).catch(error => {
    if (commit !== undefined) throw error;
    // The cache has never had this model: perhaps the text was meant as a path and misspelt.
    throw new Error(`${error.message}; there is no folder of that name either`, { cause: error });
  });
  return filesFromFolder(path, hub.id);
}
