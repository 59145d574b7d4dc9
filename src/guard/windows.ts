/**
 * Cuts a text that is too long to be judged at once into windows.
 *
 * In: the text, and how many tokens there is room for. Out: overlapping stretches that together cover the text. Cuts
 * fall where tokens end, so that a window has nearly the same tokens as the whole text, but never inside a character (a
 * token may end inside one).
 */

import { ContextLengthError } from "../model/context-length-error.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { VerdictWindow } from "./verdict.ts";

/** A window with fewer tokens says nothing about the text. */
const MIN_WINDOW = 16;
/**
 * A window alone may have a few more tokens than inside the text: at an edge, a space is split from its word, or a
 * character that NFC would compose stays in parts.
 */
const EDGE_TOKENS = 16;

/** Without a window size from the caller there are at most this many: a text of megabytes is likely an attack. */
const MAX_WINDOWS_UNASKED = 64;

/**
 * Windows of at most `window` tokens, by default as many as there is `room` for. Each begins `overlap` tokens (by
 * default an eighth of a window) before the previous one ends. undefined if one window holds the whole text. Throws
 * RangeError for sizes out of range, and ContextLengthError if the text needs too many windows or the room is too small
 * for one.
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
      `conversation too long: expected room for ${MIN_WINDOW + EDGE_TOKENS} tokens of the message to judge after what precedes it, got ${room}`,
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
  checkCount(tokenizer.leastIds(text.length) / window, "at least "); // before tokenising megabytes
  const { starts, ends } = tokenizer.encodeWithOffsets(text, { literal: true });
  const count = ends.length;
  if (count <= window) return undefined;
  checkCount((count - overlap) / (window - overlap), "");
  // A cut between tokens i - 1 and i is allowed if one character ends there and the next begins.
  const isCut = (i: number): boolean => i === count || ends[i - 1] <= starts[i];
  const windows: { start: number; end: number }[] = [];
  for (let first = 0, before = 0, last = 0; last < count; before = last) {
    last = Math.min(count, first + window);
    while (last > before && !isCut(last)) last--;
    if (last === before) {
      // One character with all its combining marks has more tokens than a window. It is taken whole.
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
