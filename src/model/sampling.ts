/**
 * From logits to the next id: greedy, or drawn with temperature, top-k and top-p by a seeded generator.
 *
 * In: logits [vocab]. Out: an id. The same options and seed give the same ids everywhere: ties go to the lowest id,
 * exponentials are our own (`exp32`), sums run in descending order of probability.
 */

import { exp32 } from "../tensor/elementary.ts";
import { argmax } from "../tensor/reference.ts";

export interface SamplingOptions {
  /** 0 (default): greedy, the largest logit. Above 0: logits are divided by it before the softmax. */
  readonly temperature?: number | undefined;
  /** Only the k likeliest ids take part; by default all. */
  readonly topK?: number | undefined;
  /** Only the likeliest ids whose probabilities together reach p take part; 1 (default): all. */
  readonly topP?: number | undefined;
  /**
   * Seed of the generator, a 32-bit unsigned integer; 0 by default, so that a run can be repeated without naming one.
   */
  readonly seed?: number | undefined;
}

export type Sampler = (logits: Float32Array) => number;

/**
 * Returns the function that chooses. A sampler that draws holds the generator's state. Throws TypeError for an option
 * that is not a number, and RangeError for one that is out of range.
 */
export function createSampler(options: SamplingOptions = {}): Sampler {
  const { temperature = 0, topK, topP = 1, seed = 0 } = options;
  for (const [name, value] of Object.entries({ temperature, topP })) {
    if (typeof value !== "number") throw new TypeError(`${name}: expected a number, got ${typeof value}`);
  }
  if (!(temperature >= 0 && temperature < Infinity))
    throw new RangeError(`temperature: expected a number of at least 0, got ${temperature}`);
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1))
    throw new RangeError(`topK: expected an integer of at least 1, got ${topK}`);
  if (!(topP > 0 && topP <= 1)) throw new RangeError(`topP: expected a number above 0 and at most 1, got ${topP}`);
  if (!(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32))
    throw new RangeError(`seed: expected an integer from 0 to ${2 ** 32 - 1}, got ${seed}`);
  if (temperature === 0) return argmax;

  const random = seededRandom(seed);
  return logits => {
    const candidates = likeliest(logits, Math.min(topK ?? logits.length, logits.length));
    const largest = logits[candidates[0]];
    const weights = candidates.map(id => exp32(Math.fround((logits[id] - largest) / temperature)));
    let total = 0;
    for (const weight of weights) total += weight;
    // Top-p keeps the shortest run of candidates that reaches p of the whole.
    let kept = 0;
    let mass = 0;
    while (kept < weights.length && (kept === 0 || mass < topP * total)) mass += weights[kept++];
    let left = random() * mass;
    for (let i = 0; i < kept; i++) {
      left -= weights[i];
      if (left < 0) return candidates[i];
    }
    return candidates[kept - 1]; // the sum and the differences may round differently
  };
}

/** More ids than any vocabulary has. A logit's 32 bits and an id together are still an exact float64. */
const ID_RANGE = 2 ** 21;
const BUCKETS = 2 ** 16;

/**
 * The ids of the `count` largest logits, largest first, ties to the lower id. Sorts plain numbers, without a comparing
 * function, and only those that can be among the first `count`: 151,936 logits take 47 ms with such a function, 22 ms
 * without, and 3 ms where only the first 20 are wanted.
 */
function likeliest(logits: Float32Array, count: number): number[] {
  // The bits of a float32 become an integer that falls as the number rises. Adding 0 turns -0 into 0.
  const ranks = new Uint32Array(logits.map(logit => logit + 0).buffer);
  const bucketSizes = new Uint32Array(BUCKETS);
  for (let id = 0; id < ranks.length; id++) {
    if (Number.isNaN(logits[id])) throw new RangeError(`logits: expected numbers, got NaN at index ${id}`);
    ranks[id] = ranks[id] >= 0x80000000 ? ranks[id] : 0x7fffffff - ranks[id];
    bucketSizes[ranks[id] >>> 16]++;
  }
  let last = 0;
  let found = bucketSizes[0];
  while (found < count) found += bucketSizes[++last];
  const keys = new Float64Array(found);
  for (let id = 0, i = 0; id < ranks.length; id++) if (ranks[id] >>> 16 <= last) keys[i++] = ranks[id] * ID_RANGE + id;
  return Array.from(keys.sort().subarray(0, count), key => key % ID_RANGE);
}

/**
 * Numbers from 0 to below 1 with 32 random bits each: the xoshiro128** generator (Blackman and Vigna, 2018), its state
 * filled from the seed by splitmix32.
 */
export function seededRandom(seed: number): () => number {
  let mix = seed;
  const next = (): number => {
    mix = (mix + 0x9e3779b9) | 0;
    let z = mix;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return z ^ (z >>> 16);
  };
  let [a, b, c, d] = [next(), next(), next(), next()];
  const rotate = (x: number, k: number): number => (x << k) | (x >>> (32 - k));
  return () => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9);
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotate(d, 11);
    return (result >>> 0) / 2 ** 32;
  };
}
