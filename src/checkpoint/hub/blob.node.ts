/**
 * Downloads one file from the Hub into the cache's blobs: continued where an earlier download stopped, and checked
 * before it gets its name. Node only.
 *
 * Until the file is complete it is called `<blob>.incomplete`. Each byte is written at the position where it belongs,
 * and the checksum is computed from what is read back from the disk. Should a second process ever write the same file
 * (lock.node.ts prevents it), it would write the same bytes over the same bytes.
 */

import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { type HubTarget, hubFetch, InterruptedError, reason } from "./fetch.ts";

/** A file as the Hub's listing describes it. */
export interface HubFile {
  readonly name: string;
  readonly bytes: number;
  /**
   * The checksum, which is also the file's name among the blobs: SHA-256 for a large file (LFS), git's SHA-1 of a blob
   * for a small one.
   */
  readonly etag: string;
}

export interface BlobOptions {
  readonly target: HubTarget;
  readonly url: string;
  /** Called with the number of bytes on disk, and with `null` when the checksum is about to be computed. */
  readonly onBytes: (bytes: number | null) => void;
  readonly patience: Patience;
}

export interface Patience {
  /** After this long without a byte the connection counts as cut. */
  readonly stallMs: number;
  /** The delay before the second try. It doubles with each further try. */
  readonly retryDelayMs: number;
}

export const PATIENCE: Patience = { stallMs: 30_000, retryDelayMs: 500 };

/** How many connections in a row may fail. One that brings at least `PROGRESS_BYTES` starts the count again. */
const MAX_FAILURES = 5;
const PROGRESS_BYTES = 8 * 2 ** 20;

/**
 * Downloads the missing part of a file and moves the file to `blob`. Returns how many bytes came over the network.
 * Throws Error where the server refuses, where connections keep failing (the part that came is kept for the next time),
 * and where the checksum is wrong (the file is removed).
 */
export async function downloadBlob(file: HubFile, blob: string, options: BlobOptions): Promise<number> {
  const incomplete = `${blob}.incomplete`;
  let received = 0;
  let failures = 0;
  let pieces = (await sizeOf(incomplete)) ? 1 : 0;
  let mayStartAnew = true;
  for (;;) {
    const before = received;
    try {
      pieces++;
      await downloadRest(file, incomplete, options, bytes => {
        received += bytes;
      });
    } catch (error) {
      if (!(error instanceof InterruptedError)) throw error;
      failures = received - before >= PROGRESS_BYTES ? 1 : failures + 1;
      if (failures >= MAX_FAILURES)
        throw new Error(`${error.message}; the downloaded part is kept, and pulling again continues`);
      await delay(options.patience.retryDelayMs * 2 ** (failures - 1));
      continue;
    }
    options.onBytes(null);
    const checksum = await checksumOf(incomplete, file);
    if (checksum === file.etag) break;
    await rm(incomplete, { force: true });
    // Pieces from two downloads may come from two different contents, when something in between served a wrong range.
    // One download from the beginning decides.
    if (pieces === 1 || !mayStartAnew) {
      throw new Error(
        `${options.target.id}/${file.name}: expected the checksum ${file.etag}, got ${checksum}; the file is removed`,
      );
    }
    mayStartAnew = false;
    pieces = 0;
  }
  await rename(incomplete, blob);
  return received;
}

/** Makes one request for the bytes that are not on disk yet. */
async function downloadRest(
  file: HubFile,
  incomplete: string,
  { target, url, onBytes, patience }: BlobOptions,
  onReceived: (bytes: number) => void,
): Promise<void> {
  const where = `${target.id}/${file.name}`;
  const handle = await open(incomplete, constants.O_RDWR | constants.O_CREAT);
  const stall = new AbortController();
  const timer = setTimeout(() => stall.abort(new Error(`no byte for ${patience.stallMs / 1000} s`)), patience.stallMs);
  try {
    let position = (await handle.stat()).size;
    if (position > file.bytes) position = 0;
    await handle.truncate(position);
    onBytes(position);
    if (position === file.bytes && position > 0) return;

    // identity: a range of compressed bytes would be useless
    const range: Record<string, string> = position > 0 ? { Range: `bytes=${position}-` } : {};
    const response = await hubFetch(target, url, { "Accept-Encoding": "identity", ...range }, stall.signal);
    if (position > 0 ? !isRestOf(response, position, file.bytes) : response.status !== 200) {
      await handle.truncate(0);
      position = 0;
      onBytes(0);
      // A server that knows no ranges answers with the whole file, which will do. Anything else will not.
      if (response.status !== 200) {
        await response.body?.cancel();
        throw new InterruptedError(
          `${where}: expected ${range.Range ?? "the file"}, got status ${response.status} with other bytes`,
        );
      }
    }
    for await (const chunk of bodyOf(response, where)) {
      if (position + chunk.length > file.bytes)
        throw new RangeError(`${where}: expected ${file.bytes} bytes, got more`);
      await writeAll(handle, chunk, position);
      timer.refresh();
      position += chunk.length;
      onReceived(chunk.length);
      onBytes(position);
    }
    if (position < file.bytes) throw new InterruptedError(`${where}: expected ${file.bytes} bytes, got ${position}`);
    await handle.sync(); // the bytes must reach the disk before the name does
  } finally {
    clearTimeout(timer);
    await handle.close();
  }
}

/** Whether an answer holds the file's bytes from `position` on, and the whole file is as long as the listing says. */
function isRestOf({ status, headers }: Response, position: number, bytes: number): boolean {
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
  return (
    status === 206 &&
    range !== null &&
    Number(range[1]) === position &&
    (range[3] === "*" || Number(range[3]) === bytes)
  );
}

async function* bodyOf(response: Response, where: string): AsyncGenerator<Uint8Array> {
  try {
    if (response.body) yield* response.body;
  } catch (error) {
    throw new InterruptedError(`${where}: expected the whole file, got a connection cut off (${reason(error)})`);
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

async function checksumOf(path: string, { etag, bytes }: HubFile): Promise<string> {
  const isLfs = etag.length === 64;
  const hash = createHash(isLfs ? "sha256" : "sha1");
  if (!isLfs) hash.update(`blob ${bytes}\0`); // git hashes a blob after this header
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(chunk);
  return hash.digest("hex");
}

/** The size of a file in bytes; undefined where there is no file. Follows links. */
export async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    found => found.size,
    () => undefined,
  );
}
