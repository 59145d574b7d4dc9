/**
 * Products of rows and panels, of which linear layers and attention are made: many rows in tiles of four, or one row at
 * a time.
 *
 * In: addresses. Out: sums, in memory, each over its inputs in blocks as ARITHMETIC.md says.
 */

import type { WeightDtype } from "../dtype.ts";
import { SUM_BLOCK } from "../reference.ts";
import { defineJob } from "./job.ts";
import type { Kernels } from "./kernels.ts";
import { FLOAT_BYTES, PANEL_ROW_BYTES, TILE_ROWS, tilesOf } from "./panel-layout.ts";

/** Rows that are to be packed in tiles. Their inputs are 4 bytes each: a float32, or a pair of 16-bit integers. */
export interface RowsToPack {
  readonly x: number;
  readonly out: number;
  readonly inputs: number;
  readonly rows: number;
  /** From row to row of x. */
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
    const target = out + TILE_ROWS * FLOAT_BYTES * (block * tiles + tile * count);
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

interface TilesTimesPanel {
  readonly packed: number;
  readonly tiles: number;
  /** Of `target` that are added to; a first block stores whole tiles. */
  readonly rows: number;
  readonly inputs: number;
  readonly weightStride: number;
  readonly target: number;
  readonly targetStride: number;
  /** Room for the sums of a block, [tiles * 4][16]. */
  readonly sums: number;
}

/**
 * Packed rows times 16 outputs, block by block: the first block's sums are stored, the later ones' added. `weightsOf`
 * gives the address of a block's float32 weights.
 */
export function tilesTimesPanel(
  kernels: Kernels,
  p: TilesTimesPanel,
  weightsOf: (block: number, count: number) => number,
): void {
  for (let block = 0; block < p.inputs; block += SUM_BLOCK) {
    const count = Math.min(SUM_BLOCK, p.inputs - block);
    const packed = p.packed + TILE_ROWS * FLOAT_BYTES * block * p.tiles;
    const weights = weightsOf(block, count);
    if (block === 0) kernels.tile(packed, weights, p.weightStride, p.target, p.targetStride, count, p.tiles);
    else {
      kernels.tile(packed, weights, p.weightStride, p.sums, PANEL_ROW_BYTES, count, p.tiles);
      kernels.add_panel(p.target, p.targetStride, p.sums, p.rows);
    }
  }
}

/** Calls back for panels `first` to `end`, two at a time, and a last one alone. */
export function forEachPair(first: number, end: number, use: (panel: number, count: 1 | 2) => void): void {
  for (let panel = first; panel < end; panel += 2) use(panel, panel + 1 < end ? 2 : 1);
}

interface RowTimesPanels {
  /** One panel or two, which lie `panelBytes` apart. */
  readonly panels: 1 | 2;
  readonly x: number;
  readonly weights: number;
  /** From input to input of the weights. */
  readonly stride: number;
  readonly panelBytes: number;
  readonly out: number;
  readonly inputs: number;
}

/** A row of `inputs` values times one panel or two: 16 or 32 sums. */
export function rowTimesPanels(
  kernels: Kernels,
  dtype: WeightDtype,
  { panels, x, weights, stride, panelBytes, out, inputs }: RowTimesPanels,
): void {
  const kernel = kernels[`row${panels === 2 ? 2 : ""}_${dtype}`];
  for (let block = 0; block < inputs; block += SUM_BLOCK) {
    const count = Math.min(SUM_BLOCK, inputs - block);
    kernel(x + block * FLOAT_BYTES, weights + block * stride, stride, out, count, block === 0 ? 1 : 0, panelBytes);
  }
}
