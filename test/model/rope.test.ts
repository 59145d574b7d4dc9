import { describe, expect, test } from "vitest";
import { inverseFrequencies, RotaryTable } from "../../src/model/rope.ts";
import { ReferenceEngine } from "../../src/tensor/reference-engine.ts";
import { fromHex, readJson } from "../helpers.ts";

const engine = new ReferenceEngine();

interface RopeGolden {
  readonly theta: number;
  readonly head_dim: number;
  readonly inv_freq: readonly string[];
  readonly positions: Readonly<Record<string, { angle: string[]; cos: string[]; sin: string[] }>>;
}

/** Distance in units in the last place, across zero where the signs differ. */
function ulps(a: number, b: number): number {
  const order = (x: number): number => {
    const bits = new Int32Array(Float32Array.of(x).buffer)[0];
    return bits < 0 ? -(bits & 0x7fffffff) : bits;
  };
  return Math.abs(order(a) - order(b));
}

const goldens = readJson<RopeGolden[]>("test/goldens/rope.json");

test("inverse frequencies are the reference's bits, in all but one of 107 entries and there by one unit", () => {
  const distances = goldens.flatMap(golden => {
    const ours = inverseFrequencies(golden.theta, golden.head_dim);
    expect(ours.length).toBe(golden.inv_freq.length);
    return golden.inv_freq.map((hex, i) => ulps(ours[i], fromHex(hex)));
  });
  expect(distances.length).toBe(107);
  expect(distances.filter(d => d !== 0)).toEqual([1]);
});

describe.each(goldens)("theta $theta, head size $head_dim", golden => {
  const table = new RotaryTable(engine, golden.theta, golden.head_dim, 32768);
  const half = golden.head_dim / 2;
  const ours = table.inverseFrequencies;

  test.each(Object.keys(golden.positions).map(Number))(
    "cos and sin at position %i differ by one unit at most",
    position => {
      table.ensure(position + 1);
      const { angle, cos, sin } = golden.positions[String(position)];
      for (let i = 0; i < half; i++) {
        // Where the frequency itself differs, so does the angle.
        if (ours[i] !== fromHex(golden.inv_freq[i])) continue;
        expect(Math.fround(position * ours[i])).toBe(fromHex(angle[i]));
        expect(ulps(table.cos.data[position * half + i], fromHex(cos[i]))).toBeLessThanOrEqual(1);
        expect(ulps(table.sin.data[position * half + i], fromHex(sin[i]))).toBeLessThanOrEqual(1);
      }
    },
  );
});

test("growing the table in steps gives the same values as building it at once", () => {
  const grown = new RotaryTable(engine, 1e6, 64, 1000);
  for (const positions of [1, 5, 6, 300, 1000]) grown.ensure(positions);
  const whole = new RotaryTable(engine, 1e6, 64, 1000);
  whole.ensure(1000);
  expect(grown.cos.data).toEqual(whole.cos.data);
  expect(grown.sin.data).toEqual(whole.sin.data);
  expect(grown.cos.length).toBe(1000 * 32);
});

test("a theta whose angles leave the range of exact reduction is refused", () => {
  expect(() => new RotaryTable(engine, 1e-3, 64, 2 ** 20)).toThrow("rotary table: expected angles up to");
});
