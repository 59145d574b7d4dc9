/**
 * The jobs of the linear layer: over weights as a checkpoint stores them and over quantised ones, for many rows and for
 * a few.
 */

import type { WeightDtype } from "../dtype.ts";
import { type QuantisedScheme, subBlocksOf } from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";
import { defineJob, floatsUpTo, formOf, type JobContext } from "./job.ts";
import {
  FLOAT_BYTES,
  integersBytes,
  PANEL,
  PANEL_ROW_BYTES,
  packedBlockOffset,
  pairsOf,
  panelLayout,
  panelsOf,
  SUB_BLOCK_BYTES,
  scalesOffset,
  TILE_ROWS,
  tilesOf,
  WEIGHT_BYTES,
} from "./panel-layout.ts";
import { panelsAtOnce, rowTimesPanels, tilesTimesPanel } from "./tiles.ts";

/** Panels of one item where rows are few: enough work to be worth handing out. */
export const ROW_PANELS = 4;
/** Scratch of an item over a few rows: the outputs of two panels, where the last is not whole. */
export const FEW_SCRATCH_BYTES: number = 2 * PANEL_ROW_BYTES;
/**
 * Up to this many rows are multiplied one by one: an item's panels stay in the second-level cache from row to row,
 * while the kernel for many rows first widens each panel. A pass of 3 rows (0.6B, 2 threads) takes 110 ms, and 159 ms
 * with the kernel for many rows; 6 rows take 180 and 222 ms, and 6 rows of int8 100 and 128 ms. Attention calls the
 * same number few.
 */
export const FEW_ROWS = 7;

/** Where an item over many rows works. */
function manyPlaces(scratch: number, rows: number) {
  const sumsBytes = tilesOf(rows) * TILE_ROWS * PANEL_ROW_BYTES;
  const block = scratch; // of weights, widened or expanded
  const sums = block + SUM_BLOCK * PANEL_ROW_BYTES; // of a block
  const edge = sums + sumsBytes; // the outputs of a panel that is not whole
  return { block, sums, edge, end: edge + sumsBytes };
}

/** Scratch that an item over many rows takes. */
export function manyScratchBytes(rows: number): number {
  return manyPlaces(0, rows).end;
}

/** Where an item over many rows works, and where the outputs of its panel go. */
interface PanelTarget {
  /** A block of weights, widened or expanded. */
  readonly block: number;
  /** The sums of a block. */
  readonly sums: number;
  readonly target: number;
  readonly stride: number;
  /** Copies the outputs to their place, where they went to the scratch. */
  readonly finish: () => void;
}

/**
 * A panel with fewer than 16 outputs goes to the scratch and is copied from there, or it would run into the next row.
 */
function panelTarget(
  { memory, scratch }: JobContext,
  out: number,
  outputs: number,
  rows: number,
  panel: number,
): PanelTarget {
  const { block, sums, edge } = manyPlaces(scratch, rows);
  const columns = columnsOf(outputs, panel, 1);
  const target = out + panel * PANEL_ROW_BYTES;
  if (columns === PANEL) return { block, sums, target, stride: outputs * FLOAT_BYTES, finish: () => {} };
  const finish = (): void => copyColumns(memory, edge, target, outputs, rows, columns);
  return { block, sums, target: edge, stride: PANEL_ROW_BYTES, finish };
}

function copyColumns(
  memory: WebAssembly.Memory,
  from: number,
  to: number,
  outputs: number,
  rows: number,
  columns: number,
): void {
  const floats = floatsUpTo(
    memory,
    Math.max(from + rows * PANEL_ROW_BYTES, to + ((rows - 1) * outputs + columns) * FLOAT_BYTES),
  );
  for (let t = 0; t < rows; t++) {
    for (let i = 0; i < columns; i++)
      floats[to / FLOAT_BYTES + t * outputs + i] = floats[from / FLOAT_BYTES + t * PANEL + i];
  }
}

/** How many outputs one panel or two have from `panel` on: fewer than 16 each where the last is not whole. */
function columnsOf(outputs: number, panel: number, panels: 1 | 2): number {
  return Math.min(panels * PANEL, outputs - panel * PANEL);
}

// ---------------------------------------------------------------------------------------------------------------------
// weights as they are stored

/** Items: panels, each for all rows. `out` has room for whole tiles of rows. */
export const linearMany = defineJob(
  ["form", "weights", "inputs", "outputs", "packed", "out", "rows"],
  (context, { form, weights, inputs, outputs, packed, out, rows }) => {
    const dtype = formOf<WeightDtype>(form);
    const panelBytes = inputs * PANEL * WEIGHT_BYTES[dtype];
    return panel => {
      const { block, sums, target, stride, finish } = panelTarget(context, out, outputs, rows, panel);
      tilesTimesPanel(context.kernels, dtype, {
        packed,
        rows,
        inputs,
        weights: weights + panel * panelBytes,
        widened: block,
        target,
        targetStride: stride,
        sums,
      });
      finish();
    };
  },
);

/**
 * Items: ROW_PANELS panels, for one row after the other: the weights are read from memory for the first, and lie in the
 * cache for the others.
 */
export const linearFew = defineJob(
  ["form", "weights", "inputs", "outputs", "x", "out", "rows"],
  ({ kernels, memory, scratch }, { form, weights, inputs, outputs, x, out, rows }) => {
    const dtype = formOf<WeightDtype>(form);
    const panelBytes = inputs * PANEL * WEIGHT_BYTES[dtype];
    return item => {
      const end = Math.min(panelsOf(outputs), (item + 1) * ROW_PANELS);
      for (let t = 0; t < rows; t++) {
        for (let panel = item * ROW_PANELS; panel < end; panel += 2) {
          const panels = panelsAtOnce(panel, end);
          const columns = columnsOf(outputs, panel, panels);
          const place = out + (t * outputs + panel * PANEL) * FLOAT_BYTES;
          const target = columns === panels * PANEL ? place : scratch;
          rowTimesPanels(kernels, dtype, {
            panels,
            panelBytes,
            x: x + t * inputs * FLOAT_BYTES,
            inputs,
            weights: weights + panel * panelBytes,
            out: target,
          });
          if (target === scratch) copyColumns(memory, scratch, place, outputs, 1, columns);
        }
      }
    };
  },
);

// ---------------------------------------------------------------------------------------------------------------------
// quantised weights

/** Quantises rows of activations to 16-bit integers and scales. `inputs` is a multiple of 8. Items: `share` rows. */
export const quantiseRows = defineJob(["x", "out", "scales", "inputs", "rows", "share"], ({ kernels }, args) => {
  const { x, out, scales, inputs, rows, share } = args;
  return item => {
    for (let t = item * share; t < Math.min(rows, (item + 1) * share); t++) {
      kernels.quantise_row(x + t * inputs * FLOAT_BYTES, out + t * inputs * 2, scales + t * FLOAT_BYTES, inputs);
    }
  };
});

/** As linearMany, over rows of 16-bit integers; `rowScales`: the rows' scales. */
export const integerMany = defineJob(
  ["form", "weights", "inputs", "outputs", "packed", "rowScales", "out", "rows"],
  (context, { form, weights, inputs, outputs, packed, rowScales, out, rows }) => {
    const { kernels } = context;
    const { scheme, recordBytes, panelBytes } = panelLayout(formOf<QuantisedScheme>(form), inputs);
    const tiles = tilesOf(rows);
    return panel => {
      const { block: expanded, sums, target, stride, finish } = panelTarget(context, out, outputs, rows, panel);
      for (let block = 0; block * SUM_BLOCK < inputs; block++) {
        const count = Math.min(SUM_BLOCK, inputs - block * SUM_BLOCK);
        const pairs = pairsOf(count);
        const record = weights + panel * panelBytes + block * recordBytes;
        if (scheme === "int8") kernels.expand_int8(record, expanded, pairs);
        else kernels.expand_int4(record, record + integersBytes(scheme, count), expanded, pairs);
        const packedBlock = packed + packedBlockOffset(block * pairsOf(SUM_BLOCK), tiles);
        kernels.tile_integer(packedBlock, expanded, sums, pairs, tiles);
        const scaled = block === 0 ? kernels.store_scaled : kernels.add_scaled;
        scaled(target, stride, sums, rows, record + scalesOffset(scheme, count));
      }
      kernels.scale_rows(target, stride, rowScales, rows);
      finish();
    };
  },
);

/**
 * As linearFew, over rows of 16-bit integers that zeros fill up to whole sub-blocks. `sums`: the sums of their
 * sub-blocks, which int4 needs.
 */
export const integerFew = defineJob(
  ["form", "weights", "inputs", "outputs", "x", "rowScales", "sums", "out", "rows"],
  ({ kernels, memory, scratch }, { form, weights, inputs, outputs, x, rowScales, sums, out, rows }) => {
    const { scheme, panelBytes } = panelLayout(formOf<QuantisedScheme>(form), inputs);
    const subBlocks = subBlocksOf(inputs);
    const pairs = pairsOf(inputs);
    return item => {
      const end = Math.min(panelsOf(outputs), (item + 1) * ROW_PANELS);
      for (let t = 0; t < rows; t++) {
        const row = x + t * subBlocks * SUB_BLOCK_BYTES;
        const rowScale = rowScales + t * FLOAT_BYTES;
        const rowSums = sums + t * subBlocks * FLOAT_BYTES;
        for (let panel = item * ROW_PANELS; panel < end; panel += 2) {
          const panels = panelsAtOnce(panel, end);
          const columns = columnsOf(outputs, panel, panels);
          const place = out + (t * outputs + panel * PANEL) * FLOAT_BYTES;
          const target = columns === panels * PANEL ? place : scratch;
          const kernel = kernels[`row${panels === 2 ? 2 : ""}_${scheme}`];
          kernel(row, weights + panel * panelBytes, panelBytes, pairs, target, rowScale, rowSums);
          if (target === scratch) copyColumns(memory, scratch, place, outputs, 1, columns);
        }
      }
    };
  },
);
