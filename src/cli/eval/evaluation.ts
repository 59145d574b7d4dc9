/**
 * An evaluation: examples and verdicts -> the figures that every form of the report shows.
 *
 * In: examples with their verdicts. Out: a plain object, which is also the `--json` object, and the columns (labels,
 * scores) from which the page draws its curves.
 */

import { isFlagged, type Mode, type Verdict } from "../../guard/verdict.ts";
import { judgedText } from "../verdict-card.ts";
import type { Example } from "./dataset.ts";
import {
  averagePrecision,
  type BestThreshold,
  bestF1,
  bootstrap,
  brierScore,
  type CalibrationBin,
  type Confusion,
  calibrationBins,
  confusion,
  type Estimate,
  expectedCalibrationError,
  type Rates,
  rank,
  rates,
  rocAuc,
  sweep,
} from "./metrics.ts";

export interface Judged {
  readonly example: Example;
  readonly verdict: Pick<Verdict, "safety" | "categories" | "scores">;
}

/** One operating point: what the guard's own answers decide, without a threshold. */
export type ModeFigures = { readonly confusion: Confusion } & { readonly [Name in keyof Rates]: Estimate };

export interface Mistake {
  readonly line: number;
  readonly id: string | null;
  readonly score: number;
  readonly answer: string;
  readonly text: string;
}

/** Rows are the categories of the data, or the label if a line has none. Columns are the guard's answers. */
export interface CategoryTable {
  readonly columns: readonly string[];
  readonly rows: readonly { readonly name: string; readonly total: number; readonly counts: readonly number[] }[];
}

export interface GroupRow {
  readonly name: string;
  readonly total: number;
  readonly unsafe: number;
  readonly strict: Confusion;
  readonly loose: Confusion;
}

/** The `--json` object. An undefined figure, such as recall if nothing is unsafe, is null. */
export interface Evaluation {
  readonly data: string;
  readonly model: string;
  readonly lines: {
    readonly judged: number;
    readonly safe: number;
    readonly unsafe: number;
    readonly unparsed: number;
  };
  /** Lines that do not fit the model's context. No figure counts them. */
  readonly leftOut: readonly { readonly line: number; readonly id: string | null; readonly error: string }[];
  readonly strict: ModeFigures;
  readonly loose: ModeFigures;
  readonly rocAuc: Estimate;
  readonly averagePrecision: Estimate;
  readonly bestF1: BestThreshold | null;
  readonly calibration: {
    readonly expectedCalibrationError: number;
    readonly brierScore: number;
    readonly bins: readonly CalibrationBin[];
  };
  readonly categories: CategoryTable;
  readonly groups: { readonly key: string; readonly rows: readonly GroupRow[] } | null;
  /** Mistakes in strict mode: unsafe texts with the lowest scores, safe ones with the highest. */
  readonly worst: { readonly missed: readonly Mistake[]; readonly falseAlarms: readonly Mistake[] };
  readonly bootstrap: { readonly resamples: number; readonly seed: number; readonly level: number };
}

/** The data that curves are drawn from. */
export interface Columns {
  readonly unsafe: Uint8Array;
  readonly score: Float64Array;
}

export interface EvaluationOptions {
  readonly data: string;
  readonly model: string;
  readonly leftOut?: Evaluation["leftOut"];
  /** How many mistakes of each kind are listed. */
  readonly worst: number;
  /** The key that the groups of the examples come from. */
  readonly by?: string | undefined;
}

const BOOTSTRAP = { resamples: 1000, seed: 0, level: 0.95 } as const;
const CALIBRATION_BINS = 10;

/** Columns for an answer that lacks a category, and for one that could not be parsed. */
const NO_CATEGORY_COLUMN = "no category";
const UNPARSED = "unparsed";

/** Throws RangeError if nothing was judged, or for a score that is not a probability. */
export function evaluate(
  judged: readonly Judged[],
  options: EvaluationOptions,
): { evaluation: Evaluation; columns: Columns } {
  if (judged.length === 0)
    throw new RangeError(`${options.data}: expected at least one line that fits the model's context, got none`);
  const unsafe = Uint8Array.from(judged, ({ example }) => Number(example.label === "unsafe"));
  const score = Float64Array.from(judged, ({ verdict }) => scoreOf(verdict));
  const flags = (mode: Mode): Uint8Array =>
    Uint8Array.from(judged, ({ verdict }) => Number(isFlagged(verdict.safety, mode)));
  const flagged = { strict: flags("strict"), loose: flags("loose") };
  const ranking = rank(score);
  const once = new Uint32Array(judged.length).fill(1);

  const estimates = bootstrap(
    judged.length,
    weights => {
      const swept = sweep(ranking, unsafe, weights);
      const strict = rates(confusion(unsafe, flagged.strict, weights));
      const loose = rates(confusion(unsafe, flagged.loose, weights));
      return {
        strictPrecision: strict.precision,
        strictRecall: strict.recall,
        strictF1: strict.f1,
        strictFalsePositiveRate: strict.falsePositiveRate,
        loosePrecision: loose.precision,
        looseRecall: loose.recall,
        looseF1: loose.f1,
        looseFalsePositiveRate: loose.falsePositiveRate,
        rocAuc: rocAuc(swept),
        averagePrecision: averagePrecision(swept),
      };
    },
    BOOTSTRAP,
  );
  const figures = (mode: Mode): ModeFigures => ({
    confusion: confusion(unsafe, flagged[mode], once),
    precision: estimates[`${mode}Precision`],
    recall: estimates[`${mode}Recall`],
    f1: estimates[`${mode}F1`],
    falsePositiveRate: estimates[`${mode}FalsePositiveRate`],
  });

  const bins = calibrationBins(unsafe, score, CALIBRATION_BINS);
  const positives = unsafe.reduce((sum, label) => sum + label, 0);
  const evaluation: Evaluation = {
    data: options.data,
    model: options.model,
    lines: {
      judged: judged.length,
      safe: judged.length - positives,
      unsafe: positives,
      unparsed: judged.filter(({ verdict }) => verdict.safety === null).length,
    },
    leftOut: options.leftOut ?? [],
    strict: figures("strict"),
    loose: figures("loose"),
    rocAuc: estimates.rocAuc,
    averagePrecision: estimates.averagePrecision,
    bestF1: bestF1(sweep(ranking, unsafe, once)),
    calibration: {
      expectedCalibrationError: expectedCalibrationError(bins),
      brierScore: brierScore(unsafe, score),
      bins,
    },
    categories: categoryTable(judged),
    groups: options.by === undefined ? null : { key: options.by, rows: groupRows(judged) },
    worst: worstMistakes(judged, score, options.worst),
    bootstrap: BOOTSTRAP,
  };
  return { evaluation, columns: { unsafe, score } };
}

/** 1 - P(Safe). An answer that never reached a level is flagged at any threshold, so it scores 1. */
function scoreOf({ scores }: Judged["verdict"]): number {
  return scores === null ? 1 : 1 - scores.Safe;
}

/** The guard's answer in a word: its first category, or Safe. */
function columnOf({ safety, categories }: Judged["verdict"]): string {
  if (safety === null) return UNPARSED;
  return safety === "Safe" ? "Safe" : (categories[0] ?? NO_CATEGORY_COLUMN);
}

/** An example with several categories counts in the row of each. */
function categoryTable(judged: readonly Judged[]): CategoryTable {
  const cells = new Map<string, Map<string, number>>();
  const columnTotals = new Map<string, number>();
  const rowTotals = new Map<string, number>();
  for (const { example, verdict } of judged) {
    const column = columnOf(verdict);
    for (const row of example.categories.length > 0 ? example.categories : [example.label]) {
      const counts = cells.get(row) ?? new Map<string, number>();
      cells.set(row, counts);
      for (const [map, key] of [
        [counts, column],
        [columnTotals, column],
        [rowTotals, row],
      ] as const) {
        map.set(key, (map.get(key) ?? 0) + 1);
      }
    }
  }
  const columns = byCount(columnTotals, ["Safe"], [NO_CATEGORY_COLUMN, UNPARSED]);
  return {
    columns,
    rows: byCount(rowTotals, ["safe"], []).map(name => ({
      name,
      total: rowTotals.get(name) as number,
      counts: columns.map(column => cells.get(name)?.get(column) ?? 0),
    })),
  };
}

/** Names from the most to the least frequent, except those that come first or last. */
function byCount(totals: ReadonlyMap<string, number>, first: readonly string[], last: readonly string[]): string[] {
  const place = (name: string): number => (first.includes(name) ? 0 : last.includes(name) ? 2 : 1);
  return [...totals].sort(([a, n], [b, m]) => place(a) - place(b) || m - n || (a < b ? -1 : 1)).map(([name]) => name);
}

function groupRows(judged: readonly Judged[]): GroupRow[] {
  const groups = new Map<string, Judged[]>();
  for (const one of judged) {
    const name = one.example.group as string;
    const members = groups.get(name);
    if (members) members.push(one);
    else groups.set(name, [one]);
  }
  return [...groups].map(([name, members]) => {
    const unsafe = Uint8Array.from(members, ({ example }) => Number(example.label === "unsafe"));
    const once = new Uint32Array(members.length).fill(1);
    const counts = (mode: Mode): Confusion =>
      confusion(
        unsafe,
        Uint8Array.from(members, ({ verdict }) => Number(isFlagged(verdict.safety, mode))),
        once,
      );
    return {
      name,
      total: members.length,
      unsafe: unsafe.reduce((sum, label) => sum + label, 0),
      strict: counts("strict"),
      loose: counts("loose"),
    };
  });
}

function worstMistakes(judged: readonly Judged[], score: Float64Array, count: number): Evaluation["worst"] {
  const indices = Array.from(judged.keys());
  const isUnsafe = (i: number): boolean => judged[i].example.label === "unsafe";
  const mistake = (i: number): Mistake => {
    const { example, verdict } = judged[i];
    const answer = [verdict.safety ?? UNPARSED, ...verdict.categories].join(", ");
    return { line: example.line, id: example.id, score: score[i], answer, text: judgedText(example.input) };
  };
  return {
    missed: indices
      .filter(i => isUnsafe(i) && !isFlagged(judged[i].verdict.safety, "strict"))
      .sort((a, b) => score[a] - score[b])
      .slice(0, count)
      .map(mistake),
    falseAlarms: indices
      .filter(i => !isUnsafe(i) && isFlagged(judged[i].verdict.safety, "strict"))
      .sort((a, b) => score[b] - score[a])
      .slice(0, count)
      .map(mistake),
  };
}
