/** What a caller may ask of a verdict, and the check that refuses what no input could be judged with. */

import { checkOptions } from "../tensor/options.ts";
import type { Mode } from "./verdict.ts";

export interface ModerateOptions {
  /** strict by default. */
  readonly mode?: Mode;
  /** Flag by `score` instead of by mode: from this value (0 to 1) on. */
  readonly threshold?: number;
  /** "full": also `unsafeCategoryScores`, at the price of one small pass more. "basic" by default. */
  readonly scores?: "basic" | "full";
  /**
   * Judge the last message in windows of at most so many tokens; the worst verdict counts. By default a message is cut
   * only where it does not fit the context.
   */
  readonly window?: number;
  /** By how many tokens windows overlap, so that nothing is missed at a cut: an eighth of a window by default. */
  readonly overlap?: number;
  /** 128 by default, as the model card has it. */
  readonly maxNewTokens?: number;
  readonly signal?: AbortSignal;
  /**
   * Awaited every 20 ms or so in place of a turn of the event loop: who judges several inputs at once decides there
   * which goes on.
   */
  readonly turn?: () => Promise<void>;
}

export interface GenStreamOptions
  extends Pick<ModerateOptions, "mode" | "threshold" | "maxNewTokens" | "signal" | "turn"> {
  /** The answer so far is judged each time so many tokens more are there; 32 by default. */
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
