/**
 * Jobs: what threads do together. Each is cut into items that touch different outputs, so that who does which item cannot change a bit.
 *
 * In: an instance of the kernels, the job's arguments (addresses and sizes), which item, and a scratch of the thread's own. Out: the item's part
 * of the result, in memory. The same code runs on the main thread and on workers.
 */

import { QUANTISED_SCHEMES, type QuantisedScheme } from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";
import { fillPanel } from "./fill-panels.ts";
import { roundUp } from "./heap.ts";
import { DTYPES, FLOAT_BYTES, floatsUpTo, type JobContext } from "./job-context.ts";
import type { Kernels } from "./kernels.ts";
import { READ_BYTES } from "./limit-kernels.ts";
import { PANEL, TILE_ROWS, WEIGHT_BYTES, type WeightDtype } from "./linear-kernels.ts";
import { integersBytes, pairsOf, panelLayout, scalesOffset } from "./panel-layout.ts";

type Job = (context: JobContext, args: readonly number[], item: number) => void;

const PANEL_ROW_BYTES = PANEL * FLOAT_BYTES;
/** Query rows that one item of attention takes: their scores stay in the second-level cache while a head's keys pass by. */
export const ATTENTION_ROWS = 32;
/** Panels of one item where one row is multiplied: enough work to be worth handing out. */
export const ROW_PANELS = 4;
/**
 * So many rows at most are multiplied one by one: the panels of an item stay in the second-level cache from row to row, while the kernel for many rows
 * first widens each panel. 0.6B, 2 threads, a pass of 1, 3, 6 rows: 71, 120, 184 ms, and 71, 159, 222 through the kernel for many.
 */
export const FEW_ROWS = 7;

/** Less than this many values are done sooner than handed out: a microsecond or two. Handing them out made decoding some 4 % slower. */
export const MIN_ITEM_VALUES = 8192;

const WIDENED_BYTES = SUM_BLOCK * PANEL_ROW_BYTES;

export function dtypeCode(dtype: WeightDtype): number {
  return DTYPES.indexOf(dtype);
}

export function schemeCode(scheme: QuantisedScheme): number {
  return QUANTISED_SCHEMES.indexOf(scheme);
}

export function tilesOf(rows: number): number {
  return Math.ceil(rows / TILE_ROWS);
}

/** Scratch that an item of `linearMany` takes. */
export function linearScratchBytes(rows: number): number {
  return WIDENED_BYTES + 2 * tilesOf(rows) * TILE_ROWS * PANEL_ROW_BYTES;
}

/** Scratch that an item of `attentionMany` (or of `attentionRow`) takes, `positions` keys in all. */
export function attentionScratchBytes(positions: number, headDim: number): number {
  const padded = roundUp(positions, PANEL);
  const [rows, dims] = [ATTENTION_ROWS, roundUp(headDim, PANEL)];
  return FLOAT_BYTES * (rows * padded + TILE_ROWS * padded + rows * headDim + TILE_ROWS * dims * 2 + rows * PANEL + PANEL);
}

/**
 * Packs a tile of four rows, block by block: [blocks][tiles][inputs][4]. Args: x, out, inputs, rows, row stride in bytes, inputs of a block. An input
 * is 4 bytes: a float32, or a pair of 16-bit integers.
 */
function packTile({ kernels }: JobContext, [x, out, inputs, rows, stride, blockSize]: readonly number[], tile: number): void {
  const tiles = tilesOf(rows);
  const row = (i: number): number => x + Math.min(tile * TILE_ROWS + i, rows - 1) * stride;
  for (let block = 0; block < inputs; block += blockSize) {
    const count = Math.min(blockSize, inputs - block);
    const at = block * FLOAT_BYTES;
    const target = out + TILE_ROWS * FLOAT_BYTES * (block * tiles + tile * count);
    kernels.pack(row(0) + at, row(1) + at, row(2) + at, row(3) + at, target, count);
  }
}

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
 * Packed rows times 16 outputs, block by block: the first block's sums are stored, the later ones' added. `weightsOf` gives the address of a block's
 * float32 weights.
 */
function tilesTimesPanel(kernels: Kernels, p: TilesTimesPanel, weightsOf: (block: number, count: number) => number): void {
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

/** Calls back for panels 0 to `panels`, two at a time, and a last one alone. */
function forEachPair(panels: number, use: (panel: number, count: 1 | 2) => void): void {
  for (let panel = 0; panel < panels; panel += 2) use(panel, panel + 1 < panels ? 2 : 1);
}

/** A row of `inputs` values times one panel or two, which lie `panelBytes` apart: 16 or 32 sums. */
function rowTimesPanels(
  kernels: Kernels,
  dtype: WeightDtype,
  panels: 1 | 2,
  x: number,
  weights: number,
  stride: number,
  panelBytes: number,
  out: number,
  inputs: number,
): void {
  const kernel = kernels[`row${panels === 2 ? 2 : ""}_${dtype}`];
  for (let block = 0; block < inputs; block += SUM_BLOCK) {
    const count = Math.min(SUM_BLOCK, inputs - block);
    kernel(x + block * FLOAT_BYTES, weights + block * stride, stride, out, count, block === 0 ? 1 : 0, panelBytes);
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

/** ROW_PANELS panels for one row. Args: scheme, weights, inputs, outputs, x (16-bit), its scale, of int4 the sums of its sub-blocks, out. */
function integerRow({ kernels, memory, scratch }: JobContext, args: readonly number[], item: number): void {
  const [code, weights, inputs, outputs, x, scale, sums, out] = args;
  const { scheme, panelBytes } = panelLayout(QUANTISED_SCHEMES[code], inputs);
  forEachRowPanels(memory, scratch, outputs, out, item, (panel, panels, target) => {
    const kernel = kernels[`row${panels === 2 ? 2 : ""}_${scheme}`];
    kernel(x, weights + panel * panelBytes, panelBytes, pairsOf(inputs), target, scale, sums);
  });
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

/**
 * Keys and values of some key/value heads into the cache. Args: keys, values, cached keys, cached values, kv heads, head size, capacity, start, rows,
 * heads of an item. Keys lie in panels of 16 positions, [capacity / 16][head size][16]; values position by position, padded to whole panels.
 */
function storeKeysAndValues({ memory }: JobContext, args: readonly number[], item: number): void {
  const [keys, values, cachedKeys, cachedValues, numKvHeads, headDim, capacity, start, rows, share] = args;
  const dims = roundUp(headDim, PANEL);
  const end = cachedValues + numKvHeads * capacity * dims * FLOAT_BYTES;
  const floats = floatsUpTo(memory, Math.max(end, cachedKeys + numKvHeads * capacity * headDim * FLOAT_BYTES, values, keys));
  for (let head = item * share; head < Math.min(numKvHeads, (item + 1) * share); head++) {
    const keyBase = cachedKeys / FLOAT_BYTES + head * capacity * headDim;
    const valueBase = cachedValues / FLOAT_BYTES + head * capacity * dims;
    for (let t = 0; t < rows; t++) {
      const position = start + t;
      const from = (t * numKvHeads + head) * headDim;
      const key = keyBase + (position >> 4) * PANEL * headDim + (position & 15);
      const value = valueBase + position * dims;
      for (let d = 0; d < headDim; d++) {
        floats[key + d * PANEL] = floats[keys / FLOAT_BYTES + from + d];
        floats[value + d] = floats[values / FLOAT_BYTES + from + d];
      }
    }
  }
}

interface AttentionArgs {
  readonly out: number;
  readonly q: number;
  readonly keys: number;
  readonly values: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly capacity: number;
  readonly start: number;
  readonly rows: number;
  /** 1 / sqrt(headDim) */
  readonly scale: number;
}

/** Args of both attention jobs, in this order. */
function attentionArgs(args: readonly number[]): AttentionArgs {
  const [out, q, keys, values, numHeads, numKvHeads, headDim, capacity, start, rows, scale] = args;
  return { out, q, keys, values, numHeads, numKvHeads, headDim, capacity, start, rows, scale };
}

/** Addresses of one query head's keys and values. */
function headAddresses(a: AttentionArgs, head: number): { keys: number; values: number } {
  const kvHead = Math.floor((head * a.numKvHeads) / a.numHeads);
  return {
    keys: a.keys + kvHead * a.capacity * a.headDim * FLOAT_BYTES,
    values: a.values + kvHead * a.capacity * roundUp(a.headDim, PANEL) * FLOAT_BYTES,
  };
}

/** ATTENTION_ROWS rows of one query head. Items: heads times groups of rows. */
function attentionMany({ kernels, memory, scratch }: JobContext, args: readonly number[], item: number): void {
  const a = attentionArgs(args);
  const groups = Math.ceil(a.rows / ATTENTION_ROWS);
  const head = Math.floor(item / groups);
  const first = (item % groups) * ATTENTION_ROWS;
  const rows = Math.min(ATTENTION_ROWS, a.rows - first);
  const tiles = tilesOf(rows);
  const { keys, values } = headAddresses(a, head);
  const dims = roundUp(a.headDim, PANEL);
  const positions = a.start + first + rows; // what the last of these rows sees
  const padded = roundUp(positions, PANEL);
  const rowBytes = a.numHeads * a.headDim * FLOAT_BYTES;
  const query = a.q + first * rowBytes + head * a.headDim * FLOAT_BYTES;

  const scores = scratch; // [rows][padded]
  const packedScores = scores + ATTENTION_ROWS * padded * FLOAT_BYTES; // [positions][4], one tile at a time
  const packedQuery = packedScores + TILE_ROWS * padded * FLOAT_BYTES; // [tiles][headDim][4]
  const result = packedQuery + ATTENTION_ROWS * a.headDim * FLOAT_BYTES; // [4][dims]
  const sums = result + TILE_ROWS * dims * FLOAT_BYTES; // blocks after the first

  // Scores: the queries times panels of keys, as in a linear layer whose weights are the keys.
  for (let t = 0; t < tiles; t++) packTile({ kernels, memory, scratch }, [query, packedQuery, a.headDim, rows, rowBytes, SUM_BLOCK], t);
  const scoring = {
    packed: packedQuery,
    tiles,
    rows,
    inputs: a.headDim,
    weightStride: PANEL_ROW_BYTES,
    targetStride: padded * FLOAT_BYTES,
    sums,
  };
  for (let panel = 0; panel < padded / PANEL; panel++) {
    const target = scores + panel * PANEL_ROW_BYTES;
    tilesTimesPanel(kernels, { ...scoring, target }, block => keys + (panel * a.headDim + block) * PANEL_ROW_BYTES);
  }

  for (let t = 0; t < tiles; t++) {
    // Softmax, each row over what it sees; what the tile's last row sees beyond that weighs 0, which adds nothing.
    const tileRows = Math.min(TILE_ROWS, rows - t * TILE_ROWS);
    const seen = a.start + first + t * TILE_ROWS + tileRows;
    const row = (i: number): number => scores + (t * TILE_ROWS + i) * padded * FLOAT_BYTES;
    const denominators: number[] = [];
    for (let i = 0; i < tileRows; i++) denominators.push(kernels.softmax(row(i), seen - tileRows + i + 1, roundUp(seen, 4), a.scale));
    packTile({ kernels, memory, scratch }, [row(0), packedScores, seen, tileRows, padded * FLOAT_BYTES, SUM_BLOCK], 0);

    // The weighted sum of values: a linear layer whose inputs are the positions.
    const dimsBytes = dims * FLOAT_BYTES;
    const weighing = {
      packed: packedScores,
      tiles: 1,
      rows: tileRows,
      inputs: seen,
      weightStride: dimsBytes,
      targetStride: dimsBytes,
      sums,
    };
    for (let panel = 0; panel < dims / PANEL; panel++) {
      const target = result + panel * PANEL_ROW_BYTES;
      tilesTimesPanel(kernels, { ...weighing, target }, block => values + block * dimsBytes + panel * PANEL_ROW_BYTES);
    }
    for (let i = 0; i < tileRows; i++) {
      const target = a.out + (first + t * TILE_ROWS + i) * rowBytes + head * a.headDim * FLOAT_BYTES;
      divideRow(kernels, memory, target, result + i * dimsBytes, denominators[i], a.headDim);
    }
  }
}

/** One row of one query head: the step of decoding. Items: heads. */
function attentionRow({ kernels, memory, scratch }: JobContext, args: readonly number[], head: number): void {
  const a = attentionArgs(args);
  const { keys, values } = headAddresses(a, head);
  const dims = roundUp(a.headDim, PANEL);
  const positions = a.start + 1;
  const padded = roundUp(positions, PANEL);
  const query = a.q + head * a.headDim * FLOAT_BYTES;
  const scores = scratch;
  const result = scores + padded * FLOAT_BYTES;
  const keyPanelBytes = a.headDim * PANEL_ROW_BYTES;
  forEachPair(padded / PANEL, (panel, panels) => {
    const target = scores + panel * PANEL_ROW_BYTES;
    rowTimesPanels(kernels, "F32", panels, query, keys + panel * keyPanelBytes, PANEL_ROW_BYTES, keyPanelBytes, target, a.headDim);
  });
  const denominator = kernels.softmax(scores, positions, roundUp(positions, 4), a.scale);
  forEachPair(dims / PANEL, (panel, panels) => {
    const at = panel * PANEL_ROW_BYTES;
    rowTimesPanels(kernels, "F32", panels, scores, values + at, dims * FLOAT_BYTES, PANEL_ROW_BYTES, result + at, positions);
  });
  divideRow(kernels, memory, a.out + head * a.headDim * FLOAT_BYTES, result, denominator, a.headDim);
}

/** Rows of a head lie beside those of others, so a size that is no multiple of 4 must not be written in vectors. */
function divideRow(kernels: Kernels, memory: WebAssembly.Memory, out: number, x: number, denominator: number, size: number): void {
  if (size % 4 === 0) return kernels.divide(out, x, denominator, size / 4);
  const floats = floatsUpTo(memory, Math.max(out, x) + size * FLOAT_BYTES);
  for (let d = 0; d < size; d++) floats[out / FLOAT_BYTES + d] = floats[x / FLOAT_BYTES + d] / denominator;
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
  integerRow,
  fillPanel,
  rmsNorm,
  rope,
  elementwise,
  storeKeysAndValues,
  attentionMany,
  attentionRow,
  limit,
} as const satisfies Record<string, Job>;
export type JobName = keyof typeof JOBS;
export const JOB_NAMES: readonly JobName[] = Object.keys(JOBS) as JobName[];
