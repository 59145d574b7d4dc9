/**
 * Says where in a text its ids come from.
 *
 * In: ids, the normalized text that they spell, and what normalization changed. Out: for each id a range of UTF-16
 * offsets in the original text.
 *
 * - An id stands for bytes, so it may begin or end inside a character. Its range then covers the whole character. So
 *   all ids of one emoji may have the same range, as in the reference.
 * - Where NFC changed a stretch (one stable character and the unstable ones after it, see unicode.ts), it is not
 *   defined which character became which, so an id from the stretch covers all of it. Here the reference differs: it
 *   gives a composed character the range of the first character that went into it.
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
   * Gives ranges to the ids that have none yet, which are those of `normalized`. `byteLengthOf` returns how many bytes
   * an id stands for, `changes` lists what NFC changed, and `origin` is where the stretch starts in the whole text.
   * O(length + ids).
   */
  locate(
    normalized: string,
    changes: readonly NfcChange[],
    origin: number,
    byteLengthOf: (id: number) => number,
  ): void {
    let at = 0; // the character that the next byte belongs to
    let taken = 0; // how many of its bytes earlier ids took
    let change = 0; // the first change that does not end before `at`
    // By how much a character's offset in the text exceeds its offset in `normalized`, after the first `count` changes.
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
      let after = change;
      while (after < changes.length && changes[after].normalizedEnd < end) after++;
      const last = changes[after];
      this.#ends.push(origin + (last !== undefined && last.normalizedStart < end ? last.end : end + shift(after)));
    }
  }

  finish(): Encoding {
    return { ids: Int32Array.from(this.ids), starts: Int32Array.from(this.#starts), ends: Int32Array.from(this.#ends) };
  }
}

function utf8Length(codePoint: number): number {
  return codePoint < 0x80 ? 1 : codePoint < 0x800 ? 2 : codePoint < 0x10000 ? 3 : 4;
}
