/**
 * The module of all kernels: its bytes, the compiled module, and the functions that an instance exports.
 *
 * In: a memory, shared or not. Out: functions on pointers (byte addresses in that memory). Row counts, strides and
 * layouts are described at each kernel.
 */

import type { WeightDtype } from "../dtype.ts";
import type { QuantisedScheme } from "../quantised.ts";
import { ModuleBuilder } from "./assembler.ts";
import { addIntegerKernels } from "./integer-kernels.ts";
import { addLimitKernels } from "./limit-kernels.ts";
import { addLinearKernels } from "./linear-kernels.ts";
import { addQuantiseKernels } from "./quantise-kernels.ts";
import { addRepackKernels } from "./repack-kernel.ts";
import { addRowKernels } from "./row-kernels.ts";

type Kernel = (...args: number[]) => void;

export interface Kernels
  extends Readonly<
    Record<
      | `widen_${"BF16" | "F16"}`
      | `widen_row_${"BF16" | "F16"}`
      | `embed_${WeightDtype}`
      | `row${"" | 2}_${WeightDtype | QuantisedScheme}`,
      Kernel
    >
  > {
  readonly pack: Kernel;
  readonly tile: Kernel;
  readonly add_panel: Kernel;
  readonly repack_16bit: Kernel;
  readonly repack_pairs: Kernel;
  readonly quantise_row: Kernel;
  readonly quantise_int8: Kernel;
  readonly quantise_int4: Kernel;
  readonly sub_block_sums: Kernel;
  readonly pack_int4: Kernel;
  readonly pack_row_int4: Kernel;
  readonly unpack_int4: Kernel;
  readonly expand_int8: Kernel;
  readonly expand_int4: Kernel;
  readonly tile_integer: Kernel;
  readonly store_scaled: Kernel;
  readonly add_scaled: Kernel;
  readonly scale_rows: Kernel;
  readonly rms_norm: Kernel;
  readonly rope: Kernel;
  readonly softmax: (x: number, length: number, padded: number, scale: number) => number;
  readonly divide: Kernel;
  readonly silu_mul: Kernel;
  readonly add: Kernel;
  readonly spread: Kernel;
  readonly limit_multiply_add: Kernel;
  readonly limit_dot: Kernel;
  readonly limit_read: Kernel;
}

export const PAGE_BYTES = 65536;
/** A 32-bit memory's limit: 4 GiB. */
export const MAX_PAGES = 65536;

/**
 * Compiles the kernels, for a shared memory of at most MAX_PAGES or for one that is not shared. Takes some
 * milliseconds.
 */
export function compileKernels(shared: boolean): WebAssembly.Module {
  const module = new ModuleBuilder();
  addLinearKernels(module);
  addIntegerKernels(module);
  addQuantiseKernels(module);
  addRepackKernels(module);
  addRowKernels(module);
  addLimitKernels(module);
  return new WebAssembly.Module(module.bytes(shared ? MAX_PAGES : undefined));
}

export function instantiateKernels(module: WebAssembly.Module, memory: WebAssembly.Memory): Kernels {
  return new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Kernels;
}
