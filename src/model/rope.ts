/**
 * The rotary table: cos and sin of every position and frequency, each rounded once to float32.
 *
 * In: rope theta, head size, number of positions. Out: two tables [positions, headDim / 2], which grow as sequences do.
 *
 * The steps and their roundings are the reference implementation's (transformers): frequency and angle are float32, and
 * only then come cos and sin. Rounding the angle to float32 matters: at position 32,767 a "more exact" float64 angle
 * would differ from what the model was trained with by up to 0.002 radians.
 */

import { MAX_ANGLE, pow64, sinCos64 } from "../tensor/elementary.ts";
import type { Engine, FloatBuffer, RotaryAngles } from "../tensor/engine.ts";

const f = Math.fround;

/**
 * The inverse frequency of each pair i: 1 / theta^(2i / headDim), rounded to float32 after each step. -> [headDim / 2]
 */
export function inverseFrequencies(theta: number, headDim: number): Float32Array {
  return Float32Array.from({ length: headDim / 2 }, (_, i) => f(1 / f(pow64(theta, f((2 * i) / headDim)))));
}

/** cos and sin of position * inverse frequency, [positions, headDim / 2], for as many positions as were asked for. */
export class RotaryTable implements RotaryAngles {
  readonly inverseFrequencies: Float32Array;
  cos: FloatBuffer;
  sin: FloatBuffer;
  readonly #engine: Pick<Engine, "buffer" | "free">;
  readonly #maxPositions: number;

  constructor(engine: Pick<Engine, "buffer" | "free">, theta: number, headDim: number, maxPositions: number) {
    this.#engine = engine;
    this.#maxPositions = maxPositions;
    this.inverseFrequencies = inverseFrequencies(theta, headDim);
    const largest = this.inverseFrequencies.reduce((a, b) => Math.max(a, b)) * maxPositions;
    if (!(largest <= MAX_ANGLE))
      throw new RangeError(`rotary table: expected angles up to ${MAX_ANGLE}, got ${largest} (rope_theta ${theta})`);
    this.cos = engine.buffer(0, 1);
    this.sin = engine.buffer(0, 1);
  }

  /** Makes sure that positions below `positions` (at most `maxPositions`) are in the tables. */
  ensure(positions: number): void {
    const half = this.inverseFrequencies.length;
    const have = this.cos.length / half;
    if (positions <= have) return;
    const want = Math.min(this.#maxPositions, Math.max(positions, 2 * have));
    const [cos, sin] = [this.#engine.buffer(want, half), this.#engine.buffer(want, half)];
    const [cosData, sinData] = [cos.data, sin.data];
    cosData.set(this.cos.data);
    sinData.set(this.sin.data);
    for (let p = have; p < want; p++) {
      for (let i = 0; i < half; i++) {
        const value = sinCos64(f(p * this.inverseFrequencies[i]));
        cosData[p * half + i] = value.cos;
        sinData[p * half + i] = value.sin;
      }
    }
    this.#engine.free(this.cos);
    this.#engine.free(this.sin);
    this.cos = cos;
    this.sin = sin;
  }
}
