/**
 * The reference operations against their definitions, written here once more without any tiling: equal to the bit at
 * ragged sizes and at the awkward values of float32.
 */

import { describe, expect, test } from "vitest";
import { exp32 } from "../../src/tensor/elementary.ts";
import {
  addInto,
  argmax,
  attentionInto,
  embedInto,
  linearInto,
  rmsNormInto,
  ropeInto,
  SUM_BLOCK,
  siluMulInto,
  softmaxInto,
} from "../../src/tensor/reference.ts";
import { Tensor } from "../../src/tensor/tensor.ts";
import { expectSameBits, noise } from "../helpers.ts";

const f = Math.fround;
const SIZES = [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 255, 256, 257, 1000];

/** The defined sum of products: blocks of SUM_BLOCK, one ascending chain in each. */
function dot(a: Float32Array, b: Float32Array): number {
  let total = 0;
  for (let block = 0; block < a.length; block += SUM_BLOCK) {
    let s = 0;
    for (let k = block; k < Math.min(block + SUM_BLOCK, a.length); k++) s = f(s + f(a[k] * b[k]));
    total = f(total + s);
  }
  return total;
}

function interleavedSum(x: Float32Array): number {
  const s = [0, 0, 0, 0];
  x.forEach((value, i) => {
    s[i % 4] = f(s[i % 4] + value);
  });
  return f(f(s[0] + s[1]) + f(s[2] + s[3]));
}

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

describe("linear layer", () => {
  test.each(SIZES)("every output is the defined sum, with %i inputs", inputs => {
    for (const [rows, outputs] of [
      [1, 1],
      [1, 5],
      [2, 3],
      [3, 4],
      [4, 17],
      [5, 8],
      [9, 33],
    ]) {
      for (const weight of [
        f32([outputs, inputs], noise(outputs * inputs, inputs + outputs)),
        bf16([outputs, inputs], inputs),
      ]) {
        const x = noise(rows * inputs, rows, 3);
        x[0] = 1e-42; // a denormal
        const out = new Float32Array(rows * outputs).fill(Number.NaN);
        linearInto(out, x, rows, weight);
        const wide = weight.toFloat32();
        const expected = Float32Array.from(out, (_, i) => {
          const [t, n] = [Math.floor(i / outputs), i % outputs];
          return dot(x.subarray(t * inputs, (t + 1) * inputs), wide.subarray(n * inputs, (n + 1) * inputs));
        });
        expectSameBits(out, expected);
      }
    }
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
  test.each(SIZES)("is the definition at size %i, in place too", size => {
    const [x, gain] = [noise(3 * size, size, 5), noise(size, 9)];
    const out = new Float32Array(3 * size);
    rmsNormInto(out, x, gain, 3, 1e-6);
    const expected = Float32Array.from(x, (value, i) => {
      const row = x.subarray(i - (i % size), i - (i % size) + size);
      const mean = f(interleavedSum(row.map(v => f(v * v))) / size);
      return f(f(value * f(1 / f(Math.sqrt(f(mean + f(1e-6)))))) * gain[i % size]);
    });
    expectSameBits(out, expected);
    rmsNormInto(x, x, gain, 3, 1e-6);
    expectSameBits(x, expected);
  });
});

describe("rotation", () => {
  test("turns pairs (d, d + half) and leaves lengths alone, whatever the start", () => {
    const [rows, heads, headDim] = [3, 2, 6];
    const angles = noise(10 * 3, 1, 3);
    const [cos, sin] = [angles.map(Math.cos), angles.map(Math.sin)];
    const x = noise(rows * heads * headDim, 2);
    const expected = x.map((value, i) => {
      const d = i % headDim;
      const t = 4 + Math.floor(i / (heads * headDim));
      const [c, s] = [cos[t * 3 + (d % 3)], sin[t * 3 + (d % 3)]];
      return d < 3 ? f(f(value * c) - f(x[i + 3] * s)) : f(f(value * c) + f(x[i - 3] * s));
    });
    ropeInto(x, rows, heads, headDim, cos, sin, 4);
    expectSameBits(x, expected);
  });
});

describe("attention", () => {
  /** One query head against the first `length` positions. */
  function attend(query: Float32Array, keys: Float32Array[], values: Float32Array[]): Float32Array {
    const scale = f(1 / f(Math.sqrt(query.length)));
    const scores = Float32Array.from(keys, key => f(dot(query, key) * scale));
    const max = scores.reduce((a, b) => Math.max(a, b));
    const weights = scores.map(score => exp32(f(score - max)));
    const denominator = interleavedSum(weights);
    return query.map((_, d) =>
      f(
        dot(
          weights,
          Float32Array.from(values, value => value[d]),
        ) / denominator,
      ),
    );
  }

  test.each([
    [1, 0],
    [1, 5],
    [3, 0],
    [4, 7],
    [17, 31],
    [2, 256],
    [3, 511],
  ])("is the definition for %i rows behind %i positions", (rows, start) => {
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

      const head = (x: Float32Array, position: number, h: number, heads: number): Float32Array =>
        x.subarray((position * heads + h) * headDim, (position * heads + h + 1) * headDim);
      for (let t = 0; t < rows; t++) {
        for (let h = 0; h < numHeads; h++) {
          const kv = Math.floor(h / (numHeads / numKvHeads));
          const past = Array.from({ length: start + t + 1 }, (_, j) => j);
          const expected = attend(
            head(q, t, h, numHeads),
            past.map(j => head(keys, j, kv, numKvHeads)),
            past.map(j => head(values, j, kv, numKvHeads)),
          );
          expectSameBits(head(out, t, h, numHeads).slice(), expected);
        }
      }
    }
  });

  test("a later position, be it NaN, does not reach an earlier one", () => {
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

  test("silu(gate) * up is the definition, from -200 to 200", () => {
    const gate = Float32Array.from({ length: 401 }, (_, i) => i - 200);
    const up = noise(401, 1, 4);
    const expected = gate.map((g, i) => f(f(g / f(1 + exp32(-g))) * up[i]));
    siluMulInto(gate, up, 401);
    expectSameBits(gate, expected);
    expect(
      gate.every((x, i) => Math.abs(x - ((i - 200) / (1 + Math.exp(200 - i))) * up[i]) <= 1e-6 * Math.abs(x) + 1e-30),
    ).toBe(true);
  });

  test("the residual sum is one float32 addition", () => {
    const x = Float32Array.of(1, 2 ** 24, -0);
    addInto(x, Float32Array.of(2 ** -25, 1, -0), 3);
    expectSameBits(x, Float32Array.of(1, 2 ** 24, -0));
  });

  test("argmax takes the lowest index on a tie and refuses NaN, also behind the largest", () => {
    expect(argmax(Float32Array.of(1, 3, 2, 3))).toBe(1);
    expect(argmax(Float32Array.of(-Infinity, -Infinity))).toBe(0);
    expect(() => argmax(Float32Array.of(1, 5, Number.NaN))).toThrow("argmax: expected numbers, got NaN at index 2");
  });
});
