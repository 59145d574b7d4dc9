/**
 * The ids of a piece whose end has not come yet: how many of its bytes have ids that nothing later can change.
 *
 * BPE joins the pair of lowest rank first, wherever it is, so a later byte may change ids far before it. Two facts say
 * when it cannot:
 *
 * 1. A list of ids is the encoding of its joined bytes exactly when every two neighbours are the encoding of theirs.
 *    The first merge across a border between two ids would also happen between these two alone, because merges
 *    elsewhere neither help nor hinder it. So the ids of the first n bytes are those of the first n - |t| bytes,
 *    followed by t, for the one entry t that ends there and is compatible with its left neighbour. Each n has such a
 *    last entry, and with it a parent: this makes a tree.
 * 2. The ids of the whole piece are a path in the tree. It leaves the known bytes at their end, or at a place from
 *    which the remaining bytes begin some entry. There are few such places. What their paths have in common is certain.
 *
 * Fact 1 is the idea of the "bpe" crate in GitHub's rust-gems (2024), which encodes with it.
 *
 * Measured on the Qwen3 vocabulary, in English words without spaces, Chinese, Japanese and Thai: three to seven
 * characters wait on average, and never more than five whole ids. In a run of one repeated letter, all of it may wait.
 */

import type { BytePairEncoder } from "./bpe.ts";
import { BYTE_CHARACTERS } from "./byte-level.ts";

/**
 * A shorter piece is left alone. Words are shorter, so most texts never need the sorted entries (60 to 200 ms to make).
 */
const LEAST_BYTES = 24;

/**
 * Paths that separate more bytes ago than this are not followed. In a run of one letter, each byte would otherwise cost
 * as much as there are bytes before it.
 */
const MOST_BYTES_BACK = 512;

const UNIT_OF_BYTE: Uint16Array = Uint16Array.from(BYTE_CHARACTERS, character => character.charCodeAt(0));

/** The sorted entries [low, high) begin with the bytes from `start` to the last one. */
interface Beginning {
  readonly start: number;
  low: number;
  high: number;
}

export class OpenPiece {
  readonly #encoder: BytePairEncoder;
  readonly #sortedEntries: () => readonly string[];
  /** The bytes from `#base` on. All positions count from the start of the piece. */
  #bytes: number[] = [];
  #base = 0;
  /** The last entry of the first `#base + i` bytes, and its id. */
  #lastEntries: string[] = [""];
  #lastIds: number[] = [-1];
  /** The places, in order, where entries begin that may go on after the bytes seen so far. */
  #beginnings: Beginning[] = [];

  /** `sortedEntries` returns the vocabulary in the byte alphabet, sorted by UTF-16 units. */
  constructor(encoder: BytePairEncoder, sortedEntries: () => readonly string[]) {
    this.#encoder = encoder;
    this.#sortedEntries = sortedEntries;
  }

  /**
   * Takes the next bytes, `bytes[0, count)`, which must be whole characters. Returns how many bytes are certain and not
   * cut off yet, in whole characters too.
   */
  push(bytes: ArrayLike<number>, count: number): number {
    for (let i = 0; i < count; i++) this.#bytes.push(bytes[i]);
    const end = this.#base + this.#bytes.length;
    if (end < LEAST_BYTES) return 0;
    const entries = this.#sortedEntries();
    for (let at = this.#base + this.#lastEntries.length - 1; at < end; at++) this.#step(entries, at);
    return this.#commonAncestor(entries, end) - this.#base;
  }

  /** Forgets the `count` bytes that `push` found certain. */
  cut(count: number): void {
    this.#bytes = this.#bytes.slice(count);
    this.#lastEntries = this.#lastEntries.slice(count);
    this.#lastIds = this.#lastIds.slice(count);
    this.#base += count;
  }

  /**
   * Takes the byte at `at`: follows the entries that began before it, and finds the last entry of the bytes up to and
   * including it.
   */
  #step(entries: readonly string[], at: number): void {
    const unit = UNIT_OF_BYTE[this.#bytes[at - this.#base]];
    this.#beginnings.push({ start: at, low: 0, high: entries.length });
    this.#beginnings = this.#beginnings.filter(beginning => {
      const { start } = beginning;
      beginning.high = lowerBound(entries, beginning, at - start, unit + 1);
      beginning.low = lowerBound(entries, beginning, at - start, unit);
      return beginning.low < beginning.high;
    });
    for (const { start, low } of this.#beginnings) {
      const entry = entries[low];
      if (entry.length !== at + 1 - start) continue;
      const before = start - this.#base;
      const id = this.#encoder.neighbour(this.#lastEntries[before], this.#lastIds[before], entry);
      if (id < 0) continue;
      this.#lastEntries.push(entry);
      this.#lastIds.push(id);
      return;
    }
  }

  /**
   * The farthest place between two characters that lies on every path that the piece may still take; the base where
   * there is none near.
   */
  #commonAncestor(entries: readonly string[], end: number): number {
    const parent = (place: number): number => place - this.#lastEntries[place - this.#base].length;
    const least = Math.max(this.#base, end - MOST_BYTES_BACK);
    let common = end;
    for (const { start, low, high } of this.#beginnings) {
      if (high - low === 1 && entries[low].length === end - start) continue; // complete, and no entry is longer
      let other = start;
      while (common !== other && common >= least && other >= least) {
        if (common > other) common = parent(common);
        else other = parent(other);
      }
      if (common !== other) return this.#base;
    }
    while (common >= least && (this.#bytes[common - this.#base] & 0xc0) === 0x80) common = parent(common);
    return common >= least ? common : this.#base;
  }
}

/**
 * The first of the entries [low, high) that has `unit` or a later unit at `depth`. For an entry that ends before it,
 * charCodeAt returns NaN, and the entry is sorted before the others.
 */
function lowerBound(entries: readonly string[], { low, high }: Beginning, depth: number, unit: number): number {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle].charCodeAt(depth) >= unit) high = middle;
    else low = middle + 1;
  }
  return low;
}
