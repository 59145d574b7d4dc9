/**
 * The fast engine: kernels in WebAssembly SIMD, on as many threads as it is given.
 *
 * In and out: as `Engine` says; the bits are those of the reference engine. Weights are put into panels while they are
 * read, and quantised on the way where that is asked for, so they are never held twice. All activations lie in the
 * first of several memories of 4 GiB; matrices and caches lie in the first that has room, and rows are copied there and
 * back where that is another. Where rows are not a multiple of 4 or 8, which the kernels need, the reference operations
 * compute on the same memory.
 */

import {
  type CacheShape,
  type Engine,
  type FloatBuffer,
  type KvCache,
  lengthOf,
  type Matrix,
  type MatrixSource,
  type QuantisedSource,
  type RotaryAngles,
} from "../engine.ts";
import { MemoryError } from "../memory-error.ts";
import type { QuantisedScheme } from "../quantised.ts";
import * as reference from "../reference.ts";
import { Heap, roundUp } from "./heap.ts";
import { LANES, VECTOR_BYTES } from "./kernel-parts.ts";
import { compileKernels, MAX_PAGES, PAGE_BYTES } from "./kernels.ts";
import { DOT_OPERATIONS, MULTIPLY_ADD_FLOPS, READ_BYTES } from "./limit-kernels.ts";
import { FEW_ROWS } from "./linear-jobs.ts";
import { embed, linearOver } from "./linear-layer.ts";
import { EngineMemory, type Operand } from "./memory.ts";
import { FLOAT_BYTES, TILE_ROWS } from "./panel-layout.ts";
import { LIMITS, rowShare } from "./row-jobs.ts";
import { CONTROL_BYTES, type StartWorker, ThreadPool } from "./threads.ts";
import { addressOf, WasmBuffer } from "./wasm-buffer.ts";
import { WasmCache } from "./wasm-cache.ts";
import { type LoadContext, loadMatrix, loadQuantised, loadQuantising, WasmMatrix } from "./wasm-matrix.ts";

/** For measuring limits: some 40 ms of arithmetic, and memory that no cache holds. */
const MULTIPLY_ADD_ROUNDS = 4_000_000;
const MIN_READ_BYTES = 256 * 2 ** 20;
/** Bytes that each thread's limit kernels write. */
const LIMIT_SCRATCH_BYTES = 64;

export interface WasmEngineOptions {
  /** 1 by default. More need shared memory and `startWorker`. */
  readonly threads?: number;
  readonly startWorker?: StartWorker;
  /** The most bytes that weights and caches may take together. By default only the memories limit them. */
  readonly memoryLimit?: number;
  /** The most bytes of each single memory. By default 4 GiB, which is all that it can have. */
  readonly memoryBytes?: number;
}

/** Memories of 4 GiB each. Until they are used they only take address space. */
const MEMORIES = 8;
/** Share of a memory for the rows that are copied to another memory, and their outputs: 32 MB of 4 GiB. */
const COPY_SHARE = 1 / 128;

function own(matrix: Matrix): WasmMatrix {
  if (!(matrix instanceof WasmMatrix))
    throw new TypeError(`${matrix.name}: expected a matrix of this engine, got one of another`);
  return matrix;
}

export class WasmEngine implements Engine {
  readonly name = "wasm";
  readonly threads: number;
  readonly #memories: readonly EngineMemory[];
  readonly #pool: ThreadPool;
  readonly #memoryLimit: number;
  #scoped: number[] | undefined;

  private constructor(memories: readonly EngineMemory[], pool: ThreadPool, memoryLimit: number) {
    this.#memories = memories;
    this.#pool = pool;
    this.#memoryLimit = memoryLimit;
    this.threads = pool.threads;
  }

  /** The memory of activations. */
  get #home(): EngineMemory {
    return this.#memories[0];
  }

  /**
   * Compiles the kernels and starts the threads. Throws where WebAssembly SIMD, or for several threads shared memory,
   * is missing.
   */
  static create(options: WasmEngineOptions = {}): WasmEngine {
    const { threads = 1, startWorker, memoryLimit = Infinity, memoryBytes = MAX_PAGES * PAGE_BYTES } = options;
    const shared = threads > 1;
    const newMemory = (index: number): EngineMemory =>
      new EngineMemory(index, new Heap(shared, CONTROL_BYTES, memoryBytes));
    const memories = [newMemory(0)];
    try {
      while (memories.length < MEMORIES) memories.push(newMemory(memories.length));
    } catch {
      // No address space for more: what there is will do for all but the longest contexts.
    }
    const module = compileKernels(shared);
    for (const memory of memories) memory.instantiate(module);
    const raw = memories.map(({ heap }) => heap.memory);
    return new WasmEngine(memories, ThreadPool.start(module, raw, threads, startWorker), memoryLimit);
  }

  get failure(): string | undefined {
    return this.#pool.failure;
  }

  ready(): Promise<void> {
    return this.#pool.ready();
  }

  /** Bytes in use, in all memories. */
  get usedBytes(): number {
    return this.#memories.reduce((sum, { heap }) => sum + heap.usedBytes, 0);
  }

  buffer(...shape: readonly number[]): FloatBuffer {
    const { heap } = this.#home;
    const [rows] = shape;
    const length = lengthOf(shape);
    // Many rows are stored in whole tiles, and so is a tail of them, which may begin anywhere: leave a tile to spare.
    // The last vector may reach beyond the values.
    const slack = rows <= FEW_ROWS ? 0 : (length / rows) * TILE_ROWS;
    const address = heap.allocate((length + slack) * FLOAT_BYTES + VECTOR_BYTES);
    heap.floats(address, length + slack).fill(0);
    this.#scoped?.push(address);
    return new WasmBuffer(heap, address, shape);
  }

  free(buffer: FloatBuffer): void {
    this.#home.heap.free(addressOf(buffer));
  }

  scope(): () => void {
    const made: number[] = [];
    const outer = this.#scoped;
    this.#scoped = made;
    return () => {
      for (const address of made) this.#home.heap.free(address);
      this.#scoped = outer;
    };
  }

  checkRoom(bytes: number, what: string): void {
    const megabytes = (n: number): string => `${Math.ceil(n / 2 ** 20)} MB`;
    const left = this.#memoryLimit - this.usedBytes;
    if (bytes > left)
      throw new MemoryError(
        `memory: expected ${megabytes(bytes)} for ${what}, got ${megabytes(Math.max(left, 0))} left`,
      );
  }

  loadMatrix(source: MatrixSource, scheme?: QuantisedScheme): Promise<Matrix> {
    return scheme ? loadQuantising(this.#loadContext, source, scheme) : loadMatrix(this.#loadContext, source);
  }

  loadQuantised(source: QuantisedSource): Promise<Matrix> {
    return loadQuantised(this.#loadContext, source);
  }

  get #loadContext(): LoadContext {
    return { memories: this.#memories, pool: this.#pool, checkRoom: (bytes, what) => this.checkRoom(bytes, what) };
  }

  newCache(shape: CacheShape): KvCache {
    return new WasmCache(this.#memories, this.#pool, bytes => this.checkRoom(bytes, "the key/value cache"), shape);
  }

  embedInto(out: FloatBuffer, table: Matrix, ids: ArrayLike<number>): void {
    embed(own(table), out.data, ids);
  }

  rmsNormInto(out: FloatBuffer, x: FloatBuffer, gain: FloatBuffer, eps: number): void {
    const size = gain.length;
    const rows = x.length / size;
    if (size % LANES !== 0) return reference.rmsNormInto(out.data, x.data, gain.data, rows, eps);
    const share = rowShare(this.threads, rows, size);
    const args = { out: addressOf(out), x: addressOf(x), gain: addressOf(gain), rows, size, eps, share };
    this.#pool.run(this.#home, "rmsNorm", args, Math.ceil(rows / share));
  }

  linearInto(out: FloatBuffer, x: FloatBuffer, weight: Matrix): void {
    const matrix = own(weight);
    const [rows] = x.shape;
    if (matrix.memory !== this.#home) return this.#linearElsewhere(matrix, addressOf(out), addressOf(x), rows);
    linearOver(matrix.form, rows)(this.#pool, matrix, addressOf(out), addressOf(x), rows);
  }

  /**
   * Weights in another memory: the rows go there, some at a time, and the outputs come back. A row costs thousands of
   * operations for every value that is moved.
   */
  #linearElsewhere(matrix: WasmMatrix, out: number, x: number, rows: number): void {
    const { form, memory, shape } = matrix;
    const [outputs, inputs] = shape;
    const atOnce = roundUp(Math.ceil((memory.heap.limit * COPY_SHARE) / ((inputs + outputs) * FLOAT_BYTES)), TILE_ROWS);
    for (let t = 0; t < rows; t += atOnce) {
      const count = Math.min(atOnce, rows - t);
      const operands: Operand[] = [
        { address: out + t * outputs * FLOAT_BYTES, length: count * outputs, slack: TILE_ROWS * outputs, use: "write" },
        { address: x + t * inputs * FLOAT_BYTES, length: count * inputs, use: "read" },
      ];
      const borrowed = memory.borrow(this.#home, operands);
      try {
        const [out, x] = borrowed.addresses;
        linearOver(form, count)(this.#pool, matrix, out, x, count);
      } finally {
        borrowed.giveBack();
      }
    }
  }

  ropeInto(x: FloatBuffer, { cos, sin }: RotaryAngles, start: number): void {
    const [rows, heads, headDim] = x.shape;
    if (headDim % (2 * LANES) !== 0) return reference.ropeInto(x.data, rows, heads, headDim, cos.data, sin.data, start);
    const share = rowShare(this.threads, rows, heads * headDim);
    const args = { x: addressOf(x), heads, headDim, cos: addressOf(cos), sin: addressOf(sin), start, rows, share };
    this.#pool.run(this.#home, "rope", args, Math.ceil(rows / share));
  }

  siluMulInto(gate: FloatBuffer, up: FloatBuffer): void {
    this.#elementwise("siluMul", gate, up);
  }

  addInto(x: FloatBuffer, y: FloatBuffer): void {
    this.#elementwise("add", x, y);
  }

  #elementwise(job: "siluMul" | "add", x: FloatBuffer, y: FloatBuffer): void {
    const vectors = Math.ceil(x.length / LANES); // the last may reach into the buffer's padding
    const share = rowShare(this.threads, vectors, LANES);
    this.#pool.run(this.#home, job, { x: addressOf(x), y: addressOf(y), vectors, share }, Math.ceil(vectors / share));
  }

  close(): void {
    this.#pool.close();
    for (const memory of this.#memories) memory.close();
  }

  /**
   * What this machine can do at most with this engine's threads, measured now: multiplications and additions on 128-bit
   * vectors per second and thread, of float32 or of 16-bit integers, and bytes read from memory per second by all
   * threads together.
   */
  measureLimits(numbers: "float32" | "int16" = "float32"): { flopsPerThread: number; bytesPerSecond: number } {
    const { heap } = this.#home;
    /** Seconds that `items` of `rounds` each take. */
    const measure = (what: (typeof LIMITS)[number], rounds: number, from: number, items: number): number => {
      const started = performance.now();
      this.#pool.run(this.#home, "limit", { which: LIMITS.indexOf(what), rounds, from }, items, LIMIT_SCRATCH_BYTES);
      return (performance.now() - started) / 1000;
    };
    const operations = numbers === "float32" ? MULTIPLY_ADD_FLOPS : DOT_OPERATIONS;
    const flopsPerThread = (MULTIPLY_ADD_ROUNDS * operations) / measure(numbers, MULTIPLY_ADD_ROUNDS, 0, 1);
    // Read the weights themselves where no cache holds them all. Else read memory that was written once, because
    // unwritten pages are all the same page.
    const loaded = Math.min(heap.usedBytes, 2 ** 30);
    const extra = loaded < MIN_READ_BYTES ? heap.allocate(MIN_READ_BYTES) : undefined;
    if (extra !== undefined) heap.bytes(extra, MIN_READ_BYTES).fill(1);
    const items = 16 * this.threads;
    const rounds = Math.floor((extra === undefined ? loaded : MIN_READ_BYTES) / items / READ_BYTES);
    try {
      return {
        flopsPerThread,
        bytesPerSecond: (rounds * items * READ_BYTES) / measure("reading", rounds, extra ?? CONTROL_BYTES, items),
      };
    } finally {
      if (extra !== undefined) heap.free(extra);
    }
  }
}
