/**
 * The readable engine: the operations of reference.ts on plain arrays, in one thread. Every other engine must give its
 * bits.
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
  tailShape,
} from "./engine.ts";
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
  readonly form: Matrix["form"];
  readonly tensor: Tensor | QuantisedTensor;

  constructor(form: Matrix["form"], tensor: Tensor | QuantisedTensor) {
    this.name = tensor.name;
    this.shape = [tensor.shape[0], tensor.shape[1]];
    this.form = form;
    this.tensor = tensor;
  }

  get byteLength(): number {
    const { tensor } = this;
    return tensor instanceof Tensor ? tensor.data.byteLength : quantisedByteLength(tensor.scheme, ...this.shape);
  }
}

function tensorOf(matrix: Matrix): Tensor | QuantisedTensor {
  if (!(matrix instanceof ReferenceMatrix))
    throw new TypeError(`${matrix.name}: expected a matrix of this engine, got one of another`);
  return matrix.tensor;
}

class ReferenceBuffer implements FloatBuffer {
  readonly shape: readonly number[];
  readonly data: Float32Array;

  constructor(shape: readonly number[], data: Float32Array) {
    this.shape = shape;
    this.data = data;
  }

  get length(): number {
    return this.data.length;
  }

  tail(first: number): FloatBuffer {
    const shape = tailShape(this.shape, first);
    return new ReferenceBuffer(shape, this.data.subarray(this.data.length - lengthOf(shape)));
  }
}

export class ReferenceEngine implements Engine {
  readonly name = "reference";
  readonly threads = 1;
  readonly failure = undefined;

  async ready(): Promise<void> {}

  buffer(...shape: readonly number[]): FloatBuffer {
    return new ReferenceBuffer(shape, new Float32Array(lengthOf(shape)));
  }

  free(): void {} // the garbage collector does

  scope(): () => void {
    return () => {};
  }

  checkRoom(): void {} // JavaScript itself throws for an array that is too large

  async loadMatrix(source: MatrixSource, scheme?: QuantisedScheme): Promise<Matrix> {
    const { name, dtype, shape } = source;
    const bytes = new Uint8Array(tensorByteLength(dtype, shape) ?? 0);
    await source.readInto(bytes, 0);
    const tensor = Tensor.fromBytes(name, dtype, shape, bytes);
    if (!scheme) return new ReferenceMatrix(dtype, tensor);
    return new ReferenceMatrix(scheme, quantiseTensor(name, scheme, shape, tensor.toFloat32()));
  }

  async loadQuantised(source: QuantisedSource): Promise<Matrix> {
    const { name, scheme, shape, scales, subScales } = source;
    const [outputs, inputs] = shape;
    const bytes = new Uint8Array(outputs * (scheme === "int8" ? inputs : Math.ceil(inputs / 2)));
    await source.readInto(bytes, 0);
    const values = scheme === "int8" ? new Int8Array(bytes.buffer) : unpackInt4(bytes, outputs, inputs);
    return new ReferenceMatrix(scheme, { name, scheme, shape, values, subScales, scales });
  }

  newCache(shape: CacheShape): KvCache {
    return new ReferenceCache(shape);
  }

  embedInto(out: FloatBuffer, table: Matrix, ids: ArrayLike<number>): void {
    const tensor = tensorOf(table);
    if (tensor instanceof Tensor) reference.embedInto(out.data, tensor, ids);
    else quantisedEmbedInto(out.data, tensor, ids);
  }

  rmsNormInto(out: FloatBuffer, x: FloatBuffer, gain: FloatBuffer, eps: number): void {
    reference.rmsNormInto(out.data, x.data, gain.data, x.length / gain.length, eps);
  }

  linearInto(out: FloatBuffer, x: FloatBuffer, weight: Matrix): void {
    const tensor = tensorOf(weight);
    const [rows] = x.shape;
    if (tensor instanceof Tensor) reference.linearInto(out.data, x.data, rows, tensor);
    else quantisedLinearInto(out.data, x.data, rows, tensor);
  }

  ropeInto(x: FloatBuffer, { cos, sin }: RotaryAngles, start: number): void {
    const [rows, heads, headDim] = x.shape;
    reference.ropeInto(x.data, rows, heads, headDim, cos.data, sin.data, start);
  }

  siluMulInto(gate: FloatBuffer, up: FloatBuffer): void {
    reference.siluMulInto(gate.data, up.data, gate.length);
  }

  addInto(x: FloatBuffer, y: FloatBuffer): void {
    reference.addInto(x.data, y.data, x.length);
  }

  close(): void {}
}

/** Keys and values as they come: a row [numKvHeads * headDim] for each position. */
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

  store(layer: number, start: number, keys: FloatBuffer, values: FloatBuffer): void {
    this.#layers[layer].keys.set(keys.data, start * this.#rowSize);
    this.#layers[layer].values.set(values.data, start * this.#rowSize);
  }

  attentionInto(out: FloatBuffer, q: FloatBuffer, layer: number, start: number): void {
    const { keys, values } = this.#layers[layer];
    reference.attentionInto(out.data, q.data, keys, values, { rows: q.shape[0], start, ...this.#shape });
  }

  free(): void {
    this.#layers = [];
  }
}
