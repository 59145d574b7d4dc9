/**
 * From what a user names to a checkpoint's files. The one place that decides between Node's file system and the web, and that loads the
 * former only when a folder is named.
 */

import { type CheckpointFiles, filesFromUrl } from "./checkpoint-files.ts";

/** Where a checkpoint comes from: a folder's path (Node), the URL of a folder, or files already at hand. */
export type CheckpointSource = string | URL | CheckpointFiles;

/** Opens a source. A string is a folder for Node; in a browser give a URL or `filesFromBlobs`. */
export async function openCheckpointFiles(source: CheckpointSource): Promise<CheckpointFiles> {
  if (typeof source === "string" || (source instanceof URL && source.protocol === "file:")) {
    // Not a static import: the module needs `node:fs`, and this one must load in a browser.
    const { filesFromFolder } = await import("./checkpoint-folder.node.ts");
    return filesFromFolder(source);
  }
  return source instanceof URL ? filesFromUrl(source) : source;
}
