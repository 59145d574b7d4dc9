/**
 * The most that the machine can do, for a benchmark to compare its figures with: multiplying and adding in registers
 * alone, float32 and 16-bit integers, and reading memory.
 */

import { f32x4, i32x4, type ModuleBuilder, v128 } from "./assembler.ts";
import { LANES, VECTOR_BYTES } from "./kernel-parts.ts";

/**
 * Independent chains of 4 lanes: a product and a sum take some 8 cycles together, and 8 chains were too few to keep
 * three units busy.
 */
const CHAINS = 12;
/** Floating-point operations of one round of `limit_multiply_add`. */
export const MULTIPLY_ADD_FLOPS = CHAINS * LANES * 2;
/** The same for `limit_dot`, whose vectors hold twice as many numbers. */
export const DOT_OPERATIONS = CHAINS * 2 * LANES * 2;
/** Bytes that one round of `limit_read` reads. */
export const READ_BYTES = 128;

export function addLimitKernels(module: ModuleBuilder): void {
  // It touches no memory, so only the vector units limit it.
  module.func("limit_multiply_add", { out: "i32", rounds: "i32" }, null, (f, { out, rounds }) => {
    const [factor, zero] = [f.local("v128", f32x4.const(0.5)), f.local("v128", f32x4.const(0))];
    const sums = Array.from({ length: CHAINS }, () => f.local("v128", zero.get));
    f.repeat(rounds, () => {
      for (const sum of sums) sum.set(f32x4.add(factor.get, f32x4.mul(sum.get, factor.get)));
    });
    f.storeV128(
      out.get,
      sums.map(sum => sum.get).reduce((a, b) => f32x4.add(a, b)),
    );
  });
  module.func("limit_dot", { out: "i32", rounds: "i32" }, null, (f, { out, rounds }) => {
    const factor = f.local("v128", i32x4.const(0x10001));
    const sums = Array.from({ length: CHAINS }, () => f.local("v128", factor.get));
    f.repeat(rounds, () => {
      for (const sum of sums) sum.set(i32x4.add(factor.get, i32x4.dot(sum.get, factor.get)));
    });
    f.storeV128(
      out.get,
      sums.map(sum => sum.get).reduce((a, b) => i32x4.add(a, b)),
    );
  });
  module.func("limit_read", { out: "i32", pointer: "i32", rounds: "i32" }, null, (f, { out, pointer, rounds }) => {
    const sums = Array.from({ length: 4 }, () => f.local("v128", f32x4.const(0)));
    f.repeat(rounds, () => {
      for (let i = 0; i < READ_BYTES / VECTOR_BYTES; i++)
        sums[i % 4].set(v128.or(sums[i % 4].get, v128.load(pointer.get, VECTOR_BYTES * i)));
      f.advance(pointer, READ_BYTES);
    });
    f.storeV128(
      out.get,
      sums.map(sum => sum.get).reduce((a, b) => v128.or(a, b)),
    );
  });
}
