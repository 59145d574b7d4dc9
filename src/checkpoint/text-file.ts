/**
 * The text files of a checkpoint: how large they may be, and how their bytes become text. Folders, URLs and Blobs all
 * read their texts through here.
 */

import type { ByteSource } from "./bytes.ts";
import { GOT_LFS_POINTER, isLfsPointer } from "./lfs-pointer.ts";

/**
 * How large a text file of a checkpoint may be, in bytes. JSON is parsed whole before it can be checked, and takes
 * about ten times its size in memory. The real tokenizer.json has 11 MB, every other text a few thousand bytes.
 */
export function maxTextBytes(file: string): number {
  return file === "tokenizer.json" ? 16 * 2 ** 20 : 2 ** 20;
}

/** Reads a source of at most `maxBytes` as text, and closes it. Throws as `decodeText` and the source do. */
export async function readSourceText(source: ByteSource, maxBytes: number): Promise<string> {
  try {
    const { name, byteLength } = source;
    if (byteLength > maxBytes) throw new RangeError(`${name}: expected at most ${maxBytes} bytes, got ${byteLength}`);
    const bytes = new Uint8Array(byteLength);
    await source.readInto(bytes, 0);
    return decodeText(bytes, name);
  } finally {
    await source.close();
  }
}

/**
 * Decodes strict UTF-8, without the byte order mark that some editors write first. `name` appears in messages. Throws
 * TypeError for other bytes and for a git-lfs pointer.
 */
export function decodeText(bytes: Uint8Array, name: string): string {
  if (isLfsPointer(bytes)) throw new TypeError(`${name}: ${GOT_LFS_POINTER}`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new TypeError(`${name}: expected UTF-8 text, got bytes that are not`);
  }
}
