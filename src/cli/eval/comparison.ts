/**
 * The same guard with several forms of weights, on the same texts: what quantisation changes in its verdicts.
 *
 * In: verdicts of two forms, text by text. Out: how many levels and flags agree, how far P(Safe) moves, and the
 * Kullback-Leibler divergence of the distributions of levels. Labels play no part.
 */

import type { SafetyLevel } from "../../guard/policy.ts";
import { isFlagged, type Verdict } from "../../guard/verdict.ts";

export interface FormComparison {
  readonly weights: string;
  /** Texts that both forms judged. */
  readonly texts: number;
  /**
   * How many of these have the same level as with the first form, and how many the same flag in strict and loose mode.
   */
  readonly sameLevel: number;
  readonly sameStrict: number;
  readonly sameLoose: number;
  /** |P(Safe) - P(Safe) of the first form|, over the texts where both have scores. */
  readonly meanDifference: number;
  readonly largestDifference: number;
  /** Mean over texts of the sum of p log(p / q) over the three levels, in nats; p is that of the first form. */
  readonly meanDivergence: number;
}

/** Keeps a divergence finite; a smaller probability is as good as 0. */
const LEAST_PROBABILITY = 1e-10;

/** `first` and `other` hold the verdicts of the same texts in the same order; null where a text could not be judged. */
export function compareForms(
  weights: string,
  first: readonly (Verdict | null)[],
  other: readonly (Verdict | null)[],
): FormComparison {
  const pairs = first.flatMap((verdict, i) => (verdict && other[i] ? [[verdict, other[i]] as const] : []));
  const count = (same: (a: Verdict, b: Verdict) => boolean): number => pairs.filter(([a, b]) => same(a, b)).length;
  const scored = pairs.flatMap(([a, b]) => (a.scores && b.scores ? [[a.scores, b.scores] as const] : []));
  const differences = scored.map(([p, q]) => Math.abs(p.Safe - q.Safe));
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  return {
    weights,
    texts: pairs.length,
    sameLevel: count((a, b) => a.safety === b.safety),
    sameStrict: count((a, b) => isFlagged(a.safety, "strict") === isFlagged(b.safety, "strict")),
    sameLoose: count((a, b) => isFlagged(a.safety, "loose") === isFlagged(b.safety, "loose")),
    meanDifference: mean(differences),
    largestDifference: differences.reduce((largest, value) => Math.max(largest, value), 0),
    meanDivergence: mean(scored.map(([p, q]) => divergence(p, q))),
  };
}

/** Kullback and Leibler 1951, in nats. */
export function divergence(p: Readonly<Record<SafetyLevel, number>>, q: Readonly<Record<SafetyLevel, number>>): number {
  return (Object.keys(p) as SafetyLevel[]).reduce(
    (sum, level) => sum + (p[level] === 0 ? 0 : p[level] * Math.log(p[level] / Math.max(q[level], LEAST_PROBABILITY))),
    0,
  );
}
