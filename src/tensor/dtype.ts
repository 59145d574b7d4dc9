/**
 * The element types of the safetensors format, and exact conversions between the 16-bit floats and float32.
 *
 * In: dtype names as they stand in a file, raw 16-bit patterns. Out: bits per element, float32 values.
 */

export type Dtype =
  | "BOOL"
  | "F4"
  | "F6_E2M3"
  | "F6_E3M2"
  | "U8"
  | "I8"
  | "F8_E5M2"
  | "F8_E4M3"
  | "F8_E8M0"
  | "F8_E4M3FNUZ"
  | "F8_E5M2FNUZ"
  | "I16"
  | "U16"
  | "F16"
  | "BF16"
  | "I32"
  | "U32"
  | "F32"
  | "C64"
  | "F64"
  | "I64"
  | "U64";

/**
 * Bits per element. The keys stand in the reference's own order (`enum Dtype` of the Rust crate, safetensors 0.8.0),
 * lowest alignment first: the writer sorts by it. F4 and F6 are packed, so a tensor may not fill whole bytes; the
 * format refuses such a tensor.
 */
export const DTYPE_BITS: { readonly [dtype in Dtype]: number } = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

/** All dtypes, in the order of DTYPE_BITS. */
export const DTYPES: readonly Dtype[] = Object.keys(DTYPE_BITS) as Dtype[];

export function isDtype(name: string): name is Dtype {
  return Object.hasOwn(DTYPE_BITS, name);
}

/** The dtypes that an engine computes with. */
export const WEIGHT_DTYPES = ["BF16", "F16", "F32"] as const satisfies readonly Dtype[];
export type WeightDtype = (typeof WEIGHT_DTYPES)[number];

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** The float32 value of a bfloat16 bit pattern. Exact: bfloat16 is the upper half of a float32. */
export function bf16ToFloat32(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratchFloat[0];
}

/** The float32 value of an IEEE 754 binary16 bit pattern. Exact: each of these values is a float32. */
export function f16ToFloat32(bits: number): number {
  scratchBits[0] = f16ToFloat32Bits(bits);
  return scratchFloat[0];
}

/**
 * The float32 bit pattern of a binary16 bit pattern. A NaN keeps its sign and payload, which a trip through a
 * JavaScript number would not promise; arrays are therefore widened as bits.
 */
export function f16ToFloat32Bits(bits: number): number {
  const sign = (bits & 0x8000) << 16;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (fraction << 13)) >>> 0; // infinities and NaN
  if (exponent !== 0) return (sign | ((exponent + 127 - 15) << 23) | (fraction << 13)) >>> 0;
  if (fraction === 0) return sign >>> 0;
  // Denormal: fraction * 2^-24. Its leading one becomes float32's implicit one, so it moves up to bit 23 and is masked
  // off.
  const shift = Math.clz32(fraction) - 8;
  return (sign | ((127 - 15 + 14 - shift) << 23) | ((fraction << shift) & 0x7fffff)) >>> 0;
}

/**
 * The bfloat16 bit pattern nearest to a float32 value, ties to even; beyond the largest finite value this is infinity,
 * as IEEE 754 rounds. A NaN stays a NaN and becomes quiet. A value that is not a float32 is rounded to one first.
 */
export function float32ToBf16(value: number): number {
  scratchFloat[0] = value;
  const bits = scratchBits[0];
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  // Adding half of the dropped part, less one when the kept part is even, carries into the kept part exactly when it
  // must round up.
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}
