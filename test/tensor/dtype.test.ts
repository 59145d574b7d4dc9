import { getFloat16 } from "@petamoriken/float16";
import { describe, expect, test } from "vitest";
import {
  bf16ToFloat32,
  DTYPE_BITS,
  DTYPES,
  f16ToFloat32,
  f16ToFloat32Bits,
  float32ToBf16,
  isDtype,
} from "../../src/tensor/dtype.ts";
import { Tensor } from "../../src/tensor/tensor.ts";

const ALL = Uint16Array.from({ length: 65536 }, (_, i) => i);
const floats = (bits: Uint32Array): Float32Array => new Float32Array(bits.buffer);

describe("float16", () => {
  test("all 65,536 values are those of @petamoriken/float16", () => {
    const view = new DataView(new ArrayBuffer(2));
    for (const bits of ALL) {
      view.setUint16(0, bits);
      const expected = getFloat16(view, 0);
      if (!Object.is(f16ToFloat32(bits), expected))
        expect.fail(`0x${bits.toString(16)}: ${f16ToFloat32(bits)}, expected ${expected}`);
    }
  });

  test("every NaN keeps its sign and payload", () => {
    for (const bits of ALL) {
      if ((bits & 0x7c00) !== 0x7c00 || (bits & 0x3ff) === 0) continue;
      expect(f16ToFloat32Bits(bits)).toBe((((bits & 0x8000) << 16) | 0x7f800000 | ((bits & 0x3ff) << 13)) >>> 0);
    }
  });

  test("a tensor widens to the same bits", () => {
    const wide = new Tensor("all", "F16", [65536], ALL).toFloat32();
    expect(new Uint32Array(wide.buffer)).toEqual(Uint32Array.from(ALL, f16ToFloat32Bits));
  });
});

describe("bfloat16", () => {
  test("all 65,536 values are the upper half of a float32", () => {
    const bits = Uint32Array.from(ALL, half => half << 16);
    const expected = floats(bits);
    for (const half of ALL) if (!Object.is(bf16ToFloat32(half), expected[half])) expect.fail(`0x${half.toString(16)}`);
    expect(new Uint32Array(new Tensor("all", "BF16", [65536], ALL).toFloat32().buffer)).toEqual(bits);
  });

  test("all 65,536 values survive float32, NaN as a quiet NaN", () => {
    for (const half of ALL) {
      const isNan = (half & 0x7f80) === 0x7f80 && (half & 0x7f) !== 0;
      const back = float32ToBf16(bf16ToFloat32(half));
      if (isNan ? back !== (half | 0x40) : back !== half)
        expect.fail(`0x${half.toString(16)} came back as 0x${back.toString(16)}`);
    }
  });

  test("rounds to the nearest, ties to even, by comparing with both neighbours", () => {
    // Below, between, at and above the middle of each pair of neighbours; the largest finite value's upper neighbour is
    // infinity.
    for (let half = 0; half < 0x7f80; half += 7) {
      const at = (low: number): number => floats(Uint32Array.of(half * 65536 + low))[0];
      for (const [low, expected] of [
        [0, half],
        [1, half],
        [0x7fff, half],
        [0x8000, half + (half & 1)],
        [0x8001, half + 1],
        [0xffff, half + 1],
      ]) {
        if (float32ToBf16(at(low)) !== expected) expect.fail(`0x${half.toString(16)}, ${low}`);
        if (float32ToBf16(-at(low)) !== (expected | 0x8000)) expect.fail(`-0x${half.toString(16)}, ${low}`);
      }
    }
    expect(float32ToBf16(3.4028234663852886e38)).toBe(0x7f80);
    expect(float32ToBf16(Infinity)).toBe(0x7f80);
    expect(float32ToBf16(-0)).toBe(0x8000);
    expect(float32ToBf16(Number.NaN) & 0x7fff).toBe(0x7fc0);
  });
});

test("dtypes are in the reference's order", () => {
  // From the message of safetensors 0.8.0 for an unknown dtype.
  const order =
    "BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64";
  expect(DTYPES.join(" ")).toBe(order);
  expect(DTYPES.every(dtype => DTYPE_BITS[dtype] > 0)).toBe(true);
});

test("a property that every object inherits is not a dtype", () => {
  for (const name of ["toString", "constructor", "__proto__", "", "f32", "F32 "]) expect(isDtype(name)).toBe(false);
  expect(isDtype("F8_E8M0")).toBe(true);
});
