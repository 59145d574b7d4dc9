/**
 * `qwen3guard eval`: how well a guard does on labelled texts of your own.
 *
 * The whole file is checked before the model is loaded, and the page is opened before the work begins: what can fail at
 * once must not fail after an hour.
 */

import { basename } from "node:path";
import { Guard } from "../../guard/guard.ts";
import { nextTurn } from "../../model/session.ts";
import { checkpointFiles, engineOptions, type ModelOptions } from "../model-options.ts";
import { Progress } from "../progress.ts";
import { inputChunks } from "../reading.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { wholeFile } from "../writing.ts";
import { type Example, readDataset } from "./dataset.ts";
import { type Evaluation, evaluate, type Judged } from "./evaluation.ts";
import { reportHtml } from "./report-html.ts";
import { reportText } from "./report-text.ts";

export interface EvalCommandOptions extends ModelOptions {
  readonly html?: string;
  readonly limit?: number;
  readonly by?: string;
  readonly worst: number;
  readonly json?: boolean;
}

export async function evaluateFile(file: string, options: EvalCommandOptions, terminal: Terminal): Promise<void> {
  const engine = engineOptions(options);
  if (options.html === "-") throw new UsageError("--html: expected a file, got -, and stdout is for the figures");
  const name = file === "-" ? "stdin" : file;
  const examples = await readDataset(inputChunks(file, terminal), name, options);
  const page = options.html === undefined ? undefined : await wholeFile(options.html, terminal);
  let guard: Guard | undefined;
  try {
    guard = await Guard.load(await checkpointFiles(options, terminal), engine);
    const { judged, leftOut } = await judgeAll(guard, examples, new Progress(terminal, "lines", options.quiet));
    const { evaluation, columns } = evaluate(judged, {
      data: basename(name),
      model: guard.name,
      leftOut,
      worst: options.worst,
      by: options.by,
    });
    try {
      await page?.write(reportHtml(evaluation, columns));
      await page?.done();
    } finally {
      // A full disk must not cost an hour's figures.
      await terminal.out(options.json ? `${JSON.stringify(evaluation)}\n` : reportText(evaluation, terminal));
    }
  } finally {
    await page?.discard();
    guard?.close();
  }
}

/**
 * The verdicts, and the examples that cannot have one. Their form was checked, so these are the ones whose context
 * leaves no room for the message to judge.
 */
async function judgeAll(
  guard: Guard,
  examples: readonly Example[],
  progress: Progress,
): Promise<{ judged: Judged[]; leftOut: Evaluation["leftOut"] }> {
  const judged: Judged[] = [];
  const leftOut: { line: number; id: string | null; error: string }[] = [];
  try {
    for await (const { index, verdict, error } of guard.moderateMany(examples.map(({ input }) => input))) {
      const example = examples[index];
      if (verdict) judged.push({ example, verdict });
      else leftOut.push({ line: example.line, id: example.id, error: error.message });
      progress.update(index + 1, (index + 1) / examples.length);
      await nextTurn(); // a small model never waits, and Ctrl-C is handled only between turns of the event loop
    }
  } finally {
    progress.end();
  }
  return { judged, leftOut };
}
