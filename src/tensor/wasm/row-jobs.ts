/**
 * Jobs that work along rows: norm, rotation, activation, residual. Items: `share` rows, or vectors. And the job that
 * measures the machine's limits for benchmarks.
 */

import { defineJob } from "./job.ts";
import { VECTOR_BYTES } from "./kernel-parts.ts";
import { READ_BYTES } from "./limit-kernels.ts";
import { FLOAT_BYTES } from "./panel-layout.ts";

/**
 * Fewer values than this are computed in a microsecond or two, sooner than they are handed out. Handing them out made
 * decoding some 4 % slower.
 */
export const MIN_ITEM_VALUES = 8192;

/** Items that each thread should find in a job over rows, so that a late one does not hold up the others. */
const ITEMS_PER_THREAD = 4;

/** How many of `count` rows, or vectors, of `values` each make an item. */
export function rowShare(threads: number, count: number, values: number): number {
  return Math.max(1, Math.ceil(count / (threads * ITEMS_PER_THREAD)), Math.ceil(MIN_ITEM_VALUES / values));
}

export const rmsNorm = defineJob(["out", "x", "gain", "rows", "size", "eps", "share"], ({ kernels }, args) => {
  const { out, x, gain, rows, size, eps, share } = args;
  const rowBytes = size * FLOAT_BYTES;
  return item => {
    for (let t = item * share; t < Math.min(rows, (item + 1) * share); t++) {
      kernels.rms_norm(out + t * rowBytes, x + t * rowBytes, gain, size, eps, size);
    }
  };
});

export const rope = defineJob(
  ["x", "heads", "headDim", "cos", "sin", "start", "rows", "share"],
  ({ kernels }, args) => {
    const { x, heads, headDim, cos, sin, start, rows, share } = args;
    const half = headDim / 2;
    return item => {
      for (let t = item * share; t < Math.min(rows, (item + 1) * share); t++) {
        const angle = (start + t) * half * FLOAT_BYTES;
        for (let h = 0; h < heads; h++)
          kernels.rope(x + (t * heads + h) * headDim * FLOAT_BYTES, cos + angle, sin + angle, half);
      }
    };
  },
);

/** x = silu(x) * y, and x = x + y. */
export const siluMul = elementwise("silu_mul");
export const add = elementwise("add");

function elementwise(kernel: "silu_mul" | "add") {
  return defineJob(["x", "y", "vectors", "share"], ({ kernels }, { x, y, vectors, share }) => item => {
    const first = item * share;
    kernels[kernel](x + first * VECTOR_BYTES, y + first * VECTOR_BYTES, Math.min(share, vectors - first));
  });
}

/** What is measured: products and sums of float32, reading memory from `from` on, products of 16-bit integers. */
export const LIMITS = ["float32", "reading", "int16"] as const;

export const limit = defineJob(["which", "rounds", "from"], ({ kernels, scratch }, { which, rounds, from }) => item => {
  if (LIMITS[which] === "float32") kernels.limit_multiply_add(scratch, rounds);
  else if (LIMITS[which] === "int16") kernels.limit_dot(scratch, rounds);
  else kernels.limit_read(scratch, from + item * rounds * READ_BYTES, rounds);
});
