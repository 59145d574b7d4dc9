/**
 * The readable engine: the operations of reference.ts on plain arrays, one thread. The measure of every other.
 */

import type { CacheShape, Engine, FloatBuffer, KvCache, Matrix, MatrixSource, QuantisedSource } from "./engine.ts";
import {
  type QuantisedScheme,
  type QuantisedTensor,
  quantisedByteLength,
  quantisedEmbedInto,
  quantisedLinearInto,
  quantiseTensor,
  unpackInt4,
} from "./quantised.ts";
import * as reference from "./reference.ts";
import { Tensor, tensorByteLength } from "./tensor.ts";

/** A matrix as the checkpoint stores it, or quantised. */
export class ReferenceMatrix implements Matrix {
  readonly name: string;
  readonly shape: readonly [number, number];
  readonly tensor: Tensor | QuantisedTensor;

  get form(): Matrix["form"] {
    return this.tensor instanceof Tensor ? this.tensor.dtype : this.tensor.scheme;
  }

  get byteLength(): number {
    const { tensor } = this;
    return tensor instanceof Tensor ? tensor.data.byteLength : quantisedByteLength(tensor.scheme, ...this.shape);
  }

  constructor(tensor: Tensor | QuantisedTensor) {
    this.name = tensor.name;
    this.shape = [tensor.shape[0], tensor.shape[1]];
    this.tensor = tensor;
  }
}

function tensorOf(matrix: Matrix): Tensor | QuantisedTensor {
  if (!(matrix instanceof ReferenceMatrix)) throw new TypeError(`${matrix.name}: expected a matrix of this engine, got one of another`);
  return matrix.tensor;
}

export class ReferenceEngine implements Engine {
  readonly name = "reference";
  readonly threads = 1;
  readonly failure = undefined;

  async ready(): Promise<void> {}

  buffer(rows: number, size: number): FloatBuffer {
    const data = new Float32Array(rows * size);
    return { length: data.length, data };
  }

  free(): void {} // the garbage collector does it

  scope<T>(work: () => T): T {
    return work();
  }

  checkRoom(): void {} // an array that is too large is an error of its own

  async loadMatrix(source: MatrixSource, scheme?: QuantisedScheme): Promise<Matrix> {
    const { name, dtype, shape } = source;
    const bytes = new Uint8Array(tensorByteLength(dtype, shape) ?? 0);
    await source.readInto(bytes, 0);
    const tensor = Tensor.fromBytes(name, dtype, shape, bytes);
    return new ReferenceMatrix(scheme ? quantiseTensor(name, scheme, shape, tensor.toFloat32()) : tensor);
  }

  async loadQuantised(source: QuantisedSource): Promise<Matrix> {
    const { name, scheme, shape, scales, subScales } = source;
    const [outputs, inputs] = shape;
    const bytes = new Uint8Array(outputs * (scheme === "int8" ? inputs : Math.ceil(inputs / 2)));
    await source.readInto(bytes, 0);
    const values = scheme === "int8" ? new Int8Array(bytes.buffer) : unpackInt4(bytes, outputs, inputs);
    return new ReferenceMatrix({ name, scheme, shape, values, subScales, scales });
  }

  newCache(shape: CacheShape): KvCache {
    return new ReferenceCache(shape);
  }

  embedInto(out: FloatBuffer, table: Matrix, ids: ArrayLike<number>): void {
    const tensor = tensorOf(table);
    if (tensor instanceof Tensor) reference.embedInto(out.data, tensor, ids);
    else quantisedEmbedInto(out.data, tensor, ids);
  }

  rmsNormInto(out: FloatBuffer, x: FloatBuffer, gain: FloatBuffer, rows: number, eps: number): void {
    reference.rmsNormInto(out.data, x.data, gain.data, rows, eps);
  }

  linearInto(out: FloatBuffer, x: FloatBuffer, firstRow: number, rows: number, weight: Matrix): void {
    const tensor = tensorOf(weight);
    const from = x.data.subarray(firstRow * weight.shape[1]);
    if (tensor instanceof Tensor) reference.linearInto(out.data, from, rows, tensor);
    else quantisedLinearInto(out.data, from, rows, tensor);
  }

  ropeInto(x: FloatBuffer, rows: number, heads: number, headDim: number, cos: FloatBuffer, sin: FloatBuffer, start: number): void {
    reference.ropeInto(x.data, rows, heads, headDim, cos.data, sin.data, start);
  }

  siluMulInto(gate: FloatBuffer, up: FloatBuffer, length: number): void {
    reference.siluMulInto(gate.data, up.data, length);
  }

  addInto(x: FloatBuffer, y: FloatBuffer, length: number): void {
    reference.addInto(x.data, y.data, length);
  }

  argmax(x: FloatBuffer, row: number, size: number): number {
    return reference.argmax(x.data.subarray(row * size, (row + 1) * size));
  }

  close(): void {}
}

/** Rows of [numKvHeads * headDim] per position, as they come. */
class ReferenceCache implements KvCache {
  readonly #shape: CacheShape;
  #layers: readonly { readonly keys: Float32Array; readonly values: Float32Array }[];
  #capacity = 0;

  constructor(shape: CacheShape) {
    this.#shape = shape;
    const empty = new Float32Array(0);
    this.#layers = Array.from({ length: shape.numLayers }, () => ({ keys: empty, values: empty }));
  }

  get #rowSize(): number {
    return this.#shape.numKvHeads * this.#shape.headDim;
  }

  reserve(positions: number): void {
    if (positions <= this.#capacity) return;
    // Doubling, so that a short prompt costs little memory whatever the context allows.
    const capacity = Math.min(this.#shape.maxPositions, Math.max(positions, 2 * this.#capacity));
    const grow = (old: Float32Array): Float32Array => {
      const grown = new Float32Array(capacity * this.#rowSize);
      grown.set(old);
      return grown;
    };
    this.#layers = this.#layers.map(({ keys, values }) => ({ keys: grow(keys), values: grow(values) }));
    this.#capacity = capacity;
  }

  store(layer: number, start: number, rows: number, keys: FloatBuffer, values: FloatBuffer): void {
    const size = this.#rowSize;
    this.#layers[layer].keys.set(keys.data.subarray(0, rows * size), start * size);
    this.#layers[layer].values.set(values.data.subarray(0, rows * size), start * size);
  }

  attentionInto(out: FloatBuffer, q: FloatBuffer, layer: number, start: number, rows: number): void {
    const { keys, values } = this.#layers[layer];
    reference.attentionInto(out.data, q.data, keys, values, { rows, start, ...this.#shape });
  }

  free(): void {
    this.#layers = [];
  }
}
