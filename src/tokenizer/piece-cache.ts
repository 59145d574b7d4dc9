/**
 * The ids of short pieces that occurred before, because words repeat.
 *
 * A piece has one slot, given by its hash, and replaces the piece that was there. Keys are compared with the text unit
 * by unit. A `Map` would need a string to be made and hashed for each piece, and encoding took 1.3 times as long with
 * one. The table starts small. Each time as many pieces have been written as it has slots, it starts again empty and
 * twice as large, up to 2.5 MB.
 */

const FIRST_SLOTS = 2 ** 10;
const MOST_SLOTS = 2 ** 15;
/** The length of the longest piece that is kept, in UTF-16 units. */
const MAX_UNITS = 19;
/** The most ids that a kept piece may have. */
const MAX_IDS = 8;
const KEY_STRIDE = MAX_UNITS + 1;
const IDS_STRIDE = MAX_IDS + 1;

export class PieceCache {
  #slots = FIRST_SLOTS;
  #keys = new Uint16Array(FIRST_SLOTS * KEY_STRIDE); // length (0: empty slot), units
  #ids = new Int32Array(FIRST_SLOTS * IDS_STRIDE); // count, ids
  #writes = 0;

  /** The slot of a piece; -1 for one that is too long to be kept. */
  slotOf(text: string, start: number, end: number): number {
    if (end - start > MAX_UNITS) return -1;
    let hash = 0x811c9dc5; // FNV-1a, by units instead of bytes
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    return (hash ^ (hash >>> 15)) & (this.#slots - 1);
  }

  /** Appends the ids of the piece `text[start, end)` and returns true if its slot holds it. */
  readInto(slot: number, text: string, start: number, end: number, ids: number[]): boolean {
    if (slot < 0) return false;
    const keys = this.#keys;
    let key = slot * KEY_STRIDE;
    if (keys[key] !== end - start) return false;
    for (let i = start; i < end; i++) if (keys[++key] !== text.charCodeAt(i)) return false;
    const first = slot * IDS_STRIDE + 1;
    const count = this.#ids[first - 1];
    for (let i = first; i < first + count; i++) ids.push(this.#ids[i]);
    return true;
  }

  /** Keeps the ids `symbols[0, count)` of the piece, if it is short enough. */
  write(slot: number, text: string, start: number, end: number, symbols: Int32Array, count: number): void {
    if (slot < 0 || count > MAX_IDS) return;
    let key = slot * KEY_STRIDE;
    this.#keys[key] = end - start;
    for (let i = start; i < end; i++) this.#keys[++key] = text.charCodeAt(i);
    const first = slot * IDS_STRIDE + 1;
    this.#ids[first - 1] = count;
    for (let i = 0; i < count; i++) this.#ids[first + i] = symbols[i];
    if (++this.#writes >= this.#slots && this.#slots < MOST_SLOTS) this.#grow();
  }

  #grow(): void {
    this.#slots *= 2;
    this.#keys = new Uint16Array(this.#slots * KEY_STRIDE);
    this.#ids = new Int32Array(this.#slots * IDS_STRIDE);
    this.#writes = 0;
  }
}
