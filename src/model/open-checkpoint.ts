/**
 * From what a user names to a checkpoint's files. The one place that decides between Node's file system and the web, and that loads the
 * former only when a folder is named.
 */

import { type CheckpointFiles, filesFromUrl } from "./checkpoint-files.ts";

/** Where a checkpoint comes from: a folder's path (Node), the URL of a folder, or files already at hand. */
export type CheckpointSource = string | URL | CheckpointFiles;

/** Opens a source. A string is a folder for Node; in a browser give a URL or `filesFromBlobs`. */
export async function openCheckpointFiles(source: CheckpointSource): Promise<CheckpointFiles> {
  if (source === "") throw new RangeError("checkpoint: expected a folder, got an empty text");
  if (typeof source === "string" || (source instanceof URL && source.protocol === "file:")) {
    // Not a static import: the module needs `node:fs`, and this one must load in a browser.
    const { filesFromFolder } = await import("./checkpoint-folder.node.ts");
    // Bundlers for browsers leave an empty module in its place (the field "browser" of package.json).
    if (!filesFromFolder) throw new TypeError(`${source}: expected a URL or filesFromBlobs, since folders need Node`);
    return filesFromFolder(source);
  }
  if (source instanceof URL) return filesFromUrl(source);
  if (typeof source?.open !== "function" || typeof source.readText !== "function") {
    const got = source === null ? "null" : source === undefined ? "nothing" : `a value of type ${typeof source}`;
    throw new TypeError(`checkpoint: expected a folder's path, a URL or files with open and readText, got ${got}`);
  }
  return source;
}
