/** Text files of a checkpoint on disk. Node only. */

import { open, stat } from "node:fs/promises";
import { basename } from "node:path";
import { decodeText, maxTextBytes } from "./text-file.ts";

/**
 * The text of a file, or undefined where there is none. `name` stands in messages. Throws TypeError for what is no
 * text, and the system's own errors.
 */
export async function readTextFile(path: string, name: string): Promise<string | undefined> {
  const found = await stat(path).catch(missing);
  if (found === undefined) return undefined;
  if (!found.isFile()) throw new TypeError(`${name}: expected a regular file`);
  const maxBytes = maxTextBytes(basename(path));
  if (found.size > maxBytes) throw new RangeError(`${name}: expected at most ${maxBytes} bytes, got ${found.size}`);
  const handle = await open(path);
  try {
    return decodeText(await handle.readFile(), name, maxBytes);
  } finally {
    await handle.close();
  }
}

/** For `catch`: undefined where there is no such file or folder. */
export function missing(error: NodeJS.ErrnoException): undefined {
  if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
  throw error;
}
