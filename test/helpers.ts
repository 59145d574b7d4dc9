/** What tests share: goldens, seeded noise, and comparisons that NaN cannot pass. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import type { Engine } from "../src/tensor/engine.ts";

/** The absolute path of a file of the project. */
export function projectPath(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(projectPath(path), "utf8"));
}

export function readJsonLines<T>(path: string): T[] {
  return readFileSync(projectPath(path), "utf8")
    .split("\n")
    .filter(line => line !== "")
    .map(line => JSON.parse(line));
}

/** Equality of float32 values to the bit: tells 0 from -0, and reports the first difference rather than a thousand. */
export function expectSameBits(got: Float32Array, expected: Float32Array): void {
  expect(got.length).toBe(expected.length);
  const a = new Uint32Array(got.slice().buffer);
  const b = new Uint32Array(expected.slice().buffer);
  const at = a.findIndex((bits, i) => bits !== b[i]);
  if (at >= 0) expect.fail(`first difference at ${at}: got ${got[at]}, expected ${expected[at]}`);
  expect(got.some(Number.isNaN)).toBe(false);
}

/** sum((a - b)^2) / sum(b^2), in float64; NaN anywhere gives NaN, which no bound accepts. */
export function nmse(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.NaN;
  let error = 0;
  let size = 0;
  for (let i = 0; i < a.length; i++) {
    error += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return error / size;
}

/** Fails unless value <= bound; NaN fails. */
export function expectAtMost(value: number, bound: number, what: string): void {
  if (!(value <= bound)) expect.fail(`${what}: expected at most ${bound}, got ${value}`);
}

/** Seeded float32 noise, uniform in ±scale. */
export function noise(length: number, seed: number, scale: number = 1): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 31 - 1) * scale;
  });
}

/** The float32 value of big-endian hexadecimal bits, as goldens/rope.json has them. */
export function fromHex(hex: string): number {
  return new DataView(Uint32Array.of(Number.parseInt(hex, 16)).buffer).getFloat32(0, true);
}

/** Runs `work` and gives back the engine's buffers that were made in it. */
export function inScope<T>(engine: Engine, work: () => T): T {
  const end = engine.scope();
  try {
    return work();
  } finally {
    end();
  }
}
