/** The text files of a folder on disk, for Node. Browsers give `Tokenizer.load` their own `TextFiles`. */

import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";

/** The real tokenizer.json, the largest of them, has 11 MB. */
const MAX_BYTES = 16 * 2 ** 20;

/** A `TextFiles`. `readText` gives undefined where there is no such file, TypeError for what is no text, and the file system's own errors. */
export function folderTextFiles(folder: string): { name: string; readText(file: string): Promise<string | undefined> } {
  const readText = async (file: string): Promise<string | undefined> => {
    const path = join(folder, file);
    const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
      throw error;
    });
    if (found === undefined) return undefined;
    if (!found.isFile()) throw new TypeError(`${path}: expected a regular file`);
    if (found.size > MAX_BYTES) throw new RangeError(`${path}: expected at most ${MAX_BYTES} bytes, got ${found.size}`);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await readFile(path));
    } catch (error) {
      if (error instanceof TypeError) throw new TypeError(`${path}: expected UTF-8 text, got other bytes`);
      throw error;
    }
  };
  return { name: folder, readText };
}
