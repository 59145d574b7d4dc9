/** Quantised weights against their definition in words, in big integers; and how much quantising costs. */

import { describe, expect, test } from "vitest";
import {
  ACTIVATION_MAX,
  packInt4,
  QUANTISED_SCHEMES,
  quantisedByteLength,
  quantisedEmbedInto,
  quantisedLinearInto,
  quantiseInto,
  quantiseTensor,
  SUB_SCALE_MAX,
  unpackInt4,
} from "../../src/tensor/quantised.ts";
import { linearInto } from "../../src/tensor/reference.ts";
import { Tensor } from "../../src/tensor/tensor.ts";
import { RowQuantiser } from "../../src/tensor/wasm/row-quantiser.ts";
import { expectAtMost, expectSameBits, nmse, noise } from "../helpers.ts";

/** Sums of three uniform values, near enough to what weights look like. */
function bell(length: number, seed: number): Float32Array {
  const [a, b, c] = [noise(length, seed), noise(length, seed + 1), noise(length, seed + 2)];
  return a.map((x, i) => x + b[i] + c[i]);
}

describe("activations", () => {
  test("the largest becomes 32767, the others the nearest integer, ties to even", () => {
    const x = Float32Array.of(-32767, 1, 1.5, 2.5, -0.5, -1.5, 0.49, 0);
    const out = new Int16Array(8);
    expect(quantiseInto(out, x, ACTIVATION_MAX)).toBe(1);
    expect([...out]).toEqual([-32767, 1, 2, 2, 0, -2, 0, 0]);
  });

  test("rows that are too small for a normal scale count as 0; NaN and infinity make the scale NaN", () => {
    const out = new Int16Array(2).fill(7);
    expect(quantiseInto(out, Float32Array.of(3e-34, -1e-40), ACTIVATION_MAX)).toBe(0);
    expect([...out]).toEqual([0, 0]);
    expect(quantiseInto(out, Float32Array.of(4e-34, 0), ACTIVATION_MAX)).toBeGreaterThan(0);
    for (const bad of [Number.NaN, Infinity, -Infinity])
      expect(quantiseInto(out, Float32Array.of(1, bad), ACTIVATION_MAX)).toBeNaN();
  });
});

describe("weights", () => {
  test("int8 has a scale for each row and 256 inputs; the last block is shorter", () => {
    const weights = bell(3 * 600, 1);
    const { values, scales } = quantiseTensor("w", "int8", [3, 600], weights);
    expect(scales.length).toBe(9);
    for (let n = 0; n < 3; n++) {
      for (let k = 0; k < 600; k++) {
        const scale = scales[n * 3 + (k >> 8)];
        const error = Math.abs(weights[n * 600 + k] - values[n * 600 + k] * scale);
        if (!(error <= scale * 0.5000001))
          expect.fail(`weight ${n}, ${k}: expected an error of at most half a step, got ${error / scale}`);
      }
      for (let block = 0; block < 3; block++) {
        const inBlock = values.subarray(n * 600 + block * 256, n * 600 + Math.min(600, block * 256 + 256));
        expect(Math.max(...inBlock.map(Math.abs))).toBe(127);
      }
    }
  });

  test("int4 by least squares has a quarter less error than steps from the maximum", () => {
    const [outputs, inputs] = [16, 1024];
    const weights = bell(outputs * inputs, 5);
    const { values, scales, subScales } = quantiseTensor("w", "int4", [outputs, inputs], weights);
    expect(Math.max(...subScales.map(Math.abs))).toBe(SUB_SCALE_MAX);
    const fitted = weights.map((_, i) => values[i] * subScales[i >> 5] * scales[i >> 8]);
    const byMaximum = weights.map((x, i) => {
      const step = Math.max(...weights.subarray(i & ~31, (i & ~31) + 32).map(Math.abs)) / 7;
      return Math.round(x / step) * step;
    });
    expectAtMost(nmse(fitted, weights), 0.75 * nmse(byMaximum, weights), "squared error");
  });

  test("rows of zeros have scales of 0 and give 0", () => {
    for (const scheme of QUANTISED_SCHEMES) {
      const tensor = quantiseTensor(
        "w",
        scheme,
        [2, 300],
        new Float32Array(600).map((_, i) => (i < 300 ? 0 : 1)),
      );
      const out = new Float32Array(2);
      quantisedLinearInto(out, new Float32Array(300).fill(1), 1, tensor);
      expect([out[0], Math.round(out[1])]).toEqual([0, 300]);
    }
  });

  test("sizes in bytes are those of the parts", () => {
    for (const [outputs, inputs] of [
      [3, 600],
      [5, 31],
      [16, 1024],
    ] as const) {
      const int8 = quantiseTensor("w", "int8", [outputs, inputs], noise(outputs * inputs, 1));
      expect(quantisedByteLength("int8", outputs, inputs)).toBe(int8.values.byteLength + int8.scales.byteLength);
      const int4 = quantiseTensor("w", "int4", [outputs, inputs], noise(outputs * inputs, 1));
      const packed = packInt4(int4.values, outputs, inputs);
      expect(quantisedByteLength("int4", outputs, inputs)).toBe(
        packed.byteLength + int4.scales.byteLength + int4.subScales.byteLength,
      );
      expect(unpackInt4(packed, outputs, inputs)).toEqual(int4.values);
    }
  });
});

describe.each(QUANTISED_SCHEMES)("%s", scheme => {
  test("the linear layer is what ARITHMETIC.md says, in big integers and one rounding at a time", () => {
    const [rows, outputs, inputs] = [3, 4, 601];
    const f = Math.fround;
    const weight = quantiseTensor("w", scheme, [outputs, inputs], bell(outputs * inputs, 9));
    const x = bell(rows * inputs, 12);
    const out = new Float32Array(rows * outputs);
    quantisedLinearInto(out, x, rows, weight);
    const expected = new Float32Array(rows * outputs);
    for (let t = 0; t < rows; t++) {
      const row = x.subarray(t * inputs, (t + 1) * inputs);
      const scale = f(Math.max(...row.map(Math.abs)) / 32767);
      for (let n = 0; n < outputs; n++) {
        let total = 0;
        for (let block = 0; block < 3; block++) {
          let sum = 0n;
          for (let k = 256 * block; k < Math.min(inputs, 256 * block + 256); k++) {
            const activation = f(row[k] / scale);
            const below = Math.floor(activation);
            const tie = activation - below === 0.5;
            const integer = tie ? 2 * Math.round(activation / 2) : Math.round(activation);
            const subScale = scheme === "int8" ? 1 : weight.subScales[n * 19 + (k >> 5)];
            sum += BigInt(integer) * BigInt(weight.values[n * inputs + k] * subScale);
          }
          total = f(total + f(f(Number(sum)) * weight.scales[n * 3 + block]));
        }
        expected[t * outputs + n] = f(total * scale);
      }
    }
    expectSameBits(out, expected);
  });

  test("is near the float32 layer, and looks up the rows that it multiplies by", () => {
    const [outputs, inputs] = [64, 1024];
    const weights = bell(outputs * inputs, 3);
    const x = bell(inputs, 4);
    const weight = quantiseTensor("w", scheme, [outputs, inputs], weights);
    const [out, exact, looked] = [
      new Float32Array(outputs),
      new Float32Array(outputs),
      new Float32Array(outputs * inputs),
    ];
    quantisedLinearInto(out, x, 1, weight);
    linearInto(exact, x, 1, new Tensor("w", "F32", [outputs, inputs], weights));
    expectAtMost(nmse(out, exact), scheme === "int8" ? 1e-4 : 1e-2, "NMSE of the outputs");
    quantisedEmbedInto(looked, weight, [...Array(outputs).keys()]);
    expectAtMost(nmse(looked, weights), scheme === "int8" ? 1e-4 : 1e-2, "NMSE of the weights");
    const again = new Float32Array(outputs);
    linearInto(again, x, 1, new Tensor("w", "F32", [outputs, inputs], looked));
    expectAtMost(nmse(again, out), 1e-7, "difference of 16-bit activations"); // of the activations' own rounding
  });

  test("rows quantised for a file are those of the definition", () => {
    const quantiser = new RowQuantiser();
    for (const [dtype, inputs] of [
      ["BF16", 600],
      ["F16", 512],
      ["F32", 300],
      ["BF16", 31],
      ["F32", 255],
    ] as const) {
      const values = bell(5 * inputs, inputs).map(x => 0.1 * x);
      const data =
        dtype === "F32"
          ? values
          : Uint16Array.from(values, (_, i) => ((i * 7919) % 0x3c00) | (i % 3 === 0 ? 0x8000 : 0));
      const tensor = new Tensor("w", dtype, [5, inputs], data);
      const expected = quantiseTensor("w", scheme, [5, inputs], tensor.toFloat32());
      const rows = quantiser.quantise("w", scheme, dtype, inputs, tensor.bytes());
      const integers = scheme === "int8" ? new Int8Array(rows.integers.buffer) : unpackInt4(rows.integers, 5, inputs);
      expect(integers).toEqual(expected.values);
      expect(rows.subScales).toEqual(expected.subScales);
      expectSameBits(rows.scales, expected.scales);
    }
    const bad = new Tensor("w", "F32", [1, 256], new Float32Array(256).fill(Infinity));
    expect(() => quantiser.quantise("w", scheme, "F32", 256, bad.bytes())).toThrow(
      'tensor "w": expected finite weights',
    );
  });
});
