/**
 * One running sequence: the only owner of the position.
 *
 * In: ids. Out: logits. A session holds the key/value cache of the ids it has seen; weights and rotary table are the model's and shared by
 * all its sessions. The cache grows with use, doubling, so that a short prompt costs little memory whatever the context allows.
 */

import type { Qwen3Config } from "./config.ts";
import { type ForwardModel, forward, type LogitsWanted, type TapListener } from "./forward.ts";

/** Prompts are run in pieces of this many ids: bounds the scratch memory, and is how often a long prompt can be interrupted. */
const PREFILL_CHUNK = 256;

/** Keys (after norm and rotation) and values of one layer: [capacity, numKvHeads * headDim], the first `position` rows in use. */
export interface LayerCache {
  keys: Float32Array;
  values: Float32Array;
}

export interface ForwardOptions {
  /** "last" (default): [vocab] of the last id; "all": [T, vocab]; "none": an empty array, and the output head is not run. */
  readonly logits?: LogitsWanted;
  /** Receives every named intermediate (CONTRACTS: Taps) as it is computed. */
  readonly tap?: TapListener;
}

export class Session {
  /** The layers' caches; grown by `forward`. */
  readonly cache: readonly LayerCache[];
  private readonly model: ForwardModel;
  private length = 0;
  private capacity = 0;

  constructor(model: ForwardModel) {
    this.model = model;
    this.cache = model.weights.layers.map(() => ({ keys: new Float32Array(0), values: new Float32Array(0) }));
  }

  /** How many ids the cache holds: the position of the next id. */
  get position(): number {
    return this.length;
  }

  /**
   * Runs T ids at the session's position, prefill and step alike, and moves the position by T.
   * Throws RangeError for an empty list, an id outside the vocabulary, a sequence beyond the context, or logits that are not finite.
   */
  forward(ids: ArrayLike<number>, options: ForwardOptions = {}): Float32Array {
    const { config } = this.model;
    checkIds(ids, config, this.length);
    this.reserve(this.length + ids.length);
    const logits = forward(this.model, this.cache, this.length, ids, options.logits ?? "last", options.tap);
    for (let i = 0; i < logits.length; i++) {
      if (!Number.isFinite(logits[i]))
        throw new RangeError(`logits: expected finite numbers, got ${logits[i]} (the weights or the sums overflow)`);
    }
    this.length += ids.length;
    return logits;
  }

  /**
   * Runs a prompt in pieces, giving the event loop a turn between them so that `signal` is heard, and returns the last id's logits [vocab].
   * The same bits as one `forward`. Throws the signal's reason when it is aborted; the session then stands where the last piece ended.
   */
  async prefill(ids: ArrayLike<number>, signal?: AbortSignal): Promise<Float32Array> {
    checkIds(ids, this.model.config, this.length);
    const all = Int32Array.from(ids);
    for (let start = 0; ; start += PREFILL_CHUNK) {
      signal?.throwIfAborted();
      const chunk = all.subarray(start, start + PREFILL_CHUNK);
      if (start + chunk.length === all.length) return this.forward(chunk);
      this.forward(chunk, { logits: "none" });
      await nextTurn();
    }
  }

  /** Forgets everything from `position` on. */
  truncate(position: number): void {
    if (!Number.isInteger(position) || position < 0 || position > this.length) {
      throw new RangeError(`truncate: expected a position from 0 to ${this.length}, got ${position}`);
    }
    this.length = position;
  }

  private reserve(positions: number): void {
    this.model.rope.ensure(positions);
    if (positions <= this.capacity) return;
    const { numKvHeads, headDim, maxPositionEmbeddings } = this.model.config;
    const capacity = Math.min(maxPositionEmbeddings, Math.max(positions, 2 * this.capacity));
    const size = capacity * numKvHeads * headDim;
    for (const layer of this.cache) {
      const { keys, values } = layer;
      layer.keys = new Float32Array(size);
      layer.keys.set(keys);
      layer.values = new Float32Array(size);
      layer.values.set(values);
    }
    this.capacity = capacity;
  }
}

function checkIds(ids: ArrayLike<number>, config: Qwen3Config, position: number): void {
  if (ids.length === 0) throw new RangeError("ids: expected at least one id, got none");
  if (position + ids.length > config.maxPositionEmbeddings) {
    throw new RangeError(`prompt too long: expected at most ${config.maxPositionEmbeddings} tokens, got ${position + ids.length}`);
  }
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (!Number.isInteger(id) || id < 0 || id >= config.vocabSize) {
      throw new RangeError(`ids: expected integers from 0 to ${config.vocabSize - 1}, got ${id} at index ${i}`);
    }
  }
}

/** Resolves in a later turn of the event loop (a resolved promise alone would not let timers and signals run). */
export function nextTurn(): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, 0));
}
