/**
 * When a stream is cut: from verdicts on single tokens to a decision on the answer.
 *
 * In: the verdicts of an answer's tokens, in order. Out: nothing, until the answer is to be cut, and then where. One
 * token alone is too little (a head that is wrong once in a thousand tokens would cut every long answer), so the rule
 * of the Qwen3Guard report (arXiv:2510.14276) acts when two consecutive tokens carry the same level that is not Safe. A
 * caller may give any other object with `next`.
 */

import type { HeadReading } from "./head-reading.ts";
import type { Violation } from "./moderation-stream.ts";
import type { SafetyLevel } from "./policy.ts";
import type { Mode } from "./verdict.ts";

/** What the model thinks of an answer up to and with one of its tokens. */
export interface TokenVerdict extends HeadReading {
  /** Index of the token in the model's whole input. */
  readonly position: number;
  readonly id: number;
  /** The token's part of the answer's text, in UTF-16 offsets. */
  readonly start: number;
  readonly end: number;
}

/** With the offending tokens. */
export interface TokenViolation extends Violation {
  readonly risk: SafetyLevel;
  readonly tokens: readonly TokenVerdict[];
}

/** Hears an answer's verdicts one by one. It remembers what it heard, so each stream needs one of its own. */
export interface CutRule {
  /** Where the answer is to be cut, now that this verdict is known; null: go on. */
  next(verdict: TokenVerdict): TokenViolation | null;
}

/** Cuts at two consecutive tokens of the same level: Unsafe, and in strict mode Controversial too. */
export class TwoInARow implements CutRule {
  readonly #levels: readonly SafetyLevel[];
  #before: TokenVerdict | undefined;

  constructor(mode: Mode = "strict") {
    this.#levels = mode === "strict" ? ["Unsafe", "Controversial"] : ["Unsafe"];
  }

  next(verdict: TokenVerdict): TokenViolation | null {
    const first = this.#before;
    this.#before = verdict;
    if (first?.risk !== verdict.risk || !this.#levels.includes(verdict.risk)) return null;
    return { risk: verdict.risk, category: verdict.category, at: first.start, tokens: [first, verdict] };
  }
}

/**
 * The level of a whole answer by the same report: Unsafe where two consecutive tokens are, else Controversial where two
 * are, else Safe.
 */
export function answerRisk(verdicts: readonly Pick<HeadReading, "risk">[]): SafetyLevel {
  const hasTwo = (level: SafetyLevel): boolean =>
    verdicts.some(({ risk }, i) => risk === level && verdicts[i + 1]?.risk === level);
  return hasTwo("Unsafe") ? "Unsafe" : hasTwo("Controversial") ? "Controversial" : "Safe";
}
