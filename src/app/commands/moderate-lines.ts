/**
 * `qwen3guard moderate --jsonl`: a verdict a line, in the order of the lines, each written as soon as it is found.
 *
 * In: JSONL of `{id?, text}`, `{id?, prompt, response?}` or `{id?, messages}`. Out: for each line the verdict with its id; for one that cannot
 * be judged `{id?, line, error}` in its place. Memory does not depend on the number of lines. An output file can be continued where it ends,
 * however that came about: a line counts once its line feed is written.
 */

import { createReadStream } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { type Guard, isInputError, type ModerateOptions } from "../../guard/guard.ts";
import type { Verdict } from "../../guard/verdict.ts";
import { checkReadable, fileError, inputChunks, parseJson, type Terminal } from "../io.ts";
import { type JsonLine, jsonLines } from "../json-lines.ts";
import { inputOfLine } from "../line-input.ts";
import { Progress } from "../progress.ts";

export interface LinesOptions {
  /** `-` is stdin. */
  readonly jsonl: string;
  /** `-` is stdout, as where it is not given. */
  readonly out?: string;
  readonly resume?: boolean;
  readonly quiet?: boolean;
}

export interface LinesOutcome {
  /** Lines that could not be judged. */
  readonly failed: number;
  readonly flagged: number;
  /** Ctrl-C came before the end. */
  readonly isInterrupted: boolean;
}

/** A line of the output: a verdict, or why there is none. */
type Result = { readonly id?: unknown } & (Verdict | { readonly line: number; readonly error: string });

export async function moderateLines(
  guard: Guard,
  options: LinesOptions,
  moderateOptions: ModerateOptions,
  terminal: Terminal,
): Promise<LinesOutcome> {
  // What is wrong from the first line to the last is found before there is an output.
  guard.checkOptions(moderateOptions);
  await checkReadable(options.jsonl);
  const lines = jsonLines(inputChunks(options.jsonl, terminal), options.jsonl === "-" ? "stdin" : options.jsonl);
  const output = options.out === undefined || options.out === "-" ? undefined : await openOutput(options.out, options.resume === true);
  const outcome = { failed: 0, flagged: 0 };
  const add = (result: { line?: unknown; flagged?: unknown }): void => {
    if (result.line !== undefined) outcome.failed++;
    else if (result.flagged === true) outcome.flagged++;
  };
  // The line at work is finished and written; waiting for another one ends at once.
  let isInterrupted = false;
  let stopWaiting = (): void => {};
  const stopListening = terminal.onInterrupt(() => {
    isInterrupted = true;
    stopWaiting();
  });
  // A new promise for each line: one that lives as long as the batch would keep what every line hangs on it.
  const nextLine = (): Promise<JsonLine | undefined> =>
    new Promise((resolve, reject) => {
      stopWaiting = () => resolve(undefined);
      lines.next().then(({ value }) => resolve(value ?? undefined), reject);
    });
  const progress = new Progress(terminal, "lines", options.quiet);
  try {
    const totalBytes = options.jsonl === "-" ? undefined : (await stat(options.jsonl).catch(() => undefined))?.size;
    const { mode = "strict", threshold } = moderateOptions;
    const resumed =
      output && options.resume
        ? await resume(lines, options.out as string, output, { model: guard.name, mode, threshold }, add)
        : { skippedBytes: 0 };
    const { skippedBytes } = resumed;
    for (let done = 1; !isInterrupted; done++) {
      const line = (done === 1 ? resumed.next : undefined) ?? (await nextLine());
      if (line === undefined) break;
      const result = await judge(guard, line, moderateOptions);
      add(result);
      const text = `${JSON.stringify(result)}\n`;
      await (output ? append(options.out as string, output, text) : terminal.out(text));
      progress.update(done, totalBytes ? (line.endByte - skippedBytes) / (totalBytes - skippedBytes) : undefined);
    }
  } finally {
    stopListening();
    progress.end();
    await output?.close();
  }
  return { ...outcome, isInterrupted };
}

/** What is wrong with a line stands in its place; what is wrong with the engine ends the batch. */
async function judge(guard: Guard, line: JsonLine, options: ModerateOptions): Promise<Result> {
  let id: unknown;
  try {
    const value = parseJson(line.line, "line");
    id = (value as { id?: unknown } | null)?.id;
    return { ...withId(id), ...(await guard.moderate(inputOfLine(value), options)) };
  } catch (error) {
    if (!isInputError(error)) throw error;
    return { ...withId(id), line: line.number, error: error.message };
  }
}

function withId(id: unknown): { id?: unknown } {
  return id === undefined ? {} : { id };
}

/** A new file; or, to go on with, one that is there. */
async function openOutput(path: string, resume: boolean): Promise<FileHandle> {
  return open(path, resume ? "a+" : "wx").catch(error => {
    throw fileError(path, error, resume ? "a file to write" : "no file yet (--resume goes on with one)");
  });
}

function append(path: string, output: FileHandle, text: string): Promise<void> {
  return output.appendFile(text).catch(error => {
    throw fileError(path, error, "a file to write");
  });
}

/** What stands in each verdict of a batch. */
type Marks = Pick<Verdict, "model" | "mode"> & { readonly threshold: number | undefined };

/** Where an output was gone on with: bytes of input that it has answers to, and the line behind them where that was already read. */
interface Resumed {
  readonly skippedBytes: number;
  readonly next?: JsonLine;
}

/**
 * Reads past the lines that `output` has an answer to, then takes away the torn line that a killed process may have left at its end. Throws, with
 * nothing touched, where the output is not that of the same lines, model and options.
 */
async function resume(
  lines: AsyncGenerator<JsonLine>,
  path: string,
  output: FileHandle,
  marks: Marks,
  add: (written: { line?: unknown; flagged?: unknown }) => void,
): Promise<Resumed> {
  const end = await endOfLastLine(output);
  const { count, skippedBytes } = await skipWritten(lines, path, end, marks, add);
  const isTorn = (await output.stat()).size > end;
  let next: JsonLine | undefined;
  if (isTorn && count === 0) {
    // No whole line tells whose file it is.
    next = (await lines.next()).value ?? undefined;
    await checkTorn(path, output, end, next);
  }
  if (isTorn) await output.truncate(end);
  return { skippedBytes, ...(next && { next }) };
}

/** Throws where what stands in the file from `start` on is not the beginning of the answer to `input`. */
async function checkTorn(path: string, output: FileHandle, start: number, input: JsonLine | undefined): Promise<void> {
  const beginnings = input === undefined ? [] : answerBeginnings(input).map(text => Buffer.from(text));
  const buffer = new Uint8Array(Math.max(60, ...beginnings.map(({ length }) => length)));
  const { bytesRead } = await output.read(buffer, 0, buffer.length, start);
  const torn = buffer.subarray(0, bytesRead);
  const isOurs = beginnings.some(beginning => {
    const length = Math.min(beginning.length, torn.length);
    return beginning.subarray(0, length).equals(torn.subarray(0, length));
  });
  if (!isOurs) {
    const got = JSON.stringify(new TextDecoder().decode(torn.subarray(0, 60)));
    throw new RangeError(`${path}: expected the output of this batch to go on with, got ${got}`);
  }
}

/** Up to the first key that no line of anything else has there. */
function answerBeginnings(input: JsonLine): string[] {
  const id = idOf(input);
  return [{ safety: 0 }, { line: 0 }].map(key => JSON.stringify({ ...withId(id), ...key }).slice(0, -"0}".length));
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

/** Reads past the lines that the output's first `end` bytes have an answer to: how many, and of how many bytes. */
async function skipWritten(
  lines: AsyncGenerator<JsonLine>,
  path: string,
  end: number,
  marks: Marks,
  add: (written: { line?: unknown; flagged?: unknown }) => void,
): Promise<{ count: number; skippedBytes: number }> {
  let count = 0;
  let skippedBytes = 0;
  for await (const { line, name } of jsonLines(end === 0 ? noChunks() : createReadStream(path, { end: end - 1 }), path)) {
    const written = (parseJson(line, name) ?? {}) as Readonly<Record<string, unknown>>;
    const { value: input } = await lines.next();
    if (input === undefined) throw new RangeError(`${name}: expected no more lines than the input has, got one more`);
    const expected = { id: idOf(input), ...(written.line === undefined ? marks : { line: input.number }) };
    for (const [key, value] of Object.entries(expected)) {
      const got = written[key];
      if (JSON.stringify(got) !== JSON.stringify(value)) {
        throw new RangeError(
          `${name}: expected ${key} ${JSON.stringify(value) ?? "not given"} as of ${input.name} with this model and these options, got ${JSON.stringify(got) ?? "none"}`,
        );
      }
    }
    add(written);
    count++;
    skippedBytes = input.endByte;
  }
  return { count, skippedBytes };
}

function idOf(line: JsonLine): unknown {
  try {
    return (JSON.parse(line.line) as { id?: unknown } | null)?.id;
  } catch {
    return undefined; // it has got its error in its place
  }
}

async function* noChunks(): AsyncGenerator<Uint8Array> {}
