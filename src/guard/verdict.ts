/**
 * The verdict: what a guard says about a text, and what to act on.
 *
 * A verdict holds the model's parsed answer and the probabilities it was chosen from. Whether it is flagged is the
 * caller's policy, a mode or a threshold; the answer does not depend on it.
 */

import type { SafetyLevel } from "./policy.ts";

/** strict flags Unsafe and Controversial; loose flags Unsafe only. */
export type Mode = "strict" | "loose";

export interface Verdict {
  /** null if the answer did not follow the format (`error` is then "unparsed"). */
  readonly safety: SafetyLevel | null;
  /** As the model writes them; empty for "None". */
  readonly categories: readonly string[];
  /** Whether the judged response is a refusal; null if a prompt was judged. */
  readonly refusal: "Yes" | "No" | null;
  /** What to act on, by `mode` or `threshold`; true if the answer could not be parsed. */
  readonly flagged: boolean;
  readonly mode: Mode;
  /** Only if the caller gave one: flagged from this score on, whatever the level. */
  readonly threshold?: number;
  /** 1 - P(Safe): one number to sort or cut by; null if there are no scores. */
  readonly score: number | null;
  /** Softmax over the three level tokens at the position that decides the level; null if the answer never got there. */
  readonly scores: Readonly<Record<SafetyLevel, number>> | null;
  /** Softmax over the category tokens ("None" included) at the position that decides the first category. */
  readonly categoryScores: Readonly<Record<string, number>> | null;
  /**
   * With `scores: "full"`: the category scores if the answer had begun with "Safety: Unsafe". If it did, they equal
   * `categoryScores`.
   */
  readonly unsafeCategoryScores?: Readonly<Record<string, number>>;
  /** The probability of "Yes" against "No"; null if a prompt was judged. */
  readonly refusalScore: number | null;
  /** The model's answer, word for word. */
  readonly text: string;
  /** Name of the checkpoint. */
  readonly model: string;
  /** Only if the text was judged in windows: the window that this verdict is about, the worst one. */
  readonly window?: VerdictWindow;
  /** The sum over all windows, if there are several. */
  readonly usage: VerdictUsage;
  /** Wall time in milliseconds. */
  readonly ms: number;
  readonly error?: "unparsed";
}

export interface VerdictWindow {
  /** Which of `count` windows, from 0. */
  readonly index: number;
  readonly count: number;
  /** UTF-16 offsets in the judged message: the window is `content.slice(start, end)`. */
  readonly start: number;
  readonly end: number;
}

export interface VerdictUsage {
  readonly promptTokens: number;
  /** How many of the prompt's tokens were still in the cache from an earlier prompt. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** How many passes over the weights the answer took: 1 if it was guessed right. */
  readonly passes: number;
}

/** Whether a level counts as flagged. An answer without a level always does. */
export function isFlagged(safety: SafetyLevel | null, mode: Mode): boolean {
  return safety === null || safety === "Unsafe" || (safety === "Controversial" && mode === "strict");
}

/** The same by a threshold for the score. An answer without a level or without a score is flagged. */
export function isAboveThreshold(safety: SafetyLevel | null, score: number | null, threshold: number): boolean {
  return safety === null || score === null || !(score < threshold);
}

/** Orders verdicts by how bad they are: positive if `a` is worse. */
export function compareVerdicts(a: Verdict, b: Verdict): number {
  return Number(a.flagged) - Number(b.flagged) || rank(a) - rank(b) || (a.score ?? 1) - (b.score ?? 1);
}

/** An answer that cannot be read may hide anything, but ranks below a plain Unsafe. */
function rank({ safety }: Verdict): number {
  return safety === null ? 2 : { Safe: 0, Controversial: 1, Unsafe: 3 }[safety];
}
