/**
 * The verdict: what a guard says of a text, and what to act on.
 *
 * A verdict holds the model's answer, parsed, and the probabilities behind it. Whether it is flagged is policy: a mode
 * or a threshold of the caller's; the answer is the same under each.
 */

import type { SafetyLevel } from "./policy.ts";

/** strict: Unsafe and Controversial are flagged; loose: Unsafe alone. */
export type Mode = "strict" | "loose";

export interface Verdict {
  /** null where the answer did not follow the format (`error` is then "unparsed"). */
  readonly safety: SafetyLevel | null;
  /** As the model writes them; empty for "None". */
  readonly categories: readonly string[];
  /** Whether the judged response refuses; null where a prompt was judged. */
  readonly refusal: "Yes" | "No" | null;
  /** What to act on: depends on `mode`, or on `threshold`; true where the answer could not be parsed. */
  readonly flagged: boolean;
  readonly mode: Mode;
  /** Only where one was given: flagged from this score on, whatever the level. */
  readonly threshold?: number;
  /** 1 - P(Safe): one number to sort or cut by; null where there are no scores. */
  readonly score: number | null;
  /**
   * Softmax over the three level tokens at the position that decides the level; null where the answer never came to it.
   */
  readonly scores: Readonly<Record<SafetyLevel, number>> | null;
  /** Softmax over the category tokens ("None" included) at the position that decides the first category. */
  readonly categoryScores: Readonly<Record<string, number>> | null;
  /**
   * With `scores: "full"`: the same, had the answer begun with "Safety: Unsafe". Where it did, equal to
   * `categoryScores`.
   */
  readonly unsafeCategoryScores?: Readonly<Record<string, number>>;
  /** Probability of "Yes" against "No"; null where a prompt was judged. */
  readonly refusalScore: number | null;
  /** The model's answer, word for word. */
  readonly text: string;
  /** Name of the checkpoint. */
  readonly model: string;
  /** Only where the text was judged in windows: the one whose verdict this is, the worst. */
  readonly window?: VerdictWindow;
  /** Of all windows together, where there are several. */
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
  /** Of them, those that an earlier prompt had left in the cache. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Passes over the weights that the answer took: 1 where it was guessed right. */
  readonly passes: number;
}

/** What counts as flagged. An answer without a level always does. */
export function isFlagged(safety: SafetyLevel | null, mode: Mode): boolean {
  return safety === null || safety === "Unsafe" || (safety === "Controversial" && mode === "strict");
}

/** The same with a threshold for the score; an answer without a level, or without a score, is flagged. */
export function isAboveThreshold(safety: SafetyLevel | null, score: number | null, threshold: number): boolean {
  return safety === null || score === null || !(score < threshold);
}

/** Orders verdicts by how bad they are: a positive number where `a` is worse. */
export function compareVerdicts(a: Verdict, b: Verdict): number {
  return Number(a.flagged) - Number(b.flagged) || rank(a) - rank(b) || (a.score ?? 1) - (b.score ?? 1);
}

/** An answer that cannot be read may hide anything but is less than a plain Unsafe. */
function rank({ safety }: Verdict): number {
  return safety === null ? 2 : { Safe: 0, Controversial: 1, Unsafe: 3 }[safety];
}
