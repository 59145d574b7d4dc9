/**
 * Where bytes come from: a buffer, a Blob, or (in bytes.node.ts) a file on disk.
 *
 * In: one of these. Out: a `ByteSource`, which is read range by range, so that a checkpoint is never in memory whole.
 * Web-standard types only.
 */

export interface ByteSource {
  /** Stands in messages: a path, a URL, or the name that the caller gave. */
  readonly name: string;
  readonly byteLength: number;
  /**
   * Fills `target` with the bytes from `offset` on. Throws RangeError where the range does not lie within the source,
   * and Error where the source gives fewer bytes than it promised (a file truncated since it was opened).
   */
  readInto(target: Uint8Array, offset: number): Promise<void>;
  close(): Promise<void>;
}

/**
 * A Blob is read in pieces of this many bytes. `arrayBuffer` makes a copy, so reading a large weight in one piece would
 * hold it in memory twice.
 */
const BLOB_PIECE_BYTES = 16 * 2 ** 20;

/** Bytes already in memory. They are not copied: a later read sees what the caller has changed. */
export function bytesFromBuffer(buffer: ArrayBuffer | Uint8Array, name: string = "buffer"): ByteSource {
  const bytes = buffer instanceof Uint8Array ? buffer : new Uint8Array(buffer);
  return {
    name,
    byteLength: bytes.byteLength,
    readInto: async (target, offset) => {
      checkRange(name, bytes.byteLength, target.byteLength, offset);
      target.set(bytes.subarray(offset, offset + target.byteLength));
    },
    close: async () => {},
  };
}

/** A Blob or File, as a browser's file picker gives it. It stays on disk until it is read. */
export function bytesFromBlob(blob: Blob, name: string = "blob"): ByteSource {
  return {
    name,
    byteLength: blob.size,
    readInto: async (target, offset) => {
      checkRange(name, blob.size, target.byteLength, offset);
      for (let done = 0; done < target.byteLength; ) {
        const count = Math.min(BLOB_PIECE_BYTES, target.byteLength - done);
        const piece = new Uint8Array(await blob.slice(offset + done, offset + done + count).arrayBuffer());
        if (piece.byteLength !== count) throw shortRead(name, count, offset + done, piece.byteLength);
        target.set(piece, done);
        done += count;
      }
    },
    close: async () => {},
  };
}

/**
 * Throws RangeError unless `count` bytes from `offset` on lie within a source of `byteLength` bytes. For code that
 * implements ByteSource.
 */
export function checkRange(name: string, byteLength: number, count: number, offset: number): void {
  // A subtraction, not a sum, so that nothing can round or overflow. A fraction or NaN is not a safe integer.
  if (Number.isSafeInteger(offset) && offset >= 0 && count <= byteLength - offset) return;
  throw new RangeError(`${name}: expected a range within ${byteLength} bytes, got ${count} bytes from ${offset} on`);
}

/** The error for a source that gives fewer bytes than it promised. For code that implements ByteSource. */
export function shortRead(name: string, count: number, offset: number, got: number): Error {
  return new Error(`${name}: expected ${count} bytes from ${offset} on, got ${got} (was it truncated while open?)`);
}
