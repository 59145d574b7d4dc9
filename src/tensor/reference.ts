/**
 * The reference operations: every step of the forward pass as plain loops over Float32Array. This is the arithmetic
 * that all faster kernels must reproduce bit for bit (docs/ARITHMETIC.md).
 *
 * In: float32 activations, row-major [rows, size], and weight tensors as the checkpoint stores them. Out: float32,
 * written into the buffer that the caller gives (`...Into`).
 *
 * Two things to know before reading:
 *  - Each `f(...)` (Math.fround) is one float32 rounding. A float32 product or sum computed in float64 and then rounded
 *    is exactly the IEEE float32 result, so `f(s + f(a * b))` is what a SIMD lane does with one multiply and one add.
 *  - Every sum has one order, stated beside it, which depends on the absolute index alone: never on how many rows come
 *    along, where a chunk of the prompt begins, or how a faster engine cuts the work into tiles: those run over rows
 *    and outputs, never over the summed index.
 */

import { bf16ToFloat32, f16ToFloat32 } from "./dtype.ts";
import { exp32 } from "./elementary.ts";
import type { Tensor } from "./tensor.ts";

const f = Math.fround;

/**
 * Sums of products are taken in blocks of this many terms: one ascending chain inside a block, then the blocks in
 * order.
 */
export const SUM_BLOCK = 256;

/** Widens `count` elements of a weight tensor from element `start` on. */
function widenInto(target: Float32Array, targetOffset: number, weight: Tensor, start: number, count: number): void {
  const { data, dtype } = weight;
  if (dtype === "BF16")
    for (let i = 0; i < count; i++) target[targetOffset + i] = bf16ToFloat32((data as Uint16Array)[start + i]);
  else if (dtype === "F16")
    for (let i = 0; i < count; i++) target[targetOffset + i] = f16ToFloat32((data as Uint16Array)[start + i]);
  else if (dtype === "F32")
    for (let i = 0; i < count; i++) target[targetOffset + i] = (data as Float32Array)[start + i];
  else throw new TypeError(`${weight.name}: expected a tensor of F32, F16 or BF16, got ${dtype}`);
}

/** The sum of a[i] * b[i * stride], i < length, from the given places on, in blocks of SUM_BLOCK. */
function dot(a: Float32Array, aStart: number, b: Float32Array, bStart: number, stride: number, length: number): number {
  let total = 0;
  for (let block = 0; block < length; block += SUM_BLOCK) {
    let s = 0;
    for (let i = block; i < Math.min(block + SUM_BLOCK, length); i++)
      s = f(s + f(a[aStart + i] * b[bStart + i * stride]));
    total = f(total + s);
  }
  return total;
}

/** The sum over i of term(i), i < length: four interleaved partial sums by i % 4, combined as (s0 + s1) + (s2 + s3). */
function interleavedSum(length: number, term: (i: number) => number): number {
  const s = [0, 0, 0, 0];
  for (let i = 0; i < length; i++) s[i % 4] = f(s[i % 4] + term(i));
  return f(f(s[0] + s[1]) + f(s[2] + s[3]));
}

/** Embedding look-up. table [vocab, size], ids [rows] -> out [rows, size]. */
export function embedInto(out: Float32Array, table: Tensor, ids: ArrayLike<number>): void {
  const size = table.shape[1];
  for (let t = 0; t < ids.length; t++) widenInto(out, t * size, table, ids[t] * size, size);
}

/**
 * RMSNorm: out = x * (1 / sqrt(mean(x^2) + eps)) * gain, for each row. x, out [rows, size]; gain [size]; out may be x.
 */
export function rmsNormInto(out: Float32Array, x: Float32Array, gain: Float32Array, rows: number, eps: number): void {
  const size = gain.length;
  for (let row = 0; row < rows * size; row += size) {
    const mean = f(interleavedSum(size, i => f(x[row + i] * x[row + i])) / size);
    const scale = f(1 / f(Math.sqrt(f(mean + f(eps)))));
    for (let i = 0; i < size; i++) out[row + i] = f(f(x[row + i] * scale) * gain[i]);
  }
}

/** Linear layer without bias: out = x W^T. x [rows, inputs], weight [outputs, inputs], out [rows, outputs]. */
export function linearInto(out: Float32Array, x: Float32Array, rows: number, weight: Tensor): void {
  const [outputs, inputs] = weight.shape;
  const w = new Float32Array(inputs);
  for (let n = 0; n < outputs; n++) {
    widenInto(w, 0, weight, n * inputs, inputs);
    for (let t = 0; t < rows; t++) out[t * outputs + n] = dot(w, 0, x, t * inputs, 1, inputs);
  }
}

/**
 * Rotary position embedding, split halves, in place. x [rows, heads, headDim]; cos and sin [positions, headDim / 2];
 * row t stands at position `start + t`.
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
    const angle = (start + t) * half;
    for (let h = 0; h < heads; h++) {
      const head = (t * heads + h) * headDim;
      for (let d = 0; d < half; d++) {
        const a = x[head + d];
        const b = x[head + half + d];
        const c = cos[angle + d];
        const s = sin[angle + d];
        x[head + d] = f(f(a * c) - f(b * s));
        x[head + half + d] = f(f(b * c) + f(a * s));
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
 * Causal attention with grouped queries. q [rows, numHeads, headDim]; keys, values [start + rows, numKvHeads, headDim]
 * with the earlier positions first; out [rows, numHeads * headDim]. Query head h reads key/value head floor(h *
 * numKvHeads / numHeads).
 *
 * Softmax: see softmaxInto, but the division by the denominator comes last, after the weighted sum of values.
 */
export function attentionInto(
  out: Float32Array,
  q: Float32Array,
  keys: Float32Array,
  values: Float32Array,
  shape: AttentionShape,
): void {
  const { rows, start, numHeads, numKvHeads, headDim } = shape;
  const scale = attentionScale(headDim);
  const weights = new Float32Array(start + rows);
  for (let t = 0; t < rows; t++) {
    const length = start + t + 1; // a query sees itself and what came before
    for (let h = 0; h < numHeads; h++) {
      const query = (t * numHeads + h) * headDim;
      const kvHead = Math.floor((h * numKvHeads) / numHeads) * headDim;
      for (let j = 0; j < length; j++)
        weights[j] = f(dot(q, query, keys, kvHead + j * numKvHeads * headDim, 1, headDim) * scale);
      const denominator = exponentialsInto(weights, length);
      for (let d = 0; d < headDim; d++) {
        out[query + d] = f(dot(weights, 0, values, kvHead + d, numKvHeads * headDim, length) / denominator);
      }
    }
  }
}

/** What scores are multiplied by: 1 / sqrt(headDim), both steps rounded. */
export function attentionScale(headDim: number): number {
  return f(1 / f(Math.sqrt(headDim)));
}

/** x[i] becomes exp(x[i] - max) for i < length; returns their sum. */
function exponentialsInto(x: Float32Array, length: number): number {
  const max = x.subarray(0, length).reduce((a, b) => (b > a ? b : a), -Infinity);
  for (let i = 0; i < length; i++) x[i] = exp32(f(x[i] - max));
  return interleavedSum(length, i => x[i]);
}

/** Softmax of x, in place: exp(x - max) divided by the sum of these. */
export function softmaxInto(x: Float32Array): void {
  const denominator = exponentialsInto(x, x.length);
  for (let i = 0; i < x.length; i++) x[i] = f(x[i] / denominator);
}

/** The gated activation: gate[i] = silu(gate[i]) * up[i], where silu(g) = g / (1 + exp(-g)). */
export function siluMulInto(gate: Float32Array, up: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) gate[i] = f(f(gate[i] / f(1 + exp32(-gate[i]))) * up[i]);
}

/** The residual connection: x[i] += y[i]. */
export function addInto(x: Float32Array, y: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) x[i] += y[i];
}

/** Index of the largest value, the lowest on a tie. NaN anywhere is an error, never a choice. */
export function argmax(x: Float32Array): number {
  let best = 0;
  for (let i = 0; i < x.length; i++) {
    if (Number.isNaN(x[i])) throw new RangeError(`argmax: expected numbers, got NaN at index ${i}`);
    if (x[i] > x[best]) best = i;
  }
  return best;
}
