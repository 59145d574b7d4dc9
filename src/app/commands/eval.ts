/**
 * `qwen3guard eval`: how well a guard does on labelled texts of one's own.
 *
 * The file is checked wholly before the model is loaded, and where the page is to go is opened before the work begins: what can fail at
 * once does not fail after an hour.
 */

import { basename } from "node:path";
import { Guard } from "../../guard/guard.ts";
import { checkpointFiles, engineOptions, type ModelOptions } from "../checkpoint-option.ts";
import { type Example, readDataset } from "../eval/dataset.ts";
import { type Evaluation, evaluate, type Judged } from "../eval/evaluation.ts";
import { judge } from "../eval/judge.ts";
import { reportHtml } from "../eval/report-html.ts";
import { reportText } from "../eval/report-text.ts";
import { inputChunks, type Terminal, wholeFile } from "../io.ts";

export interface EvalCommandOptions extends ModelOptions {
  readonly html?: string;
  readonly limit?: number;
  readonly by?: string;
  readonly worst: number;
  readonly json?: boolean;
}

export async function evalCommand(file: string, options: EvalCommandOptions, terminal: Terminal): Promise<void> {
  const engine = engineOptions(options);
  const name = file === "-" ? "stdin" : file;
  const examples = await readDataset(inputChunks(file, terminal), name, options);
  const page = options.html === undefined ? undefined : await wholeFile(options.html);
  let guard: Guard | undefined;
  try {
    guard = await Guard.load(await checkpointFiles(options, terminal), engine);
    const { fitting, leftOut } = separate(guard, examples);
    const judged = await judgeAll(guard, fitting, options.quiet ? () => {} : progress(terminal));
    const { evaluation, columns } = evaluate(judged, {
      data: basename(name),
      model: guard.name,
      leftOut,
      worst: options.worst,
      by: options.by,
    });
    try {
      await page?.done(reportHtml(evaluation, columns));
    } finally {
      // A full disk does not take an hour's figures with it.
      await terminal.out(options.json ? `${JSON.stringify(evaluation)}\n` : reportText(evaluation, terminal));
    }
  } finally {
    await page?.discard();
    guard?.close();
  }
}

/** Examples that the context holds, and those that it does not. Their form was checked, so that their length is all that can be wrong. */
function separate(guard: Guard, examples: readonly Example[]): { fitting: Example[]; leftOut: Evaluation["leftOut"] } {
  const fitting: Example[] = [];
  const leftOut: { line: number; id: string | null; error: string }[] = [];
  for (const example of examples) {
    try {
      guard.encode(example.input);
      fitting.push(example);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      leftOut.push({ line: example.line, id: example.id, error: error.message });
    }
  }
  return { fitting, leftOut };
}

async function judgeAll(guard: Guard, examples: readonly Example[], report: (done: number, of: number) => void): Promise<Judged[]> {
  const judged: Judged[] = [];
  const inputs = examples.map(({ input }) => input);
  try {
    for await (const verdict of judge(guard, inputs)) {
      judged.push({ example: examples[judged.length], verdict });
      report(judged.length, examples.length);
    }
  } finally {
    report(0, 0); // the line of progress goes, whatever happened
  }
  return judged;
}

/** One line on stderr, if that is a terminal: lines done, rate, time left. 0 of 0 takes it away. */
function progress(terminal: Terminal): (done: number, of: number) => void {
  if (!process.stderr.isTTY) return () => {};
  const started = performance.now();
  let shown = -Infinity;
  return (done, of) => {
    const now = performance.now();
    if (of === 0) terminal.err("\r\u001b[K");
    if (of === 0 || now - shown < 100) return;
    shown = now;
    const perSecond = (done * 1000) / (now - started);
    const rate = perSecond >= 10 ? perSecond.toFixed(0) : perSecond.toFixed(1);
    terminal.err(`\r${done} of ${of} lines, ${rate} a second, ${duration((of - done) / perSecond)} left\u001b[K`);
  };
}

function duration(seconds: number): string {
  const rounded = Math.ceil(seconds);
  return rounded < 60 ? `${rounded} s` : `${Math.floor(rounded / 60)} min ${String(rounded % 60).padStart(2, "0")} s`;
}
