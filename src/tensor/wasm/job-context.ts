/** What jobs have at hand: kernels, a memory, a scratch; and how they look at the memory. */

import type { Kernels } from "./kernels.ts";
import type { WeightDtype } from "./linear-kernels.ts";

/** What a job's item needs of the thread that runs it. */
export interface JobContext {
  readonly kernels: Kernels;
  readonly memory: WebAssembly.Memory;
  /** Address of this thread's scratch. */
  readonly scratch: number;
}

export const FLOAT_BYTES = 4;
/** A dtype is given to a job by its index. */
export const DTYPES: readonly WeightDtype[] = ["BF16", "F16", "F32"];

/**
 * The memory as floats, at least up to the byte `end`. When one thread has grown a shared memory, another's `memory.buffer` shows it only after
 * V8 has interrupted that thread, which it does at the turn of a loop; until then a write beyond the old end would be lost without a word.
 */
export function floatsUpTo(memory: WebAssembly.Memory, end: number): Float32Array {
  for (let turns = 0; turns < 1_000_000; turns++) {
    const floats = new Float32Array(memory.buffer);
    if (floats.byteLength >= end) return floats;
  }
  throw new Error(`memory: expected at least ${end} bytes, got ${memory.buffer.byteLength}`);
}

/** The same as bytes. */
export function bytesUpTo(memory: WebAssembly.Memory, end: number): Uint8Array {
  return new Uint8Array(floatsUpTo(memory, end).buffer);
}
