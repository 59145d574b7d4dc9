/**
 * Byte pair encoding: bytes of one piece in, ids out.
 *
 * A piece starts as one symbol a byte. Of all adjacent pairs that have a merge, the one of lowest rank (learned first; the leftmost of equals) is
 * joined into one symbol, and again, until no pair has a merge. Two ways, with the same result:
 * - `mergeByScan` looks at every pair before each merge: O(n^2), and the fastest for the few bytes of a word;
 * - `mergeByHeap` keeps the pairs in a priority queue and the symbols in a linked list: O(n log n), for a megabyte without a space.
 *
 * Ids are merged, never strings: `MergeTable` maps a pair of ids to the rank and the id of its merge.
 */

import { utf8Into } from "./byte-level.ts";

/** (left id, right id) -> rank and merged id: a hash table with open addressing, four integers a slot, so that a look-up touches one cache line. */
export class MergeTable {
  readonly #slots: Int32Array; // left + 1 (0: empty), right, rank, merged id
  readonly #mask: number;

  /** Room for `count` merges, at most half full. */
  constructor(count: number) {
    let capacity = 16;
    while (capacity < 2 * count) capacity *= 2;
    this.#slots = new Int32Array(4 * capacity);
    this.#mask = capacity - 1;
  }

  /** Of a pair that comes twice, the later rank counts, as in the reference. */
  set(left: number, right: number, rank: number, merged: number): void {
    const slots = this.#slots;
    const at = this.#slotOf(left, right);
    slots[at] = left + 1;
    slots[at + 1] = right;
    slots[at + 2] = rank;
    slots[at + 3] = merged;
  }

  /** A handle for `rankAt` and `mergedAt`, or -1 when the pair has no merge. */
  find(left: number, right: number): number {
    const at = this.#slotOf(left, right);
    return this.#slots[at] === 0 ? -1 : at;
  }

  rankAt(handle: number): number {
    return this.#slots[handle + 2]!;
  }

  mergedAt(handle: number): number {
    return this.#slots[handle + 3]!;
  }

  /** Offset of the pair's slot, or of the empty slot where it belongs. */
  #slotOf(left: number, right: number): number {
    const slots = this.#slots;
    // Multipliers: 2^32 divided by the golden ratio (Knuth's multiplicative hashing), and murmur3's second; the high bits are the mixed ones.
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    for (let slot = hash & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = 4 * slot;
      if (slots[at] === 0 || (slots[at] === left + 1 && slots[at + 1] === right)) return at;
    }
  }
}

/** Up to this many symbols the scan is faster. Measured with the Qwen3 merges: 4.9 against 5.7 us a piece at 32, 9.5 against 7.9 at 48. */
const SCAN_LIMIT = 32;

/** Merges `symbols[0, count)` in place and returns how many are left. */
export function mergeSymbols(symbols: Int32Array, count: number, merges: MergeTable): number {
  return count <= SCAN_LIMIT ? mergeByScan(symbols, count, merges) : mergeByHeap(symbols, count, merges);
}

/** The definition, as a loop. O(n^2). */
export function mergeByScan(symbols: Int32Array, count: number, merges: MergeTable): number {
  for (;;) {
    let best = -1;
    let bestRank = Number.POSITIVE_INFINITY;
    let bestHandle = -1;
    for (let i = 0; i + 1 < count; i++) {
      const handle = merges.find(symbols[i]!, symbols[i + 1]!);
      if (handle >= 0 && merges.rankAt(handle) < bestRank) {
        best = i;
        bestRank = merges.rankAt(handle);
        bestHandle = handle;
      }
    }
    if (best < 0) return count;
    symbols[best] = merges.mergedAt(bestHandle);
    symbols.copyWithin(best + 1, best + 2, count);
    count--;
  }
}

/**
 * The same by a priority queue. A symbol stays at the position of its first byte; `next` and `previous` link those that are left. The queue holds
 * rank * count + position (exact: far below 2^53), so its least number is the lowest rank, leftmost first. An entry whose symbols have changed since is recognised
 * when it comes up: the pair now at its position does not have its rank. O(n log n).
 */
export function mergeByHeap(symbols: Int32Array, count: number, merges: MergeTable): number {
  const GONE = -1;
  const next = new Int32Array(count);
  const previous = new Int32Array(count);
  const queue = new MinHeap(2 * count); // count - 1 pairs to begin with, and each merge takes one entry out and puts at most two in
  for (let i = 0; i < count; i++) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  const enqueue = (position: number): void => {
    const handle = merges.find(symbols[position]!, symbols[next[position]!]!);
    if (handle >= 0) queue.push(merges.rankAt(handle) * count + position);
  };
  for (let i = 0; i + 1 < count; i++) enqueue(i);

  while (queue.size > 0) {
    const entry = queue.pop();
    const position = entry % count;
    const right = next[position]!;
    if (symbols[position] === GONE || right === count) continue;
    const handle = merges.find(symbols[position]!, symbols[right]!);
    if (handle < 0 || merges.rankAt(handle) * count + position !== entry) continue;
    symbols[position] = merges.mergedAt(handle);
    symbols[right] = GONE;
    next[position] = next[right]!;
    if (next[position]! < count) {
      previous[next[position]!] = position;
      enqueue(position);
    }
    if (previous[position]! >= 0) enqueue(previous[position]!);
  }

  let kept = 0;
  for (let i = 0; i < count; i = next[i]!) symbols[kept++] = symbols[i]!;
  return kept;
}

/** A binary heap of numbers with a fixed capacity; the least comes out first. */
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
      if (entries[parent]! <= entry) break;
      entries[i] = entries[parent]!;
      i = parent;
    }
    entries[i] = entry;
  }

  pop(): number {
    const entries = this.#entries;
    const least = entries[0]!;
    const last = entries[--this.size]!;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && entries[child + 1]! < entries[child]!) child++;
      if (entries[child]! >= last) break;
      entries[i] = entries[child]!;
      i = child;
    }
    entries[i] = last;
    return least;
  }
}

/** Longest piece that is cached, in UTF-16 units. V8 copies a slice of up to 12; a longer one is a view that would keep its whole text in memory. */
const CACHED_LENGTH = 12;
/** Pieces in the cache before it starts anew: a few MB. Most texts repeat far fewer. */
const CACHED_PIECES = 20_000;

/** Turns pieces into ids: bytes to their symbols, then the merges, with a cache of short pieces. */
export class BytePairEncoder {
  readonly #byteIds: Int32Array;
  readonly #merges: MergeTable;
  readonly #cache = new Map<string, Int32Array>();
  #symbols = new Int32Array(256);

  /** `byteIds[b]` is the id of the entry for byte b alone. */
  constructor(byteIds: Int32Array, merges: MergeTable) {
    this.#byteIds = byteIds;
    this.#merges = merges;
  }

  /** Appends the ids of the piece `text[start, end)`, well-formed, to `ids`. */
  encodeInto(text: string, start: number, end: number, ids: number[]): void {
    const short = end - start <= CACHED_LENGTH;
    const key = short ? text.slice(start, end) : "";
    const cached = short ? this.#cache.get(key) : undefined;
    if (cached !== undefined) {
      for (let i = 0; i < cached.length; i++) ids.push(cached[i]!);
      return;
    }
    if (this.#symbols.length < 3 * (end - start)) this.#symbols = new Int32Array(3 * (end - start));
    const symbols = this.#symbols;
    const byteCount = utf8Into(text, start, end, symbols);
    for (let i = 0; i < byteCount; i++) symbols[i] = this.#byteIds[symbols[i]!]!;
    const count = mergeSymbols(symbols, byteCount, this.#merges);
    for (let i = 0; i < count; i++) ids.push(symbols[i]!);
    if (short) {
      if (this.#cache.size === CACHED_PIECES) this.#cache.clear();
      this.#cache.set(key, symbols.slice(0, count));
    }
  }
}
