/**
 * The reference operations: every step of the forward pass as plain loops over Float32Array. This is the arithmetic that all faster
 * kernels must reproduce bit for bit (docs/ARITHMETIC.md).
 *
 * In: float32 activations, row-major [rows, size], and weight tensors as the checkpoint stores them. Out: float32, written into the
 * buffer that the caller gives (`...Into`).
 *
 * Two things to know before reading:
 *  - Each `f(...)` (Math.fround) is one float32 rounding. A float32 product or sum computed in float64 and then rounded is exactly the
 *    IEEE float32 result, so `f(s + f(a * b))` is what a SIMD lane does with one multiply and one add.
 *  - Every sum has one order, stated beside it, which depends on the absolute index alone: never on how many rows come along, where a
 *    chunk of the prompt begins, or how the work is tiled. Tiles below run over rows and outputs, never over the summed index.
 */

import { bf16ToFloat32, f16ToFloat32 } from "./dtype.ts";
import { exp32 } from "./elementary.ts";
import type { Tensor } from "./tensor.ts";

const f = Math.fround;

/** Sums over an index are taken in blocks of this many terms: one ascending chain inside a block, then the blocks in order. */
export const SUM_BLOCK = 256;

/**
 * Rows and outputs of the linear layer's tile: 16 sums at once, so that 16 independent chains keep the processor busy.
 * One sum at a time 0.6 GFLOP/s, 4 x 2 sums 2.0, 4 x 4 2.1 (Node 20 and 24, Sapphire Rapids). What limits it is V8 itself, which
 * computes `f(a + f(b * c))` in float64 with two conversions.
 */
const TILE = 4;

/** Widens `count` elements of a weight tensor from element `start` on. Float64Array as a target holds the float32 values exactly. */
function widenInto(target: Float32Array | Float64Array, targetOffset: number, weight: Tensor, start: number, count: number): void {
  const { data, dtype } = weight;
  if (dtype === "BF16") for (let i = 0; i < count; i++) target[targetOffset + i] = bf16ToFloat32((data as Uint16Array)[start + i]);
  else if (dtype === "F16") for (let i = 0; i < count; i++) target[targetOffset + i] = f16ToFloat32((data as Uint16Array)[start + i]);
  else if (dtype === "F32") for (let i = 0; i < count; i++) target[targetOffset + i] = (data as Float32Array)[start + i];
  else throw new TypeError(`${weight.name}: expected a tensor of F32, F16 or BF16, got ${dtype}`);
}

/** Embedding look-up. table [vocab, size], ids [rows] -> out [rows, size]. */
export function embedInto(out: Float32Array, table: Tensor, ids: ArrayLike<number>): void {
  const size = table.shape[1];
  for (let t = 0; t < ids.length; t++) widenInto(out, t * size, table, ids[t] * size, size);
}

/**
 * RMSNorm: out = x * (1 / sqrt(mean(x^2) + eps)) * gain, for each row. x, out [rows, size]; gain [size]; out may be x.
 * Sum of squares: four interleaved partial sums by index % 4, combined as (s0 + s1) + (s2 + s3).
 */
export function rmsNormInto(out: Float32Array, x: Float32Array, gain: Float32Array, rows: number, eps: number): void {
  const size = gain.length;
  const eps32 = f(eps);
  for (let t = 0; t < rows; t++) {
    const row = t * size;
    const sums = [0, 0, 0, 0];
    for (let i = 0; i < size; i++) sums[i & 3] = f(sums[i & 3] + f(x[row + i] * x[row + i]));
    const mean = f(f(f(sums[0] + sums[1]) + f(sums[2] + sums[3])) / size);
    const scale = f(1 / f(Math.sqrt(f(mean + eps32))));
    for (let i = 0; i < size; i++) out[row + i] = f(f(x[row + i] * scale) * gain[i]);
  }
}

/**
 * Linear layer without bias: out = x W^T. x [rows, inputs], weight [outputs, inputs], out [rows, outputs].
 * Each output is summed over the inputs in blocks of SUM_BLOCK.
 */
export function linearInto(out: Float32Array, x: Float32Array, rows: number, weight: Tensor): void {
  const [outputs, inputs] = weight.shape;
  // Both operands as float64 holders of float32 values: V8 then converts each once, not at every use (+20 %).
  // Rows and outputs are padded with zeros to whole tiles.
  const paddedRows = rows === 1 ? 1 : Math.ceil(rows / TILE) * TILE;
  const wideX = new Float64Array(paddedRows * inputs);
  for (let i = 0; i < rows * inputs; i++) wideX[i] = x[i];
  const panel = new Float64Array(TILE * inputs);
  const tile = new Float32Array(TILE * TILE);

  for (let n = 0; n < outputs; n += TILE) {
    const columns = Math.min(TILE, outputs - n);
    widenInto(panel, 0, weight, n * inputs, columns * inputs);
    for (let t = 0; t < rows; t += TILE) {
      if (rows === 1) multiplyRow(tile, wideX, panel, inputs);
      else multiplyTile(tile, wideX, t * inputs, panel, inputs);
      for (let i = 0; i < Math.min(TILE, rows - t); i++)
        for (let j = 0; j < columns; j++) out[(t + i) * outputs + n + j] = tile[i * TILE + j];
    }
  }
}

/** Four rows of x [.., inputs] from element `start` on, times panel [4, inputs]^T -> tile [4, 4]: sixteen sums that advance together. */
function multiplyTile(tile: Float32Array, x: Float64Array, start: number, panel: Float64Array, inputs: number): void {
  const row1 = inputs;
  const row2 = 2 * inputs;
  const row3 = 3 * inputs;
  tile.fill(0);
  for (let block = 0; block < inputs; block += SUM_BLOCK) {
    const end = Math.min(block + SUM_BLOCK, inputs);
    let [s00, s01, s02, s03, s10, s11, s12, s13] = [0, 0, 0, 0, 0, 0, 0, 0];
    let [s20, s21, s22, s23, s30, s31, s32, s33] = [0, 0, 0, 0, 0, 0, 0, 0];
    for (let k = block; k < end; k++) {
      const w0 = panel[k];
      const w1 = panel[row1 + k];
      const w2 = panel[row2 + k];
      const w3 = panel[row3 + k];
      let a = x[start + k];
      s00 = f(s00 + f(a * w0));
      s01 = f(s01 + f(a * w1));
      s02 = f(s02 + f(a * w2));
      s03 = f(s03 + f(a * w3));
      a = x[start + row1 + k];
      s10 = f(s10 + f(a * w0));
      s11 = f(s11 + f(a * w1));
      s12 = f(s12 + f(a * w2));
      s13 = f(s13 + f(a * w3));
      a = x[start + row2 + k];
      s20 = f(s20 + f(a * w0));
      s21 = f(s21 + f(a * w1));
      s22 = f(s22 + f(a * w2));
      s23 = f(s23 + f(a * w3));
      a = x[start + row3 + k];
      s30 = f(s30 + f(a * w0));
      s31 = f(s31 + f(a * w1));
      s32 = f(s32 + f(a * w2));
      s33 = f(s33 + f(a * w3));
    }
    // A store into a Float32Array is the rounding of total + s.
    tile[0] += s00;
    tile[1] += s01;
    tile[2] += s02;
    tile[3] += s03;
    tile[4] += s10;
    tile[5] += s11;
    tile[6] += s12;
    tile[7] += s13;
    tile[8] += s20;
    tile[9] += s21;
    tile[10] += s22;
    tile[11] += s23;
    tile[12] += s30;
    tile[13] += s31;
    tile[14] += s32;
    tile[15] += s33;
  }
}

/** The same for a single row, the step of decoding: x [inputs] times panel [4, inputs]^T -> the first four of tile. */
function multiplyRow(tile: Float32Array, x: Float64Array, panel: Float64Array, inputs: number): void {
  tile.fill(0, 0, TILE);
  for (let block = 0; block < inputs; block += SUM_BLOCK) {
    const end = Math.min(block + SUM_BLOCK, inputs);
    let [s0, s1, s2, s3] = [0, 0, 0, 0];
    for (let k = block; k < end; k++) {
      const a = x[k];
      s0 = f(s0 + f(a * panel[k]));
      s1 = f(s1 + f(a * panel[inputs + k]));
      s2 = f(s2 + f(a * panel[2 * inputs + k]));
      s3 = f(s3 + f(a * panel[3 * inputs + k]));
    }
    tile[0] += s0;
    tile[1] += s1;
    tile[2] += s2;
    tile[3] += s3;
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
 * Causal attention with grouped queries. q [rows, numHeads, headDim]; keys, values [start + rows, numKvHeads, headDim] with the earlier
 * positions first; out [rows, numHeads * headDim]. Query head h reads key/value head floor(h * numKvHeads / numHeads).
 *
 * Score: sum over headDim in blocks of SUM_BLOCK, times 1 / sqrt(headDim). Softmax: see softmaxInto, but the division by the denominator
 * comes last, after the weighted sum of values, which runs over positions in blocks of SUM_BLOCK.
 */
export function attentionInto(out: Float32Array, q: Float32Array, keys: Float32Array, values: Float32Array, shape: AttentionShape): void {
  const { rows, start, numHeads, numKvHeads, headDim } = shape;
  const scale = attentionScale(headDim);
  const weights = new Float32Array(start + rows);
  const total = new Float32Array(headDim);
  const kvStride = numKvHeads * headDim;

  for (let t = 0; t < rows; t++) {
    const length = start + t + 1; // a query sees itself and what came before
    for (let h = 0; h < numHeads; h++) {
      const query = (t * numHeads + h) * headDim;
      const kvHead = Math.floor((h * numKvHeads) / numHeads) * headDim;
      scoresInto(weights, length, q.subarray(query, query + headDim), keys, kvHead, kvStride, scale);
      const denominator = exponentialsInto(weights, length);
      weightedSumInto(total, weights, length, values, kvHead, kvStride);
      for (let d = 0; d < headDim; d++) out[query + d] = f(total[d] / denominator);
    }
  }
}

/** What scores are multiplied by: 1 / sqrt(headDim), both steps rounded. */
export function attentionScale(headDim: number): number {
  return f(1 / f(Math.sqrt(headDim)));
}

/** scores[j] = (query . keys[j]) * scale, j < length; four keys at a time, for four independent chains. */
function scoresInto(
  scores: Float32Array,
  length: number,
  query: Float32Array,
  keys: Float32Array,
  kvHead: number,
  kvStride: number,
  scale: number,
): void {
  for (let j = 0; j < length; j += 4) {
    // The last keys may be fewer than four; the missing ones repeat the last, and what they give is not stored.
    const last = length - 1;
    const key0 = kvHead + j * kvStride;
    const key1 = kvHead + Math.min(j + 1, last) * kvStride;
    const key2 = kvHead + Math.min(j + 2, last) * kvStride;
    const key3 = kvHead + Math.min(j + 3, last) * kvStride;
    let [total0, total1, total2, total3] = [0, 0, 0, 0];
    for (let block = 0; block < query.length; block += SUM_BLOCK) {
      const end = Math.min(block + SUM_BLOCK, query.length);
      let [s0, s1, s2, s3] = [0, 0, 0, 0];
      for (let d = block; d < end; d++) {
        const a = query[d];
        s0 = f(s0 + f(a * keys[key0 + d]));
        s1 = f(s1 + f(a * keys[key1 + d]));
        s2 = f(s2 + f(a * keys[key2 + d]));
        s3 = f(s3 + f(a * keys[key3 + d]));
      }
      total0 = f(total0 + s0);
      total1 = f(total1 + s1);
      total2 = f(total2 + s2);
      total3 = f(total3 + s3);
    }
    scores[j] = f(total0 * scale);
    if (j + 1 < length) scores[j + 1] = f(total1 * scale);
    if (j + 2 < length) scores[j + 2] = f(total2 * scale);
    if (j + 3 < length) scores[j + 3] = f(total3 * scale);
  }
}

/** sum[d] = sum over j of weights[j] * values[j][d], in blocks of SUM_BLOCK positions. */
function weightedSumInto(
  sum: Float32Array,
  weights: Float32Array,
  length: number,
  values: Float32Array,
  kvHead: number,
  kvStride: number,
): void {
  const headDim = sum.length;
  const s = new Float32Array(headDim);
  sum.fill(0);
  for (let block = 0; block < length; block += SUM_BLOCK) {
    const end = Math.min(block + SUM_BLOCK, length);
    s.fill(0);
    for (let j = block; j < end; j++) {
      const weight = weights[j];
      const value = kvHead + j * kvStride;
      for (let d = 0; d < headDim; d++) s[d] += f(weight * values[value + d]);
    }
    for (let d = 0; d < headDim; d++) sum[d] += s[d];
  }
}

/**
 * x[i] becomes exp(x[i] - max) for i < length; returns their sum: four interleaved partial sums by index % 4, combined as
 * (s0 + s1) + (s2 + s3).
 */
function exponentialsInto(x: Float32Array, length: number): number {
  let max = -Infinity;
  for (let i = 0; i < length; i++) if (x[i] > max) max = x[i];
  const sums = [0, 0, 0, 0];
  for (let i = 0; i < length; i++) {
    const e = exp32(f(x[i] - max));
    x[i] = e;
    sums[i & 3] = f(sums[i & 3] + e);
  }
  return f(f(sums[0] + sums[1]) + f(sums[2] + sums[3]));
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
