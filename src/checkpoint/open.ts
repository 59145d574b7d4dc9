/**
 * Opens the checkpoint that a user names. This is the one place that decides between Node's file system, the Hub and
 * the web, and it loads the code for files on disk only when a folder or a Hub id is named.
 */

import { type CheckpointFiles, filesFromUrl } from "./files.ts";
import { HUB_ENDPOINT, type HubOptions, hubUrl, parseHubId } from "./hub/id.ts";

/**
 * Where a checkpoint comes from: a folder's path (Node), a model's name on the Hub, the URL of a folder, or files
 * already at hand.
 */
export type CheckpointSource = string | URL | CheckpointFiles;

/**
 * Opens a source. In Node a string is a folder, or else a Hub id, `org/name` or `org/name@revision`: a model that the
 * Hugging Face cache lacks is downloaded into it, and from then on opened without the network. In a browser a Hub id
 * stands for the URL of its files. Throws TypeError or RangeError for something that is not a source, and Error where
 * there is nothing to open.
 */
export async function openCheckpointFiles(source: CheckpointSource, hub: HubOptions = {}): Promise<CheckpointFiles> {
  if (source === "") throw new RangeError("checkpoint: expected a folder, got an empty text");
  if (typeof source === "string" && /^[a-z][a-z0-9+]+:\/\//i.test(source)) throw urlAsText(source);
  if (typeof source === "string" || (source instanceof URL && source.protocol === "file:")) {
    const hubId = typeof source === "string" ? parseHubId(source) : undefined;
    // A dynamic import, because that module needs `node:fs` and this one must load in a browser.
    const { filesFromFolder, isThere } = await import("./folder.node.ts");
    // Bundlers for browsers put an empty module in its place (the field "browser" of package.json).
    if (!filesFromFolder) {
      if (hubId) return { ...filesFromUrl(hubUrl(hubId)), name: hubId.id };
      throw new TypeError(`${source}: expected a URL, a Hub id or filesFromBlobs, since folders need Node`);
    }
    if (hubId === undefined || (await isThere(source as string))) return filesFromFolder(source);
    const { filesFromHub } = await import("./hub/files.node.ts");
    return filesFromHub(hubId, hub);
  }
  if (source instanceof URL) return filesFromUrl(source);
  if (typeof source?.open !== "function" || typeof source.readText !== "function") {
    const got = source === null ? "null" : source === undefined ? "nothing" : `a value of type ${typeof source}`;
    throw new TypeError(
      `checkpoint: expected a folder's path, a Hub id, a URL or files with open and readText, got ${got}`,
    );
  }
  return source;
}

/**
 * The error for the text of a URL. A path must never cause a request to the network, so a URL must be a `URL` object.
 * The message says what the caller should have passed.
 */
function urlAsText(text: string): RangeError {
  const id = new RegExp(`^${HUB_ENDPOINT}/([^/?#]+/[^/?#]+)`).exec(text)?.[1];
  const instead = id && parseHubId(id) ? `the Hub id is ${id}` : "new URL(...) loads the files under it";
  return new RangeError(`checkpoint: expected a folder's path or a Hub id, got the text of a URL (${instead})`);
}
