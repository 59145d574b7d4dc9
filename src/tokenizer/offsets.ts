/**
 * Where in a text the ids of it come from.
 *
 * In: ids, the normalized text that they spell, and what normalization changed. Out: for each id a range of UTF-16
 * offsets in the text as it was.
 *
 * - An id stands for bytes, and may begin or end inside a character: its range covers the whole character. So the ids
 *   of one emoji may all have the same range, as in the reference.
 * - Where NFC changed a stretch (one stable character and the unstable ones behind it, see unicode.ts), there is no
 *   saying which character became which: an id that comes from the stretch covers all of it. Here the reference
 *   differs: it gives a composed character the range of the first one that went in.
 *
 * Ranges never go back, and together they cover the text without a gap.
 */

import type { NfcChange } from "./unicode.ts";

/** Ids of a text. Id i comes from `text.slice(starts[i], ends[i])`, in UTF-16 offsets. */
export interface Encoding {
  readonly ids: Int32Array;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
}

/** An encoding that grows. */
export class EncodingBuilder {
  readonly ids: number[] = [];
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  /** Appends one id with its range. */
  push(id: number, start: number, end: number): void {
    this.ids.push(id);
    this.#starts.push(start);
    this.#ends.push(end);
  }

  /**
   * Gives ranges to the ids that have none yet: those that `normalized` was encoded to. `byteLengthOf` says how many
   * bytes an id stands for, `changes` what NFC changed, and `origin` where in the whole text the stretch starts.
   * O(length + ids).
   */
  locate(
    normalized: string,
    changes: readonly NfcChange[],
    origin: number,
    byteLengthOf: (id: number) => number,
  ): void {
    let at = 0; // the character that the next byte is of
    let taken = 0; // bytes of it that earlier ids took
    let change = 0; // the first that does not end before `at`
    // How far behind its place in `normalized` a character is in the text, when it stands behind the first `count`
    // changes.
    const shift = (count: number): number =>
      count === 0 ? 0 : changes[count - 1].end - changes[count - 1].normalizedEnd;
    for (let i = this.#starts.length; i < this.ids.length; i++) {
      const start = at;
      let left = taken + byteLengthOf(this.ids[i]);
      let width = 0;
      while (left > 0) {
        const c = normalized.codePointAt(at)!;
        const bytes = utf8Length(c);
        width = c > 0xffff ? 2 : 1;
        if (left < bytes) break;
        left -= bytes;
        at += width;
      }
      taken = left;
      const end = left > 0 ? at + width : at;

      while (change < changes.length && changes[change].normalizedEnd <= start) change++;
      const first = changes[change];
      this.#starts.push(
        origin + (first !== undefined && first.normalizedStart <= start ? first.start : start + shift(change)),
      );
      let behind = change;
      while (behind < changes.length && changes[behind].normalizedEnd < end) behind++;
      const last = changes[behind];
      this.#ends.push(origin + (last !== undefined && last.normalizedStart < end ? last.end : end + shift(behind)));
    }
  }

  finish(): Encoding {
    return { ids: Int32Array.from(this.ids), starts: Int32Array.from(this.#starts), ends: Int32Array.from(this.#ends) };
  }
}

function utf8Length(codePoint: number): number {
  return codePoint < 0x80 ? 1 : codePoint < 0x800 ? 2 : codePoint < 0x10000 ? 3 : 4;
}
