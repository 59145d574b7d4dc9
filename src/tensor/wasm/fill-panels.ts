/**
 * The job that fills panels of quantised weights at load, from rows of a checkpoint: quantised on the way, or as they
 * were saved.
 *
 * In: sixteen rows for each item. Out: a panel, as panel-layout.ts describes it. Kernels fill whole blocks. A shorter
 * last block, which no published shape has, is filled by the definition's loops.
 */

import { bf16ToFloat32, f16ToFloat32, type WeightDtype } from "../dtype.ts";
import {
  blocksOf,
  INT8_MAX,
  type QuantisedScheme,
  quantiseInt4Into,
  quantiseInto,
  SUB_BLOCK,
  subBlocksOf,
  subScalesOf,
  unpackInt4,
} from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";
import { bytesUpTo, defineJob, formOf } from "./job.ts";
import type { Kernels } from "./kernels.ts";
import {
  FLOAT_BYTES,
  integerPlace,
  integersBytes,
  isQuantised,
  PANEL,
  type PanelLayout,
  pairsOf,
  panelLayout,
  scalesOffset,
  WEIGHT_BYTES,
  type WeightForm,
} from "./panel-layout.ts";

/** A block of float32, integers of 16 rows, the same repacked, and steps of sub-blocks. */
export const FILL_SCRATCH_BYTES: number = SUM_BLOCK * FLOAT_BYTES + 2 * PANEL * SUM_BLOCK + 64;

/** Bytes that `inputs` weights of a row take in a checkpoint. */
export function storedRowBytes(form: WeightForm, inputs: number): number {
  if (!isQuantised(form)) return inputs * WEIGHT_BYTES[form];
  return form === "int8" ? inputs : Math.ceil(inputs / 2);
}

/** One block of sixteen rows: where it comes from and where it goes. Addresses, but for `count`, its inputs. */
interface BlockOfRows {
  readonly kernels: Kernels;
  readonly layout: PanelLayout;
  /** How the checkpoint stores it: in a dtype, or in the scheme itself where it was saved quantised. */
  readonly stored: WeightForm;
  readonly rows: number;
  readonly rowBytes: number;
  readonly count: number;
  readonly record: number;
  readonly scratch: number;
}

/**
 * `rows`: rows as they are stored, one after the other, 16 for each item. Rows that were saved quantised come with
 * `scales` [rows][blocks] and `subScales` [rows][sub-blocks]. Items: panels.
 */
export const fillPanel = defineJob(
  ["scheme", "stored", "rows", "panels", "inputs", "scales", "subScales"],
  ({ kernels, memory, scratch }, { rows, panels, inputs, ...args }) => {
    const stored = formOf(args.stored);
    const layout = panelLayout(formOf<QuantisedScheme>(args.scheme), inputs);
    const { scheme, recordBytes, panelBytes } = layout;
    const rowBytes = storedRowBytes(stored, inputs);
    const [blocks, subBlocks] = [blocksOf(inputs), subScalesOf(scheme, inputs)];
    return item => {
      const first = rows + item * PANEL * rowBytes;
      const end = Math.max(panels + (item + 1) * panelBytes, scratch + FILL_SCRATCH_BYTES, first + PANEL * rowBytes);
      const rowsEnd = (item + 1) * PANEL;
      const savedEnd = isQuantised(stored)
        ? Math.max(args.scales + rowsEnd * blocks * FLOAT_BYTES, args.subScales + rowsEnd * subBlocks)
        : 0;
      const bytes = bytesUpTo(memory, Math.max(end, savedEnd));
      const floats = new Float32Array(bytes.buffer);
      for (let block = 0; block < blocks; block++) {
        const count = Math.min(SUM_BLOCK, inputs - block * SUM_BLOCK);
        const record = panels + item * panelBytes + block * recordBytes;
        const source = first + block * storedRowBytes(stored, SUM_BLOCK);
        if (isQuantised(stored)) {
          const scales = record + scalesOffset(scheme, count);
          const subScales = record + integersBytes(scheme, count);
          for (let r = 0; r < PANEL; r++) {
            const row = item * PANEL + r;
            floats[scales / FLOAT_BYTES + r] = floats[args.scales / FLOAT_BYTES + row * blocks + block];
            const from = args.subScales + row * subBlocks + block * (SUM_BLOCK / SUB_BLOCK);
            for (let s = 0; s < subScalesOf(scheme, count); s++) bytes[subScales + s * PANEL + r] = bytes[from + s];
          }
        }
        const part: BlockOfRows = { kernels, layout, stored, rows: source, rowBytes, count, record, scratch };
        if (count === SUM_BLOCK) fillBlock(part);
        else fillShortBlock(part, bytes);
      }
    };
  },
);

function fillBlock({ kernels, layout: { scheme }, stored, rows, rowBytes, record, scratch }: BlockOfRows): void {
  const integers = scratch + SUM_BLOCK * FLOAT_BYTES;
  const repacked = integers + PANEL * SUM_BLOCK;
  const steps = repacked + PANEL * SUM_BLOCK;
  const scales = record + scalesOffset(scheme, SUM_BLOCK);
  const subScales = record + integersBytes(scheme, SUM_BLOCK);
  const groups = pairsOf(SUM_BLOCK) / 8;
  for (let r = 0; r < PANEL; r++) {
    const row = rows + r * rowBytes;
    const out = integers + r * SUM_BLOCK;
    if (isQuantised(stored)) {
      if (scheme === "int4") kernels.unpack_int4(row, out, SUM_BLOCK / 32);
      continue;
    }
    let widened = row;
    if (stored !== "F32") {
      widened = scratch;
      kernels[`widen_row_${stored}`](row, widened, SUM_BLOCK / 8);
    }
    if (scheme === "int8") kernels.quantise_int8(widened, out, scales + r * FLOAT_BYTES, SUM_BLOCK);
    else kernels.quantise_int4(widened, out, subScales + r, scales + r * FLOAT_BYTES, SUM_BLOCK / SUB_BLOCK, steps);
  }
  const isSavedInt8 = stored === "int8";
  const target = scheme === "int8" ? record : repacked;
  kernels.repack_pairs(isSavedInt8 ? rows : integers, isSavedInt8 ? rowBytes : SUM_BLOCK, target, groups);
  if (scheme === "int4") kernels.pack_int4(repacked, record, pairsOf(SUM_BLOCK));
}

/** Fills a block of fewer than 256 inputs, by the definition's loops. */
function fillShortBlock(
  { layout: { scheme }, stored, rows, rowBytes, count, record }: BlockOfRows,
  bytes: Uint8Array,
): void {
  const scales = record + scalesOffset(scheme, count);
  const subScales = record + integersBytes(scheme, count);
  bytes.fill(0, record, subScales);
  for (let r = 0; r < PANEL; r++) {
    const row = rows + r * rowBytes;
    let values: Int8Array = new Int8Array(count);
    if (isQuantised(stored)) {
      const saved = bytes.slice(row, row + storedRowBytes(stored, count));
      values = scheme === "int8" ? new Int8Array(saved.buffer) : unpackInt4(saved, 1, count);
    } else {
      const weights = widened(stored, bytes.buffer, row, count);
      const subs = new Int8Array(subBlocksOf(count));
      const scale =
        scheme === "int8" ? quantiseInto(values, weights, INT8_MAX) : quantiseInt4Into(values, subs, weights);
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
