/**
 * The fast engine: kernels in WebAssembly SIMD, on as many threads as it is given.
 *
 * In and out: as `Engine` says; the bits are those of the reference engine. Weights are repacked into panels while they are read, and quantised on
 * the way where that is asked for, so that they are never held twice. All activations lie in the first of several memories of 4 GiB; matrices and
 * caches lie in the first that has room, and rows are copied there and back where that is another. Sizes that the kernels do not take (rows that are
 * no multiple of 4 or 8) go to the reference operations, on the same memory.
 */

import type { CacheShape, Engine, FloatBuffer, KvCache, Matrix, MatrixSource, QuantisedSource } from "../engine.ts";
import { MemoryError } from "../memory-error.ts";
import { ACTIVATION_MAX, type QuantisedScheme, quantiseInto, subBlocksOf } from "../quantised.ts";
import * as reference from "../reference.ts";
import { SUM_BLOCK } from "../reference.ts";
import { Heap, roundUp } from "./heap.ts";
import { FLOAT_BYTES } from "./job-context.ts";
import { dtypeCode, FEW_ROWS, type JobName, linearScratchBytes, MIN_ITEM_VALUES, ROW_PANELS, SUB_BLOCK_BYTES, schemeCode } from "./jobs.ts";
import { compileKernels, MAX_PAGES, PAGE_BYTES } from "./kernels.ts";
import { DOT_OPERATIONS, MULTIPLY_ADD_FLOPS, READ_BYTES } from "./limit-kernels.ts";
import { PANEL, placeInPanel, TILE_ROWS, WEIGHT_BYTES } from "./linear-kernels.ts";
import { integerPlace, pairsOf, panelLayout, scalesOffset, subScalePlace } from "./panel-layout.ts";
import { CONTROL_BYTES, type StartWorker, ThreadPool } from "./threads.ts";
import { tilesOf } from "./tiles.ts";
import { addressOf, WasmBuffer } from "./wasm-buffer.ts";
import { type Run, WasmCache } from "./wasm-cache.ts";
import { isQuantised, type LoadContext, loadMatrix, loadQuantised, loadQuantising, WasmMatrix } from "./wasm-matrix.ts";

/** For measuring limits: some 40 ms of arithmetic, and memory that no cache holds. */
const MULTIPLY_ADD_ROUNDS = 4_000_000;
const MIN_READ_BYTES = 256 * 2 ** 20;
/** Items that each thread should find in a job over rows, so that a late one does not hold up the others. */
const ITEMS_PER_THREAD = 4;

export interface WasmEngineOptions {
  /** 1 by default. More need shared memory and `startWorker`. */
  readonly threads?: number;
  readonly startWorker?: StartWorker;
  /** Most bytes that weights and caches may take together; what the machine has, or what all memories can hold. */
  readonly memoryLimit?: number;
  /** Most bytes of each single memory: 4 GiB, the most there can be, by default. */
  readonly memoryBytes?: number;
}

/** Memories of 4 GiB each. They take address space alone until they are used. */
const MEMORIES = 8;
/** Share of a memory for the rows that are copied to another memory, and their outputs: 32 MB of 4 GiB. */
const COPY_SHARE = 1 / 128;

function own(matrix: Matrix): WasmMatrix {
  if (!(matrix instanceof WasmMatrix)) throw new TypeError(`${matrix.name}: expected a matrix of this engine, got one of another`);
  return matrix;
}

export class WasmEngine implements Engine {
  readonly name = "wasm";
  readonly threads: number;
  readonly #heaps: readonly Heap[];
  readonly #pool: ThreadPool;
  readonly #memoryLimit: number;
  #scoped: number[] | undefined;
  /** In each memory: where the threads' scratch lies, and how much each has. */
  readonly #scratch: { address: number; bytes: number }[];
  /** The same for the row of a decoding step, quantised. */
  readonly #rows: { address: number; bytes: number }[];

  private constructor(heaps: readonly Heap[], pool: ThreadPool, memoryLimit: number) {
    this.#heaps = heaps;
    this.#pool = pool;
    this.#memoryLimit = memoryLimit;
    this.#scratch = heaps.map(() => ({ address: 0, bytes: 0 }));
    this.#rows = heaps.map(() => ({ address: 0, bytes: 0 }));
    this.threads = pool.threads;
  }

  /** The memory of activations. */
  get #heap(): Heap {
    return this.#heaps[0];
  }

  /** Compiles the kernels and starts the threads. Throws where WebAssembly SIMD, or for several threads shared memory, is missing. */
  static create(options: WasmEngineOptions = {}): WasmEngine {
    const { threads = 1, startWorker, memoryLimit = Infinity, memoryBytes = MAX_PAGES * PAGE_BYTES } = options;
    const shared = threads > 1;
    const heaps = [new Heap(shared, CONTROL_BYTES, memoryBytes)];
    try {
      while (heaps.length < MEMORIES) heaps.push(new Heap(shared, CONTROL_BYTES, memoryBytes));
    } catch {
      // No address space for more: what there is will do for all but the longest contexts.
    }
    const memories = heaps.map(heap => heap.memory);
    const pool = ThreadPool.start(compileKernels(shared), memories, threads, startWorker);
    return new WasmEngine(heaps, pool, memoryLimit);
  }

  get failure(): string | undefined {
    return this.#pool.failure;
  }

  ready(): Promise<void> {
    return this.#pool.ready();
  }

  /** Bytes in use, in all memories. */
  get usedBytes(): number {
    return this.#heaps.reduce((sum, heap) => sum + heap.usedBytes, 0);
  }

  buffer(rows: number, size: number): FloatBuffer {
    // Where there are many rows, tiles store four at a time; vectors store four values.
    const length = (rows <= FEW_ROWS ? rows : roundUp(rows, TILE_ROWS)) * size;
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

  checkRoom(bytes: number, what: string): void {
    const megabytes = (n: number): string => `${Math.ceil(n / 2 ** 20)} MB`;
    const left = this.#memoryLimit - this.usedBytes;
    if (bytes > left) throw new MemoryError(`memory: expected ${megabytes(bytes)} for ${what}, got ${megabytes(Math.max(left, 0))} left`);
  }

  loadMatrix(source: MatrixSource, scheme?: QuantisedScheme): Promise<Matrix> {
    return scheme ? loadQuantising(this.#loadContext, source, scheme) : loadMatrix(this.#loadContext, source);
  }

  loadQuantised(source: QuantisedSource): Promise<Matrix> {
    return loadQuantised(this.#loadContext, source);
  }

  get #loadContext(): LoadContext {
    return {
      heaps: this.#heaps,
      checkRoom: (bytes, what) => this.checkRoom(bytes, what),
      run: (name, args, items, scratchBytes, memory) => this.#run(name, args, items, scratchBytes, memory),
      kernels: memory => this.#pool.kernels[memory],
    };
  }

  newCache(shape: CacheShape): KvCache {
    const run: Run = (name, args, items, scratchBytes, memory) => this.#run(name, args, items, scratchBytes, memory);
    return new WasmCache(this.#heaps, run, bytes => this.checkRoom(bytes, "the key/value cache"), shape);
  }

  embedInto(out: FloatBuffer, table: Matrix, ids: ArrayLike<number>): void {
    const matrix = own(table);
    const { address, form, memory, shape } = matrix;
    const inputs = shape[1];
    const { data } = out;
    if (isQuantised(form)) {
      const { panelBytes } = panelLayout(form, inputs);
      const row = (id: number): Uint8Array => this.#heaps[memory].bytes(address + (id >> 4) * panelBytes, panelBytes);
      for (let t = 0; t < ids.length; t++) embedFromPanel(data.subarray(t * inputs, (t + 1) * inputs), row(ids[t]), form, ids[t] & 15);
      return;
    }
    // In the table's memory first, and from there to the activations'.
    const heap = this.#heaps[memory];
    const widened = memory === 0 ? undefined : heap.allocate(inputs * FLOAT_BYTES);
    for (let t = 0; t < ids.length; t++) {
      const weights = address + ((ids[t] >> 4) * inputs * PANEL + placeInPanel(form, ids[t] & 15)) * WEIGHT_BYTES[form];
      this.#pool.kernels[memory][`embed_${form}`](weights, widened ?? addressOf(out) + t * inputs * FLOAT_BYTES, inputs);
      if (widened !== undefined) data.set(heap.floats(widened, inputs), t * inputs);
    }
    if (widened !== undefined) heap.free(widened);
  }

  rmsNormInto(out: FloatBuffer, x: FloatBuffer, gain: FloatBuffer, rows: number, eps: number): void {
    const size = gain.length;
    if (size % 4 !== 0) return reference.rmsNormInto(out.data, x.data, gain.data, rows, eps);
    const share = this.#share(rows, size);
    this.#run("rmsNorm", [addressOf(out), addressOf(x), addressOf(gain), rows, size, eps, share], Math.ceil(rows / share));
  }

  linearInto(out: FloatBuffer, x: FloatBuffer, firstRow: number, rows: number, weight: Matrix): void {
    const matrix = own(weight);
    const [outputs, inputs] = matrix.shape;
    const first = addressOf(x) + firstRow * inputs * FLOAT_BYTES;
    if (matrix.memory === 0) return this.#linear(matrix, addressOf(out), first, rows);
    // Weights in another memory: the rows go there, and the outputs come back. Each row costs thousands of operations for every value that is moved.
    const heap = this.#heaps[matrix.memory];
    const atOnce = roundUp(Math.ceil((heap.limit * COPY_SHARE) / ((inputs + outputs) * FLOAT_BYTES)), TILE_ROWS);
    for (let t = 0; t < rows; t += atOnce) {
      const count = Math.min(atOnce, rows - t);
      const sizes = [count * inputs * FLOAT_BYTES, roundUp(count, TILE_ROWS) * outputs * FLOAT_BYTES];
      const [there, result] = heap.allocateAll(sizes);
      heap.floats(there, count * inputs).set(this.#heap.floats(first + t * inputs * FLOAT_BYTES, count * inputs));
      try {
        this.#linear(matrix, result, there, count);
        this.#heap.floats(addressOf(out) + t * outputs * FLOAT_BYTES, count * outputs).set(heap.floats(result, count * outputs));
      } finally {
        heap.free(there);
        heap.free(result);
      }
    }
  }

  /** The linear layer on addresses in the matrix's own memory. */
  #linear(matrix: WasmMatrix, out: number, x: number, rows: number): void {
    const { address, form, memory, shape } = matrix;
    const [outputs, inputs] = shape;
    const panels = Math.ceil(outputs / PANEL);
    if (isQuantised(form)) return this.#linearQuantised(matrix, form, out, x, rows);
    if (rows <= FEW_ROWS) {
      const args = [dtypeCode(form), address, inputs, outputs, x, out, rows];
      return this.#run("linearFew", args, Math.ceil(panels / ROW_PANELS), 2 * PANEL * FLOAT_BYTES, memory);
    }
    const tiles = tilesOf(rows);
    const packed = this.#heaps[memory].allocate(tiles * TILE_ROWS * inputs * FLOAT_BYTES);
    try {
      this.#run("packTile", [x, packed, inputs, rows, inputs * FLOAT_BYTES, SUM_BLOCK], tiles, 0, memory);
      const args = [dtypeCode(form), address, inputs, outputs, packed, out, rows];
      this.#run("linearMany", args, panels, linearScratchBytes(rows), memory);
    } finally {
      this.#heaps[memory].free(packed);
    }
  }

  /** The same over quantised weights: the rows become 16-bit integers, each row with a scale. */
  #linearQuantised(matrix: WasmMatrix, scheme: QuantisedScheme, out: number, x: number, rows: number): void {
    if (rows <= FEW_ROWS) return this.#fewQuantised(matrix, scheme, out, x, rows);
    const { address, memory, shape } = matrix;
    const [outputs, inputs] = shape;
    const heap = this.#heaps[memory];
    const rowBytes = pairsOf(inputs) * 4;
    const tiles = tilesOf(rows);
    const [integers, scales, packed] = heap.allocateAll([rows * rowBytes, rows * FLOAT_BYTES, tiles * TILE_ROWS * rowBytes]);
    try {
      this.#quantiseRows(memory, x, integers, scales, inputs, rows);
      this.#run("packTile", [integers, packed, pairsOf(inputs), rows, rowBytes, pairsOf(SUM_BLOCK)], tiles, 0, memory);
      const args = [schemeCode(scheme), address, inputs, outputs, packed, scales, out, rows];
      this.#run("integerMany", args, Math.ceil(outputs / PANEL), linearScratchBytes(rows), memory);
    } finally {
      for (const piece of [integers, scales, packed]) heap.free(piece);
    }
  }

  /** A few rows, or the one of decoding: some 200 of these a step, so their integers have a place that is kept. */
  #fewQuantised({ address, memory, shape }: WasmMatrix, scheme: QuantisedScheme, out: number, x: number, rows: number): void {
    const [outputs, inputs] = shape;
    const subBlocks = subBlocksOf(inputs);
    // The rows, each with zeros behind it to a whole sub-block, their scales, and the sums of their sub-blocks.
    const rowBytes = subBlocks * SUB_BLOCK_BYTES;
    const integers = this.#grown(this.#rows, memory, rows * (rowBytes + FLOAT_BYTES + subBlocks * 4));
    const scales = integers + rows * rowBytes;
    const sums = scales + rows * FLOAT_BYTES;
    const usedBytes = pairsOf(inputs) * 4;
    for (let t = 0; t < rows; t++) {
      const row = integers + t * rowBytes;
      this.#quantiseRows(memory, x + t * inputs * FLOAT_BYTES, row, scales + t * FLOAT_BYTES, inputs, 1);
      if (usedBytes < rowBytes) this.#heaps[memory].bytes(row + usedBytes, rowBytes - usedBytes).fill(0);
    }
    if (scheme === "int4") this.#pool.kernels[memory].sub_block_sums(integers, sums, rows * subBlocks);
    const args = [schemeCode(scheme), address, inputs, outputs, integers, scales, sums, out, rows];
    this.#run("integerFew", args, Math.ceil(outputs / PANEL / ROW_PANELS), 2 * PANEL * FLOAT_BYTES, memory);
  }

  #quantiseRows(memory: number, x: number, integers: number, scales: number, inputs: number, rows: number): void {
    if (inputs % 8 === 0) {
      const share = this.#share(rows, inputs);
      return this.#run("quantiseRows", [x, integers, scales, inputs, rows, share], Math.ceil(rows / share), 0, memory);
    }
    const heap = this.#heaps[memory];
    const padded = 2 * pairsOf(inputs);
    for (let t = 0; t < rows; t++) {
      const target = new Int16Array(heap.memory.buffer, integers + t * padded * 2, padded).fill(0);
      heap.floats(scales, rows)[t] = quantiseInto(target, heap.floats(x + t * inputs * FLOAT_BYTES, inputs), ACTIVATION_MAX);
    }
  }

  ropeInto(x: FloatBuffer, rows: number, heads: number, headDim: number, cos: FloatBuffer, sin: FloatBuffer, start: number): void {
    if (headDim % 8 !== 0) return reference.ropeInto(x.data, rows, heads, headDim, cos.data, sin.data, start);
    const share = this.#share(rows, heads * headDim);
    this.#run("rope", [addressOf(x), heads, headDim, addressOf(cos), addressOf(sin), start, rows, share], Math.ceil(rows / share));
  }

  siluMulInto(gate: FloatBuffer, up: FloatBuffer, length: number): void {
    this.#elementwise(0, gate, up, length);
  }

  addInto(x: FloatBuffer, y: FloatBuffer, length: number): void {
    this.#elementwise(1, x, y, length);
  }

  argmax(x: FloatBuffer, row: number, size: number): number {
    const index = this.#pool.kernels[0].argmax(addressOf(x) + row * size * FLOAT_BYTES, size);
    // The kernel only says that there is one; the readable twin says where.
    return index >= 0 ? index : reference.argmax(x.data.subarray(row * size, (row + 1) * size));
  }

  close(): void {
    this.#pool.close();
    for (const heap of this.#heaps) heap.close();
  }

  /**
   * What this machine can do at most with this engine's threads, measured now: multiplications and additions on 128-bit vectors per second and
   * thread, of float32 or of 16-bit integers, and bytes read from memory per second by all threads together.
   */
  measureLimits(numbers: "float32" | "int16" = "float32"): { flopsPerThread: number; bytesPerSecond: number } {
    const seconds = (work: () => void): number => {
      const started = performance.now();
      work();
      return (performance.now() - started) / 1000;
    };
    const [which, operations] = numbers === "float32" ? [0, MULTIPLY_ADD_FLOPS] : [2, DOT_OPERATIONS];
    const multiplyAdd = seconds(() => this.#run("limit", [which, MULTIPLY_ADD_ROUNDS, 0], 1, 64));
    // The weights themselves where they are beyond any cache; else memory of its own, written once, since unwritten pages are all one.
    const loaded = Math.min(this.#heap.usedBytes, 2 ** 30);
    const extra = loaded < MIN_READ_BYTES ? this.#heap.allocate(MIN_READ_BYTES) : undefined;
    if (extra !== undefined) this.#heap.bytes(extra, MIN_READ_BYTES).fill(1);
    const items = 16 * this.threads;
    const rounds = Math.floor((extra === undefined ? loaded : MIN_READ_BYTES) / items / READ_BYTES);
    try {
      const reading = seconds(() => this.#run("limit", [1, rounds, extra ?? CONTROL_BYTES], items, 64));
      return {
        flopsPerThread: (MULTIPLY_ADD_ROUNDS * operations) / multiplyAdd,
        bytesPerSecond: (rounds * items * READ_BYTES) / reading,
      };
    } finally {
      if (extra !== undefined) this.#heap.free(extra);
    }
  }

  #elementwise(which: number, x: FloatBuffer, y: FloatBuffer, length: number): void {
    const vectors = Math.ceil(length / 4); // the last may reach into the buffer's padding
    const share = this.#share(vectors, 4);
    this.#run("elementwise", [which, addressOf(x), addressOf(y), vectors, share], Math.ceil(vectors / share));
  }

  /** How many of `count` equal pieces, of so many values each, make one item. */
  #share(count: number, values: number): number {
    return Math.max(1, Math.ceil(count / (this.threads * ITEMS_PER_THREAD)), Math.ceil(MIN_ITEM_VALUES / values));
  }

  #run(name: JobName, args: readonly number[], items: number, scratchBytes: number = 0, memory: number = 0): void {
    this.#grown(this.#scratch, memory, roundUp(scratchBytes, 64), this.threads);
    const scratch = this.#scratch[memory];
    this.#pool.run(name, args, items, scratch.address, scratch.bytes, memory);
  }

  /** The address of a place that is kept from call to call, made anew where it is too small: `bytes` for each of `shares`. */
  #grown(places: { address: number; bytes: number }[], memory: number, bytes: number, shares: number = 1): number {
    const place = places[memory];
    if (bytes > place.bytes) {
      if (place.address) this.#heaps[memory].free(place.address);
      place.bytes = 0;
      place.address = 0;
      place.address = this.#heaps[memory].allocate(bytes * shares);
      place.bytes = bytes;
    }
    return place.address;
  }
}

/** Row `r` of a panel of quantised weights, as float32. */
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
      // imul: a product of numbers could be -0, which no integer is.
      const integer =
        scheme === "int8" ? value : Math.imul((value << (28 - shift)) >> 28, view.getInt8(record + subScalePlace(count, r, k)));
      out[first + k] = integer * scale;
    }
  }
}
