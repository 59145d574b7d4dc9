/** The options of a verdict, and the check that refuses those with which no input could be judged. */

import { checkOptions } from "../tensor/options.ts";
import type { Mode } from "./verdict.ts";

export interface ModerateOptions {
  /** strict by default. */
  readonly mode?: Mode;
  /** Flags by `score` instead of by mode: from this value on, 0 to 1. */
  readonly threshold?: number;
  /** "basic" by default; "full" adds `unsafeCategoryScores` for one more small pass. */
  readonly scores?: "basic" | "full";
  /**
   * Judges the last message in windows of at most this many tokens; the worst verdict counts. By default a message is
   * cut only if it does not fit the context.
   */
  readonly window?: number;
  /** How many tokens windows overlap by, so that nothing is missed at a cut; by default an eighth of a window. */
  readonly overlap?: number;
  /** 128 by default, as in the model card. */
  readonly maxNewTokens?: number;
  readonly signal?: AbortSignal;
  /**
   * Awaited about every 20 ms instead of yielding to the event loop; a scheduler uses it to choose which input
   * continues.
   */
  readonly turn?: () => Promise<void>;
}

export interface GenStreamOptions
  extends Pick<ModerateOptions, "mode" | "threshold" | "maxNewTokens" | "signal" | "turn"> {
  /** How many new tokens come between two verdicts; 32 by default. */
  readonly every?: number;
}

/** Throws TypeError or RangeError for options that are out of range whatever the input. */
export function checkModerateOptions(options: ModerateOptions): void {
  checkOptions(
    options,
    ["mode", "threshold", "scores", "window", "overlap", "maxNewTokens", "signal", "turn"],
    "moderate",
  );
  const { mode = "strict", threshold = 0, scores = "basic" } = options;
  if (mode !== "strict" && mode !== "loose")
    throw new RangeError(`mode: expected "strict" or "loose", got ${JSON.stringify(mode)}`);
  if (scores !== "basic" && scores !== "full")
    throw new RangeError(`scores: expected "basic" or "full", got ${JSON.stringify(scores)}`);
  if (!(typeof threshold === "number" && threshold >= 0 && threshold <= 1)) {
    throw new RangeError(`threshold: expected a number from 0 to 1, got ${JSON.stringify(threshold)}`);
  }
  if (options.overlap !== undefined && options.window === undefined) {
    throw new RangeError("overlap: expected a window to go with it, got none");
  }
}
