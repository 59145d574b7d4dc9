/**
 * The key/value cache of the fast engine.
 *
 * In: keys and values as the forward pass has them. Out: attention over them. Each layer lies whole in one of the
 * engine's memories.
 */

import type { CacheShape, FloatBuffer, KvCache } from "../engine.ts";
import { MemoryError } from "../memory-error.ts";
import { attentionScale } from "../reference.ts";
import { ATTENTION_ROWS, attentionFewScratchBytes, attentionManyScratchBytes } from "./attention-jobs.ts";
import { roundUp } from "./heap.ts";
import { FEW_ROWS } from "./linear-jobs.ts";
import type { EngineMemory, Operand } from "./memory.ts";
import { FLOAT_BYTES, PANEL } from "./panel-layout.ts";
import { MIN_ITEM_VALUES } from "./row-jobs.ts";
import type { ThreadPool } from "./threads.ts";
import { addressOf } from "./wasm-buffer.ts";
import { ACTIVATION_SHARE } from "./wasm-matrix.ts";

/** How many positions a long cache grows by. */
const GROWTH_POSITIONS = 4096;
/** Where one layer's keys and values lie, and for how many positions there is room. */
interface CachedLayer {
  readonly memory: EngineMemory;
  readonly keys: number;
  readonly values: number;
  readonly capacity: number;
}

interface Pieces {
  readonly count: number;
  readonly positionBytes: number;
}

/**
 * Keys and values of each layer lie as storeKeysAndValues puts them. A layer lies whole in one memory, the first that
 * has room; where that is not the activations' own, its rows are copied there and back, a small cost next to the
 * attention itself.
 */
export class WasmCache implements KvCache {
  /** The first is the activations'. */
  readonly #memories: readonly EngineMemory[];
  readonly #pool: ThreadPool;
  readonly #checkRoom: (bytes: number) => void;
  readonly #shape: CacheShape;
  readonly #layers: CachedLayer[];

  constructor(
    memories: readonly EngineMemory[],
    pool: ThreadPool,
    checkRoom: (bytes: number) => void,
    shape: CacheShape,
  ) {
    this.#memories = memories;
    this.#pool = pool;
    this.#checkRoom = checkRoom;
    this.#shape = shape;
    this.#layers = Array.from({ length: shape.numLayers }, () => ({
      memory: memories[0],
      keys: 0,
      values: 0,
      capacity: 0,
    }));
  }

  /**
   * How a layer's keys and its values lie: in how many pieces, and how many bytes a position takes in each. In a piece,
   * position follows position.
   */
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
    // Doubling at first, so that growing costs little; in steps later, so that little stays unused.
    const wanted = Math.max(positions, Math.min(2 * least, least + GROWTH_POSITIONS));
    const capacity = roundUp(Math.min(this.#shape.maxPositions, wanted), PANEL);
    const more = this.#layers.reduce((sum, layer) => sum + Math.max(0, capacity - layer.capacity), 0);
    this.#checkRoom(more * this.#pieces.reduce((sum, { count, positionBytes }) => sum + count * positionBytes, 0));
    // One layer after the other: each gives back its old place before the next one asks.
    for (let i = 0; i < this.#layers.length; i++)
      if (this.#layers[i].capacity < capacity) this.#layers[i] = this.#grow(this.#layers[i], capacity);
  }

  store(layer: number, start: number, keys: FloatBuffer, values: FloatBuffer): void {
    const { numKvHeads, headDim } = this.#shape;
    const { memory, keys: cachedKeys, values: cachedValues, capacity } = this.#layers[layer];
    const [rows] = keys.shape;
    // Each value of a key goes to a cache line of its own, which must come from memory first.
    const share = Math.min(numKvHeads, Math.ceil(MIN_ITEM_VALUES / (rows * headDim * PANEL)));
    const sizes = { cachedKeys, cachedValues, numKvHeads, headDim, capacity, start, rows, share };
    const borrowed = memory.borrow(this.#memories[0], [operand(keys, "read"), operand(values, "read")]);
    try {
      const [keys, values] = borrowed.addresses;
      this.#pool.run(memory, "storeKeysAndValues", { keys, values, ...sizes }, Math.ceil(numKvHeads / share));
    } finally {
      borrowed.giveBack();
    }
  }

  attentionInto(out: FloatBuffer, q: FloatBuffer, layer: number, start: number): void {
    const { numHeads, numKvHeads, headDim } = this.#shape;
    const { memory, keys, values, capacity } = this.#layers[layer];
    const [rows] = q.shape;
    const positions = start + rows;
    const scale = attentionScale(headDim);
    const sizes = { keys, values, numHeads, numKvHeads, headDim, capacity, start, rows, scale };
    const borrowed = memory.borrow(this.#memories[0], [operand(out, "write"), operand(q, "read")]);
    try {
      const [out, q] = borrowed.addresses;
      const args = { out, q, ...sizes };
      if (rows <= FEW_ROWS) {
        const scratchBytes = attentionFewScratchBytes(positions, headDim, (rows * numHeads) / numKvHeads);
        this.#pool.run(memory, "attentionFew", args, numKvHeads, scratchBytes);
      } else {
        const items = numHeads * Math.ceil(rows / ATTENTION_ROWS);
        this.#pool.run(memory, "attentionMany", args, items, attentionManyScratchBytes(positions, headDim));
      }
    } finally {
      borrowed.giveBack();
    }
  }

  free(): void {
    for (const { memory, keys, values, capacity } of this.#layers) {
      if (capacity > 0) for (const address of [keys, values]) memory.heap.free(address);
    }
    this.#layers.length = 0;
  }

  /** Moves a layer to a place for `capacity` positions, in the first memory that has room, and frees its old one. */
  #grow(old: CachedLayer, capacity: number): CachedLayer {
    const sizes = this.#pieces.map(({ count, positionBytes }) => count * capacity * positionBytes);
    const memory = this.#memories.find(({ heap }, i) =>
      heap.hasRoom(sizes[0] + sizes[1] + (i === 0 ? heap.limit * ACTIVATION_SHARE : 0)),
    );
    if (!memory) {
      throw new MemoryError(
        `memory: no room for ${capacity} positions of key/value cache: all ${this.#memories.length} memories are full`,
      );
    }
    const { heap } = memory;
    const grown = heap.allocateAll(sizes);
    [old.keys, old.values].forEach((from, which) => {
      const { count, positionBytes } = this.#pieces[which];
      const kept = old.capacity * positionBytes;
      for (let piece = 0; piece < count; piece++) {
        const target = heap.bytes(grown[which] + piece * capacity * positionBytes, capacity * positionBytes);
        if (kept > 0) target.set(old.memory.heap.bytes(from + piece * kept, kept));
        target.fill(0, kept); // what was here before may be NaN, which a weight of 0 would not undo
      }
      if (old.capacity > 0) old.memory.heap.free(from);
    });
    return { memory, keys: grown[0], values: grown[1], capacity };
  }
}

function operand(buffer: FloatBuffer, use: Operand["use"]): Operand {
  return { address: addressOf(buffer), length: buffer.length, use };
}
