/**
 * Quantises rows of weights as they come, for a program that writes them to a file.
 *
 * In: rows as a checkpoint stores them. Out: the same rows in the form in which they are saved, with the bits of
 * `quantiseTensor` and the speed of the engine. It works in one thread, in a small memory of its own.
 */

import type { WeightDtype } from "../dtype.ts";
import {
  blocksOf,
  checkScales,
  INT8_MAX,
  packInt4,
  type QuantisedScheme,
  quantiseInt4Into,
  quantiseInto,
  SUB_BLOCK,
  subScalesOf,
} from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";
import { Tensor } from "../tensor.ts";
import { storedRowBytes } from "./fill-panels.ts";
import { compileKernels, instantiateKernels, type Kernels, PAGE_BYTES } from "./kernels.ts";
import { FLOAT_BYTES, PANEL } from "./panel-layout.ts";

export interface QuantisedRows {
  /** int8: a byte each. int4: two in a byte. */
  readonly integers: Uint8Array;
  readonly scales: Float32Array;
  readonly subScales: Int8Array;
}

// The memory: a block as stored, widened, its integers, the same two in a byte, its sub-scales (PANEL bytes apart),
// room for steps, its scale.
const STORED = 0;
const WIDENED = STORED + SUM_BLOCK * FLOAT_BYTES;
const VALUES = WIDENED + SUM_BLOCK * FLOAT_BYTES;
const PACKED = VALUES + SUM_BLOCK;
const SUB_SCALES = PACKED + SUM_BLOCK / 2;
const STEPS = SUB_SCALES + (SUM_BLOCK / SUB_BLOCK) * PANEL;
const SCALE = STEPS + (SUM_BLOCK / SUB_BLOCK) * FLOAT_BYTES;

export class RowQuantiser {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #kernels: Kernels;

  constructor() {
    const memory = new WebAssembly.Memory({ initial: Math.ceil((SCALE + FLOAT_BYTES) / PAGE_BYTES) });
    this.#bytes = new Uint8Array(memory.buffer);
    this.#view = new DataView(memory.buffer);
    this.#kernels = instantiateKernels(compileKernels(false), memory);
  }

  /**
   * Rows of `inputs` weights, one after the other. Throws RangeError, with the name, for weights that are not finite.
   */
  quantise(name: string, scheme: QuantisedScheme, dtype: WeightDtype, inputs: number, rows: Uint8Array): QuantisedRows {
    const rowBytes = storedRowBytes(dtype, inputs);
    const savedBytes = storedRowBytes(scheme, inputs);
    const count = rows.byteLength / rowBytes;
    const [blocks, subBlocks] = [blocksOf(inputs), subScalesOf(scheme, inputs)];
    const integers = new Uint8Array(count * savedBytes);
    const scales = new Float32Array(count * blocks);
    const subScales = new Int8Array(count * subBlocks);
    for (let r = 0; r < count; r++) {
      for (let block = 0; block < blocks; block++) {
        const first = block * SUM_BLOCK;
        const length = Math.min(SUM_BLOCK, inputs - first);
        const from = r * rowBytes + storedRowBytes(dtype, first);
        const source = rows.subarray(from, from + storedRowBytes(dtype, length));
        const subs = subScales.subarray(r * subBlocks + first / SUB_BLOCK);
        const at = r * savedBytes + storedRowBytes(scheme, first);
        const quantised =
          length === SUM_BLOCK ? this.#block(scheme, dtype, source, subs) : shortBlock(scheme, dtype, source, subs);
        integers.set(quantised.integers, at);
        scales[r * blocks + block] = quantised.scale;
      }
    }
    checkScales(name, scales, "weights");
    return { integers, scales, subScales };
  }

  #block(
    scheme: QuantisedScheme,
    dtype: WeightDtype,
    source: Uint8Array,
    subScales: Int8Array,
  ): { integers: Uint8Array; scale: number } {
    const kernels = this.#kernels;
    this.#bytes.set(source, STORED);
    if (dtype !== "F32") kernels[`widen_row_${dtype}`](STORED, WIDENED, SUM_BLOCK / 8);
    const weights = dtype === "F32" ? STORED : WIDENED;
    if (scheme === "int8") kernels.quantise_int8(weights, VALUES, SCALE, SUM_BLOCK);
    else {
      kernels.quantise_int4(weights, VALUES, SUB_SCALES, SCALE, SUM_BLOCK / SUB_BLOCK, STEPS);
      kernels.pack_row_int4(VALUES, PACKED, SUM_BLOCK / 32);
      for (let s = 0; s < SUM_BLOCK / SUB_BLOCK; s++) subScales[s] = this.#bytes[SUB_SCALES + s * PANEL];
    }
    const integers =
      scheme === "int8" ? this.#bytes.subarray(VALUES, PACKED) : this.#bytes.subarray(PACKED, SUB_SCALES);
    return { integers, scale: this.#view.getFloat32(SCALE, true) };
  }
}

/** A last block of fewer than 256 inputs, by the definition's loops. */
function shortBlock(
  scheme: QuantisedScheme,
  dtype: WeightDtype,
  source: Uint8Array,
  subScales: Int8Array,
): { integers: Uint8Array; scale: number } {
  const weights = Tensor.fromBytes("row", dtype, [source.byteLength / storedRowBytes(dtype, 1)], source).toFloat32();
  const values = new Int8Array(weights.length);
  if (scheme === "int8")
    return { scale: quantiseInto(values, weights, INT8_MAX), integers: new Uint8Array(values.buffer) };
  return { scale: quantiseInt4Into(values, subScales, weights), integers: packInt4(values, 1, values.length) };
}
