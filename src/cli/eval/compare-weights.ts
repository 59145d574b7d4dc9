/**
 * `qwen3guard eval --compare bf16,int8,int4`: each form of weights judges the same texts, and is compared with the
 * first form.
 */

import { basename } from "node:path";
import type { CheckpointFiles } from "../../checkpoint/files.ts";
import { SafetensorsCheckpoint } from "../../checkpoint/safetensors-sharded.ts";
import { Guard } from "../../guard/guard.ts";
import type { Verdict } from "../../guard/verdict.ts";
import { savedScheme } from "../../model/quantised-weights.ts";
import { WEIGHTS } from "../../tensor/engine-choice.ts";
import { checkpointFiles, engineOptions, type ModelOptions } from "../model-options.ts";
import { Progress } from "../progress.ts";
import { inputChunks } from "../reading.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { compareForms, type FormComparison } from "./comparison.ts";
import { readDataset } from "./dataset.ts";

/** People say `bf16` for the weights as stored. */
const AS_STORED = ["bf16", "checkpoint"];
type Weights = (typeof WEIGHTS)[number];

export interface EvalCompareOptions extends ModelOptions {
  readonly compare: string;
  readonly html?: string;
  readonly by?: string;
  readonly limit?: number;
  readonly json?: boolean;
}

/** Only one guard at a time is in memory. */
export async function compareWeights(file: string, options: EvalCompareOptions, terminal: Terminal): Promise<void> {
  checkCompare(options);
  const forms = readForms(options.compare);
  engineOptions(options);
  const name = file === "-" ? "stdin" : file;
  const inputs = (await readDataset(inputChunks(file, terminal), name, options)).map(({ input }) => input);
  const files = await checkpointFiles(options, terminal);
  await checkOriginal(files);
  const comparisons: FormComparison[] = [];
  let first: (Verdict | null)[] | undefined;
  let model = "";
  for (const form of forms) {
    const weights: Weights = AS_STORED.includes(form) ? "checkpoint" : (form as Weights);
    const guard = await Guard.load(files, engineOptions({ ...options, weights }));
    model = guard.name;
    const progress = new Progress(terminal, `lines with ${form}`, options.quiet);
    const verdicts: (Verdict | null)[] = [];
    try {
      for await (const { index, verdict } of guard.moderateMany(inputs)) {
        verdicts.push(verdict);
        progress.update(index + 1, (index + 1) / inputs.length);
      }
    } finally {
      progress.end();
      guard.close();
    }
    first ??= verdicts;
    comparisons.push(compareForms(form, first, verdicts));
  }
  const data = basename(name);
  await terminal.out(
    options.json ? `${JSON.stringify({ data, model, forms: comparisons })}\n` : describe(data, model, comparisons),
  );
}

/** Options that contradict --compare are wrong usage. */
function checkCompare({ html, by, weights }: EvalCompareOptions): void {
  for (const [option, value] of Object.entries({
    "--html": html,
    "--by": by,
    "--weights": weights === "auto" ? undefined : weights,
  })) {
    if (value !== undefined) throw new UsageError(`eval: expected --compare or ${option}, got both`);
  }
}

/** Throws RangeError for a checkpoint that was saved quantised: there is only one form of it. */
async function checkOriginal(files: CheckpointFiles): Promise<void> {
  const checkpoint = await SafetensorsCheckpoint.open(files);
  try {
    const saved = savedScheme(checkpoint);
    if (saved !== undefined)
      throw new RangeError(`${files.name}: --compare: expected weights that are not quantised yet, got ${saved}`);
  } finally {
    await checkpoint.close();
  }
}

function readForms(list: string): string[] {
  const forms = list.split(",").map(form => form.trim());
  const known = [...AS_STORED, ...WEIGHTS.filter(form => form !== "auto" && form !== "checkpoint")];
  const other = forms.find(form => !known.includes(form));
  if (other !== undefined)
    throw new UsageError(`--compare: expected forms of weights (${known.join(", ")}), got "${other}"`);
  if (forms.length < 2) throw new UsageError(`--compare: expected two forms at least, as in bf16,int8, got ${list}`);
  return forms;
}

function describe(data: string, model: string, comparisons: readonly FormComparison[]): string {
  const [{ weights: first, texts }, ...others] = comparisons;
  const share = (part: number, of: number): string => `${((100 * part) / of).toFixed(1)} %`;
  const rows = others.map(form => [
    form.weights,
    share(form.sameLevel, form.texts),
    share(form.sameStrict, form.texts),
    share(form.sameLoose, form.texts),
    form.meanDifference.toFixed(4),
    form.largestDifference.toFixed(4),
    form.meanDivergence.toExponential(1),
  ]);
  const table = [["", "same level", "same strict", "same loose", "mean |dP(Safe)|", "largest", "KL (nats)"], ...rows];
  const lines = table.map(row =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(10) : cell.padStart(16)))
      .join("")
      .trimEnd(),
  );
  return `${data}, ${texts} texts judged by ${model}: each form of weights against ${first}\n\n${lines.join("\n")}\n`;
}
