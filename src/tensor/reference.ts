/**
 * The reference operations: every step of the forward pass as plain loops over Float32Array. They define the arithmetic
 * (docs/ARITHMETIC.md says it in words), and every faster kernel reproduces them bit for bit.
 *
 * In: float32 activations, row-major [rows, size], and weight tensors as the checkpoint stores them. Out: float32,
 * written into the caller's buffer (`...Into`).
 *
 * Two things to know before reading:
 *  - Each `f(...)` (Math.fround) is one float32 rounding. A float32 product or sum computed in float64 and then rounded
 *    is exactly the IEEE float32 result, so `f(s + f(a * b))` is what a SIMD lane does with one multiply and one add.
 *  - There are two kinds of sum, `dot` and `interleavedSum`, each with one order of its terms. The order depends on the
 *    index alone: not on how many rows are computed together, not on where a chunk of the prompt begins, and not on how
 *    a faster engine cuts the work into tiles, since tiles run over rows and outputs and never over the summed index.
 */

import { WEIGHT_DTYPES } from "./dtype.ts";
import { exp32 } from "./elementary.ts";
import type { Tensor } from "./tensor.ts";

const f = Math.fround;

/** Sums of products are taken in blocks of this many terms. */
export const SUM_BLOCK = 256;

/** sum of a[i] * b[i]: one ascending chain inside a block, then the blocks in order. */
function dot(a: Float32Array, b: Float32Array): number {
  let total = 0;
  for (let block = 0; block < a.length; block += SUM_BLOCK) {
    let sum = 0;
    for (let i = block; i < Math.min(block + SUM_BLOCK, a.length); i++) sum = f(sum + f(a[i] * b[i]));
    total = f(total + sum);
  }
  return total;
}

/** sum of x[i]: four interleaved partial sums by i % 4, combined as (s0 + s1) + (s2 + s3). */
function interleavedSum(x: Float32Array): number {
  const s = [0, 0, 0, 0];
  for (let i = 0; i < x.length; i++) s[i % 4] = f(s[i % 4] + x[i]);
  return f(f(s[0] + s[1]) + f(s[2] + s[3]));
}

/** Row `index` of x [.., size]: a view. */
function row(x: Float32Array, index: number, size: number): Float32Array {
  return x.subarray(index * size, (index + 1) * size);
}

/** Row `index` of a weight tensor, widened to float32, which is exact. Throws TypeError for another dtype. */
function widenedRow(weight: Tensor, index: number): Float32Array {
  if (!(WEIGHT_DTYPES as readonly string[]).includes(weight.dtype))
    throw new TypeError(`${weight.name}: expected a tensor of F32, F16 or BF16, got ${weight.dtype}`);
  return weight.rows(index, index + 1).toFloat32();
}

/** Embedding look-up: out[t] = table[ids[t]]. table [vocab, size], ids [rows], out [rows, size]. */
export function embedInto(out: Float32Array, table: Tensor, ids: ArrayLike<number>): void {
  const size = table.shape[1];
  for (let t = 0; t < ids.length; t++) row(out, t, size).set(widenedRow(table, ids[t]));
}

/**
 * RMSNorm, row by row: out = x * (1 / sqrt(mean(x^2) + eps)) * gain. x, out [rows, size]; gain [size]; out may be x.
 */
export function rmsNormInto(out: Float32Array, x: Float32Array, gain: Float32Array, rows: number, eps: number): void {
  const size = gain.length;
  for (let t = 0; t < rows; t++) {
    const [from, to] = [row(x, t, size), row(out, t, size)];
    const mean = f(interleavedSum(from.map(value => f(value * value))) / size);
    const scale = f(1 / f(Math.sqrt(f(mean + f(eps)))));
    for (let i = 0; i < size; i++) to[i] = f(f(from[i] * scale) * gain[i]);
  }
}

/** Linear layer without bias: out = x W^T. x [rows, inputs], weight [outputs, inputs], out [rows, outputs]. */
export function linearInto(out: Float32Array, x: Float32Array, rows: number, weight: Tensor): void {
  const [outputs, inputs] = weight.shape;
  for (let n = 0; n < outputs; n++) {
    const w = widenedRow(weight, n);
    for (let t = 0; t < rows; t++) out[t * outputs + n] = dot(row(x, t, inputs), w);
  }
}

/**
 * Rotary position embedding, in place: each pair (a, b) = (x[d], x[d + headDim / 2]) of a head turns by its angle, to
 * (a cos - b sin, b cos + a sin). x [rows, heads, headDim]; cos, sin [positions, headDim / 2]; row t is position
 * `start + t`.
 */
export function ropeInto(
  x: Float32Array,
  rows: number,
  heads: number,
  headDim: number,
  cos: Float32Array,
  sin: Float32Array,
  start: number,
): void {
  const half = headDim / 2;
  for (let t = 0; t < rows; t++) {
    const [c, s] = [row(cos, start + t, half), row(sin, start + t, half)];
    for (let h = 0; h < heads; h++) {
      const head = row(x, t * heads + h, headDim);
      for (let d = 0; d < half; d++) {
        const [a, b] = [head[d], head[d + half]];
        head[d] = f(f(a * c[d]) - f(b * s[d]));
        head[d + half] = f(f(b * c[d]) + f(a * s[d]));
      }
    }
  }
}

/** Shapes of one attention call: `rows` queries at positions `start`, `start + 1`, ... */
export interface AttentionShape {
  readonly rows: number;
  readonly start: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/**
 * Causal attention with grouped queries: out = softmax(q K^T / sqrt(headDim)) V. q, out [rows, numHeads, headDim];
 * keys, values [start + rows, numKvHeads, headDim], earlier positions first. Query head h reads key/value head
 * floor(h * numKvHeads / numHeads). The softmax's division comes last, after the weighted sum of values.
 */
export function attentionInto(
  out: Float32Array,
  q: Float32Array,
  keys: Float32Array,
  values: Float32Array,
  { rows, start, numHeads, numKvHeads, headDim }: AttentionShape,
): void {
  const scale = attentionScale(headDim);
  for (let t = 0; t < rows; t++) {
    const positions = start + t + 1; // a query sees itself and what came before
    const [weights, column] = [new Float32Array(positions), new Float32Array(positions)];
    for (let h = 0; h < numHeads; h++) {
      const [query, attended] = [row(q, t * numHeads + h, headDim), row(out, t * numHeads + h, headDim)];
      const kvHead = Math.floor((h * numKvHeads) / numHeads);
      for (let j = 0; j < positions; j++)
        weights[j] = f(dot(query, row(keys, j * numKvHeads + kvHead, headDim)) * scale);
      const denominator = exponentialsInto(weights);
      for (let d = 0; d < headDim; d++) {
        for (let j = 0; j < positions; j++) column[j] = values[(j * numKvHeads + kvHead) * headDim + d];
        attended[d] = f(dot(weights, column) / denominator);
      }
    }
  }
}

/** What attention's scores are multiplied by: 1 / sqrt(headDim), both steps rounded. */
export function attentionScale(headDim: number): number {
  return f(1 / f(Math.sqrt(headDim)));
}

/** x[i] becomes exp(x[i] - max(x)); returns their sum. */
function exponentialsInto(x: Float32Array): number {
  const max = x.reduce((a, b) => (b > a ? b : a), -Infinity);
  for (let i = 0; i < x.length; i++) x[i] = exp32(f(x[i] - max));
  return interleavedSum(x);
}

/** Softmax, in place: x[i] = exp(x[i] - max(x)), divided by their sum. */
export function softmaxInto(x: Float32Array): void {
  const denominator = exponentialsInto(x);
  for (let i = 0; i < x.length; i++) x[i] = f(x[i] / denominator);
}

/** The gated activation: gate[i] = silu(gate[i]) * up[i], where silu(g) = g / (1 + exp(-g)). */
export function siluMulInto(gate: Float32Array, up: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) gate[i] = f(f(gate[i] / f(1 + exp32(-gate[i]))) * up[i]);
}

/** The residual connection: x[i] += y[i]. */
export function addInto(x: Float32Array, y: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) x[i] = f(x[i] + y[i]);
}

/** The index of the largest value, the lowest on a tie. Throws RangeError for NaN anywhere. */
export function argmax(x: Float32Array): number {
  let best = 0;
  for (let i = 0; i < x.length; i++) {
    if (Number.isNaN(x[i])) throw new RangeError(`argmax: expected numbers, got NaN at index ${i}`);
    if (x[i] > x[best]) best = i;
  }
  return best;
}
