/**
 * What computes: the operations of the forward pass behind one interface, so that the readable loops and the fast kernels are two values of
 * the same kind, and the model is written once.
 *
 * All engines give the same bits (docs/ARITHMETIC.md). `reference-engine.ts` is the readable one; `wasm/wasm-engine.ts` the fast one.
 */

import type { Dtype } from "./dtype.ts";
import type { QuantisedScheme } from "./quantised.ts";

/** float32 values where the engine's operations reach them. */
export interface FloatBuffer {
  readonly length: number;
  /** The values. Take it anew at each use: an engine's memory may have moved since. */
  readonly data: Float32Array;
}

/** Weights [outputs, inputs] in the engine's own layout. */
export interface Matrix {
  readonly name: string;
  readonly shape: readonly [outputs: number, inputs: number];
  /** What its weights are held as: the checkpoint's dtype, or quantised. */
  readonly form: Dtype | QuantisedScheme;
  /** Of its weights in that form, without padding. */
  readonly byteLength: number;
}

/** A matrix as the checkpoint holds it: rows of `inputs` elements, one after the other. */
export interface MatrixSource {
  readonly name: string;
  /** BF16, F16 or F32. */
  readonly dtype: Dtype;
  readonly shape: readonly [outputs: number, inputs: number];
  /** Fills `target` with the matrix's bytes from `byteOffset` on. */
  readInto(target: Uint8Array, byteOffset: number): Promise<void>;
}

/** A matrix that was quantised when it was saved. Its integers' rows lie one after the other: bytes of int8, or int4 two in a byte. */
export interface QuantisedSource {
  readonly name: string;
  readonly scheme: QuantisedScheme;
  readonly shape: readonly [outputs: number, inputs: number];
  /** As in QuantisedTensor, and checked. */
  readonly scales: Float32Array;
  readonly subScales: Int8Array;
  readInto(target: Uint8Array, byteOffset: number): Promise<void>;
}

/** Sizes that a key/value cache is made for. */
export interface CacheShape {
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly maxPositions: number;
}

/**
 * Keys (after norm and rotation) and values of one sequence, in the engine's own layout, and attention over them. Grows with use. Which
 * positions are in use, the session knows.
 */
export interface KvCache {
  /** Makes room for `positions`, keeping what is there. Throws RangeError where memory does not suffice, with both numbers. */
  reserve(positions: number): void;
  /** Stores keys and values [rows, numKvHeads, headDim] of positions `start`, `start + 1`, ... */
  store(layer: number, start: number, rows: number, keys: FloatBuffer, values: FloatBuffer): void;
  /** out [rows, numHeads * headDim] = causal attention of q [rows, numHeads, headDim] at positions `start` on; see reference.ts. */
  attentionInto(out: FloatBuffer, q: FloatBuffer, layer: number, start: number, rows: number): void;
  /** Gives the memory back. */
  free(): void;
}

/** The operations; see reference.ts for what each computes. Row counts are those in use: buffers may have room for more. */
export interface Engine {
  readonly name: "reference" | "wasm";
  readonly threads: number;
  /** Why it computes no more, which is for good; undefined while it does. */
  readonly failure: string | undefined;
  /** Resolves when all its threads are up; throws Error where one did not start. Its operations need not wait for it. */
  ready(): Promise<void>;
  /** Room for [rows, size] values, zero at first. Kept until it is freed, or until the end of the `scope` that it was made in. */
  buffer(rows: number, size: number): FloatBuffer;
  /** Gives back a buffer that was made outside of any scope. */
  free(buffer: FloatBuffer): void;
  /** Runs `work` and gives back every buffer made in it. Does not nest. */
  scope<T>(work: () => T): T;
  /** Throws RangeError where so many bytes are more than there is room for, with both numbers. */
  checkRoom(bytes: number, what: string): void;
  /** Reads a matrix, and quantises it on the way where a scheme is given. Throws RangeError where there is no room, or nothing finite to quantise. */
  loadMatrix(source: MatrixSource, scheme?: QuantisedScheme): Promise<Matrix>;
  loadQuantised(source: QuantisedSource): Promise<Matrix>;
  newCache(shape: CacheShape): KvCache;

  embedInto(out: FloatBuffer, table: Matrix, ids: ArrayLike<number>): void;
  rmsNormInto(out: FloatBuffer, x: FloatBuffer, gain: FloatBuffer, rows: number, eps: number): void;
  /** `firstRow`: where in x the rows begin. */
  linearInto(out: FloatBuffer, x: FloatBuffer, firstRow: number, rows: number, weight: Matrix): void;
  ropeInto(x: FloatBuffer, rows: number, heads: number, headDim: number, cos: FloatBuffer, sin: FloatBuffer, start: number): void;
  siluMulInto(gate: FloatBuffer, up: FloatBuffer, length: number): void;
  addInto(x: FloatBuffer, y: FloatBuffer, length: number): void;
  /** The greedy choice among the `size` values of a row: the largest, the lowest index on a tie. Throws RangeError for NaN. */
  argmax(x: FloatBuffer, row: number, size: number): number;

  /** Ends its threads and gives its memory back. Nothing of it may be used afterwards. */
  close(): void;
}
