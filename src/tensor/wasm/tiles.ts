/**
 * Products of rows and panels, which linear layers and attention are made of: many rows in tiles of four, or one row at
 * a time.
 *
 * In: addresses. Out: sums in memory, each taken over its inputs in blocks, as ARITHMETIC.md says.
 */

import type { WeightDtype } from "../dtype.ts";
import { SUM_BLOCK } from "../reference.ts";
import { defineJob } from "./job.ts";
import type { Kernels } from "./kernels.ts";
import {
  FLOAT_BYTES,
  PANEL,
  PANEL_ROW_BYTES,
  packedBlockOffset,
  TILE_ROWS,
  tilesOf,
  WEIGHT_BYTES,
} from "./panel-layout.ts";

/** Rows to pack in tiles. An input takes 4 bytes: a float32, or a pair of 16-bit integers. */
export interface RowsToPack {
  readonly x: number;
  readonly out: number;
  readonly inputs: number;
  readonly rows: number;
  /** Bytes from row to row of x. */
  readonly stride: number;
  /** Inputs of a block. */
  readonly blockSize: number;
}

/**
 * Packs a tile of four rows, block by block: [blocks][tiles][inputs][4]. A tile that is not full repeats the last row.
 */
export function packRows(
  kernels: Kernels,
  { x, out, inputs, rows, stride, blockSize }: RowsToPack,
  tile: number,
): void {
  const tiles = tilesOf(rows);
  const row = (i: number): number => x + Math.min(tile * TILE_ROWS + i, rows - 1) * stride;
  for (let block = 0; block < inputs; block += blockSize) {
    const count = Math.min(blockSize, inputs - block);
    const at = block * FLOAT_BYTES;
    const target = out + packedBlockOffset(block, tiles) + TILE_ROWS * FLOAT_BYTES * tile * count;
    kernels.pack(row(0) + at, row(1) + at, row(2) + at, row(3) + at, target, count);
  }
}

/** Items: tiles. */
export const packTile = defineJob(
  ["x", "out", "inputs", "rows", "stride", "blockSize"],
  ({ kernels }, rows) =>
    tile =>
      packRows(kernels, rows, tile),
);

/** Many rows times the weights of 16 outputs. Addresses, but for the sizes. */
interface TilesTimesPanel {
  readonly packed: number;
  /** Rows of `target` that are added to; a first block stores whole tiles. */
  readonly rows: number;
  readonly inputs: number;
  /** The panel. */
  readonly weights: number;
  /** Room for a block of weights as float32, where they are not stored so. */
  readonly widened: number;
  readonly target: number;
  /** Bytes from row to row of the target. */
  readonly targetStride: number;
  /** Room for the sums of a block, [tiles * 4][16]. */
  readonly sums: number;
}

/** Packed rows times a panel, block by block: the first block's sums are stored, the later ones' added. */
export function tilesTimesPanel(kernels: Kernels, dtype: WeightDtype, p: TilesTimesPanel): void {
  const tiles = tilesOf(p.rows);
  for (let block = 0; block < p.inputs; block += SUM_BLOCK) {
    const count = Math.min(SUM_BLOCK, p.inputs - block);
    const packed = p.packed + packedBlockOffset(block, tiles);
    const stored = p.weights + block * PANEL * WEIGHT_BYTES[dtype];
    const weights = dtype === "F32" ? stored : p.widened;
    if (dtype !== "F32") kernels[`widen_${dtype}`](stored, p.widened, count);
    if (block === 0) kernels.tile(packed, weights, PANEL_ROW_BYTES, p.target, p.targetStride, count, tiles);
    else {
      kernels.tile(packed, weights, PANEL_ROW_BYTES, p.sums, PANEL_ROW_BYTES, count, tiles);
      kernels.add_panel(p.target, p.targetStride, p.sums, p.rows);
    }
  }
}

/** How many panels the row kernels take at once, from `panel` on: two, or a last one alone. */
export function panelsAtOnce(panel: number, end: number): 1 | 2 {
  return panel + 1 < end ? 2 : 1;
}

/** One row times the weights of 16 or 32 outputs. Addresses, but for the sizes. */
interface RowTimesPanels {
  /** One panel or two, which lie `panelBytes` apart. */
  readonly panels: 1 | 2;
  readonly panelBytes: number;
  readonly x: number;
  readonly inputs: number;
  readonly weights: number;
  readonly out: number;
}

/** A row of `inputs` values times one panel or two: 16 or 32 sums. */
export function rowTimesPanels(
  kernels: Kernels,
  dtype: WeightDtype,
  { panels, panelBytes, x, inputs, weights, out }: RowTimesPanels,
): void {
  const kernel = kernels[`row${panels === 2 ? 2 : ""}_${dtype}`];
  const stride = PANEL * WEIGHT_BYTES[dtype];
  for (let block = 0; block < inputs; block += SUM_BLOCK) {
    const count = Math.min(SUM_BLOCK, inputs - block);
    kernel(x + block * FLOAT_BYTES, weights + block * stride, stride, out, count, block === 0 ? 1 : 0, panelBytes);
  }
}
