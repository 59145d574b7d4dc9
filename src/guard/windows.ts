/**
 * A text that is too long to be judged at once, in windows.
 *
 * In: the text, and how many tokens there is room for. Out: overlapping stretches that together cover it. Cuts fall
 * where tokens end, so that a window's tokens are nearly those of the whole text, and never inside a character (a token
 * may end within one).
 */

import { ContextLengthError } from "../model/context-length-error.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { VerdictWindow } from "./verdict.ts";

/** Below this a window says nothing of the text. */
const MIN_WINDOW = 16;
/**
 * At its edges a window may be cut into a few tokens more than within the text: a space that was part of a word, a
 * character put together by NFC.
 */
const EDGE_TOKENS = 16;

/** Nobody who did not ask for windows waits for more than this many: a text of megabytes is rather an attack. */
const MAX_WINDOWS_UNASKED = 64;

/**
 * Windows of at most `window` tokens, by default as many as there is `room` for, each of which begins `overlap` tokens
 * (an eighth by default) before the end of the one before it. undefined where one window holds all. Throws RangeError
 * for sizes that cannot be.
 */
export function cutIntoWindows(
  text: string,
  tokenizer: Tokenizer,
  room: number,
  options: { readonly window?: number; readonly overlap?: number },
): VerdictWindow[] | undefined {
  const most = room - EDGE_TOKENS;
  const { window = most } = options;
  if (options.window === undefined && most < MIN_WINDOW) {
    throw new ContextLengthError(
      `conversation too long: expected room for ${MIN_WINDOW + EDGE_TOKENS} tokens of the message to judge behind what precedes it, got ${room}`,
    );
  }
  if (!Number.isInteger(window) || window < MIN_WINDOW || window > most) {
    throw new RangeError(
      `window: expected an integer from ${MIN_WINDOW} to ${most}, the room in the context, got ${window}`,
    );
  }
  const { overlap = window >> 3 } = options;
  if (!Number.isInteger(overlap) || overlap < 0 || overlap > window / 2) {
    throw new RangeError(`overlap: expected an integer from 0 to half of the window, ${window >> 1}, got ${overlap}`);
  }

  const limit = options.window === undefined ? MAX_WINDOWS_UNASKED : Infinity;
  const checkCount = (atLeast: number, qualifier: string): void => {
    if (atLeast <= limit) return;
    throw new ContextLengthError(
      `conversation too long: expected at most ${limit} windows of ${window} tokens, got ${qualifier}${Math.ceil(atLeast)} (a window of your own has no such bound)`,
    );
  };
  checkCount(tokenizer.leastIds(text.length) / window, "at least "); // before megabytes are tokenised
  const { starts, ends } = tokenizer.encodeWithOffsets(text, { literal: true });
  const count = ends.length;
  if (count <= window) return undefined;
  checkCount((count - overlap) / (window - overlap), "");
  // Between token i - 1 and i there may be a cut where one character ends and the next begins.
  const isCut = (i: number): boolean => i === count || ends[i - 1] <= starts[i];
  const windows: { start: number; end: number }[] = [];
  for (let first = 0, before = 0, last = 0; last < count; before = last) {
    last = Math.min(count, first + window);
    while (last > before && !isCut(last)) last--;
    if (last === before) {
      // One character (with all its combining marks) of more tokens than a window: it is taken whole.
      last = first + window;
      while (!isCut(last)) last++;
      if (last - first > most)
        throw new ContextLengthError(
          `conversation too long: expected characters of at most ${most} tokens, got a longer one`,
        );
    }
    windows.push({ start: starts[first], end: ends[last - 1] });
    first = Math.max(first + 1, last - overlap);
    while (first < last && !isCut(first)) first++;
  }
  return windows.map(({ start, end }, index) => ({ index, count: windows.length, start, end }));
}
