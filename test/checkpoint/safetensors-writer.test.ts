import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { safetensorsHeader, serializeSafetensors } from "../../src/checkpoint/safetensors-writer.ts";
import { DTYPES, type Dtype } from "../../src/tensor/dtype.ts";
import { Tensor, tensorByteLength } from "../../src/tensor/tensor.ts";
import { openBytes } from "./safetensors-files.ts";

const spec = (name: string, dtype: Dtype = "U8", shape: number[] = [1]) => ({ name, dtype, shape });
const json = (header: Uint8Array): string => new TextDecoder().decode(header.subarray(8));

describe("layout", () => {
  test("largest elements first, then the bytes of the names, padded to 8", () => {
    // U+1F600 is written with surrogates in UTF-16, which sort before U+E000; in UTF-8 it sorts after.
    const { header, order } = safetensorsHeader([
      spec("😀"),
      spec("\ue000"),
      spec("b", "BF16", [2, 3]),
      spec("ab"),
      spec("a"),
      spec("z", "F32", []),
    ]);
    expect(order.map(tensor => tensor.name)).toEqual(["z", "b", "a", "ab", "\ue000", "😀"]);
    expect(header.length % 8).toBe(0);
    expect(new DataView(header.buffer).getBigUint64(0, true)).toBe(BigInt(header.length - 8));
    expect(json(header)).toMatch(
      /^\{"z":\{"dtype":"F32","shape":\[\],"data_offsets":\[0,4\]\},"b":\{"dtype":"BF16","shape":\[2,3\],"data_offsets":\[4,16\]\},.*\} *$/,
    );
  });

  test("names are sorted by their bytes, in whatever order they are given", () => {
    const order = (names: readonly string[]): string[] =>
      safetensorsHeader(names.map(name => spec(name))).order.map(({ name }) => name);
    for (const names of [
      ["a", "ab"],
      ["\ue000", "😀"],
      ["a\ue000", "a😀", "a😀b"],
      ["\ud7ff", "\ue000", "\ufffd", "\u{10000}", "\u{10ffff}"],
      ["", "A", "a", "é"],
    ]) {
      expect(order(names)).toEqual(names);
      expect(order(names.toReversed())).toEqual(names);
    }
  });

  test("a file is the header and the data, in the header's order", () => {
    const bytes = new Tensor("b", "U8", [3], Uint8Array.of(7, 8, 9));
    const shorts = new Tensor("s", "U16", [2], Uint16Array.of(0x0201, 0x0403));
    const { header } = safetensorsHeader([bytes, shorts]);
    expect(Buffer.from(serializeSafetensors([bytes, shorts]))).toEqual(
      Buffer.concat([header, Buffer.of(1, 2, 3, 4, 7, 8, 9)]),
    );
  });

  test("nothing at all is still a file", () => {
    expect(serializeSafetensors([])).toEqual(Uint8Array.of(8, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d, 32, 32, 32, 32, 32, 32));
  });

  test("metadata comes first, in the order given", () => {
    const { header } = safetensorsHeader(
      [],
      new Map([
        ["b", "\u0001\n\u2028é"],
        ["a", ""],
      ]),
    );
    expect(json(header).trimEnd()).toBe('{"__metadata__":{"b":"\\u0001\\n\u2028é","a":""}}');
  });
});

describe("something that no file can hold is refused", () => {
  test.each<[string, () => unknown, RegExp]>([
    [
      "a name twice",
      () => safetensorsHeader([spec("a"), spec("b"), spec("a", "F32")]),
      /tensor "a": expected one of that name, got two/,
    ],
    ["the metadata's name", () => safetensorsHeader([spec("__metadata__")]), /expected another name/],
    ["half a surrogate pair in a name", () => safetensorsHeader([spec("\ud83d")]), /half a surrogate pair/],
    [
      "half a surrogate pair in the metadata",
      () => safetensorsHeader([], new Map([["a", "\ude00"]])),
      /half a surrogate pair/,
    ],
    [
      "half a byte",
      () => safetensorsHeader([spec("a", "F4", [3])]),
      /expected a shape that fills whole bytes, got F4 \[3\]/,
    ],
    ["a negative dimension", () => safetensorsHeader([spec("a", "U8", [-1])]), /whole bytes/],
    [
      "more than 2^53 bytes",
      () => safetensorsHeader([spec("a", "U8", [2 ** 52]), spec("b", "U8", [2 ** 52])]),
      /tensor "b"/,
    ],
  ])("%s", (_, write, message) => {
    expect(write).toThrow(RangeError);
    expect(write).toThrow(message);
  });
});

test("random tensors come back as they were", async () => {
  const tensor = fc
    .record({
      name: fc.string({ unit: "binary", maxLength: 12 }).filter(name => name !== "__metadata__"),
      dtype: fc.constantFrom(...DTYPES),
      shape: fc.array(fc.nat(4), { maxLength: 3 }),
      seed: fc.nat(),
    })
    .map(({ name, dtype, shape, seed }) => {
      const whole = tensorByteLength(dtype, shape) === undefined ? [...shape, 4] : shape; // four packed elements fill whole bytes
      const bytes = Uint8Array.from({ length: tensorByteLength(dtype, whole)! }, (_, i) => (seed + i * 37) & 255);
      return Tensor.fromBytes(name, dtype, whole, bytes);
    });
  const text = fc.string({ unit: "binary", maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(tensor, { selector: one => one.name, maxLength: 6 }),
      fc.array(fc.tuple(text, text)),
      async (tensors, metadata) => {
        const file = await openBytes(serializeSafetensors(tensors, new Map(metadata)));
        expect(file.metadata).toEqual(new Map(metadata));
        expect(file.tensors.size).toBe(tensors.length);
        for (const one of tensors) {
          const back = await file.read(one.name);
          expect([back.dtype, back.shape, back.bytes()]).toEqual([one.dtype, one.shape, one.bytes()]);
        }
      },
    ),
    { seed: 1, numRuns: 300 },
  );
});
