/**
 * What computes: the operations of the forward pass behind one interface, so that the readable loops and the fast
 * kernels are two values of the same kind, and the model is written once.
 *
 * All engines give the same bits (docs/ARITHMETIC.md). `reference-engine.ts` is the readable one; `wasm/wasm-engine.ts`
 * the fast one.
 */

import type { WeightDtype } from "./dtype.ts";
import type { QuantisedScheme } from "./quantised.ts";

/** float32 values where the engine's operations reach them, row-major. */
export interface FloatBuffer {
  /** The first dimension counts the rows. */
  readonly shape: readonly number[];
  /** How many values there are: the product of the shape. */
  readonly length: number;
  /** The values. Read this anew at each use, because an engine's memory may move. */
  readonly data: Float32Array;
  /** The rows from `first` on: a view of the same memory. */
  tail(first: number): FloatBuffer;
}

/** Cosine and sine of each position's angles, [positions, headDim / 2]. */
export interface RotaryAngles {
  readonly cos: FloatBuffer;
  readonly sin: FloatBuffer;
}

/** Weights [outputs, inputs] in the engine's own layout. */
export interface Matrix {
  readonly name: string;
  readonly shape: readonly [outputs: number, inputs: number];
  /** How its weights are held: in the checkpoint's dtype, or quantised. */
  readonly form: WeightDtype | QuantisedScheme;
  /** Bytes of its weights in that form, without padding. */
  readonly byteLength: number;
}

/** A matrix as the checkpoint holds it: rows of `inputs` elements, one after the other. */
export interface MatrixSource {
  readonly name: string;
  readonly dtype: WeightDtype;
  readonly shape: readonly [outputs: number, inputs: number];
  /** Fills `target` with the matrix's bytes from `byteOffset` on. */
  readInto(target: Uint8Array, byteOffset: number): Promise<void>;
}

/**
 * A matrix that was saved quantised: rows of integers, one after the other. int8 takes a byte each, int4 half a byte.
 */
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
 * Keys (after norm and rotation) and values of one sequence, in the engine's own layout, and attention over them. Grows
 * with use. The session knows which positions are in use.
 */
export interface KvCache {
  /**
   * Makes room for `positions`, keeping what is there. Throws RangeError, with both numbers, where memory does not
   * suffice.
   */
  reserve(positions: number): void;
  /** Stores keys and values [rows, numKvHeads, headDim] of positions `start`, `start + 1`, ... */
  store(layer: number, start: number, keys: FloatBuffer, values: FloatBuffer): void;
  /**
   * out [rows, numHeads * headDim] = causal attention of q [rows, numHeads, headDim] at positions `start` on; see
   * reference.ts.
   */
  attentionInto(out: FloatBuffer, q: FloatBuffer, layer: number, start: number): void;
  /** Gives the memory back. */
  free(): void;
}

/** The operations; see reference.ts for what each computes. An operation has as many rows as its buffers. */
export interface Engine {
  readonly name: "reference" | "wasm";
  readonly threads: number;
  /** Why the engine has stopped for good; undefined while it works. */
  readonly failure: string | undefined;
  /** Resolves when all its threads are up; throws Error where one did not start. Operations need not wait for this. */
  ready(): Promise<void>;
  /**
   * Room for values of this shape, zero at first. Kept until it is freed, or until the `scope` that it was made in
   * ends.
   */
  buffer(...shape: readonly number[]): FloatBuffer;
  /** Gives back a buffer that was made outside of any scope. */
  free(buffer: FloatBuffer): void;
  /** Opens a scope. The function that is returned closes it, and frees all buffers that were made in it. */
  scope(): () => void;
  /** Throws RangeError, with both numbers, where there is no room for this many bytes. */
  checkRoom(bytes: number, what: string): void;
  /**
   * Reads a matrix, and quantises it while reading where a scheme is given. Throws RangeError where there is no room,
   * or where weights to quantise are not finite.
   */
  loadMatrix(source: MatrixSource, scheme?: QuantisedScheme): Promise<Matrix>;
  loadQuantised(source: QuantisedSource): Promise<Matrix>;
  newCache(shape: CacheShape): KvCache;

  /** out [ids, size] = rows of table [vocab, size]. */
  embedInto(out: FloatBuffer, table: Matrix, ids: ArrayLike<number>): void;
  /** Each run of `gain.length` values of x is normalised: a row, or one head of it. out may be x. */
  rmsNormInto(out: FloatBuffer, x: FloatBuffer, gain: FloatBuffer, eps: number): void;
  /** out [rows, outputs] = x [rows, inputs] times weight [outputs, inputs], transposed. */
  linearInto(out: FloatBuffer, x: FloatBuffer, weight: Matrix): void;
  /** Rotates x [rows, heads, headDim] in place; its rows are positions `start`, `start + 1`, ... of the angles. */
  ropeInto(x: FloatBuffer, angles: RotaryAngles, start: number): void;
  /** gate = silu(gate) * up. */
  siluMulInto(gate: FloatBuffer, up: FloatBuffer): void;
  /** x = x + y. */
  addInto(x: FloatBuffer, y: FloatBuffer): void;

  /** Ends the threads and gives the memory back. Nothing that belongs to the engine may be used afterwards. */
  close(): void;
}

/** How many values a shape has: the product of its dimensions. */
export function lengthOf(shape: readonly number[]): number {
  return shape.reduce((product, dimension) => product * dimension, 1);
}

/** The shape of the rows from `first` on. Throws RangeError where `first` is beyond the last. */
export function tailShape([rows, ...row]: readonly number[], first: number): readonly number[] {
  if (!(Number.isInteger(first) && first >= 0 && first <= rows))
    throw new RangeError(`tail: expected a row from 0 to ${rows}, got ${first}`);
  return [rows - first, ...row];
}
