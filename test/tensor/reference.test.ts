/**
 * The reference operations define the arithmetic, so nothing here repeats their loops. Sums worked by hand, which come
 * out differently in another order, show the order of the sums and the roundings. Formulas are compared with float64.
 * What must not change a bit (other rows, views, later positions) is compared to the bit.
 */

import { describe, expect, test } from "vitest";
import {
  addInto,
  argmax,
  attentionInto,
  embedInto,
  linearInto,
  rmsNormInto,
  ropeInto,
  siluMulInto,
  softmaxInto,
} from "../../src/tensor/reference.ts";
import { Tensor } from "../../src/tensor/tensor.ts";
import { expectAtMost, expectSameBits, nmse, noise } from "../helpers.ts";

const f = Math.fround;
const SIZES = [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 255, 256, 257, 1000];
/** float32 against float64, where terms cancel: an error of 3e-6 of the size, squared. One term left out: 1e-3. */
const FLOAT32_NMSE = 1e-11;
/** float32 holds no odd integers above this, so adding 1 to it changes nothing. */
const BIG = 2 ** 24;

function f32(shape: number[], data: Float32Array): Tensor {
  return new Tensor("weight", "F32", shape, data);
}

/** bf16 bits of arbitrary values, with denormals among them. */
function bf16(shape: number[], seed: number): Tensor {
  const data = Uint16Array.from(
    noise(
      shape.reduce((a, b) => a * b),
      seed,
    ),
    (x, i) => (i % 97 === 5 ? 1 + (i % 50) : new Uint32Array(Float32Array.of(x).buffer)[0] >>> 16),
  );
  return new Tensor("weight", "BF16", shape, data);
}

/** One output of a linear layer. */
function sumOfProducts(x: readonly number[], w: readonly number[] = x.map(() => 1)): number {
  const out = new Float32Array(1);
  linearInto(out, Float32Array.from(x), 1, f32([1, w.length], Float32Array.from(w)));
  return out[0];
}

describe("linear layer", () => {
  test.each(SIZES)("every output is the sum of products, with %i inputs", inputs => {
    for (const [rows, outputs] of [
      [1, 1],
      [2, 3],
      [5, 8],
      [9, 33],
    ]) {
      for (const weight of [
        f32([outputs, inputs], noise(outputs * inputs, inputs + outputs)),
        bf16([outputs, inputs], inputs),
      ]) {
        const x = noise(rows * inputs, rows, 3);
        const out = new Float32Array(rows * outputs).fill(Number.NaN);
        linearInto(out, x, rows, weight);
        const w = weight.toFloat32();
        const truth = Array.from(out, (_, i) => {
          const [t, n] = [Math.floor(i / outputs), i % outputs];
          return x.slice(t * inputs, (t + 1) * inputs).reduce((sum, value, k) => sum + value * w[n * inputs + k], 0);
        });
        expectAtMost(nmse(out, truth), FLOAT32_NMSE, "NMSE");
      }
    }
  });

  test("a sum is one ascending chain", () => {
    expect(sumOfProducts([BIG, 1, 1, -BIG])).toBe(0);
    expect(sumOfProducts([1, 1, BIG, -BIG])).toBe(2);
  });

  test("every 256 terms begin a new chain, and the chains are added in order", () => {
    const sumOf = (terms: Readonly<Record<number, number>>): number =>
      sumOfProducts(Array.from({ length: 515 }, (_, k) => terms[k] ?? 0));
    expect(sumOf({ 0: BIG, 254: 1, 255: 1 })).toBe(BIG); // one chain, which loses both
    expect(sumOf({ 0: BIG, 256: 1, 511: 1 })).toBe(BIG + 2); // two, and the second holds 2
    expect(sumOf({ 0: BIG, 256: 1, 512: 1 })).toBe(BIG); // three, and the last two are lost one by one
  });

  test("product and sum are rounded one after the other, not fused", () => {
    const x = 1 + 2 ** -12;
    expect(sumOfProducts([-1 - 2 ** -11, x], [1, x])).toBe(0); // fused: 2^-24
  });

  test("F16 weights give what their widened values give", () => {
    const bits = Uint16Array.from({ length: 6 * 40 }, (_, i) => (i * 2621) % 0x7c00); // finite, denormals included
    const weight = new Tensor("weight", "F16", [6, 40], bits);
    const x = noise(3 * 40, 1);
    const [half, wide] = [new Float32Array(18), new Float32Array(18)];
    linearInto(half, x, 3, weight);
    linearInto(wide, x, 3, f32([6, 40], weight.toFloat32()));
    expectSameBits(half, wide);
  });

  test("a row gives the same bits alone and among others, from a copy and from a view at an offset", () => {
    const weight = f32([19, 300], noise(19 * 300, 2));
    const x = noise(7 * 300, 3);
    const all = new Float32Array(7 * 19);
    linearInto(all, x, 7, weight);
    for (let t = 0; t < 7; t++) {
      const alone = new Float32Array(19);
      linearInto(alone, x.subarray(t * 300, (t + 1) * 300), 1, weight);
      expectSameBits(alone, all.slice(t * 19, (t + 1) * 19));
    }
  });

  test("infinities and NaN in one row stay in that row", () => {
    const x = noise(5 * 8, 4);
    x[8] = Infinity;
    x[17] = Number.NaN;
    const out = new Float32Array(5 * 3);
    linearInto(out, x, 5, f32([3, 8], noise(24, 5)));
    expect(Array.from(out, Number.isFinite)).toEqual(
      Array.from({ length: 15 }, (_, i) => ![1, 2].includes(Math.floor(i / 3))),
    );
  });

  test("integer weights are refused by name", () => {
    const weight = new Tensor("layer.weight", "I8", [1, 4], new Int8Array(4));
    expect(() => linearInto(new Float32Array(1), new Float32Array(4), 1, weight)).toThrow(
      "layer.weight: expected a tensor of F32, F16 or BF16, got I8",
    );
  });
});

describe("embedding", () => {
  test("copies the rows of the ids, widened", () => {
    const table = bf16([7, 5], 1);
    const out = new Float32Array(15);
    embedInto(out, table, [6, 0, 6]);
    const wide = table.toFloat32();
    expectSameBits(out, Float32Array.of(...wide.slice(30, 35), ...wide.slice(0, 5), ...wide.slice(30, 35)));
  });
});

describe("RMSNorm", () => {
  test.each(SIZES)("scales each row to a root mean square of 1, at size %i, in place too", size => {
    const [x, gain] = [noise(3 * size, size, 5), noise(size, 9)];
    const out = new Float32Array(3 * size);
    rmsNormInto(out, x, gain, 3, 1e-6);
    const truth = Array.from(x, (value, i) => {
      const row = x.subarray(i - (i % size), i - (i % size) + size);
      return (value / Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / size + 1e-6)) * gain[i % size];
    });
    expectAtMost(nmse(out, truth), FLOAT32_NMSE, "NMSE");
    rmsNormInto(x, x, gain, 3, 1e-6);
    expectSameBits(x, out);
  });

  test("squares are added in four partial sums by index % 4, combined as (s0 + s1) + (s2 + s3)", () => {
    // The squares: BIG and ones. s0 = BIG + 1 = BIG, s1 = s2 = s3 = 2; s0 + s1 = BIG + 2, s2 + s3 = 4.
    const out = new Float32Array(8);
    rmsNormInto(out, Float32Array.of(2 ** 12, 1, 1, 1, 1, 1, 1, 1), new Float32Array(8).fill(1), 1, 0);
    const scaleOf = (sum: number): number => f(1 / f(Math.sqrt(f(sum / 8))));
    expect(out[1]).toBe(scaleOf(BIG + 6));
    expect(scaleOf(BIG + 6)).not.toBe(scaleOf(BIG)); // one chain in order
    expect(scaleOf(BIG + 6)).not.toBe(scaleOf(BIG + 8)); // nothing lost
  });
});

describe("rotation", () => {
  test("turns pairs (d, d + half) by the angles of their position", () => {
    const [rows, heads, headDim, start] = [3, 2, 6, 4];
    const angles = noise(10 * 3, 1, 3);
    const x = noise(rows * heads * headDim, 2);
    const truth = Array.from(x, (value, i) => {
      const d = i % headDim;
      const angle = angles[(start + Math.floor(i / (heads * headDim))) * 3 + (d % 3)];
      return value * Math.cos(angle) + (d < 3 ? -x[i + 3] : x[i - 3]) * Math.sin(angle);
    });
    ropeInto(x, rows, heads, headDim, angles.map(Math.cos), angles.map(Math.sin), start);
    expectAtMost(nmse(x, truth), FLOAT32_NMSE, "NMSE");
  });

  test("both products are rounded before they are added", () => {
    const a = 1 + 2 ** -12; // a * a = 1 + 2^-11 + 2^-24, of which float32 drops the last
    const x = Float32Array.of(a, 1 + 2 ** -11);
    ropeInto(x, 1, 1, 2, Float32Array.of(a), Float32Array.of(1), 0);
    expect(x[0]).toBe(0);
  });
});

describe("attention", () => {
  test.each([
    [1, 0],
    [1, 5],
    [3, 0],
    [17, 31],
    [2, 256],
    [3, 511],
  ])("is softmax(q K / sqrt(headDim)) V over what a query may see: %i rows after %i positions", (rows, start) => {
    for (const [numHeads, numKvHeads, headDim] of [
      [1, 1, 2],
      [6, 2, 22],
      [4, 4, 8],
    ]) {
      const positions = start + rows;
      const q = noise(rows * numHeads * headDim, 1, 2);
      const [keys, values] = [
        noise(positions * numKvHeads * headDim, 2, 2),
        noise(positions * numKvHeads * headDim, 3),
      ];
      const out = new Float32Array(rows * numHeads * headDim);
      attentionInto(out, q, keys, values, { rows, start, numHeads, numKvHeads, headDim });
      const truth = Array.from(out, (_, i) => {
        const [t, h, d] = [Math.floor(i / (numHeads * headDim)), Math.floor(i / headDim) % numHeads, i % headDim];
        const kv = (j: number): number => (j * numKvHeads + Math.floor(h / (numHeads / numKvHeads))) * headDim;
        let [weighted, total] = [0, 0];
        for (let j = 0; j <= start + t; j++) {
          let score = 0;
          for (let k = 0; k < headDim; k++) score += q[i - d + k] * keys[kv(j) + k];
          const weight = Math.exp(score / Math.sqrt(headDim));
          weighted += weight * values[kv(j) + d];
          total += weight;
        }
        return weighted / total;
      });
      expectAtMost(nmse(out, truth), FLOAT32_NMSE, "NMSE");
    }
  });

  test("values are added in chains of 256 positions and divided last", () => {
    // Keys of 0 weigh all positions alike: 1.
    const attend = (values: number[]): number => {
      const out = new Float32Array(1);
      const shape = { rows: 1, start: values.length - 1, numHeads: 1, numKvHeads: 1, headDim: 1 };
      attentionInto(out, Float32Array.of(1), new Float32Array(values.length), Float32Array.from(values), shape);
      return out[0];
    };
    expect(attend([BIG, 1, 1, -BIG])).toBe(0);
    const values = new Array<number>(512).fill(0);
    [values[0], values[1], values[256], values[257]] = [BIG, 1, 1, 1];
    expect(attend(values)).toBe((BIG + 2) / 512);
    expect(attend([1, 1, 1])).toBe(1); // three times f(1 / 3) would not be
  });

  test("a later position does not reach an earlier one, even when it is NaN", () => {
    const shape = { rows: 2, start: 0, numHeads: 1, numKvHeads: 1, headDim: 2 };
    const out = new Float32Array(4);
    attentionInto(out, noise(4, 1), Float32Array.of(1, 2, Number.NaN, 1), Float32Array.of(3, 4, Number.NaN, 1), shape);
    expectSameBits(out.slice(0, 2), Float32Array.of(3, 4));
    expect(out.slice(2).every(Number.isNaN)).toBe(true);
  });
});

describe("activations and the rest", () => {
  test("softmax sums to one, keeps order, and takes large values", () => {
    const x = Float32Array.of(1000, 999, -1000, 1000);
    softmaxInto(x);
    expect(Array.from(x).reduce((a, b) => a + b)).toBeCloseTo(1, 6);
    expect(x[0]).toBe(x[3]);
    expect(x[2]).toBe(0);
    expect(x[1] / x[0]).toBeCloseTo(Math.exp(-1), 6);
  });

  test("silu(gate) * up, from -200 to 200", () => {
    const gate = Float32Array.from({ length: 401 }, (_, i) => i - 200);
    const up = noise(401, 1, 4);
    siluMulInto(gate, up, 401);
    expect(
      gate.every((x, i) => Math.abs(x - ((i - 200) / (1 + Math.exp(200 - i))) * up[i]) <= 1e-6 * Math.abs(x) + 1e-30),
    ).toBe(true);
  });

  test("the residual sum is one float32 addition", () => {
    const x = Float32Array.of(1, 2 ** 24, -0);
    addInto(x, Float32Array.of(2 ** -25, 1, -0), 3);
    expectSameBits(x, Float32Array.of(1, 2 ** 24, -0));
  });

  test("argmax takes the lowest index on a tie and refuses NaN, even after the largest", () => {
    expect(argmax(Float32Array.of(1, 3, 2, 3))).toBe(1);
    expect(argmax(Float32Array.of(-Infinity, -Infinity))).toBe(0);
    expect(() => argmax(Float32Array.of(1, 5, Number.NaN))).toThrow("argmax: expected numbers, got NaN at index 2");
  });
});
