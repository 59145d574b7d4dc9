/**
 * Jobs: what threads do together. Each is cut into items that touch different outputs, so that who does which item cannot change a bit.
 *
 * In: an instance of the kernels, the job's arguments (addresses and sizes), which item, and a scratch of the thread's own. Out: the item's part
 * of the result, in memory. The same code runs on the main thread and on workers.
 */

import { QUANTISED_SCHEMES, type QuantisedScheme, SUB_BLOCK, subBlocksOf } from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";
import { attentionFew, attentionMany, storeKeysAndValues } from "./attention-jobs.ts";
import { fillPanel } from "./fill-panels.ts";
import { DTYPES, FLOAT_BYTES, floatsUpTo, type JobContext } from "./job-context.ts";
import { READ_BYTES } from "./limit-kernels.ts";
import { PANEL, TILE_ROWS, WEIGHT_BYTES, type WeightDtype } from "./linear-kernels.ts";
import { integersBytes, pairsOf, panelLayout, scalesOffset } from "./panel-layout.ts";
import { PANEL_ROW_BYTES, packTile, rowTimesPanels, tilesOf, tilesTimesPanel } from "./tiles.ts";

type Job = (context: JobContext, args: readonly number[], item: number) => void;

/** Panels of one item where one row is multiplied: enough work to be worth handing out. */
export const ROW_PANELS = 4;
/**
 * So many rows at most are multiplied one by one: the panels of an item stay in the second-level cache from row to row, while the kernel for many rows
 * first widens each panel. 0.6B, 2 threads, a pass of 3, 6 rows: 110, 180 ms, and 159, 222 through the kernel for many; int8 of 6 rows 100 and 128.
 * Attention over the cache takes so few rows together too.
 */
export const FEW_ROWS = 7;

/** Less than this many values are done sooner than handed out: a microsecond or two. Handing them out made decoding some 4 % slower. */
export const MIN_ITEM_VALUES = 8192;

/** A sub-block of activations, 16-bit integers. */
export const SUB_BLOCK_BYTES: number = SUB_BLOCK * 2;
const WIDENED_BYTES = SUM_BLOCK * PANEL_ROW_BYTES;

export function dtypeCode(dtype: WeightDtype): number {
  return DTYPES.indexOf(dtype);
}

export function schemeCode(scheme: QuantisedScheme): number {
  return QUANTISED_SCHEMES.indexOf(scheme);
}

/** Scratch that an item of `linearMany` takes. */
export function linearScratchBytes(rows: number): number {
  return WIDENED_BYTES + 2 * tilesOf(rows) * TILE_ROWS * PANEL_ROW_BYTES;
}

/** One panel of 16 outputs for all rows. Args: dtype, weights, inputs, outputs, packed x, out, rows. Rows of `out` are there in whole tiles. */
function linearMany({ kernels, memory, scratch }: JobContext, args: readonly number[], panel: number): void {
  const [code, weights, inputs, outputs, packed, out, rows] = args;
  const dtype = DTYPES[code];
  const tiles = tilesOf(rows);
  const widened = scratch;
  const sums = widened + WIDENED_BYTES;
  const edge = sums + tiles * TILE_ROWS * PANEL_ROW_BYTES;
  const panelWeights = weights + panel * inputs * PANEL * WEIGHT_BYTES[dtype];
  // A panel with fewer than 16 outputs goes to a place of its own and is copied, or it would run into the next row.
  const columns = Math.min(PANEL, outputs - panel * PANEL);
  const [target, stride] = columns === PANEL ? [out + panel * PANEL_ROW_BYTES, outputs * FLOAT_BYTES] : [edge, PANEL_ROW_BYTES];

  const product = { packed, tiles, rows, inputs, weightStride: PANEL_ROW_BYTES, target, targetStride: stride, sums };
  tilesTimesPanel(kernels, product, (block, count) => {
    const stored = panelWeights + block * PANEL * WEIGHT_BYTES[dtype];
    if (dtype === "F32") return stored;
    kernels[`widen_${dtype}`](stored, widened, count);
    return widened;
  });
  if (columns < PANEL) copyColumns(memory, edge, out + panel * PANEL_ROW_BYTES, outputs, rows, columns);
}

function copyColumns(memory: WebAssembly.Memory, from: number, to: number, outputs: number, rows: number, columns: number): void {
  const floats = floatsUpTo(memory, Math.max(from + rows * PANEL_ROW_BYTES, to + ((rows - 1) * outputs + columns) * FLOAT_BYTES));
  for (let t = 0; t < rows; t++) {
    for (let i = 0; i < columns; i++) floats[to / FLOAT_BYTES + t * outputs + i] = floats[from / FLOAT_BYTES + t * PANEL + i];
  }
}

/**
 * ROW_PANELS panels for a few rows, one after the other: the weights are read from memory for the first, and lie in the cache for the others. Args:
 * dtype, weights, inputs, outputs, x, out, rows.
 */
function linearFew({ kernels, memory, scratch }: JobContext, args: readonly number[], item: number): void {
  const [code, weights, inputs, outputs, x, out, rows] = args;
  const dtype = DTYPES[code];
  const stride = PANEL * WEIGHT_BYTES[dtype];
  for (let t = 0; t < rows; t++) {
    const row = x + t * inputs * FLOAT_BYTES;
    forEachRowPanels(memory, scratch, outputs, out + t * outputs * FLOAT_BYTES, item, (panel, panels, target) =>
      rowTimesPanels(kernels, dtype, panels, row, weights + panel * inputs * stride, stride, inputs * stride, target, inputs),
    );
  }
}

/** Calls back for an item's panels, two at a time, with where their outputs go: into `out`, or by way of the scratch where the last is not whole. */
function forEachRowPanels(
  memory: WebAssembly.Memory,
  scratch: number,
  outputs: number,
  out: number,
  item: number,
  multiply: (panel: number, panels: 1 | 2, target: number) => void,
): void {
  const end = Math.min(Math.ceil(outputs / PANEL), (item + 1) * ROW_PANELS);
  for (let panel = item * ROW_PANELS; panel < end; ) {
    const panels = panel + 1 < end ? 2 : 1;
    const columns = Math.min(panels * PANEL, outputs - panel * PANEL);
    const isWhole = columns === panels * PANEL;
    multiply(panel, panels, isWhole ? out + panel * PANEL_ROW_BYTES : scratch);
    if (!isWhole) copyColumns(memory, scratch, out + panel * PANEL_ROW_BYTES, outputs, 1, columns);
    panel += panels;
  }
}

// ------------------------------------------------------------------------------------------------------------------------- quantised weights

/** Rows of activations to 16-bit integers and their scales. Args: x, out, scales, inputs, rows, rows of an item. inputs is a multiple of 8. */
function quantiseRows({ kernels }: JobContext, [x, out, scales, inputs, rows, share]: readonly number[], item: number): void {
  for (let t = item * share; t < Math.min(rows, (item + 1) * share); t++) {
    kernels.quantise_row(x + t * inputs * FLOAT_BYTES, out + t * inputs * 2, scales + t * FLOAT_BYTES, inputs);
  }
}

/** One panel of 16 outputs for all rows. Args: scheme, weights, inputs, outputs, packed x, the rows' scales, out, rows. Scratch as linearMany. */
function integerMany({ kernels, memory, scratch }: JobContext, args: readonly number[], panel: number): void {
  const [code, weights, inputs, outputs, packed, rowScales, out, rows] = args;
  const { scheme, recordBytes, panelBytes } = panelLayout(QUANTISED_SCHEMES[code], inputs);
  const tiles = tilesOf(rows);
  const expanded = scratch;
  const sums = expanded + WIDENED_BYTES;
  const edge = sums + tiles * TILE_ROWS * PANEL_ROW_BYTES;
  const columns = Math.min(PANEL, outputs - panel * PANEL);
  const [target, stride] = columns === PANEL ? [out + panel * PANEL_ROW_BYTES, outputs * FLOAT_BYTES] : [edge, PANEL_ROW_BYTES];
  for (let block = 0; block * SUM_BLOCK < inputs; block++) {
    const count = Math.min(SUM_BLOCK, inputs - block * SUM_BLOCK);
    const pairs = pairsOf(count);
    const record = weights + panel * panelBytes + block * recordBytes;
    if (scheme === "int8") kernels.expand_int8(record, expanded, pairs);
    else kernels.expand_int4(record, record + integersBytes(scheme, count), expanded, pairs);
    kernels.tile_integer(packed + TILE_ROWS * 4 * block * pairsOf(SUM_BLOCK) * tiles, expanded, sums, pairs, tiles);
    const scaled = block === 0 ? kernels.store_scaled : kernels.add_scaled;
    scaled(target, stride, sums, rows, record + scalesOffset(scheme, count));
  }
  kernels.scale_rows(target, stride, rowScales, rows);
  if (columns < PANEL) copyColumns(memory, edge, out + panel * PANEL_ROW_BYTES, outputs, rows, columns);
}

/**
 * ROW_PANELS panels for a few rows, as linearFew. Args: scheme, weights, inputs, outputs, rows (16-bit integers, with zeros to whole sub-blocks), their
 * scales, of int4 the sums of their sub-blocks, out, rows.
 */
function integerFew({ kernels, memory, scratch }: JobContext, args: readonly number[], item: number): void {
  const [code, weights, inputs, outputs, x, scales, sums, out, rows] = args;
  const { scheme, panelBytes } = panelLayout(QUANTISED_SCHEMES[code], inputs);
  const subBlocks = subBlocksOf(inputs);
  for (let t = 0; t < rows; t++) {
    const row = x + t * subBlocks * SUB_BLOCK_BYTES;
    const rowSums = sums + t * subBlocks * 4;
    forEachRowPanels(memory, scratch, outputs, out + t * outputs * FLOAT_BYTES, item, (panel, panels, target) => {
      const kernel = kernels[`row${panels === 2 ? 2 : ""}_${scheme}`];
      kernel(row, weights + panel * panelBytes, panelBytes, pairsOf(inputs), target, scales + t * FLOAT_BYTES, rowSums);
    });
  }
}

/** Rows of RMSNorm. Args: out, x, gain, rows, size, eps, rows of an item. */
function rmsNorm({ kernels }: JobContext, [out, x, gain, rows, size, eps, share]: readonly number[], item: number): void {
  for (let t = item * share; t < Math.min(rows, (item + 1) * share); t++) {
    kernels.rms_norm(out + t * size * FLOAT_BYTES, x + t * size * FLOAT_BYTES, gain, size, eps, size);
  }
}

/** Rows of rotation. Args: x, heads, head size, cos, sin, start, rows, rows of an item. */
function rope({ kernels }: JobContext, [x, heads, headDim, cos, sin, start, rows, share]: readonly number[], item: number): void {
  const half = headDim / 2;
  for (let t = item * share; t < Math.min(rows, (item + 1) * share); t++) {
    const angle = (start + t) * half * FLOAT_BYTES;
    for (let h = 0; h < heads; h++) kernels.rope(x + (t * heads + h) * headDim * FLOAT_BYTES, cos + angle, sin + angle, half);
  }
}

/** Elements of the activation, or of the residual sum. Args: which, x, y, vectors of 4, vectors of an item. */
function elementwise({ kernels }: JobContext, [which, x, y, vectors, share]: readonly number[], item: number): void {
  const first = item * share;
  const count = Math.min(share, vectors - first);
  const offset = first * TILE_ROWS * FLOAT_BYTES;
  (which === 0 ? kernels.silu_mul : kernels.add)(x + offset, y + offset, count);
}

/** A share of the machine's limits, for benchmarks. Args: which, rounds of an item, memory. */
function limit({ kernels, scratch }: JobContext, [which, rounds, memory]: readonly number[], item: number): void {
  if (which === 0) kernels.limit_multiply_add(scratch, rounds);
  else if (which === 2) kernels.limit_dot(scratch, rounds);
  else kernels.limit_read(scratch, memory + item * rounds * READ_BYTES, rounds);
}

/** All jobs; a job is named by its key on one thread and by its index to the others. */
export const JOBS = {
  packTile,
  linearMany,
  linearFew,
  quantiseRows,
  integerMany,
  integerFew,
  fillPanel,
  rmsNorm,
  rope,
  elementwise,
  storeKeysAndValues,
  attentionMany,
  attentionFew,
  limit,
} as const satisfies Record<string, Job>;
export type JobName = keyof typeof JOBS;
export const JOB_NAMES: readonly JobName[] = Object.keys(JOBS) as JobName[];
