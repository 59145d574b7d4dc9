/**
 * exp, log, pow, sin and cos of our own, in operations that IEEE 754 defines to the bit (+ - * / and rounding).
 *
 * In: numbers. Out: the same bits on every engine. `Math.exp`, `Math.pow` and `Math.sin` may differ by a unit in the
 * last place between engines and versions, so no result goes through them.
 *
 * Two kinds live here:
 *  - `exp32`: float32 arithmetic throughout, the exp of softmax and SiLU. The fast kernels repeat it operation by
 *    operation.
 *  - `log64`, `exp64`, `pow64`, `sinCos64`: float64, used a few thousand times for the rotary table, whose values are
 *    then rounded once to float32. Their error is about 1e-15, so the rounded result is in doubt only where the true
 *    value lies that close to a rounding boundary.
 */

const f = Math.fround;

// ---------------------------------------------------------------------------------------------------------------------
// exp32

/** The constants of `exp32`, all float32. The vector form uses them too. */
export const exp32Constants = {
  /** Above this, exp exceeds the largest float32. */
  high: f(88.72283),
  /**
   * Below this, exp is smaller than the smallest normal float32. The result is then 0, so that no kernel ever meets a
   * denormal.
   */
  low: f(-87.33654),
  log2E: f(Math.LOG2E),
  /**
   * ln 2 in two pieces (Cody and Waite): the first has nine significant bits, so that n * ln2High is exact for every n
   * that occurs.
   */
  ln2High: f(0.693359375),
  ln2Low: f(-2.1219444e-4),
  /** Minimax coefficients for (exp(r) - 1 - r) / r^2 on |r| <= ln2 / 2, from Cephes' expf (Moshier, 1984-1992). */
  p0: f(1.98756915e-4),
  p1: f(1.3981999507e-3),
  p2: f(8.3334519073e-3),
  p3: f(4.1665795894e-2),
  p4: f(1.6666665459e-1),
  p5: f(5.0000001201e-1),
} as const;
const {
  high: EXP32_HIGH,
  low: EXP32_LOW,
  log2E: LOG2_E,
  ln2High: LN2_HIGH,
  ln2Low: LN2_LOW,
  p0: P0,
  p1: P1,
  p2: P2,
  p3: P3,
  p4: P4,
  p5: P5,
} = exp32Constants;
/**
 * Adding and subtracting 1.5 * 2^23 rounds a float32 of moderate size to an integer, ties to even: what `f32x4.nearest`
 * does.
 */
const ROUNDER = f(12582912);

/** 2^n for n = index - 127: powers whose float32 is normal. */
const POWERS_OF_TWO = new Float32Array(255);
for (let i = 1, p = 2 ** -126; i < 255; i++, p *= 2) POWERS_OF_TWO[i] = p;

/**
 * e^x in float32, relative error below 1e-7. x must be a float32 value.
 * NaN gives NaN; x > 88.72283 gives Infinity; x < -87.33654 gives 0.
 */
export function exp32(x: number): number {
  if (x < EXP32_LOW) return 0;
  if (x > EXP32_HIGH) return Infinity;
  const n = f(f(f(x * LOG2_E) + ROUNDER) - ROUNDER);
  const r = f(f(x - f(n * LN2_HIGH)) - f(n * LN2_LOW));
  let p = f(f(P0 * r) + P1);
  p = f(f(p * r) + P2);
  p = f(f(p * r) + P3);
  p = f(f(p * r) + P4);
  p = f(f(p * r) + P5);
  p = f(f(f(p * f(r * r)) + r) + 1);
  // In two factors, because 2^128 (x near the upper end) is not a float32.
  const power = n | 0;
  const half = power >> 1;
  return f(f(p * POWERS_OF_TWO[half + 127]) * POWERS_OF_TWO[power - half + 127]);
}

// ---------------------------------------------------------------------------------------------------------------------
// float64 helpers

/** ln 2 as an exact 32-bit head and the rest (fdlibm's split). */
const LN2_64_HIGH = 0.6931471803691238;
const LN2_64_LOW = 1.9082149292705877e-10;

/**
 * Natural logarithm of a positive, finite x: x = m * 2^e with m near 1, then the series of 2 artanh((m - 1) / (m + 1)).
 */
export function log64(x: number): number {
  if (!(x > 0 && x < Infinity)) throw new RangeError(`log64: expected a positive, finite number, got ${x}`);
  let exponent = 0;
  let m = x;
  while (m > Math.SQRT2) {
    m /= 2;
    exponent++;
  }
  while (m < Math.SQRT1_2) {
    m *= 2;
    exponent--;
  }
  const s = (m - 1) / (m + 1); // |s| <= 0.1716, so s^24 / 25 is below float64's precision
  const s2 = s * s;
  let series = 0;
  for (let k = 23; k >= 3; k -= 2) series = (series + 1 / k) * s2;
  return exponent * LN2_64_HIGH + (2 * s + 2 * s * series + exponent * LN2_64_LOW);
}

/** e^x for |x| <= 700: x = n ln 2 + r, then the Taylor series of e^r. */
export function exp64(x: number): number {
  if (!(Math.abs(x) <= 700)) throw new RangeError(`exp64: expected a number within ±700, got ${x}`);
  const n = Math.round(x / Math.LN2);
  const r = x - n * LN2_64_HIGH - n * LN2_64_LOW; // |r| <= 0.35, so r^17 / 17! is below float64's precision
  let sum = 1;
  for (let k = 16; k >= 1; k--) sum = 1 + (sum * r) / k;
  const factor = n < 0 ? 0.5 : 2;
  for (let i = Math.abs(n); i > 0; i--) sum *= factor; // exact
  return sum;
}

/** base^exponent for a positive base. */
export function pow64(base: number, exponent: number): number {
  return exp64(exponent * log64(base));
}

/**
 * pi/2 in three pieces (fdlibm): the first two have 33 bits, so that their products with a 20-bit integer are exact.
 */
const HALF_PI_1 = 1.5707963267341256;
const HALF_PI_2 = 6.077100506303966e-11;
const HALF_PI_3 = 2.0222662487959506e-21;
/** Largest angle whose multiple of pi/2 fits 20 bits. */
export const MAX_ANGLE = 1.6e6;

/** Sine and cosine of an angle in radians, 0 <= angle <= MAX_ANGLE. */
export function sinCos64(angle: number): { sin: number; cos: number } {
  if (!(angle >= 0 && angle <= MAX_ANGLE))
    throw new RangeError(`sinCos64: expected an angle from 0 to ${MAX_ANGLE}, got ${angle}`);
  const quadrant = Math.round(angle / (Math.PI / 2));
  const r = angle - quadrant * HALF_PI_1 - quadrant * HALF_PI_2 - quadrant * HALF_PI_3; // |r| <= pi/4
  const r2 = r * r;
  // Taylor series from the smallest term: r^19 / 19! and r^18 / 18! are below float64's precision at pi/4.
  let sin = 1;
  for (let k = 17; k >= 3; k -= 2) sin = 1 - (sin * r2) / (k * (k - 1));
  sin *= r;
  let cos = 1;
  for (let k = 18; k >= 2; k -= 2) cos = 1 - (cos * r2) / (k * (k - 1));
  switch (quadrant % 4) {
    case 0:
      return { sin, cos };
    case 1:
      return { sin: cos, cos: -sin };
    case 2:
      return { sin: -sin, cos: -cos };
    default:
      return { sin: -cos, cos: sin };
  }
}
