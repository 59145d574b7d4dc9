/**
 * Where weights lie: in panels of 16 outputs, [outputs / 16] of them, a last one filled up with zeros.
 *
 * - BF16, F16, F32: [inputs][16], in the checkpoint's own dtype; 16-bit weights are interleaved (placeInPanel).
 * - int8 and int4: blocks of 256 inputs, a block a record of integers, sub-scales (int4) and scales.
 *   - int8: [pairs of inputs][16 outputs][2], a byte each.
 *   - int4: [pairs] of 16 bytes. Seen as eight 16-bit lanes, lane 2 * o + i holds input i of the outputs o, 4 + o, 8 +
 *     o and 12 + o, four bits each from the lowest; the first three of these with 8 added, so that the row kernel needs
 *     a mask and no shift for them. After them the sub-scales [inputs / 32][16], a byte each.
 *   - The scales [16], float32.
 *
 * An odd last input is paired with 0. Activations of many rows are packed in tiles of four rows: [blocks][tiles][inputs
 * of the block][4].
 */

import type { WeightDtype } from "../dtype.ts";
import { blocksOf, type QuantisedScheme, SUB_BLOCK, subBlocksOf } from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";

export const FLOAT_BYTES = 4;
/** Outputs of a panel. */
export const PANEL = 16;
/** Bytes of a row of 16 sums, or of 16 float32 weights. */
export const PANEL_ROW_BYTES: number = PANEL * FLOAT_BYTES;
/** Rows of activations that go through a panel together. */
export const TILE_ROWS = 4;

/** Bytes of a pair of 16-bit activations. */
export const PAIR_BYTES = 4;
/** Bytes of a sub-block of 16-bit activations. */
export const SUB_BLOCK_BYTES: number = (SUB_BLOCK / 2) * PAIR_BYTES;
/** Bytes of the integers of 16 outputs, for a pair of inputs. */
export const INT8_PAIR_BYTES: number = PANEL * 2;
export const INT4_PAIR_BYTES: number = PANEL;

export const WEIGHT_BYTES: { readonly [dtype in WeightDtype]: number } = { BF16: 2, F16: 2, F32: 4 };

export type WeightForm = WeightDtype | QuantisedScheme;

export function isQuantised(form: WeightForm): form is QuantisedScheme {
  return form === "int8" || form === "int4";
}

export function panelsOf(outputs: number): number {
  return Math.ceil(outputs / PANEL);
}

export function tilesOf(rows: number): number {
  return Math.ceil(rows / TILE_ROWS);
}

/** Where in packed rows the block lies that begins at `first`, counted in floats or in pairs: both take four bytes. */
export function packedBlockOffset(first: number, tiles: number): number {
  return TILE_ROWS * FLOAT_BYTES * first * tiles;
}

/**
 * Where in a panel's row of 16 the weight of an output stands. 16-bit weights are interleaved, 0 4 1 5 2 6 3 7 and so
 * on, so that one vector of eight widens to outputs 0..3 (its even elements) and 4..7 (its odd ones) with an operation
 * each.
 */
export function placeInPanel(dtype: WeightDtype, output: number): number {
  return dtype === "F32" ? output : (output & 8) + 2 * (output & 3) + ((output >> 2) & 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// quantised weights

export interface PanelLayout {
  readonly scheme: QuantisedScheme;
  readonly inputs: number;
  /** Bytes of a whole block's record. */
  readonly recordBytes: number;
  readonly panelBytes: number;
}

export function panelLayout(scheme: QuantisedScheme, inputs: number): PanelLayout {
  const record = (count: number): number => scalesOffset(scheme, count) + PANEL_ROW_BYTES;
  const blocks = blocksOf(inputs);
  const panelBytes = (blocks - 1) * record(SUM_BLOCK) + record(inputs - (blocks - 1) * SUM_BLOCK);
  return { scheme, inputs, recordBytes: record(SUM_BLOCK), panelBytes };
}

/** Bytes of the integers in a record of `count` inputs. */
export function integersBytes(scheme: QuantisedScheme, count: number): number {
  return pairsOf(count) * (scheme === "int8" ? INT8_PAIR_BYTES : INT4_PAIR_BYTES);
}

/** Where in such a record the float32 scales begin. */
export function scalesOffset(scheme: QuantisedScheme, count: number): number {
  return integersBytes(scheme, count) + (scheme === "int8" ? 0 : subBlocksOf(count) * PANEL);
}

export function pairsOf(inputs: number): number {
  return Math.ceil(inputs / 2);
}

/** The bits of a 16-bit lane of int4 that differ from two's complement: adding 8 flips the highest of four bits. */
export const INT4_FLIPPED = 0x0888;

/**
 * Where in a record the integer of output `r` (0..15) and input `k` is: its byte, and for int4 how far it is shifted in
 * that byte and which of its bits are flipped.
 */
export function integerPlace(
  scheme: QuantisedScheme,
  r: number,
  k: number,
): { readonly byte: number; readonly shift: number; readonly flip: number } {
  const pair = k >> 1;
  if (scheme === "int8") return { byte: pair * INT8_PAIR_BYTES + 2 * r + (k & 1), shift: 0, flip: 0 };
  const lane = 2 * (r & 3) + (k & 1);
  return {
    byte: pair * INT4_PAIR_BYTES + 2 * lane + (r >> 3),
    shift: 4 * ((r >> 2) & 1),
    flip: (INT4_FLIPPED >> (4 * (r >> 2))) & 15,
  };
}

/** Where in a record of `count` inputs the sub-scale of output `r` and input `k` is. */
export function subScalePlace(count: number, r: number, k: number): number {
  return integersBytes("int4", count) + Math.floor(k / SUB_BLOCK) * PANEL + r;
}
