/**
 * The job that fills panels of quantised weights at load, out of rows of a checkpoint: quantised on the way, or as they were saved.
 *
 * In: sixteen rows for each item. Out: a panel, as panel-layout.ts describes it. Whole blocks are the kernels' work; a shorter last block, which no
 * published shape has, goes by way of the readable definition.
 */

import { bf16ToFloat32, f16ToFloat32 } from "../dtype.ts";
import {
  blocksOf,
  INT8_MAX,
  QUANTISED_SCHEMES,
  type QuantisedScheme,
  quantiseInt4Into,
  quantiseInto,
  SUB_BLOCK,
  subBlocksOf,
  unpackInt4,
} from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";
import { bytesUpTo, DTYPES, FLOAT_BYTES, type JobContext } from "./job-context.ts";
import type { Kernels } from "./kernels.ts";
import { PANEL, WEIGHT_BYTES, type WeightDtype } from "./linear-kernels.ts";
import { integerPlace, integersBytes, type PanelLayout, pairsOf, panelLayout, scalesOffset } from "./panel-layout.ts";

/** In the place of a dtype's code: the rows hold integers, as saved. */
export const SAVED: number = DTYPES.length;

/** A block of float32, integers of 16 rows, the same repacked, and steps of sub-blocks. */
export const FILL_SCRATCH_BYTES: number = SUM_BLOCK * FLOAT_BYTES + 2 * PANEL * SUM_BLOCK + 64;

/** What a row of weights takes in a checkpoint. */
export function storedRowBytes(scheme: QuantisedScheme, dtype: WeightDtype | undefined, inputs: number): number {
  if (dtype !== undefined) return inputs * WEIGHT_BYTES[dtype];
  return scheme === "int8" ? inputs : Math.ceil(inputs / 2);
}

/** One block of sixteen rows: where it comes from and where it goes. Addresses, but for `count`, its inputs. */
interface BlockOfRows {
  readonly kernels: Kernels;
  readonly layout: PanelLayout;
  readonly dtype: WeightDtype | undefined;
  readonly rows: number;
  readonly rowBytes: number;
  readonly count: number;
  readonly record: number;
  readonly scratch: number;
}

/**
 * Args: scheme, dtype (or SAVED), rows, panels, inputs; of saved rows also where their scales [rows][blocks] and sub-scales [rows][sub-blocks] are.
 * Rows lie one after the other from `rows` on, 16 for each item.
 */
export function fillPanel({ kernels, memory, scratch }: JobContext, args: readonly number[], item: number): void {
  const [schemeCode, dtypeCode, rows, panels, inputs, savedScales, savedSubScales] = args;
  const layout = panelLayout(QUANTISED_SCHEMES[schemeCode], inputs);
  const { scheme, recordBytes, panelBytes } = layout;
  const dtype = dtypeCode === SAVED ? undefined : DTYPES[dtypeCode];
  const rowBytes = storedRowBytes(scheme, dtype, inputs);
  const first = rows + item * PANEL * rowBytes;
  // int8 has no sub-scales: a range for them would reach beyond a memory that ends with the scales.
  const [blocks, subBlocks] = [blocksOf(inputs), scheme === "int4" ? subBlocksOf(inputs) : 0];
  const end = Math.max(panels + (item + 1) * panelBytes, scratch + FILL_SCRATCH_BYTES, first + PANEL * rowBytes);
  const rowsEnd = (item + 1) * PANEL;
  const savedEnd = dtype ? 0 : Math.max(savedScales + rowsEnd * blocks * FLOAT_BYTES, savedSubScales + rowsEnd * subBlocks);
  const bytes = bytesUpTo(memory, Math.max(end, savedEnd));
  const floats = new Float32Array(bytes.buffer);
  for (let block = 0; block < blocks; block++) {
    const count = Math.min(SUM_BLOCK, inputs - block * SUM_BLOCK);
    const record = panels + item * panelBytes + block * recordBytes;
    const source = first + block * storedRowBytes(scheme, dtype, SUM_BLOCK);
    const part: BlockOfRows = { kernels, layout, dtype, rows: source, rowBytes, count, record, scratch };
    if (dtype === undefined) {
      const scales = record + scalesOffset(scheme, count);
      const subScales = record + integersBytes(scheme, count);
      for (let r = 0; r < PANEL; r++) {
        const row = item * PANEL + r;
        floats[scales / FLOAT_BYTES + r] = floats[savedScales / FLOAT_BYTES + row * blocks + block];
        const from = savedSubScales + row * subBlocks + block * (SUM_BLOCK / SUB_BLOCK);
        if (scheme === "int4") for (let s = 0; s < subBlocksOf(count); s++) bytes[subScales + s * PANEL + r] = bytes[from + s];
      }
    }
    if (count === SUM_BLOCK) fillBlock(part);
    else fillShortBlock(part, bytes);
  }
}

function fillBlock({ kernels, layout: { scheme }, dtype, rows, rowBytes, record, scratch }: BlockOfRows): void {
  const integers = scratch + SUM_BLOCK * FLOAT_BYTES;
  const repacked = integers + PANEL * SUM_BLOCK;
  const steps = repacked + PANEL * SUM_BLOCK;
  const scales = record + scalesOffset(scheme, SUM_BLOCK);
  const subScales = record + integersBytes(scheme, SUM_BLOCK);
  const groups = pairsOf(SUM_BLOCK) / 8;
  for (let r = 0; r < PANEL; r++) {
    const row = rows + r * rowBytes;
    const out = integers + r * SUM_BLOCK;
    if (dtype === undefined) {
      if (scheme === "int4") kernels.unpack_int4(row, out, SUM_BLOCK / 32);
      continue;
    }
    let widened = row;
    if (dtype !== "F32") {
      widened = scratch;
      kernels[`widen_row_${dtype}`](row, widened, SUM_BLOCK / 8);
    }
    if (scheme === "int8") kernels.quantise_int8(widened, out, scales + r * FLOAT_BYTES, SUM_BLOCK);
    else kernels.quantise_int4(widened, out, subScales + r, scales + r * FLOAT_BYTES, SUM_BLOCK / SUB_BLOCK, steps);
  }
  const isSavedInt8 = dtype === undefined && scheme === "int8";
  const target = scheme === "int8" ? record : repacked;
  kernels.repack_pairs(isSavedInt8 ? rows : integers, isSavedInt8 ? rowBytes : SUM_BLOCK, target, groups);
  if (scheme === "int4") kernels.pack_int4(repacked, record, pairsOf(SUM_BLOCK));
}

/** The readable way, for a block of fewer than 256 inputs. */
function fillShortBlock({ layout: { scheme }, dtype, rows, rowBytes, count, record }: BlockOfRows, bytes: Uint8Array): void {
  const scales = record + scalesOffset(scheme, count);
  const subScales = record + integersBytes(scheme, count);
  bytes.fill(0, record, subScales);
  for (let r = 0; r < PANEL; r++) {
    const row = rows + r * rowBytes;
    let values: Int8Array = new Int8Array(count);
    if (dtype === undefined) {
      const saved = bytes.slice(row, row + storedRowBytes(scheme, dtype, count));
      values = scheme === "int8" ? new Int8Array(saved.buffer) : unpackInt4(saved, 1, count);
    } else {
      const weights = widened(dtype, bytes.buffer, row, count);
      const subs = new Int8Array(subBlocksOf(count));
      const scale = scheme === "int8" ? quantiseInto(values, weights, INT8_MAX) : quantiseInt4Into(values, subs, weights);
      new Float32Array(bytes.buffer)[scales / FLOAT_BYTES + r] = scale;
      if (scheme === "int4") for (let s = 0; s < subs.length; s++) bytes[subScales + s * PANEL + r] = subs[s];
    }
    for (let k = 0; k < count; k++) {
      const { byte, shift, flip } = integerPlace(scheme, r, k);
      bytes[record + byte] |= scheme === "int8" ? values[k] : ((values[k] & 15) ^ flip) << shift;
    }
  }
}

function widened(dtype: WeightDtype, buffer: ArrayBufferLike, address: number, count: number): Float32Array {
  if (dtype === "F32") return new Float32Array(buffer, address, count).slice();
  const widen = dtype === "BF16" ? bf16ToFloat32 : f16ToFloat32;
  return Float32Array.from(new Uint16Array(buffer, address, count), widen);
}
