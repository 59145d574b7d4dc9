/**
 * The key/value cache of one sequence: what attention needs of every position so far.
 *
 * In: how many positions there must be room for. Out: per layer the keys (after norm and rotation) and values, [capacity, numKvHeads *
 * headDim]. Grows with use, doubling, so that a short prompt costs little memory whatever the context allows.
 */

import type { Qwen3Config } from "./config.ts";

/** One layer's rows; which of them are in use, the session knows. */
export interface LayerCache {
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

export class KvCache {
  #layers: readonly LayerCache[];
  #capacity = 0;
  readonly #rowSize: number;
  readonly #maxPositions: number;

  constructor(config: Qwen3Config) {
    const empty = new Float32Array(0);
    this.#layers = Array.from({ length: config.numHiddenLayers }, () => ({ keys: empty, values: empty }));
    this.#rowSize = config.numKvHeads * config.headDim;
    this.#maxPositions = config.maxPositionEmbeddings;
  }

  /** In the order of the model's layers. The arrays are others after `reserve` has grown them. */
  get layers(): readonly LayerCache[] {
    return this.#layers;
  }

  /** Makes room for `positions` rows (at most the context's), keeping what is there. */
  reserve(positions: number): void {
    if (positions <= this.#capacity) return;
    const capacity = Math.min(this.#maxPositions, Math.max(positions, 2 * this.#capacity));
    const grow = (old: Float32Array): Float32Array => {
      const grown = new Float32Array(capacity * this.#rowSize);
      grown.set(old);
      return grown;
    };
    this.#layers = this.#layers.map(({ keys, values }) => ({ keys: grow(keys), values: grow(values) }));
    this.#capacity = capacity;
  }
}
