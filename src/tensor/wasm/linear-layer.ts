/**
 * The linear layer and the embedding of the fast engine: how a product with a matrix is cut into jobs.
 *
 * In: a matrix, and addresses of activations in the matrix's own memory. Out: the outputs, in that memory. A few rows
 * are multiplied one by one; more are packed in tiles. For quantised weights, rows first become 16-bit integers with a
 * scale.
 */

import { ACTIVATION_MAX, type QuantisedScheme, quantiseInto, subBlocksOf } from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";
import { formCode } from "./job.ts";
import { FEW_ROWS, FEW_SCRATCH_BYTES, manyScratchBytes, ROW_PANELS } from "./linear-jobs.ts";
import {
  FLOAT_BYTES,
  integerPlace,
  isQuantised,
  PAIR_BYTES,
  PANEL,
  pairsOf,
  panelLayout,
  panelsOf,
  placeInPanel,
  SUB_BLOCK_BYTES,
  scalesOffset,
  subScalePlace,
  TILE_ROWS,
  tilesOf,
  WEIGHT_BYTES,
  type WeightForm,
} from "./panel-layout.ts";
import { rowShare } from "./row-jobs.ts";
import type { ThreadPool } from "./threads.ts";
import type { WasmMatrix } from "./wasm-matrix.ts";

/**
 * out [rows, outputs] = x [rows, inputs] times the matrix; `out` and `x` are addresses. Where rows are many, `out` has
 * room for whole tiles.
 */
type Linear = (pool: ThreadPool, matrix: WasmMatrix, out: number, x: number, rows: number) => void;

/** How this many rows are multiplied with weights in this form. */
export function linearOver(form: WeightForm, rows: number): Linear {
  if (rows <= FEW_ROWS) return isQuantised(form) ? integerFew : linearFew;
  return isQuantised(form) ? integerMany : linearMany;
}

/** What all jobs of the linear layer are told. */
function jobArgs({ form, shape: [outputs, inputs], address: weights }: WasmMatrix, out: number, rows: number) {
  return { form: formCode(form), weights, inputs, outputs, out, rows };
}

const linearFew: Linear = (pool, matrix, out, x, rows) => {
  const args = { ...jobArgs(matrix, out, rows), x };
  pool.run(matrix.memory, "linearFew", args, itemsOfFew(matrix), FEW_SCRATCH_BYTES);
};

const linearMany: Linear = (pool, matrix, out, x, rows) => {
  const { heap } = matrix.memory;
  const inputs = matrix.shape[1];
  const rowBytes = inputs * FLOAT_BYTES;
  const tiles = tilesOf(rows);
  const packed = heap.allocate(tiles * TILE_ROWS * rowBytes);
  try {
    const rowsToPack = { x, out: packed, inputs, rows, stride: rowBytes, blockSize: SUM_BLOCK };
    pool.run(matrix.memory, "packTile", rowsToPack, tiles);
    const args = { ...jobArgs(matrix, out, rows), packed };
    pool.run(matrix.memory, "linearMany", args, panelsOf(matrix.shape[0]), manyScratchBytes(rows));
  } finally {
    heap.free(packed);
  }
};

const integerMany: Linear = (pool, matrix, out, x, rows) => {
  const { heap } = matrix.memory;
  const pairs = pairsOf(matrix.shape[1]);
  const rowBytes = pairs * PAIR_BYTES;
  const tiles = tilesOf(rows);
  const places = heap.allocateAll([rows * rowBytes, rows * FLOAT_BYTES, tiles * TILE_ROWS * rowBytes]);
  const [integers, rowScales, packed] = places;
  try {
    quantiseRows(pool, matrix, x, integers, rowScales, rows);
    const rowsToPack = {
      x: integers,
      out: packed,
      inputs: pairs,
      rows,
      stride: rowBytes,
      blockSize: pairsOf(SUM_BLOCK),
    };
    pool.run(matrix.memory, "packTile", rowsToPack, tiles);
    const args = { ...jobArgs(matrix, out, rows), packed, rowScales };
    pool.run(matrix.memory, "integerMany", args, panelsOf(matrix.shape[0]), manyScratchBytes(rows));
  } finally {
    for (const place of places) heap.free(place);
  }
};

const integerFew: Linear = (pool, matrix, out, x, rows) => {
  const { heap, kernels, fewRows } = matrix.memory;
  const inputs = matrix.shape[1];
  const subBlocks = subBlocksOf(inputs);
  // The rows, each filled up with zeros to whole sub-blocks; their scales; the sums of their sub-blocks.
  const rowBytes = subBlocks * SUB_BLOCK_BYTES;
  const usedBytes = pairsOf(inputs) * PAIR_BYTES;
  const integers = fewRows.atLeast(rows * (rowBytes + FLOAT_BYTES + subBlocks * FLOAT_BYTES));
  const rowScales = integers + rows * rowBytes;
  const sums = rowScales + rows * FLOAT_BYTES;
  for (let t = 0; t < rows; t++) {
    const row = integers + t * rowBytes;
    quantiseRows(pool, matrix, x + t * inputs * FLOAT_BYTES, row, rowScales + t * FLOAT_BYTES, 1);
    if (usedBytes < rowBytes) heap.bytes(row + usedBytes, rowBytes - usedBytes).fill(0);
  }
  if (matrix.form === "int4") kernels.sub_block_sums(integers, sums, rows * subBlocks);
  const args = { ...jobArgs(matrix, out, rows), x: integers, rowScales, sums };
  pool.run(matrix.memory, "integerFew", args, itemsOfFew(matrix), FEW_SCRATCH_BYTES);
};

function itemsOfFew({ shape: [outputs] }: WasmMatrix): number {
  return Math.ceil(panelsOf(outputs) / ROW_PANELS);
}

/** Quantises rows of x to 16-bit integers and scales. An odd last input is paired with 0. */
function quantiseRows(
  pool: ThreadPool,
  { memory, shape }: WasmMatrix,
  x: number,
  out: number,
  scales: number,
  rows: number,
): void {
  const inputs = shape[1];
  if (inputs % 8 === 0) {
    const share = rowShare(pool.threads, rows, inputs);
    return pool.run(memory, "quantiseRows", { x, out, scales, inputs, rows, share }, Math.ceil(rows / share));
  }
  const { heap } = memory;
  const padded = 2 * pairsOf(inputs);
  for (let t = 0; t < rows; t++) {
    const target = new Int16Array(heap.memory.buffer, out + t * padded * 2, padded).fill(0);
    heap.floats(scales, rows)[t] = quantiseInto(
      target,
      heap.floats(x + t * inputs * FLOAT_BYTES, inputs),
      ACTIVATION_MAX,
    );
  }
}

/** out [ids, inputs] = rows of the matrix, as float32. */
export function embed(matrix: WasmMatrix, out: Float32Array, ids: ArrayLike<number>): void {
  const { form, memory, shape, address } = matrix;
  const inputs = shape[1];
  const rowOf = (t: number): Float32Array => out.subarray(t * inputs, (t + 1) * inputs);
  if (isQuantised(form)) {
    const { panelBytes } = panelLayout(form, inputs);
    for (let t = 0; t < ids.length; t++) {
      const panel = memory.heap.bytes(address + Math.floor(ids[t] / PANEL) * panelBytes, panelBytes);
      embedFromPanel(rowOf(t), panel, form, ids[t] % PANEL);
    }
    return;
  }
  const row = memory.heap.allocate(inputs * FLOAT_BYTES);
  try {
    for (let t = 0; t < ids.length; t++) {
      const first = Math.floor(ids[t] / PANEL) * inputs * PANEL + placeInPanel(form, ids[t] % PANEL);
      memory.kernels[`embed_${form}`](address + first * WEIGHT_BYTES[form], row, inputs);
      rowOf(t).set(memory.heap.floats(row, inputs));
    }
  } finally {
    memory.heap.free(row);
  }
}

/** Row `r` of a panel of quantised weights. */
function embedFromPanel(out: Float32Array, panel: Uint8Array, scheme: QuantisedScheme, r: number): void {
  const { recordBytes } = panelLayout(scheme, out.length);
  const view = new DataView(panel.buffer, panel.byteOffset, panel.byteLength);
  for (let block = 0; block * SUM_BLOCK < out.length; block++) {
    const first = block * SUM_BLOCK;
    const count = Math.min(SUM_BLOCK, out.length - first);
    const record = block * recordBytes;
    const scale = view.getFloat32(record + scalesOffset(scheme, count) + r * FLOAT_BYTES, true);
    for (let k = 0; k < count; k++) {
      const { byte, shift, flip } = integerPlace(scheme, r, k);
      const value = view.getInt8(record + byte) ^ (flip << shift);
      // imul, because a product of numbers could be -0.
      const integer =
        scheme === "int8"
          ? value
          : Math.imul((value << (28 - shift)) >> 28, view.getInt8(record + subScalePlace(count, r, k)));
      out[first + k] = integer * scale;
    }
  }
}
