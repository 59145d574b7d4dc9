/** A memory of an engine without the engine, for tests of what works in it. */

import { Heap } from "../../../src/tensor/wasm/heap.ts";
import { compileKernels, PAGE_BYTES } from "../../../src/tensor/wasm/kernels.ts";
import { EngineMemory } from "../../../src/tensor/wasm/memory.ts";

/** Kernels for a shared memory. */
export const MODULE: WebAssembly.Module = compileKernels(true);

export function newMemory(): EngineMemory {
  const memory = new EngineMemory(0, new Heap(true, 32 * PAGE_BYTES));
  memory.instantiate(MODULE);
  return memory;
}
