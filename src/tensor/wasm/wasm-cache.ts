/**
 * The key/value cache of the fast engine.
 *
 * In: keys and values as the forward pass has them. Out: attention over them. Each layer lies whole in one of the engine's memories.
 */

import type { CacheShape, FloatBuffer, KvCache } from "../engine.ts";
import { MemoryError } from "../memory-error.ts";
import * as reference from "../reference.ts";
import { ATTENTION_ROWS, attentionFewScratchBytes, attentionScratchBytes } from "./attention-jobs.ts";
import { type Heap, roundUp } from "./heap.ts";
import { FLOAT_BYTES } from "./job-context.ts";
import { FEW_ROWS, type JobName, MIN_ITEM_VALUES } from "./jobs.ts";
import { PANEL } from "./linear-kernels.ts";
import { addressOf } from "./wasm-buffer.ts";
import { ACTIVATION_SHARE } from "./wasm-matrix.ts";

/** By how many positions a long cache grows. */
const GROWTH_POSITIONS = 4096;
/** Runs a job in one of the memories. */
export type Run = (name: JobName, args: readonly number[], items: number, scratchBytes: number, memory: number) => void;

/** One layer's keys and values: in which memory, where, and for how many positions. */
interface CachedLayer {
  readonly memory: number;
  readonly keys: number;
  readonly values: number;
  readonly capacity: number;
}

interface Pieces {
  readonly count: number;
  readonly positionBytes: number;
}

/**
 * Per layer and key/value head: keys in panels of 16 positions, values in panels of 16 of a head's values (see storeKeysAndValues). A layer lies whole in one
 * memory, the first that has room; where that is not the activations' own, its rows are copied there and back, which is little beside the
 * attention itself.
 */
export class WasmCache implements KvCache {
  readonly #heaps: readonly Heap[];
  readonly #run: Run;
  readonly #checkRoom: (bytes: number) => void;
  readonly #shape: CacheShape;
  readonly #layers: CachedLayer[];

  constructor(heaps: readonly Heap[], run: Run, checkRoom: (bytes: number) => void, shape: CacheShape) {
    this.#heaps = heaps;
    this.#run = run;
    this.#checkRoom = checkRoom;
    this.#shape = shape;
    this.#layers = Array.from({ length: shape.numLayers }, () => ({ memory: 0, keys: 0, values: 0, capacity: 0 }));
  }

  /** A layer's keys and its values: of how many pieces they are, each position after position, and the bytes of a position in a piece. */
  get #pieces(): readonly [keys: Pieces, values: Pieces] {
    const { headDim, numKvHeads } = this.#shape;
    return [
      { count: numKvHeads, positionBytes: headDim * FLOAT_BYTES },
      { count: numKvHeads * Math.ceil(headDim / PANEL), positionBytes: PANEL * FLOAT_BYTES },
    ];
  }

  reserve(positions: number): void {
    const least = Math.min(...this.#layers.map(layer => layer.capacity));
    if (positions <= least) return;
    // Doubling at first, so that growing costs little; in steps later, so that what is not used is little.
    const wanted = Math.max(positions, Math.min(2 * least, least + GROWTH_POSITIONS));
    const capacity = roundUp(Math.min(this.#shape.maxPositions, wanted), PANEL);
    const more = this.#layers.reduce((sum, layer) => sum + Math.max(0, capacity - layer.capacity), 0);
    this.#checkRoom(more * this.#pieces.reduce((sum, { count, positionBytes }) => sum + count * positionBytes, 0));
    // One layer after the other: each gives back its old place before the next one asks.
    for (let i = 0; i < this.#layers.length; i++)
      if (this.#layers[i].capacity < capacity) this.#layers[i] = this.#grow(this.#layers[i], capacity);
  }

  store(layer: number, start: number, rows: number, keys: FloatBuffer, values: FloatBuffer): void {
    const { numKvHeads, headDim } = this.#shape;
    const cached = this.#layers[layer];
    const floats = rows * numKvHeads * headDim;
    this.#inMemoryOf(
      cached,
      [
        [keys, floats, "in"],
        [values, floats, "in"],
      ],
      ([keyAddress, valueAddress]) => {
        // Each value of a key goes to a cache line of its own, which must come from memory first.
        const share = Math.min(numKvHeads, Math.ceil(MIN_ITEM_VALUES / (rows * headDim * PANEL)));
        const args = [keyAddress, valueAddress, cached.keys, cached.values, numKvHeads, headDim, cached.capacity, start, rows, share];
        this.#run("storeKeysAndValues", args, Math.ceil(numKvHeads / share), 0, cached.memory);
      },
    );
  }

  attentionInto(out: FloatBuffer, q: FloatBuffer, layer: number, start: number, rows: number): void {
    const { numHeads, numKvHeads, headDim } = this.#shape;
    const cached = this.#layers[layer];
    const floats = rows * numHeads * headDim;
    this.#inMemoryOf(
      cached,
      [
        [out, floats, "out"],
        [q, floats, "in"],
      ],
      ([outAddress, qAddress]) => {
        const args = [
          outAddress,
          qAddress,
          cached.keys,
          cached.values,
          numHeads,
          numKvHeads,
          headDim,
          cached.capacity,
          start,
          rows,
          reference.attentionScale(headDim),
        ];
        const positions = start + rows;
        if (rows <= FEW_ROWS) {
          const scratch = attentionFewScratchBytes(positions, headDim, (rows * numHeads) / numKvHeads);
          this.#run("attentionFew", args, numKvHeads, scratch, cached.memory);
        } else {
          const items = numHeads * Math.ceil(rows / ATTENTION_ROWS);
          this.#run("attentionMany", args, items, attentionScratchBytes(positions, headDim), cached.memory);
        }
      },
    );
  }

  free(): void {
    for (const { memory, keys, values, capacity } of this.#layers) {
      if (capacity > 0) for (const address of [keys, values]) this.#heaps[memory].free(address);
    }
    this.#layers.length = 0;
  }

  /** Gives `work` addresses of the buffers in the layer's memory: their own, or those of copies made for the time. */
  #inMemoryOf(
    { memory }: CachedLayer,
    buffers: readonly (readonly [buffer: FloatBuffer, floats: number, direction: "in" | "out"])[],
    work: (addresses: readonly number[]) => void,
  ): void {
    if (memory === 0) return work(buffers.map(([buffer]) => addressOf(buffer)));
    const heap = this.#heaps[memory];
    const copies = heap.allocateAll(buffers.map(([, floats]) => floats * FLOAT_BYTES));
    try {
      buffers.forEach(([buffer, floats, direction], i) => {
        if (direction === "in") heap.floats(copies[i], floats).set(buffer.data.subarray(0, floats));
      });
      work(copies);
      buffers.forEach(([buffer, floats, direction], i) => {
        if (direction === "out") buffer.data.set(heap.floats(copies[i], floats));
      });
    } finally {
      for (const address of copies) heap.free(address);
    }
  }

  /** The layer with room for `capacity` positions, in the first memory that has it, what it held copied and its old place given back. */
  #grow(old: CachedLayer, capacity: number): CachedLayer {
    const sizes = this.#pieces.map(({ count, positionBytes }) => count * capacity * positionBytes);
    const memory = this.#heaps.findIndex((heap, i) => heap.hasRoom(sizes[0] + sizes[1] + (i === 0 ? heap.limit * ACTIVATION_SHARE : 0)));
    if (memory < 0) {
      throw new MemoryError(
        `memory: expected room for ${capacity} positions of key/value cache, got ${this.#heaps.length} memories that are full`,
      );
    }
    const heap = this.#heaps[memory];
    const grown = heap.allocateAll(sizes);
    [old.keys, old.values].forEach((from, which) => {
      const { count, positionBytes } = this.#pieces[which];
      const kept = old.capacity * positionBytes;
      for (let piece = 0; piece < count; piece++) {
        const target = heap.bytes(grown[which] + piece * capacity * positionBytes, capacity * positionBytes);
        if (kept > 0) target.set(this.#heaps[old.memory].bytes(from + piece * kept, kept));
        target.fill(0, kept); // memory that was another's may hold NaN, which a weight of 0 would not undo
      }
      if (old.capacity > 0) this.#heaps[old.memory].free(from);
    });
    return { memory, keys: grown[0], values: grown[1], capacity };
  }
}
