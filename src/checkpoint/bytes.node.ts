/** Bytes of a file on disk. Node only. */

import { constants, type Stats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { type ByteSource, checkRange, shortRead } from "./bytes.ts";

/**
 * Linux ends a single read at 2 GiB - 4 KiB, and Node refuses lengths above 2^31 - 1, so large reads are split into
 * pieces.
 */
const PIECE_BYTES = 2 ** 30;

/**
 * Opens a regular file. Throws TypeError for a directory, pipe, socket or device, and the system's own error (ENOENT,
 * EACCES, ...) where there is nothing to open. `name` appears in messages.
 */
export async function bytesFromFile(path: string, name: string = path): Promise<ByteSource> {
  // Check before opening: opening a pipe waits for a writer, and opening a device may have an effect.
  checkRegular(name, await stat(path));
  // O_NONBLOCK: this returns even if a pipe takes the file's place at this moment. A regular file ignores the flag.
  const handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const stats = await handle.stat();
    checkRegular(name, stats);
    return fileSource(name, handle, stats.size);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function fileSource(name: string, handle: FileHandle, byteLength: number): ByteSource {
  return {
    name,
    byteLength,
    readInto: async (target, offset) => {
      checkRange(name, byteLength, target.byteLength, offset);
      for (let done = 0; done < target.byteLength; ) {
        const count = Math.min(PIECE_BYTES, target.byteLength - done);
        const { bytesRead } = await handle.read(target, done, count, offset + done);
        if (bytesRead === 0) throw shortRead(name, target.byteLength, offset, done);
        done += bytesRead;
      }
    },
    close: () => handle.close(),
  };
}

function checkRegular(name: string, stats: Stats): void {
  if (stats.isFile()) return;
  const kind = stats.isDirectory()
    ? "a directory"
    : stats.isFIFO()
      ? "a pipe"
      : stats.isSocket()
        ? "a socket"
        : "a device";
  throw new TypeError(`${name}: expected a regular file, got ${kind}`);
}
