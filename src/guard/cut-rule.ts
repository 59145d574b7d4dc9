/**
 * When to cut a stream: turns verdicts on single tokens into a decision on the answer.
 *
 * In: the verdicts on an answer's tokens, in order. Out: null until the answer is to be cut, then where. One token
 * alone is not enough: a head that is wrong once in a thousand tokens would cut every long answer. So the rule of the
 * Qwen3Guard report (arXiv:2510.14276) acts when two consecutive tokens have the same level and it is not Safe. A
 * caller may pass any other object with `next`.
 */

import type { HeadReading } from "./head-reading.ts";
import type { Violation } from "./moderation-stream.ts";
import type { SafetyLevel } from "./policy.ts";
import type { Mode } from "./verdict.ts";

/** The model's verdict on an answer up to and including one of its tokens. */
export interface TokenVerdict extends HeadReading {
  /** Index of the token in the model's whole input. */
  readonly position: number;
  readonly id: number;
  /** Where the token's text begins in the answer, in UTF-16 offsets; `end` is where it ends. */
  readonly start: number;
  readonly end: number;
}

/** A violation with the offending tokens. */
export interface TokenViolation extends Violation {
  readonly risk: SafetyLevel;
  readonly tokens: readonly TokenVerdict[];
}

/** Takes an answer's verdicts one by one. It remembers them, so each stream needs its own. */
export interface CutRule {
  /** Where to cut the answer, now that this verdict is known; null to go on. */
  next(verdict: TokenVerdict): TokenViolation | null;
  /**
   * The offset from which a later verdict may still cut, asked after each `next`; null if it cannot cut what has been
   * judged. Text from there on is not cleared. A rule without it holds back every token since the last Safe one.
   */
  heldFrom?(): number | null;
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

  /** The last token, unless it is Safe: with the next one it may be a violation that begins with it. */
  heldFrom(): number | null {
    return this.#before === undefined || this.#before.risk === "Safe" ? null : this.#before.start;
  }
}

/**
 * The level of a whole answer by the same report: Unsafe if two consecutive tokens are Unsafe, else Controversial if
 * two consecutive tokens are Controversial, else Safe.
 */
export function answerRisk(verdicts: readonly Pick<HeadReading, "risk">[]): SafetyLevel {
  const hasTwo = (level: SafetyLevel): boolean =>
    verdicts.some(({ risk }, i) => risk === level && verdicts[i + 1]?.risk === level);
  return hasTwo("Unsafe") ? "Unsafe" : hasTwo("Controversial") ? "Controversial" : "Safe";
}
