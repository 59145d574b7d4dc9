/**
 * The files of a checkpoint, wherever they are: a folder, a URL, Blobs that a user picked.
 *
 * In: one of these. Out: `CheckpointFiles`, from which the tokenizer reads texts and the model reads bytes. Only
 * web-standard types cross this border; a folder's files are in checkpoint-folder.node.ts.
 */

import { type ByteSource, bytesFromBlob } from "./bytes.ts";
import { decodeText, maxTextBytes } from "./text-file.ts";

export interface CheckpointFiles {
  /** Stands in messages: the folder, the URL, or the name the caller gave. */
  readonly name: string;
  /** The bytes of a file, or undefined where there is none of that name. */
  open(file: string): Promise<ByteSource | undefined>;
  /** The text of a file, or undefined where there is none of that name. */
  readText(file: string): Promise<string | undefined>;
}

/** Files by name, for a browser's file picker or drag and drop. */
export function filesFromBlobs(blobs: ReadonlyMap<string, Blob>, name: string = "checkpoint"): CheckpointFiles {
  if (!(blobs instanceof Map))
    throw new TypeError(`checkpoint: expected a Map of file names to Blobs, got ${typeof blobs}`);
  return {
    name,
    open: async file => {
      const blob = blobs.get(file);
      return blob && bytesFromBlob(blob, `${name}/${file}`);
    },
    readText: async file => {
      const blob = blobs.get(file);
      return (
        blob &&
        decodeText(await blob.slice(0, maxTextBytes(file) + 1).arrayBuffer(), `${name}/${file}`, maxTextBytes(file))
      );
    },
  };
}

/** Files under a URL, fetched whole when they are asked for. 404, or a page of HTML, means that there is none. */
export function filesFromUrl(base: URL): CheckpointFiles {
  const folder = new URL(base);
  if (!folder.pathname.endsWith("/")) folder.pathname += "/";
  folder.hash = "";
  const { search } = folder;
  folder.search = "";
  const fetchFile = async (file: string): Promise<Response | undefined> => {
    const url = new URL(file, folder);
    url.search = search; // a key or a version is every file's
    const response = await fetch(url).catch(error => {
      throw new Error(`${folder.href}${file}: expected an answer, got ${error.cause?.message ?? error.message}`);
    });
    if (response.status === 404) return undefined;
    if (!response.ok) throw new Error(`${folder.href}${file}: expected status 200, got ${response.status}`);
    // Servers of single-page applications answer 200 with their page where there is no such file.
    return response.headers.get("content-type")?.startsWith("text/html") ? undefined : response;
  };
  return {
    name: folder.href.replace(/\/$/, ""),
    open: async file => {
      const response = await fetchFile(file);
      return response && bytesFromBlob(await response.blob(), folder.href + file);
    },
    readText: async file => {
      const response = await fetchFile(file);
      return (
        response &&
        decodeText(await readAtMost(response, maxTextBytes(file) + 1), folder.href + file, maxTextBytes(file))
      );
    },
  };
}

/** The first `count` bytes of a body; the rest, which may have no end, is not asked for. */
async function readAtMost({ body }: Response, count: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const reader = body?.getReader();
  while (reader && length < count) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
  }
  await reader?.cancel();
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes.subarray(0, count);
}

/** Reads a JSON file; undefined where there is none. */
export async function readJson(files: CheckpointFiles, file: string): Promise<unknown> {
  const text = await files.readText(file);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TypeError(`${files.name}/${file}: expected JSON, got ${(error as Error).message}`);
  }
}
