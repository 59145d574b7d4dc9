import { describe, expect, test } from "vitest";
import { exp32, exp64, log64, pow64, sinCos64 } from "../../src/tensor/elementary.ts";
import { expectAtMost } from "../helpers.ts";

const f = Math.fround;

describe("exp32", () => {
  test("stays within 1e-7 of the true value over its whole range", () => {
    let worst = 0;
    for (let i = 0; i <= 200_000; i++) {
      const x = f(-87.3 + (176 * i) / 200_000);
      worst = Math.max(worst, Math.abs(exp32(x) - Math.exp(x)) / Math.exp(x));
    }
    expectAtMost(worst, 1e-7, "relative error");
  });

  test("gives a float32, exactly 1 at 0, and the stated values at and beyond the ends", () => {
    for (const x of [-87.3, -1, -0.5, f(0.1), 1, 88.7]) expect(f(exp32(f(x)))).toBe(exp32(f(x)));
    expect(exp32(0)).toBe(1);
    expect(exp32(-0)).toBe(1);
    expect(exp32(f(88.72283))).toBeLessThan(Infinity);
    expect(exp32(f(88.72284))).toBe(Infinity);
    expect(exp32(f(-87.33654))).toBeGreaterThanOrEqual(2 ** -126);
    expect(exp32(f(-87.33655))).toBe(0);
    expect(exp32(Infinity)).toBe(Infinity);
    expect(exp32(-Infinity)).toBe(0);
    expect(exp32(Number.NaN)).toBeNaN();
  });
});

describe("float64 functions", () => {
  test("exp64, log64 and pow64 stay within 1e-14 of the engine's own", () => {
    for (const x of [1e-300, 0.001, 0.7, 0.75, 1, 1.41, 1.42, 2, 10, 1e4, 1e6, 5e6, 1e300]) {
      expectAtMost(Math.abs(log64(x) - Math.log(x)), 4e-16 * Math.max(1, Math.abs(Math.log(x))), `log64(${x})`);
    }
    for (let x = -700; x <= 700; x += 0.37) expectAtMost(Math.abs(exp64(x) / Math.exp(x) - 1), 2e-15, `exp64(${x})`);
    for (let y = 0; y <= 1; y += 0.001) expectAtMost(Math.abs(pow64(1e6, y) / 1e6 ** y - 1), 1e-14, `pow64(1e6, ${y})`);
  });

  test("sinCos64 stays within 1e-15 of the engine's own in every quadrant, even at large angles", () => {
    for (let i = 0; i < 100_000; i++) {
      const angle = f(i < 50_000 ? i * 1e-4 : (i - 50_000) * 31.7);
      const { sin, cos } = sinCos64(angle);
      expectAtMost(Math.abs(sin - Math.sin(angle)), 1e-15, `sin(${angle})`);
      expectAtMost(Math.abs(cos - Math.cos(angle)), 1e-15, `cos(${angle})`);
    }
  });

  test("arguments outside their range are refused", () => {
    expect(() => log64(0)).toThrow("expected a positive, finite number, got 0");
    expect(() => log64(Number.NaN)).toThrow("got NaN");
    expect(() => exp64(701)).toThrow("got 701");
    expect(() => sinCos64(-1)).toThrow("got -1");
    expect(() => sinCos64(2e6)).toThrow("got 2000000");
  });
});
