/**
 * `qwen3guard moderate --jsonl`: a verdict for each line, in the order of the lines, written as soon as it is found.
 *
 * In: JSONL of `{id?, text}`, `{id?, prompt, response?}` or `{id?, messages}`. Out: for each line the verdict with its
 * id, or `{id?, line, error}` if the line cannot be judged. Memory does not depend on the number of lines. A batch can
 * continue an output file where it ends, whatever ended it: a line counts once its line feed is written (output.ts).
 */

import { stat } from "node:fs/promises";
import { type Guard, isInputError } from "../../guard/guard.ts";
import type { ModerateOptions } from "../../guard/moderate-options.ts";
import type { Verdict } from "../../guard/verdict.ts";
import { inputOfLine } from "../conversation-input.ts";
import { type JsonLine, jsonLines } from "../json-lines.ts";
import { Progress } from "../progress.ts";
import { checkReadable, inputChunks, parseJson } from "../reading.ts";
import type { Terminal } from "../terminal.ts";
import { BatchOutput, withId } from "./output.ts";

export interface LinesOptions {
  /** `-` is stdin. */
  readonly jsonl: string;
  /** `-` is stdout, the default. */
  readonly out?: string;
  readonly resume?: boolean;
  readonly quiet?: boolean;
  /** Identifies what judges, for an output file (judge-hash.ts). */
  readonly judgeHash: string;
}

export interface LinesOutcome {
  /** Lines that could not be judged. */
  readonly failed: number;
  readonly flagged: number;
  /** Whether Ctrl-C came before the end. */
  readonly isInterrupted: boolean;
}

/** A line of the output: a verdict, or the reason why there is none. */
type Result = { readonly id?: unknown } & (Verdict | { readonly line: number; readonly error: string });

export async function moderateLines(
  guard: Guard,
  options: LinesOptions,
  moderateOptions: ModerateOptions,
  terminal: Terminal,
): Promise<LinesOutcome> {
  // Errors that every line would have are found before there is an output.
  guard.checkOptions(moderateOptions);
  await checkReadable(options.jsonl);
  const lines = jsonLines(inputChunks(options.jsonl, terminal), options.jsonl === "-" ? "stdin" : options.jsonl);
  const { out, resume = false } = options;
  const outcome = { failed: 0, flagged: 0 };
  const add = (result: { line?: unknown; flagged?: unknown }): void => {
    if (result.line !== undefined) outcome.failed++;
    else if (result.flagged === true) outcome.flagged++;
  };
  // After Ctrl-C the current line is finished and written, but waiting for another one ends at once.
  let isInterrupted = false;
  let isDone = false;
  let stopWaiting = (): void => {};
  const stopListening = terminal.onInterrupt(() => {
    isInterrupted = true;
    stopWaiting();
  });
  // Each line gets a new promise. One promise for the whole batch would keep the callbacks of every line alive.
  const nextLine = (): Promise<JsonLine | undefined> =>
    new Promise((resolve, reject) => {
      stopWaiting = () => resolve(undefined);
      lines.next().then(({ value }) => resolve(value ?? undefined), reject);
    });
  const progress = new Progress(terminal, "lines", options.quiet);
  let output: BatchOutput | undefined;
  try {
    output = out === undefined || out === "-" ? undefined : await BatchOutput.open(out, resume, options.judgeHash);
    const totalBytes = options.jsonl === "-" ? undefined : (await stat(options.jsonl).catch(() => undefined))?.size;
    const { mode = "strict", threshold } = moderateOptions;
    const resumed = (resume && (await output?.resume(lines, { model: guard.name, mode, threshold }, add))) || {
      skippedBytes: 0,
    };
    const { skippedBytes } = resumed;
    for (let done = 1; !isInterrupted; done++) {
      const line = (done === 1 ? resumed.next : undefined) ?? (await nextLine());
      if (line === undefined) break;
      const { id, ...result } = await judge(guard, line, moderateOptions);
      add(result);
      const text = `${JSON.stringify({ ...withId(id), ...output?.hashes(line), ...result })}\n`;
      await (output ? output.append(text) : terminal.out(text));
      progress.update(done, totalBytes ? (line.endByte - skippedBytes) / (totalBytes - skippedBytes) : undefined);
    }
    isDone = !isInterrupted;
    await output?.check();
  } finally {
    stopListening();
    progress.end();
    await output?.close(isDone);
  }
  return { ...outcome, isInterrupted };
}

/** An error in a line becomes its result. An error of the engine ends the batch. */
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
