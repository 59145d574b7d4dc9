/**
 * Matrices of the fast engine, and how they are loaded: rows are read some at a time into a staging area and put into
 * panels from there, by all threads where they are quantised on the way.
 *
 * In: a source of rows. Out: a `WasmMatrix`, which says in which memory its panels lie, and where.
 */

import type { WeightDtype } from "../dtype.ts";
import type { Matrix, MatrixSource, QuantisedSource } from "../engine.ts";
import { MemoryError } from "../memory-error.ts";
import { blocksOf, checkScales, type QuantisedScheme, quantisedByteLength, subScalesOf } from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";
import { FILL_SCRATCH_BYTES, storedRowBytes } from "./fill-panels.ts";
import { READ_AHEAD_BYTES } from "./integer-kernels.ts";
import { formCode } from "./job.ts";
import type { EngineMemory } from "./memory.ts";
import {
  FLOAT_BYTES,
  isQuantised,
  PANEL,
  panelLayout,
  placeInPanel,
  scalesOffset,
  WEIGHT_BYTES,
  type WeightForm,
} from "./panel-layout.ts";
import type { ThreadPool } from "./threads.ts";

/** Bytes of rows that are read at once before they are put into panels; at most this share of a memory. */
const STAGING_BYTES = 8 * 2 ** 20;
const STAGING_SHARE = 1 / 32;
/**
 * The share of each memory that matrices leave free for a pass's activations and packed rows, as caches do in the first
 * memory: 256 MB of 4 GiB.
 */
export const ACTIVATION_SHARE: number = 1 / 16;

/** A matrix in panels of 16 outputs, as panel-layout.ts says. */
export class WasmMatrix implements Matrix {
  readonly name: string;
  readonly shape: readonly [outputs: number, inputs: number];
  readonly form: WeightForm;
  /** In which memory, and where. */
  readonly memory: EngineMemory;
  readonly address: number;

  get byteLength(): number {
    const { form, shape } = this;
    return isQuantised(form) ? quantisedByteLength(form, ...shape) : shape[0] * shape[1] * WEIGHT_BYTES[form];
  }

  constructor(name: string, shape: readonly [number, number], form: WeightForm, memory: EngineMemory, address: number) {
    this.name = name;
    this.shape = shape;
    this.form = form;
    this.memory = memory;
    this.address = address;
  }
}

/** What loading needs of the engine. */
export interface LoadContext {
  readonly memories: readonly EngineMemory[];
  readonly pool: ThreadPool;
  readonly checkRoom: (bytes: number, what: string) => void;
}

/**
 * Panels that were read and go to their place: `count` of them, from row `row` on, out of `staging` and into `target`.
 */
interface Batch {
  readonly memory: EngineMemory;
  readonly staging: number;
  readonly target: number;
  readonly row: number;
  readonly count: number;
}

/** A matrix as the checkpoint stores it. */
export async function loadMatrix(context: LoadContext, source: MatrixSource): Promise<WasmMatrix> {
  const { name, shape, dtype } = source;
  const panelBytes = PANEL * shape[1] * WEIGHT_BYTES[dtype];
  const place = await readPanels(context, source, panelBytes, panelBytes, ({ memory, staging, target, count }) => {
    for (let i = 0; i < count; i++) repack(memory, dtype, staging + i * panelBytes, target + i * panelBytes, shape[1]);
  });
  return new WasmMatrix(name, shape, dtype, place.memory, place.address);
}

/** A matrix that is quantised on the way. Throws RangeError for weights that are not finite. */
export async function loadQuantising(
  context: LoadContext,
  source: MatrixSource,
  scheme: QuantisedScheme,
): Promise<WasmMatrix> {
  const { name, shape, dtype } = source;
  const [outputs, inputs] = shape;
  const { panelBytes, recordBytes } = panelLayout(scheme, inputs);
  const place = await readPanels(context, source, PANEL * storedRowBytes(dtype, inputs), panelBytes, batch => {
    const { memory, staging, target, row, count } = batch;
    const codes = { scheme: formCode(scheme), stored: formCode(dtype) };
    const args = { ...codes, rows: staging, panels: target, inputs, scales: 0, subScales: 0 };
    context.pool.run(memory, "fillPanel", args, count, FILL_SCRATCH_BYTES);
    for (let panel = 0; panel < count; panel++) {
      for (let block = 0; block < blocksOf(inputs); block++) {
        const inBlock = Math.min(SUM_BLOCK, inputs - block * SUM_BLOCK);
        const scales = target + panel * panelBytes + block * recordBytes + scalesOffset(scheme, inBlock);
        checkScales(name, memory.heap.floats(scales, Math.min(PANEL, outputs - row - panel * PANEL)), "weights");
      }
    }
  });
  return new WasmMatrix(name, shape, scheme, place.memory, place.address);
}

/** A matrix that was saved quantised. */
export async function loadQuantised(context: LoadContext, source: QuantisedSource): Promise<WasmMatrix> {
  const { name, shape, scheme } = source;
  const inputs = shape[1];
  const [blocks, subBlocks] = [blocksOf(inputs), subScalesOf(scheme, inputs)];
  const { panelBytes } = panelLayout(scheme, inputs);
  const place = await readPanels(context, source, PANEL * storedRowBytes(scheme, inputs), panelBytes, batch => {
    const { staging, target, row, count } = batch;
    const { heap } = batch.memory;
    const rows = count * PANEL;
    // Rows that only fill up the last panel have scales and integers of 0.
    const [scales, subScales] = heap.allocateAll([rows * blocks * FLOAT_BYTES, rows * subBlocks]);
    heap.floats(scales, rows * blocks).fill(0);
    heap.floats(scales, rows * blocks).set(source.scales.subarray(row * blocks, (row + rows) * blocks));
    heap.bytes(subScales, rows * subBlocks).fill(0);
    heap
      .bytes(subScales, rows * subBlocks)
      .set(asBytes(source.subScales.subarray(row * subBlocks, (row + rows) * subBlocks)));
    try {
      const codes = { scheme: formCode(scheme), stored: formCode(scheme) };
      const args = { ...codes, rows: staging, panels: target, inputs, scales, subScales };
      context.pool.run(batch.memory, "fillPanel", args, count, FILL_SCRATCH_BYTES);
    } finally {
      heap.free(scales);
      heap.free(subScales);
    }
  });
  return new WasmMatrix(name, shape, scheme, place.memory, place.address);
}

function asBytes(values: Int8Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/**
 * Allocates the panels in the first memory that has room, and reads the rows batch by batch; a last panel is filled up
 * with zeros.
 */
async function readPanels(
  { memories, checkRoom }: LoadContext,
  source: Pick<MatrixSource, "name" | "shape" | "readInto">,
  storedPanelBytes: number,
  panelBytes: number,
  place: (batch: Batch) => void,
): Promise<{ readonly memory: EngineMemory; readonly address: number }> {
  const outputs = source.shape[0];
  const panels = Math.ceil(outputs / PANEL);
  const storedRow = storedPanelBytes / PANEL;
  checkRoom(panels * panelBytes, source.name);
  const size = panels * panelBytes + READ_AHEAD_BYTES;
  const memory = memories.find(({ heap }) => heap.hasRoom(size + heap.limit * ACTIVATION_SHARE));
  if (!memory) {
    const megabytes = Math.ceil((panels * panelBytes) / 2 ** 20);
    throw new MemoryError(
      `memory: no room for ${megabytes} MB of ${source.name}: all ${memories.length} memories are full`,
    );
  }
  const { heap } = memory;
  const address = heap.allocate(size);
  const atOnce = Math.max(1, Math.floor(Math.min(STAGING_BYTES, heap.limit * STAGING_SHARE) / storedPanelBytes));
  const staging = heap.allocate(atOnce * storedPanelBytes);
  try {
    for (let panel = 0; panel < panels; panel += atOnce) {
      const row = panel * PANEL;
      const count = Math.min(atOnce, panels - panel);
      const rows = Math.min(count * PANEL, outputs - row);
      if (rows < count * PANEL) heap.bytes(staging, count * storedPanelBytes).fill(0);
      await source.readInto(heap.bytes(staging, rows * storedRow), row * storedRow);
      place({ memory, staging, target: address + panel * panelBytes, row, count });
    }
  } finally {
    heap.free(staging);
  }
  return { memory, address };
}

/** Puts sixteen rows, as the checkpoint stores them, into one panel. */
function repack(
  { heap, kernels }: EngineMemory,
  dtype: WeightDtype,
  rows: number,
  panel: number,
  inputs: number,
): void {
  if (dtype === "F32")
    return repackLoop(dtype, heap.floats(rows, PANEL * inputs), heap.floats(panel, PANEL * inputs), inputs, 0);
  const whole = inputs & ~7;
  // Rows need not be aligned to vectors: WebAssembly allows unaligned loads.
  kernels.repack_16bit(rows, inputs * 2, panel, whole / 8);
  if (whole < inputs) {
    const { buffer } = heap.memory;
    repackLoop(
      dtype,
      new Uint16Array(buffer, rows, PANEL * inputs),
      new Uint16Array(buffer, panel, PANEL * inputs),
      inputs,
      whole,
    );
  }
}

function repackLoop<T extends Uint16Array | Float32Array>(
  dtype: WeightDtype,
  rows: T,
  panel: T,
  inputs: number,
  first: number,
): void {
  for (let r = 0; r < PANEL; r++) {
    const place = placeInPanel(dtype, r);
    for (let k = first; k < inputs; k++) panel[k * PANEL + place] = rows[r * inputs + k];
  }
}
