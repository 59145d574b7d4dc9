import { describe, expect, test } from "vitest";
import { DTYPES } from "../../src/tensor/dtype.ts";
import { Tensor, tensorByteLength } from "../../src/tensor/tensor.ts";

describe("toFloat32", () => {
  test("widens what fits exactly, into new memory", () => {
    const f32 = new Tensor("a", "F32", [3], Float32Array.of(1.5, -0, Number.NaN));
    expect(f32.toFloat32()).toEqual(Float32Array.of(1.5, -0, Number.NaN));
    expect(f32.toFloat32().buffer).not.toBe(f32.data.buffer);
    expect(new Tensor("a", "U8", [2], Uint8Array.of(0, 255)).toFloat32()).toEqual(Float32Array.of(0, 255));
    expect(new Tensor("a", "I8", [2], Int8Array.of(-128, 127)).toFloat32()).toEqual(Float32Array.of(-128, 127));
    expect(new Tensor("a", "U16", [1], Uint16Array.of(65535)).toFloat32()).toEqual(Float32Array.of(65535));
    expect(new Tensor("a", "I16", [1], Int16Array.of(-32768)).toFloat32()).toEqual(Float32Array.of(-32768));
    expect(new Tensor("a", "BOOL", [3], Uint8Array.of(0, 1, 2)).toFloat32()).toEqual(Float32Array.of(0, 1, 1));
  });

  test("refuses every other dtype by name", () => {
    const exact = ["F32", "F16", "BF16", "BOOL", "U8", "I8", "U16", "I16"];
    for (const dtype of DTYPES.filter(name => !exact.includes(name))) {
      const tensor = Tensor.fromBytes("scale", dtype, [8], new Uint8Array(tensorByteLength(dtype, [8])!));
      expect(() => tensor.toFloat32()).toThrow(TypeError);
      expect(() => tensor.toFloat32()).toThrow(
        `tensor "scale": expected a dtype that widens exactly to float32, got ${dtype}`,
      );
    }
  });
});

describe("rows", () => {
  const tensor = new Tensor(
    "a",
    "F32",
    [4, 3],
    Float32Array.from({ length: 12 }, (_, i) => i),
  );

  test("are a view", () => {
    const rows = tensor.rows(1, 3);
    expect(rows.shape).toEqual([2, 3]);
    expect(rows.data).toEqual(Float32Array.of(3, 4, 5, 6, 7, 8));
    expect(rows.data.buffer).toBe(tensor.data.buffer);
    expect(tensor.rows(4, 4).length).toBe(0);
    expect(rows.rows(1, 2).data).toEqual(Float32Array.of(6, 7, 8));
  });

  test.each([
    [-1, 2],
    [3, 2],
    [0, 5],
    [0.5, 2],
    [0, Number.NaN],
  ])("[%d, %d) are refused", (start, end) => {
    expect(() => tensor.rows(start, end)).toThrow(RangeError);
  });

  test("are refused for a scalar", () => {
    expect(() => new Tensor("a", "F32", [], Float32Array.of(1)).rows(0, 1)).toThrow(/expected rows, got a scalar/);
  });

  test("must be whole bytes where elements are packed", () => {
    const packed = new Tensor("a", "F4", [2, 4], Uint8Array.of(1, 2, 3, 4));
    expect(packed.rows(1, 2).data).toEqual(Uint8Array.of(3, 4));
    expect(() => new Tensor("a", "F4", [4, 1], Uint8Array.of(1, 2)).rows(1, 2)).toThrow(/expected rows of whole bytes/);
  });
});

describe("construction", () => {
  test("refuses the wrong array and the wrong size", () => {
    expect(() => new Tensor("a", "BF16", [1], Float32Array.of(1))).toThrow(TypeError);
    expect(() => new Tensor("a", "F32", [2, 2], new Float32Array(3))).toThrow(
      /expected 16 bytes for F32 \[2,2\], got 12/,
    );
    expect(() => new Tensor("a", "F4", [3], new Uint8Array(2))).toThrow(/whole bytes/);
    expect(() => new Tensor("a", "F32", [-1], new Float32Array(0))).toThrow(RangeError);
    expect(() => Tensor.fromBytes("a", "F32", [2], new Uint8Array(7))).toThrow(RangeError);
  });

  test("fromBytes copies only what is not aligned", () => {
    const bytes = new Uint8Array(12);
    bytes.set(new Uint8Array(Float32Array.of(1.5).buffer), 3);
    const moved = Tensor.fromBytes("a", "F32", [1], bytes.subarray(3, 7));
    expect(moved.data).toEqual(Float32Array.of(1.5));
    expect(Tensor.fromBytes("a", "F32", [1], bytes.subarray(4, 8)).data.buffer).toBe(bytes.buffer);
    expect(moved.bytes()).toEqual(bytes.slice(3, 7));
  });
});

test("sizes multiply from left to right, and overflow as in the reference", () => {
  expect(tensorByteLength("F32", [])).toBe(4);
  expect(tensorByteLength("U8", [0, 2 ** 40, 2 ** 40])).toBe(0);
  expect(tensorByteLength("U8", [2 ** 40, 2 ** 40, 0])).toBeUndefined();
  expect(tensorByteLength("U8", [2 ** 32, 2 ** 31, 0])).toBe(0);
  expect(tensorByteLength("U8", [2 ** 32, 2 ** 32, 0])).toBeUndefined();
  expect(tensorByteLength("F6_E2M3", [4])).toBe(3);
  expect(tensorByteLength("F6_E2M3", [2])).toBeUndefined();
  expect(tensorByteLength("U8", [2 ** 53])).toBeUndefined();
});
