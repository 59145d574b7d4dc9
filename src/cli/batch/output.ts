/**
 * The output file of a batch: a result for each line of the input, in order. A later run can continue it where it ends.
 *
 * Each line says which input line it answers (`inputHash`) and what judged it (`judgeHash`, judge-hash.ts). A run may
 * continue only if both still hold for every line in the file; anything else is refused, and the file is left alone.
 * Lines are written once and never judged again in place, so a forgotten option cannot destroy hours of verdicts.
 *
 * The file is checked before each line and at the end. If it was removed, replaced, or written to by another program,
 * the batch ends.
 */

import { createReadStream } from "node:fs";
import { type FileHandle, open, rm, stat } from "node:fs/promises";
import type { Verdict } from "../../guard/verdict.ts";
import { fileError } from "../file-error.ts";
import { type JsonLine, jsonLines } from "../json-lines.ts";
import { parseJson } from "../reading.ts";
import { shortHash } from "./judge-hash.ts";

/** The fields of a verdict that are the same for a whole batch. */
export type Marks = Pick<Verdict, "model" | "mode"> & { readonly threshold: number | undefined };

/** The fields of each line that come after its id, before the result. */
interface Hashes {
  readonly inputHash: string;
  readonly judgeHash: string;
}

/**
 * Where a continued batch begins: after the bytes of input that the output has answers to. `next` is the line after
 * them, if it was already read.
 */
export interface Resumed {
  readonly skippedBytes: number;
  readonly next?: JsonLine;
}

const WRITABLE = "a file to write";

/**
 * Throws, before a model is loaded, if the output exists and must not be overwritten, or is not a file.
 */
export async function checkOutput(path: string, resume: boolean): Promise<void> {
  const there = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw fileError(path, error, WRITABLE);
  });
  if (there === undefined) return;
  if (there.isDirectory()) throw fileError(path, Object.assign(new Error(), { code: "EISDIR" }), WRITABLE);
  if (!there.isFile()) throw new Error(`${path}: expected ${WRITABLE}, got a pipe or a device (--out - is stdout)`);
  if (!resume) throw alreadyThere(path, Object.assign(new Error(), { code: "EEXIST" }));
}

function alreadyThere(path: string, error: NodeJS.ErrnoException): Error {
  return fileError(path, error, "no file yet (--resume continues one)");
}

export class BatchOutput {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #judgeHash: string;
  /** Bytes that the file must have, by our own count. */
  #size: number;

  private constructor(path: string, handle: FileHandle, judgeHash: string, size: number) {
    this.#path = path;
    this.#handle = handle;
    this.#judgeHash = judgeHash;
    this.#size = size;
  }

  /** Opens a new file; with `resume` one that may exist. */
  static async open(path: string, resume: boolean, judgeHash: string): Promise<BatchOutput> {
    const handle = await open(path, resume ? "a+" : "wx").catch(error => {
      throw resume ? fileError(path, error, WRITABLE) : alreadyThere(path, error);
    });
    return new BatchOutput(path, handle, judgeHash, (await handle.stat()).size);
  }

  hashes(input: JsonLine): Hashes {
    return { inputHash: shortHash(textOf(input)), judgeHash: this.#judgeHash };
  }

  async append(text: string): Promise<void> {
    await this.check();
    await this.#handle.appendFile(text).catch(error => {
      throw fileError(this.#path, error, WRITABLE);
    });
    this.#size += Buffer.byteLength(text);
  }

  /** Throws Error unless the file is still at its path and as long as what was written. */
  async check(): Promise<void> {
    const own = await this.#handle.stat({ bigint: true });
    const there = await stat(this.#path, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT" && error.code !== "ENOTDIR") throw fileError(this.#path, error, WRITABLE);
    });
    if (there?.ino !== own.ino || there.dev !== own.dev) {
      throw new Error(
        `${this.#path}: the output was ${there === undefined ? "removed" : "replaced"} while the batch ran`,
      );
    }
    if (own.size !== BigInt(this.#size)) {
      throw new Error(
        `${this.#path}: another program has written to the output: expected ${this.#size} bytes, got ${own.size}`,
      );
    }
  }

  /** A batch that did not reach its end removes a file without lines, which would block the next run. */
  async close(isDone: boolean): Promise<void> {
    const isOurs = await this.check().then(
      () => true,
      () => false,
    );
    await this.#handle.close();
    if (!isDone && isOurs && this.#size === 0) await rm(this.#path, { force: true });
  }

  /**
   * Reads past the lines that the output has answers to, then removes the torn line that a killed process may have left
   * at its end. Throws, and changes nothing, if the output is not that of the same lines, model and options.
   */
  async resume(
    lines: AsyncGenerator<JsonLine>,
    marks: Marks,
    add: (written: { line?: unknown; flagged?: unknown }) => void,
  ): Promise<Resumed> {
    const end = await endOfLastLine(this.#handle);
    const { count, skippedBytes } = await this.#skipWritten(lines, end, marks, add);
    const isTorn = this.#size > end;
    let next: JsonLine | undefined;
    if (isTorn && count === 0) {
      // No whole line says whose file it is.
      next = (await lines.next()).value ?? undefined;
      await this.#checkTorn(end, next);
    }
    if (isTorn) await this.#handle.truncate(end);
    this.#size = end;
    return { skippedBytes, ...(next && { next }) };
  }

  /** Throws unless the file continues at `start` with the beginning of the answer to `input`. */
  async #checkTorn(start: number, input: JsonLine | undefined): Promise<void> {
    const beginning = Buffer.from(
      input === undefined
        ? ""
        : JSON.stringify({ ...withId(idOf(input)), ...this.hashes(input) }).slice(0, -"}".length),
    );
    const buffer = new Uint8Array(Math.max(60, beginning.length));
    const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, start);
    const length = Math.min(beginning.length, bytesRead);
    if (length > 0 && beginning.subarray(0, length).equals(buffer.subarray(0, length))) return;
    const got = JSON.stringify(new TextDecoder().decode(buffer.subarray(0, Math.min(60, bytesRead))));
    throw new RangeError(`${this.#path}: expected the output of this batch to continue, got ${got}`);
  }

  /**
   * Reads past the lines that the output's first `end` bytes answer. Returns their number, and their bytes of input.
   */
  async #skipWritten(
    lines: AsyncGenerator<JsonLine>,
    end: number,
    marks: Marks,
    add: (written: { line?: unknown; flagged?: unknown }) => void,
  ): Promise<{ count: number; skippedBytes: number }> {
    let count = 0;
    let skippedBytes = 0;
    const path = this.#path;
    for await (const { line, name } of jsonLines(
      end === 0 ? noChunks() : createReadStream(path, { end: end - 1 }),
      path,
    )) {
      const written = (parseJson(line, name) ?? {}) as Readonly<Record<string, unknown>>;
      const { value: input } = await lines.next();
      if (input === undefined) throw new RangeError(`${name}: expected no more lines than the input has, got one more`);
      const ofKind = written.line === undefined ? marks : { line: input.number };
      checkAnswer(written, { id: idOf(input), ...ofKind, ...this.hashes(input) }, name, input);
      add(written);
      count++;
      skippedBytes = input.endByte;
    }
    return { count, skippedBytes };
  }
}

const CHANGED: Readonly<Record<string, string>> = {
  inputHash: "the line has changed",
  judgeHash: "the checkpoint, --weights, --scores, --window or --overlap have changed",
};

function checkAnswer(
  written: Readonly<Record<string, unknown>>,
  expected: Readonly<Record<string, unknown>>,
  name: string,
  input: JsonLine,
): void {
  for (const [key, value] of Object.entries(expected)) {
    const got = JSON.stringify(written[key]);
    const wanted = JSON.stringify(value);
    if (got === wanted) continue;
    const why =
      got === undefined && key in CHANGED
        ? "an output without hashes, of an older version or another program"
        : CHANGED[key];
    throw new RangeError(
      `${name}: expected ${key} ${wanted ?? "not given"} as of ${input.name} with this model and these options, got ${got ?? "none"}` +
        (why === undefined ? "" : `: ${why}; a new --out file begins with the first line`),
    );
  }
}

export function withId(id: unknown): { id?: unknown } {
  return id === undefined ? {} : { id };
}

async function endOfLastLine(file: FileHandle): Promise<number> {
  const buffer = new Uint8Array(1 << 16);
  for (let end = (await file.stat()).size; end > 0; ) {
    const start = Math.max(0, end - buffer.length);
    const { bytesRead } = await file.read(buffer, 0, end - start, start);
    const at = buffer.subarray(0, bytesRead).lastIndexOf(0x0a);
    if (at >= 0) return start + at + 1;
    end = start;
  }
  return 0;
}

function idOf(line: JsonLine): unknown {
  try {
    return (JSON.parse(line.line) as { id?: unknown } | null)?.id;
  } catch {
    return undefined; // its result is an error
  }
}

/** A line that cannot be read has no text to hash. */
function textOf(line: JsonLine): string {
  try {
    return line.line.trim();
  } catch {
    return "";
  }
}

async function* noChunks(): AsyncGenerator<Uint8Array> {}
