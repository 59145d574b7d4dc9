/**
 * The fast engine: kernels in WebAssembly SIMD, on as many threads as it is given, over one memory.
 *
 * In and out: as `Engine` says; the bits are those of the reference engine. Weights are repacked into panels while they are read, so that they
 * are never held twice. Sizes that the kernels do not take (rows that are no multiple of 4) go to the reference operations, on the same
 * memory.
 */

import type { CacheShape, Engine, FloatBuffer, KvCache, Matrix, MatrixSource } from "../engine.ts";
import * as reference from "../reference.ts";
import { Heap } from "./heap.ts";
import {
  ATTENTION_ROWS,
  attentionScratchBytes,
  dtypeCode,
  type JobName,
  linearScratchBytes,
  ROW_PANELS,
  roundUp,
  tilesOf,
} from "./jobs.ts";
import { compileKernels } from "./kernels.ts";
import { MULTIPLY_ADD_FLOPS, READ_BYTES } from "./limit-kernels.ts";
import { PANEL, placeInPanel, TILE_ROWS, WEIGHT_BYTES, type WeightDtype } from "./linear-kernels.ts";
import { CONTROL_BYTES, type StartWorker, ThreadPool } from "./threads.ts";

const FLOAT_BYTES = 4;
/** Rows of a checkpoint's matrix that are read at once, before they are repacked. */
const STAGING_BYTES = 8 * 2 ** 20;
/** Items that each thread should find in a job over rows, so that a late one does not hold up the others. */
const ITEMS_PER_THREAD = 4;

export interface WasmEngineOptions {
  /** 1 by default. More need shared memory and `startWorker`. */
  readonly threads?: number;
  readonly startWorker?: StartWorker;
  /** Most bytes of memory; 4 GiB, the most there can be, by default. */
  readonly memoryLimit?: number;
}

class WasmBuffer implements FloatBuffer {
  readonly address: number;
  readonly length: number;
  readonly #heap: Heap;

  constructor(heap: Heap, address: number, length: number) {
    this.#heap = heap;
    this.address = address;
    this.length = length;
  }

  get data(): Float32Array {
    return this.#heap.floats(this.address, this.length);
  }
}

/** Panels [outputs / 16][inputs][16] in the checkpoint's dtype. */
class WasmMatrix implements Matrix {
  readonly name: string;
  readonly shape: readonly [number, number];
  readonly dtype: WeightDtype;
  readonly address: number;

  constructor(name: string, shape: readonly [number, number], dtype: WeightDtype, address: number) {
    this.name = name;
    this.shape = shape;
    this.dtype = dtype;
    this.address = address;
  }
}

function addressOf(buffer: FloatBuffer): number {
  if (!(buffer instanceof WasmBuffer)) throw new TypeError("buffer: expected one of this engine, got one of another");
  return buffer.address;
}

function own(matrix: Matrix): WasmMatrix {
  if (!(matrix instanceof WasmMatrix)) throw new TypeError(`${matrix.name}: expected a matrix of this engine, got one of another`);
  return matrix;
}

export class WasmEngine implements Engine {
  readonly name = "wasm";
  readonly threads: number;
  readonly #heap: Heap;
  readonly #pool: ThreadPool;
  #scoped: number[] | undefined;
  #scratch = 0;
  #scratchBytes = 0;

  private constructor(heap: Heap, pool: ThreadPool) {
    this.#heap = heap;
    this.#pool = pool;
    this.threads = pool.threads;
  }

  /** Compiles the kernels and starts the threads. Throws where WebAssembly SIMD, or for several threads shared memory, is missing. */
  static async create(options: WasmEngineOptions = {}): Promise<WasmEngine> {
    const { threads = 1, startWorker, memoryLimit } = options;
    const shared = threads > 1;
    const heap = new Heap(shared, CONTROL_BYTES, memoryLimit);
    const pool = await ThreadPool.start(compileKernels(shared), heap.memory, threads, startWorker);
    return new WasmEngine(heap, pool);
  }

  /** Bytes of the memory that are in use. */
  get usedBytes(): number {
    return this.#heap.usedBytes;
  }

  buffer(rows: number, size: number): FloatBuffer {
    // Tiles store four rows at a time, and vectors four values.
    const length = roundUp(rows, TILE_ROWS) * size;
    const address = this.#heap.allocate(length * FLOAT_BYTES + 16);
    this.#heap.floats(address, length).fill(0);
    this.#scoped?.push(address);
    return new WasmBuffer(this.#heap, address, rows * size);
  }

  free(buffer: FloatBuffer): void {
    this.#heap.free(addressOf(buffer));
  }

  scope<T>(work: () => T): T {
    this.#scoped = [];
    try {
      return work();
    } finally {
      for (const address of this.#scoped) this.#heap.free(address);
      this.#scoped = undefined;
    }
  }

  async loadMatrix(source: MatrixSource): Promise<Matrix> {
    const [outputs, inputs] = source.shape;
    const dtype = source.dtype as WeightDtype;
    const elementBytes = WEIGHT_BYTES[dtype];
    const rowBytes = inputs * elementBytes;
    const panelBytes = PANEL * rowBytes;
    const address = this.#heap.allocate(roundUp(outputs, PANEL) * rowBytes);
    const panelsAtOnce = Math.max(1, Math.floor(STAGING_BYTES / panelBytes));
    const staging = this.#heap.allocate(panelsAtOnce * panelBytes);
    try {
      for (let row = 0; row < outputs; row += panelsAtOnce * PANEL) {
        const rows = Math.min(panelsAtOnce * PANEL, outputs - row);
        if (rows % PANEL !== 0) this.#heap.bytes(staging, roundUp(rows, PANEL) * rowBytes).fill(0);
        await source.readInto(this.#heap.bytes(staging, rows * rowBytes), row * rowBytes);
        for (let i = 0; i < rows; i += PANEL) this.#repack(dtype, staging + i * rowBytes, address + (row + i) * rowBytes, inputs);
      }
    } finally {
      this.#heap.free(staging);
    }
    return new WasmMatrix(source.name, source.shape, dtype, address);
  }

  newCache(shape: CacheShape): KvCache {
    return new WasmCache(this.#heap, (name, args, items, scratchBytes) => this.#run(name, args, items, scratchBytes), shape);
  }

  embedInto(out: FloatBuffer, table: Matrix, ids: ArrayLike<number>): void {
    const { address, dtype, shape } = own(table);
    const inputs = shape[1];
    for (let t = 0; t < ids.length; t++) {
      const panel = ids[t] >> 4;
      const weights = address + (panel * inputs * PANEL + placeInPanel(dtype, ids[t] & 15)) * WEIGHT_BYTES[dtype];
      this.#pool.kernels[`embed_${dtype}`](weights, addressOf(out) + t * inputs * FLOAT_BYTES, inputs);
    }
  }

  rmsNormInto(out: FloatBuffer, x: FloatBuffer, gain: FloatBuffer, rows: number, eps: number): void {
    const size = gain.length;
    if (size % 4 !== 0) return reference.rmsNormInto(out.data, x.data, gain.data, rows, eps);
    const share = this.#share(rows);
    this.#run("rmsNorm", [addressOf(out), addressOf(x), addressOf(gain), rows, size, eps, share], Math.ceil(rows / share));
  }

  linearInto(out: FloatBuffer, x: FloatBuffer, firstRow: number, rows: number, weight: Matrix): void {
    const { address, dtype, shape } = own(weight);
    const [outputs, inputs] = shape;
    const first = addressOf(x) + firstRow * inputs * FLOAT_BYTES;
    const panels = Math.ceil(outputs / PANEL);
    if (rows === 1) {
      const args = [dtypeCode(dtype), address, inputs, outputs, first, addressOf(out)];
      return this.#run("linearRow", args, Math.ceil(panels / ROW_PANELS), 2 * PANEL * FLOAT_BYTES);
    }
    const tiles = tilesOf(rows);
    const packed = this.#heap.allocate(tiles * TILE_ROWS * inputs * FLOAT_BYTES);
    try {
      this.#run("packTile", [first, packed, inputs, rows, inputs * FLOAT_BYTES], tiles);
      this.#run("linearMany", [dtypeCode(dtype), address, inputs, outputs, packed, addressOf(out), rows], panels, linearScratchBytes(rows));
    } finally {
      this.#heap.free(packed);
    }
  }

  ropeInto(x: FloatBuffer, rows: number, heads: number, headDim: number, cos: FloatBuffer, sin: FloatBuffer, start: number): void {
    if (headDim % 8 !== 0) return reference.ropeInto(x.data, rows, heads, headDim, cos.data, sin.data, start);
    const share = this.#share(rows);
    this.#run("rope", [addressOf(x), heads, headDim, addressOf(cos), addressOf(sin), start, rows, share], Math.ceil(rows / share));
  }

  siluMulInto(gate: FloatBuffer, up: FloatBuffer, length: number): void {
    this.#elementwise(0, gate, up, length);
  }

  addInto(x: FloatBuffer, y: FloatBuffer, length: number): void {
    this.#elementwise(1, x, y, length);
  }

  close(): void {
    this.#pool.close();
  }

  /**
   * What this machine can do at most with this engine's threads, measured now: float32 multiplications and additions on 128-bit vectors per
   * second and thread, and bytes read from memory per second by all threads together.
   */
  measureLimits(): { flopsPerThread: number; bytesPerSecond: number } {
    const seconds = (work: () => void): number => {
      const started = performance.now();
      work();
      return (performance.now() - started) / 1000;
    };
    const rounds = 4_000_000;
    const multiplyAdd = seconds(() => this.#run("limit", [0, rounds, 0], 1, 64));
    const bytes = 256 * 2 ** 20; // beyond the caches of any machine
    const items = 4 * this.threads;
    const memory = this.#heap.allocate(bytes);
    this.#heap.bytes(memory, bytes).fill(1); // pages that were never written are all the same page of zeros
    try {
      const reading = seconds(() => this.#run("limit", [1, bytes / items / READ_BYTES, memory], items, 64));
      return { flopsPerThread: (rounds * MULTIPLY_ADD_FLOPS) / multiplyAdd, bytesPerSecond: bytes / reading };
    } finally {
      this.#heap.free(memory);
    }
  }

  #elementwise(which: number, x: FloatBuffer, y: FloatBuffer, length: number): void {
    const vectors = Math.ceil(length / 4); // the last may reach into the buffer's padding
    const share = this.#share(vectors);
    this.#run("elementwise", [which, addressOf(x), addressOf(y), vectors, share], Math.ceil(vectors / share));
  }

  /** How many of `count` equal pieces make one item. */
  #share(count: number): number {
    return Math.max(1, Math.ceil(count / (this.threads * ITEMS_PER_THREAD)));
  }

  #run(name: JobName, args: readonly number[], items: number, scratchBytes: number = 0): void {
    const needed = roundUp(scratchBytes, 64);
    if (needed > this.#scratchBytes) {
      if (this.#scratch) this.#heap.free(this.#scratch);
      this.#scratch = 0;
      this.#scratch = this.#heap.allocate(needed * this.threads);
      this.#scratchBytes = needed;
    }
    this.#pool.run(name, args, items, this.#scratch, this.#scratchBytes);
  }

  /** Sixteen rows, as the checkpoint has them, to one panel. */
  #repack(dtype: WeightDtype, rows: number, panel: number, inputs: number): void {
    if (dtype === "F32")
      return repackLoop(dtype, this.#heap.floats(rows, PANEL * inputs), this.#heap.floats(panel, PANEL * inputs), inputs, 0);
    const whole = inputs & ~7;
    // Rows that do not begin on a vector's border are read all the same; WebAssembly allows it.
    this.#pool.kernels.repack_16bit(rows, inputs * 2, panel, whole / 8);
    if (whole < inputs) {
      const memory = this.#heap.memory.buffer;
      repackLoop(dtype, new Uint16Array(memory, rows, PANEL * inputs), new Uint16Array(memory, panel, PANEL * inputs), inputs, whole);
    }
  }
}

function repackLoop<T extends Uint16Array | Float32Array>(dtype: WeightDtype, rows: T, panel: T, inputs: number, first: number): void {
  for (let r = 0; r < PANEL; r++) {
    const place = placeInPanel(dtype, r);
    for (let k = first; k < inputs; k++) panel[k * PANEL + place] = rows[r * inputs + k];
  }
}

type Run = (name: JobName, args: readonly number[], items: number, scratchBytes?: number) => void;

/** Per layer and key/value head: keys in panels of 16 positions, values position by position (see storeKeysAndValues). */
class WasmCache implements KvCache {
  readonly #heap: Heap;
  readonly #run: Run;
  readonly #shape: CacheShape;
  #layers: readonly { readonly keys: number; readonly values: number }[] = [];
  #capacity = 0;

  constructor(heap: Heap, run: Run, shape: CacheShape) {
    this.#heap = heap;
    this.#run = run;
    this.#shape = shape;
  }

  reserve(positions: number): void {
    if (positions <= this.#capacity) return;
    const { numKvHeads, numLayers, headDim } = this.#shape;
    const capacity = roundUp(Math.min(this.#shape.maxPositions, Math.max(positions, 2 * this.#capacity)), PANEL);
    const [keyRow, valueRow] = [headDim * FLOAT_BYTES, roundUp(headDim, PANEL) * FLOAT_BYTES];
    const grown: { keys: number; values: number }[] = [];
    try {
      for (let i = 0; i < numLayers; i++) {
        const keys = this.#heap.allocate(numKvHeads * capacity * keyRow);
        grown.push({ keys, values: 0 });
        grown[i].values = this.#heap.allocate(numKvHeads * capacity * valueRow);
      }
    } catch (error) {
      for (const { keys, values } of grown) for (const address of [keys, values]) if (address) this.#heap.free(address);
      throw error;
    }
    grown.forEach(({ keys, values }, i) => {
      const old = this.#layers[i];
      for (const [from, to, row] of [
        [old?.keys, keys, keyRow],
        [old?.values, values, valueRow],
      ] as const) {
        for (let head = 0; head < numKvHeads; head++) {
          const target = this.#heap.bytes(to + head * capacity * row, capacity * row);
          const kept = this.#capacity * row;
          if (from !== undefined) target.set(this.#heap.bytes(from + head * kept, kept));
          target.fill(0, kept); // memory that was another's may hold NaN, which a weight of 0 would not undo
        }
      }
    });
    this.free();
    this.#layers = grown;
    this.#capacity = capacity;
  }

  store(layer: number, start: number, rows: number, keys: FloatBuffer, values: FloatBuffer): void {
    const { numKvHeads, headDim } = this.#shape;
    const cached = this.#layers[layer];
    const args = [addressOf(keys), addressOf(values), cached.keys, cached.values, numKvHeads, headDim, this.#capacity, start, rows];
    this.#run("storeKeysAndValues", args, numKvHeads);
  }

  attentionInto(out: FloatBuffer, q: FloatBuffer, layer: number, start: number, rows: number): void {
    const { numHeads, numKvHeads, headDim } = this.#shape;
    const cached = this.#layers[layer];
    const args = [addressOf(out), addressOf(q), cached.keys, cached.values, numHeads, numKvHeads, headDim, this.#capacity, start, rows];
    const scratch = attentionScratchBytes(start + rows, headDim);
    if (rows === 1) this.#run("attentionRow", args, numHeads, scratch);
    else this.#run("attentionMany", args, numHeads * Math.ceil(rows / ATTENTION_ROWS), scratch);
  }

  free(): void {
    for (const { keys, values } of this.#layers) {
      this.#heap.free(keys);
      this.#heap.free(values);
    }
    this.#layers = [];
    this.#capacity = 0;
  }
}
