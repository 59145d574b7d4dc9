/**
 * One file from the Hub into the cache's blobs: continued where an earlier download stopped, and checked before it gets
 * its name. Node only.
 *
 * Until it is whole it is `<blob>.incomplete`. Bytes are written at the positions they belong to, and what is checked
 * is what is read back from the disk. So a second process that should ever write the same file (lock.node.ts keeps it
 * away) writes the same bytes over the same bytes.
 */

import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { type HubTarget, hubFetch, InterruptedError, reason } from "./fetch.ts";

/** A file as the Hub's listing has it. */
export interface HubFile {
  readonly name: string;
  readonly bytes: number;
  /**
   * The checksum, which is its name among the blobs: SHA-256 for a large file (LFS), git's SHA-1 of a blob for a small
   * one.
   */
  readonly etag: string;
}

export interface BlobOptions {
  readonly target: HubTarget;
  readonly url: string;
  /** Of how much is on disk; `null` while the checksum is made. */
  readonly onBytes: (bytes: number | null) => void;
  readonly patience: Patience;
}

export interface Patience {
  /** So long without a byte, and a connection counts as cut. */
  readonly stallMs: number;
  /** Before the second try; doubled each time. */
  readonly retryDelayMs: number;
}

export const PATIENCE: Patience = { stallMs: 30_000, retryDelayMs: 500 };

/** Connections in a row that may fail; one that brought as much as `PROGRESS_BYTES` starts the count anew. */
const MAX_FAILURES = 5;
const PROGRESS_BYTES = 8 * 2 ** 20;

/**
 * Downloads what is missing of a file and moves it to `blob`. Returns the bytes that came over the network. Throws
 * Error where the server refuses, where connections keep failing (what came stays, for the next time) and where the
 * checksum is wrong (what came is removed).
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
      if (failures >= MAX_FAILURES) throw new Error(`${error.message}; what came is kept, pulling again continues`);
      await delay(options.patience.retryDelayMs * 2 ** (failures - 1));
      continue;
    }
    options.onBytes(null);
    const checksum = await checksumOf(incomplete, file);
    if (checksum === file.etag) break;
    await rm(incomplete, { force: true });
    // Pieces of two downloads may be of two contents, when something in between was not honest about ranges. One clean
    // download decides.
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

/** One request for the bytes that are not on disk yet. */
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

    // identity: a range of compressed bytes would be of no use
    const range: Record<string, string> = position > 0 ? { Range: `bytes=${position}-` } : {};
    const response = await hubFetch(target, url, { "Accept-Encoding": "identity", ...range }, stall.signal);
    if (position > 0 ? !isRestOf(response, position, file.bytes) : response.status !== 200) {
      await handle.truncate(0);
      position = 0;
      onBytes(0);
      // The whole file is an answer too, of a server that knows no ranges. Anything else is none.
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
    await handle.sync(); // the name must not come to the disk before the bytes
  } finally {
    clearTimeout(timer);
    await handle.close();
  }
}

/** Whether an answer is the file's bytes from `position` on, and of a file as long as the listing's. */
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
  if (!isLfs) hash.update(`blob ${bytes}\0`); // as git makes a blob's name
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(chunk);
  return hash.digest("hex");
}

/** Follows links; undefined where there is nothing. */
export async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    found => found.size,
    () => undefined,
  );
}
