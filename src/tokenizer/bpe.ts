/**
 * Byte pair encoding: the bytes of one piece in, ids out.
 *
 * A piece starts with one symbol per byte. Of all adjacent pairs that have a merge, the one with the lowest rank
 * (learned first; the leftmost among equals) is joined into one symbol. This repeats until no pair has a merge. There
 * are two ways, with the same result:
 * - `mergeByScan` looks for the lowest rank before each merge: O(n^2), and the fastest for the few bytes of a word;
 * - `mergeByHeap` keeps the pairs in a priority queue and the symbols in a linked list: O(n log n), for a megabyte
 *   without a space.
 *
 * Merging works on ids, never on strings: `MergeTable` maps a pair of ids to the rank and the id of its merge.
 */

import { byteOfUnit, utf8Into } from "./byte-level.ts";
import { PieceCache } from "./piece-cache.ts";

/** The rank of a pair that has no merge. It is above every other rank. */
export const NO_MERGE = 0x7fffffff;

/**
 * Random keys of this process. Without them a file could be made whose pairs all meet in one place of the table, and
 * loading it would take a minute instead of 0.2 s. Such a file cannot know the keys.
 */
const [LEFT_KEY, RIGHT_KEY] = crypto.getRandomValues(new Int32Array(2)) as unknown as readonly [number, number];

/**
 * (left id, right id) -> rank -> merged id. The merges are in a list by rank, and a hash table with open addressing
 * holds their ranks. Most look-ups find an empty slot, so the slots are kept small: a table of whole merges took twice
 * as long to fill and a fifth longer to search.
 */
export class MergeTable {
  readonly #slots: Int32Array; // rank + 1; 0 is an empty slot
  readonly #mask: number;
  readonly #merges: Int32Array; // left, right, merged of each rank
  #count = 0;

  /** Room for `count` merges; the slots are at most half full. */
  constructor(count: number) {
    let capacity = 16;
    while (capacity < 2 * count) capacity *= 2;
    this.#slots = new Int32Array(capacity);
    this.#mask = capacity - 1;
    this.#merges = new Int32Array(3 * count);
  }

  /** Adds the merge of the next rank, from 0 on. If a pair occurs twice, the later rank counts, as in the reference. */
  add(left: number, right: number, merged: number): void {
    const at = 3 * this.#count;
    this.#slots[this.#slotOf(left, right)] = ++this.#count;
    this.#merges[at] = left;
    this.#merges[at + 1] = right;
    this.#merges[at + 2] = merged;
  }

  /** The rank of a pair; `NO_MERGE` where it has no merge. */
  rankOf(left: number, right: number): number {
    const rank = this.#slots[this.#slotOf(left, right)] - 1;
    return rank < 0 ? NO_MERGE : rank;
  }

  mergedAt(rank: number): number {
    return this.#merges[3 * rank + 2];
  }

  /** The pair's slot, or the empty slot where it belongs. */
  #slotOf(left: number, right: number): number {
    const slots = this.#slots;
    const merges = this.#merges;
    // Multipliers: 2^32 divided by the golden ratio (Knuth's multiplicative hashing), and murmur3's second. The high
    // bits are the well-mixed ones.
    let hash = Math.imul(left ^ LEFT_KEY, 0x9e3779b1) ^ Math.imul(right ^ RIGHT_KEY, 0x85ebca6b);
    hash ^= hash >>> 15;
    for (let slot = hash & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = 3 * (slots[slot] - 1);
      if (at < 0 || (merges[at] === left && merges[at + 1] === right)) return slot;
    }
  }
}

/**
 * Up to this many symbols the scan is faster. Measured on English with the Qwen3 merges: 2.6 against 5.3 us at 32, 20
 * against 22 at 128, 39 against 37 at 192.
 */
const SCAN_LIMIT = 128;

/** Merges `symbols[0, count)` in place and returns how many are left. */
export function mergeSymbols(symbols: Int32Array, count: number, merges: MergeTable): number {
  return count <= SCAN_LIMIT ? mergeByScan(symbols, count, merges) : mergeByHeap(symbols, count, merges);
}

/** The ranks of the pairs of a short piece. One array serves all pieces, because a merge is never interrupted. */
const shortRanks = new Int32Array(SCAN_LIMIT);

/**
 * The definition as a loop: O(n^2) comparisons, but after a merge only the two pairs that it touches are looked up
 * again.
 */
export function mergeByScan(symbols: Int32Array, count: number, merges: MergeTable): number {
  const ranks = count <= SCAN_LIMIT ? shortRanks : new Int32Array(count); // ranks[i] belongs to symbols i and i + 1
  for (let i = 0; i + 1 < count; i++) ranks[i] = merges.rankOf(symbols[i], symbols[i + 1]);
  while (count > 1) {
    let best = 0;
    for (let i = 1; i + 1 < count; i++) if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] === NO_MERGE) break;
    symbols[best] = merges.mergedAt(ranks[best]);
    count--;
    for (let i = best + 1; i < count; i++) {
      symbols[i] = symbols[i + 1];
      ranks[i - 1] = ranks[i];
    }
    if (best > 0) ranks[best - 1] = merges.rankOf(symbols[best - 1], symbols[best]);
    if (best + 1 < count) ranks[best] = merges.rankOf(symbols[best], symbols[best + 1]);
  }
  return count;
}

/**
 * The same with a priority queue. A symbol stays at the position of its first byte, and `next` and `previous` link the
 * symbols that are left. The queue holds rank * count + position (exact: far below 2^53), so its smallest number is the
 * lowest rank, leftmost first. Entries whose symbols have changed since are recognised when they come up: the pair that
 * is now at their position does not have their rank. O(n log n).
 */
export function mergeByHeap(symbols: Int32Array, count: number, merges: MergeTable): number {
  const GONE = -1;
  const next = new Int32Array(count);
  const previous = new Int32Array(count);
  const queue = new MinHeap(2 * count); // count - 1 pairs at first; each merge takes one out and puts at most two in
  for (let i = 0; i < count; i++) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  const enqueue = (position: number): void => {
    const rank = merges.rankOf(symbols[position], symbols[next[position]]);
    if (rank !== NO_MERGE) queue.push(rank * count + position);
  };
  for (let i = 0; i + 1 < count; i++) enqueue(i);

  while (queue.size > 0) {
    const entry = queue.pop();
    const position = entry % count;
    const right = next[position];
    if (symbols[position] === GONE || right === count) continue;
    const rank = merges.rankOf(symbols[position], symbols[right]);
    if (rank * count + position !== entry) continue;
    symbols[position] = merges.mergedAt(rank);
    symbols[right] = GONE;
    next[position] = next[right];
    if (next[position] < count) {
      previous[next[position]] = position;
      enqueue(position);
    }
    if (previous[position] >= 0) enqueue(previous[position]);
  }

  let kept = 0;
  for (let i = 0; i < count; i = next[i]) symbols[kept++] = symbols[i];
  return kept;
}

/** A binary heap of numbers with a fixed capacity. The smallest comes out first. */
class MinHeap {
  size = 0;
  readonly #entries: Float64Array;

  constructor(capacity: number) {
    this.#entries = new Float64Array(capacity);
  }

  push(entry: number): void {
    const entries = this.#entries;
    let i = this.size++;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (entries[parent] <= entry) break;
      entries[i] = entries[parent];
      i = parent;
    }
    entries[i] = entry;
  }

  pop(): number {
    const entries = this.#entries;
    const least = entries[0];
    const last = entries[--this.size];
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && entries[child + 1] < entries[child]) child++;
      if (entries[child] >= last) break;
      entries[i] = entries[child];
      i = child;
    }
    entries[i] = last;
    return least;
  }
}

/** Turns pieces into ids: bytes become their symbols, then merges join them. Short pieces are cached. */
export class BytePairEncoder {
  readonly #byteIds: Int32Array;
  readonly #merges: MergeTable;
  readonly #cache: PieceCache = new PieceCache();
  #symbols = new Int32Array(256);

  /** `byteIds[b]` is the id of the entry for byte b alone. */
  constructor(byteIds: Int32Array, merges: MergeTable) {
    this.#byteIds = byteIds;
    this.#merges = merges;
  }

  /** Appends to `ids` the ids of the piece `text[start, end)`, which must be well-formed. */
  encodeInto(text: string, start: number, end: number, ids: number[]): void {
    const slot = this.#cache.slotOf(text, start, end);
    if (this.#cache.readInto(slot, text, start, end, ids)) return;
    if (this.#symbols.length < 3 * (end - start)) this.#symbols = new Int32Array(3 * (end - start));
    const symbols = this.#symbols;
    const byteCount = utf8Into(text, start, end, symbols);
    for (let i = 0; i < byteCount; i++) symbols[i] = this.#byteIds[symbols[i]];
    const count = mergeSymbols(symbols, byteCount, this.#merges);
    for (let i = 0; i < count; i++) ids.push(symbols[i]);
    this.#cache.write(slot, text, start, end, symbols, count);
  }

  /**
   * The id of the entry `right` where it stays as it is after the entry `left` with id `leftId`, so that the two are
   * the ids of their joined bytes; -1 where it does not. Both entries are in the byte alphabet. An empty `left` asks
   * whether `right` stays as it is at the start of a piece.
   */
  neighbour(left: string, leftId: number, right: string): number {
    const joined = left + right;
    if (this.#symbols.length < joined.length) this.#symbols = new Int32Array(joined.length);
    const symbols = this.#symbols;
    for (let i = 0; i < joined.length; i++) symbols[i] = this.#byteIds[byteOfUnit(joined.charCodeAt(i))];
    const count = mergeSymbols(symbols, joined.length, this.#merges);
    if (left === "") return count === 1 ? symbols[0] : -1;
    return count === 2 && symbols[0] === leftId ? symbols[1] : -1;
  }
}
