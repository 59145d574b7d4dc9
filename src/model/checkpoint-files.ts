/**
 * The files of a checkpoint, wherever they are: a folder, a URL, Blobs that a user picked.
 *
 * In: one of these. Out: `CheckpointFiles`, from which the tokenizer reads texts and the model reads bytes. Only web-standard types cross
 * this border; a folder's files are in checkpoint-folder.node.ts.
 */

import { type ByteSource, bytesFromBlob } from "../tensor/bytes.ts";

export interface CheckpointFiles {
  /** Stands in messages: the folder, the URL, or the name the caller gave. */
  readonly name: string;
  /** The bytes of a file, or undefined where there is none of that name. */
  open(file: string): Promise<ByteSource | undefined>;
  /** The text of a file, or undefined where there is none of that name. */
  readText(file: string): Promise<string | undefined>;
}

/**
 * How large a text file of a checkpoint may be. JSON takes some ten times its size once it is parsed, whatever is in it, and is parsed whole before
 * it can be checked. The real tokenizer.json has 11 MB, everything else some thousand bytes.
 */
export function maxTextBytes(file: string): number {
  return file === "tokenizer.json" ? 16 * 2 ** 20 : 2 ** 20;
}

/** Files by name, for a browser's file picker or drag and drop. */
export function filesFromBlobs(blobs: ReadonlyMap<string, Blob>, name: string = "checkpoint"): CheckpointFiles {
  if (!(blobs instanceof Map)) throw new TypeError(`checkpoint: expected a Map of file names to Blobs, got ${typeof blobs}`);
  return {
    name,
    open: async file => {
      const blob = blobs.get(file);
      return blob && bytesFromBlob(blob, `${name}/${file}`);
    },
    readText: async file => {
      const blob = blobs.get(file);
      return blob && decodeText(await blob.slice(0, maxTextBytes(file) + 1).arrayBuffer(), `${name}/${file}`, maxTextBytes(file));
    },
  };
}

/** Files under a URL, fetched whole when they are asked for. 404, or a page of HTML, means that there is none. */
export function filesFromUrl(base: URL): CheckpointFiles {
  const folder = base.href.endsWith("/") ? base : new URL(`${base.href}/`);
  const fetchBlob = async (file: string): Promise<Blob | undefined> => {
    const response = await fetch(new URL(file, folder)).catch(error => {
      throw new Error(`${folder.href}${file}: expected an answer, got ${error.cause?.message ?? error.message}`);
    });
    if (response.status === 404) return undefined;
    if (!response.ok) throw new Error(`${folder.href}${file}: expected status 200, got ${response.status}`);
    // Servers of single-page applications answer 200 with their page where there is no such file.
    if (response.headers.get("content-type")?.startsWith("text/html")) return undefined;
    return response.blob();
  };
  return {
    name: folder.href.replace(/\/$/, ""),
    open: async file => {
      const blob = await fetchBlob(file);
      return blob && bytesFromBlob(blob, folder.href + file);
    },
    readText: async file => {
      const blob = await fetchBlob(file);
      return blob && decodeText(await blob.slice(0, maxTextBytes(file) + 1).arrayBuffer(), folder.href + file, maxTextBytes(file));
    },
  };
}

/** UTF-8 to text, strictly, and of at most `maxBytes`. */
export function decodeText(bytes: ArrayBuffer | Uint8Array, name: string, maxBytes: number): string {
  if (bytes.byteLength > maxBytes) throw new RangeError(`${name}: expected at most ${maxBytes} bytes, got more`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new TypeError(`${name}: expected UTF-8 text, got bytes that are not`);
  }
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
