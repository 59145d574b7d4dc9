/**
 * A tensor: a name, an element type, a shape, and the elements in row-major order as the checkpoint stores them.
 *
 * In: bytes that a safetensors file holds, or values that a program computed. Out: typed arrays over them. BF16 and F16
 * stay raw 16-bit patterns, half the memory of float32, until someone widens them.
 */

import { DTYPE_BITS, type Dtype, f16ToFloat32Bits } from "./dtype.ts";

/**
 * Float32Array for F32, Uint16Array of raw bits for F16 and BF16, Uint8Array of raw bytes for the dtypes that
 * JavaScript has no array for.
 */
export type TensorData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

type TensorDataConstructor =
  | Float32ArrayConstructor
  | Float64ArrayConstructor
  | Int8ArrayConstructor
  | Uint8ArrayConstructor
  | Int16ArrayConstructor
  | Uint16ArrayConstructor
  | Int32ArrayConstructor
  | Uint32ArrayConstructor
  | BigInt64ArrayConstructor
  | BigUint64ArrayConstructor;

/** The array for a dtype; what is not here (BOOL, U8, C64 and the floats of 8 bits and less) is kept as bytes. */
const ARRAYS: { readonly [dtype in Dtype]?: TensorDataConstructor } = {
  I8: Int8Array,
  I16: Int16Array,
  U16: Uint16Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I32: Int32Array,
  U32: Uint32Array,
  F32: Float32Array,
  F64: Float64Array,
  I64: BigInt64Array,
  U64: BigUint64Array,
};

export class Tensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly data: TensorData;
  /** Elements: the product of the shape, 1 for a scalar's []. */
  readonly length: number;

  /**
   * Throws TypeError where `data` is not the array of `dtype`, RangeError where it does not hold the elements that
   * `shape` calls for.
   */
  constructor(name: string, dtype: Dtype, shape: readonly number[], data: TensorData) {
    const byteLength = tensorByteLength(dtype, shape);
    const Data = ARRAYS[dtype] ?? Uint8Array;
    if (!(data instanceof Data))
      throw new TypeError(`tensor "${name}": expected ${Data.name} for ${dtype}, got ${data.constructor.name}`);
    if (byteLength === undefined)
      throw new RangeError(`tensor "${name}": expected a shape that fills whole bytes, got ${dtype} [${shape}]`);
    if (data.byteLength !== byteLength) {
      throw new RangeError(
        `tensor "${name}": expected ${byteLength} bytes for ${dtype} [${shape}], got ${data.byteLength}`,
      );
    }
    this.name = name;
    this.dtype = dtype;
    this.shape = Object.freeze([...shape]);
    this.data = data;
    this.length = shape.reduce((product, dimension) => product * dimension, 1);
  }

  /**
   * A tensor over little-endian bytes, as a safetensors file stores them. No copy where they are aligned for their
   * dtype, else one.
   */
  static fromBytes(name: string, dtype: Dtype, shape: readonly number[], bytes: Uint8Array): Tensor {
    const Data = ARRAYS[dtype] ?? Uint8Array;
    const size = Data.BYTES_PER_ELEMENT;
    if (size > 1) requireLittleEndian();
    const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
    if (bytes.byteLength % size !== 0) {
      throw new RangeError(`tensor "${name}": expected whole elements of ${dtype}, got ${bytes.byteLength} bytes`);
    }
    const data = new Data(aligned.buffer as ArrayBuffer, aligned.byteOffset, aligned.byteLength / size);
    return new Tensor(name, dtype, shape, data);
  }

  /** The elements as little-endian bytes, as a safetensors file stores them. A view, no copy. */
  bytes(): Uint8Array {
    if (this.data.BYTES_PER_ELEMENT > 1) requireLittleEndian();
    return new Uint8Array(this.data.buffer, this.data.byteOffset, this.data.byteLength);
  }

  /**
   * The elements as float32, in a new array. Exact: throws TypeError for a dtype with values that float32 cannot hold.
   */
  toFloat32(): Float32Array {
    const { dtype, data } = this;
    switch (dtype) {
      case "F32":
      case "U8":
      case "I8":
      case "U16":
      case "I16":
        return new Float32Array(data as Float32Array);
      case "BOOL":
        return Float32Array.from(data as Uint8Array, byte => (byte === 0 ? 0 : 1));
      case "BF16":
      case "F16": {
        const out = new Float32Array(data.length);
        const bits = new Uint32Array(out.buffer);
        const source = data as Uint16Array;
        if (dtype === "BF16") for (let i = 0; i < source.length; i++) bits[i] = source[i] << 16;
        else for (let i = 0; i < source.length; i++) bits[i] = f16ToFloat32Bits(source[i]);
        return out;
      }
      default:
        throw new TypeError(`tensor "${this.name}": expected a dtype that widens exactly to float32, got ${dtype}`);
    }
  }

  /**
   * Rows [start, end) of the first dimension, as a view: no copy. Throws RangeError where there are no such rows, or
   * where they do not fill whole bytes.
   */
  rows(start: number, end: number): Tensor {
    const { byteOffset, byteLength, shape } = rowRange(this.name, this.dtype, this.shape, start, end);
    const size = this.data.BYTES_PER_ELEMENT;
    return new Tensor(
      this.name,
      this.dtype,
      shape,
      this.data.subarray(byteOffset / size, (byteOffset + byteLength) / size),
    );
  }
}

/**
 * Where rows [start, end) lie in the bytes of a tensor, and their shape. Throws RangeError where there are no such
 * rows, or where a row of a packed dtype (F4, F6) does not end with a byte.
 */
export function rowRange(
  name: string,
  dtype: Dtype,
  shape: readonly number[],
  start: number,
  end: number,
): { byteOffset: number; byteLength: number; shape: readonly number[] } {
  const [count, ...rowShape] = shape;
  if (count === undefined) throw new RangeError(`tensor "${name}": expected rows, got a scalar`);
  if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= count)) {
    throw new RangeError(`tensor "${name}": expected rows within [0, ${count}), got [${start}, ${end})`);
  }
  const rowBytes = tensorByteLength(dtype, rowShape);
  if (rowBytes === undefined)
    throw new RangeError(`tensor "${name}": expected rows of whole bytes, got ${dtype} [${rowShape}]`);
  return { byteOffset: start * rowBytes, byteLength: (end - start) * rowBytes, shape: [end - start, ...rowShape] };
}

/**
 * The bytes of a tensor; undefined where its elements do not fill whole bytes, where a dimension is not a safe integer,
 * or where the sizes overflow 64 bits. The reference multiplies from left to right and checks each product, so a zero
 * excuses what comes after it ([0, 2^40, 2^40] has 0 bytes) but not what came before.
 */
export function tensorByteLength(dtype: Dtype, shape: readonly number[]): number | undefined {
  let elements = 1n;
  for (const dimension of shape) {
    if (!(Number.isSafeInteger(dimension) && dimension >= 0)) return undefined;
    elements *= BigInt(dimension);
    if (elements > MAX_U64) return undefined;
  }
  const bits = elements * BigInt(DTYPE_BITS[dtype]);
  return bits <= MAX_U64 && bits % 8n === 0n ? Number(bits / 8n) : undefined;
}

const MAX_U64 = 2n ** 64n - 1n;

let littleEndian: boolean | undefined;

/**
 * Typed arrays use the host's byte order and safetensors is little-endian. Every host that runs Node or a browser today
 * is, too.
 */
function requireLittleEndian(): void {
  littleEndian ??= new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  if (!littleEndian) throw new Error("safetensors: expected a little-endian host, got a big-endian one");
}
