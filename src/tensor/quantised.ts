/**
 * Quantised weights, as plain loops: how they are made, and what a linear layer over them computes. The kernels repeat
 * this bit for bit (docs/ARITHMETIC.md).
 *
 * In: float32 weights and activations. Out: small integers with scales, and from them float32 sums whose expensive part
 * is exact.
 *
 * The idea: a row of activations becomes 16-bit integers with one scale, a block of 256 weights becomes small integers
 * with one scale, and the sum over the block is then a sum of integers that 32 bits hold whatever the values are.
 * Integer sums have no rounding, so kernels may add in any order. Only what comes after a block is float32, and has a
 * stated order.
 *
 * - int8: a weight is -127..127 times the block's scale.
 * - int4: a weight is -8..7 times a sub-scale -31..31 (of 32 inputs) times the block's scale. Four bits times a
 *   sub-scale is again a small integer, of at most 248, so the sum is the same.
 *
 * The 32-bit sum bounds the bits of the activations: 256 * |weight| * |activation| < 2^31. With weights of up to 127 or
 * 248 there is room for all 16 bits (256 * 248 * 32767 = 0.97 * 2^31). One more bit in the sub-scales would lower the
 * weights' squared error by 0.8 %, but leave the activations 15 bits.
 */

import { SUM_BLOCK } from "./reference.ts";

const f = Math.fround;

export const QUANTISED_SCHEMES = ["int8", "int4"] as const;
/** How weights are quantised. */
export type QuantisedScheme = (typeof QUANTISED_SCHEMES)[number];

/** Inputs that share a sub-scale of int4. */
export const SUB_BLOCK = 32;
/** Largest magnitudes. */
export const ACTIVATION_MAX = 32767;
export const INT8_MAX = 127;
export const INT4_MIN = -8;
export const INT4_MAX = 7;
export const SUB_SCALE_MAX = 31;
/**
 * Scales below the smallest normal float32 count as 0, so that no quotient overflows: such a block or row holds nothing
 * but zeros.
 */
export const SMALLEST_SCALE: number = 2 ** -126;

/**
 * Steps that are tried for a sub-block of int4: its extreme value divided by each of these. The extreme itself may
 * become -9.5 and be cut to -8 where that serves the others. Squared error of trained weights: 9.1e-3 of their size
 * with the extreme as 7 and no search, 6.9 with -8 alone, 6.60 with these four, 6.53 with sixteen.
 */
export const INT4_DIVISORS: readonly number[] = [-9.5, -8.75, -8, -7.25];

/** Weights [outputs, inputs], quantised, row by row. */
export interface QuantisedTensor {
  readonly name: string;
  readonly scheme: QuantisedScheme;
  readonly shape: readonly [outputs: number, inputs: number];
  /** [outputs, inputs]. */
  readonly values: Int8Array;
  /** [outputs, inputs / 32], rounded up; empty for int8. */
  readonly subScales: Int8Array;
  /** [outputs, inputs / 256], rounded up. */
  readonly scales: Float32Array;
}

export function blocksOf(inputs: number): number {
  return Math.ceil(inputs / SUM_BLOCK);
}

export function subBlocksOf(inputs: number): number {
  return Math.ceil(inputs / SUB_BLOCK);
}

/** How many sub-scales a row has; int8 has none. */
export function subScalesOf(scheme: QuantisedScheme, inputs: number): number {
  return scheme === "int4" ? subBlocksOf(inputs) : 0;
}

/** Bytes that a matrix takes, without padding: its integers (two of int4 in a byte), sub-scales and scales. */
export function quantisedByteLength(scheme: QuantisedScheme, outputs: number, inputs: number): number {
  const perRow = (scheme === "int8" ? inputs : Math.ceil(inputs / 2)) + subScalesOf(scheme, inputs);
  return outputs * (perRow + 4 * blocksOf(inputs));
}

/** The nearest integer, ties to even; x is well below 2^51. What `f32x4.nearest` does. */
function nearest(x: number): number {
  return x + 1.5 * 2 ** 52 - 1.5 * 2 ** 52;
}

function clamp(x: number, low: number, high: number): number {
  return Math.min(Math.max(x, low), high);
}

// ---------------------------------------------------------------------------------------------------------------------
// what is quantised

/**
 * Quantises `x` to integers of at most `limit`, and returns their scale, f(max |x| / limit). Where `x` holds NaN or
 * infinity the scale is NaN, and so is all that is computed from it.
 */
export function quantiseInto(out: Int8Array | Int16Array, x: Float32Array, limit: number): number {
  let max = 0;
  for (let i = 0; i < x.length; i++) max = Math.max(max, Math.abs(x[i])); // NaN stays
  const scale = f(max / limit);
  if (scale < SMALLEST_SCALE) {
    out.fill(0, 0, x.length);
    return 0;
  }
  if (!Number.isFinite(scale)) return Number.NaN;
  for (let i = 0; i < x.length; i++) out[i] = nearest(f(x[i] / scale));
  return scale;
}

/** Sum of a[i] * b[i], in four interleaved partial sums by i % 4, combined as (s0 + s1) + (s2 + s3). */
function dot(a: ArrayLike<number>, b: ArrayLike<number>, length: number): number {
  const sums = [0, 0, 0, 0];
  for (let i = 0; i < length; i++) sums[i & 3] = f(sums[i & 3] + f(a[i] * b[i]));
  return f(f(sums[0] + sums[1]) + f(sums[2] + sums[3]));
}

/**
 * Quantises a block of at most 256 weights to int4: values, sub-scales, and the scale, which is returned. Three
 * least-squares fits: each sub-block's step, the best of those that INT4_DIVISORS gives; the values, for the step that
 * sub-scale and scale make; the scale, for those values.
 */
export function quantiseInt4Into(values: Int8Array, subScales: Int8Array, weights: Float32Array): number {
  const count = weights.length;
  const steps = Array.from({ length: subBlocksOf(count) }, (_, s) =>
    subBlockStep(weights.subarray(s * SUB_BLOCK, (s + 1) * SUB_BLOCK)),
  );
  const rough = f(steps.reduce((max, step) => Math.max(max, Math.abs(step)), 0) / SUB_SCALE_MAX);
  values.fill(0, 0, count);
  subScales.fill(0, 0, steps.length);
  if (rough < SMALLEST_SCALE) return 0;
  if (!Number.isFinite(rough)) return rough;
  const integers = new Float32Array(count);
  for (const [s, step] of steps.entries()) {
    const subScale = nearest(f(step / rough));
    if (subScale === 0) continue;
    subScales[s] = subScale;
    const inverse = f(1 / f(subScale * rough));
    for (let i = s * SUB_BLOCK; i < Math.min(count, (s + 1) * SUB_BLOCK); i++) {
      values[i] = clamp(nearest(f(weights[i] * inverse)), INT4_MIN, INT4_MAX);
      integers[i] = values[i] * subScale;
    }
  }
  return f(dot(weights, integers, count) / dot(integers, integers, count));
}

/**
 * The step, of either sign, whose multiples -8..7 come nearest to the weights; 0 where the weights are too small for
 * any.
 */
function subBlockStep(weights: Float32Array): number {
  let [max, min] = [0, 0];
  for (let i = 0; i < weights.length; i++) {
    max = Math.max(max, weights[i]);
    min = Math.min(min, weights[i]);
  }
  const extreme = max > -min ? max : min;
  if (Math.abs(extreme) < 8 * SMALLEST_SCALE) return 0;
  const values = new Float32Array(weights.length);
  let [best, step] = [-1, extreme]; // the extreme itself where it is not finite, since no gain is then a number
  for (const divisor of INT4_DIVISORS) {
    const inverse = f(divisor / extreme);
    for (let i = 0; i < weights.length; i++) values[i] = clamp(nearest(f(weights[i] * inverse)), INT4_MIN, INT4_MAX);
    const product = dot(weights, values, weights.length);
    const square = dot(values, values, weights.length);
    const gain = f(f(product * product) / square); // by how much this lowers the squared error
    if (gain > best) [best, step] = [gain, f(product / square)];
  }
  return step;
}

/** Quantises weights [outputs, inputs]. Throws RangeError for NaN or infinity. */
export function quantiseTensor(
  name: string,
  scheme: QuantisedScheme,
  shape: readonly [number, number],
  weights: Float32Array,
): QuantisedTensor {
  const [outputs, inputs] = shape;
  const values = new Int8Array(outputs * inputs);
  const subScales = new Int8Array(outputs * subScalesOf(scheme, inputs));
  const scales = new Float32Array(outputs * blocksOf(inputs));
  for (let n = 0, block = 0; n < outputs; n++) {
    for (let k = 0; k < inputs; k += SUM_BLOCK, block++) {
      const count = Math.min(SUM_BLOCK, inputs - k);
      const [at, sub] = [n * inputs + k, n * subBlocksOf(inputs) + k / SUB_BLOCK];
      const source = weights.subarray(at, at + count);
      const target = values.subarray(at, at + count);
      scales[block] =
        scheme === "int8"
          ? quantiseInto(target, source, INT8_MAX)
          : quantiseInt4Into(target, subScales.subarray(sub), source);
    }
  }
  checkScales(name, scales, "weights");
  return { name, scheme, shape, values, subScales, scales };
}

/**
 * Unpacks int4 as it is saved: row by row, two values in a byte, the first in the lower half. An odd last value leaves
 * half a byte unused.
 */
export function unpackInt4(bytes: Uint8Array, outputs: number, inputs: number): Int8Array {
  const values = new Int8Array(outputs * inputs);
  const rowBytes = Math.ceil(inputs / 2);
  for (let n = 0; n < outputs; n++) {
    for (let k = 0; k < inputs; k++) {
      const byte = bytes[n * rowBytes + (k >> 1)];
      values[n * inputs + k] = (k % 2 === 0 ? byte << 28 : byte << 24) >> 28;
    }
  }
  return values;
}

/** The inverse of unpackInt4. */
export function packInt4(values: Int8Array, outputs: number, inputs: number): Uint8Array {
  const rowBytes = Math.ceil(inputs / 2);
  const bytes = new Uint8Array(outputs * rowBytes);
  for (let n = 0; n < outputs; n++) {
    for (let k = 0; k < inputs; k++)
      bytes[n * rowBytes + (k >> 1)] |= (values[n * inputs + k] & 15) << (k % 2 === 0 ? 0 : 4);
  }
  return bytes;
}

/**
 * Throws RangeError for a scale that is negative or not finite. `what` names what is then wrong: the weights that it
 * was computed from, or saved scales.
 */
export function checkScales(name: string, scales: Float32Array, what: "weights" | "scales"): void {
  const bad = scales.findIndex(scale => !(scale >= 0 && scale < Infinity));
  if (bad >= 0)
    throw new RangeError(
      `tensor "${name}": expected finite ${what}${what === "scales" ? " of at least 0" : ""}, got ${scales[bad]}`,
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// what they compute

/** The integers of row `n`: values times sub-scales. */
function integersInto(out: Int16Array, { scheme, shape, values, subScales }: QuantisedTensor, n: number): void {
  const inputs = shape[1];
  const sub = n * subBlocksOf(inputs);
  for (let k = 0; k < inputs; k++) {
    const value = values[n * inputs + k];
    out[k] = scheme === "int8" ? value : value * subScales[sub + Math.floor(k / SUB_BLOCK)];
  }
}

/** Embedding look-up: out[t, k] = f(integer * scale). table [vocab, size], ids [rows] -> out [rows, size]. */
export function quantisedEmbedInto(out: Float32Array, table: QuantisedTensor, ids: ArrayLike<number>): void {
  const size = table.shape[1];
  const integers = new Int16Array(size);
  for (let t = 0; t < ids.length; t++) {
    integersInto(integers, table, ids[t]);
    const scales = ids[t] * blocksOf(size);
    for (let k = 0; k < size; k++) out[t * size + k] = integers[k] * table.scales[scales + Math.floor(k / SUM_BLOCK)];
  }
}

/**
 * Linear layer without bias over quantised weights: x [rows, inputs], weight [outputs, inputs], out [rows, outputs].
 * For each block of 256 inputs the exact integer sum becomes float32 (one rounding), is multiplied by the weight's
 * scale and added to the total; the activation's scale comes last.
 */
export function quantisedLinearInto(out: Float32Array, x: Float32Array, rows: number, weight: QuantisedTensor): void {
  const [outputs, inputs] = weight.shape;
  const blocks = blocksOf(inputs);
  const activations = new Int16Array(rows * inputs);
  const rowScales = new Float32Array(rows);
  for (let t = 0; t < rows; t++) {
    const [from, to] = [t * inputs, (t + 1) * inputs];
    rowScales[t] = quantiseInto(activations.subarray(from, to), x.subarray(from, to), ACTIVATION_MAX);
  }
  const integers = new Int16Array(inputs);
  for (let n = 0; n < outputs; n++) {
    integersInto(integers, weight, n);
    for (let t = 0; t < rows; t++) {
      let total = 0;
      for (let block = 0; block < blocks; block++) {
        let sum = 0;
        for (let k = block * SUM_BLOCK; k < Math.min((block + 1) * SUM_BLOCK, inputs); k++) {
          sum = (sum + Math.imul(activations[t * inputs + k], integers[k])) | 0;
        }
        total = f(total + f(f(sum) * weight.scales[n * blocks + block]));
      }
      out[t * outputs + n] = f(total * rowScales[t]);
    }
  }
}
