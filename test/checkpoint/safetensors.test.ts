import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { bytesFromFile } from "../../src/checkpoint/bytes.node.ts";
import { bytesFromBlob, bytesFromBuffer } from "../../src/checkpoint/bytes.ts";
import { SafetensorsFile } from "../../src/checkpoint/safetensors.ts";
import { SafetensorsError } from "../../src/checkpoint/safetensors-error.ts";
import { DTYPES } from "../../src/tensor/dtype.ts";
import { tensorByteLength } from "../../src/tensor/tensor.ts";
import { fileBytes, ONE, openBytes, refusal, watched } from "./safetensors-files.ts";

const WEIGHT = '"w":{"dtype":"BF16","shape":[4,2],"data_offsets":[0,16]}';
/** A valid file with one tensor of one byte, and this value in a field that nobody reads. */
const unread = (value: string): Uint8Array =>
  fileBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":${value}}}`, 1);

describe("reading", () => {
  test("gives tensors, shapes, offsets and metadata", async () => {
    const file = await openBytes(
      fileBytes(
        `{"__metadata__":{"format":"pt"},${WEIGHT},"n":{"dtype":"I64","shape":[],"data_offsets":[16,24]}}  `,
        24,
      ),
    );
    expect(file.name).toBe("attack.safetensors");
    expect([...file.metadata]).toEqual([["format", "pt"]]);
    expect([...file.tensors.keys()]).toEqual(["w", "n"]);
    const { byteOffset } = file.tensors.get("w")!;
    expect(file.tensors.get("n")).toEqual({
      name: "n",
      dtype: "I64",
      shape: [],
      byteOffset: byteOffset + 16,
      byteLength: 8,
    });
    const all = await file.readAll();
    expect(all.get("w")!.data).toEqual(Uint16Array.from({ length: 8 }, (_, i) => 2 * i + 256 * (2 * i + 1)));
    expect(all.get("n")!.data).toEqual(BigInt64Array.of(0x1716151413121110n));
    expect(all.get("n")!.length).toBe(1);
  });

  test("reads rows, and no other byte", async () => {
    const source = watched(bytesFromBuffer(fileBytes(`{${WEIGHT}}`, 16)));
    const file = await SafetensorsFile.open(source);
    source.reads.length = 0;
    const rows = await file.readRows("w", 1, 3);
    expect(rows.shape).toEqual([2, 2]);
    expect(rows.data).toEqual((await file.read("w")).rows(1, 3).data);
    expect(source.reads[0]).toEqual({ offset: file.tensors.get("w")!.byteOffset + 4, byteLength: 8 });
    await expect(file.readRows("w", 1, 5)).rejects.toThrow(/expected rows within \[0, 4\), got \[1, 5\)/);
    await expect(file.readRows("w", 2, 1)).rejects.toThrow(RangeError);
  });

  test("reads bytes straight into a buffer, and only within the tensor", async () => {
    // Another tensor follows in the file: its bytes could be read, but do not belong to this one.
    const file = await openBytes(fileBytes(`{${WEIGHT},"n":{"dtype":"I64","shape":[],"data_offsets":[16,24]}}`, 24));
    const target = new Uint8Array(8).fill(255);
    await file.readInto("w", target.subarray(2, 6), 10);
    expect(target).toEqual(Uint8Array.of(255, 255, 10, 11, 12, 13, 255, 255));
    for (const [length, offset] of [
      [17, 0],
      [2, 15],
      [1, 16],
      [1, -1],
      [0, 17],
      [1, 0.5],
      [1, Number.NaN],
    ]) {
      const message = `attack.safetensors: tensor "w": expected a range within 16 bytes, got ${length} bytes from ${offset} on`;
      await expect(file.readInto("w", new Uint8Array(length), offset)).rejects.toThrow(new RangeError(message));
    }
  });

  test("names a tensor that does not exist", async () => {
    const file = await openBytes(fileBytes(`{${WEIGHT}}`, 16));
    await expect(file.read("w\n")).rejects.toThrow(
      'attack.safetensors: tensor "w\\u{a}": expected a tensor of the file, got no such name',
    );
    await expect(file.read("toString")).rejects.toThrow(RangeError);
  });

  test("does not read data when it opens, and closes the source once", async () => {
    const bytes = fileBytes(`{${WEIGHT}}`, 16);
    const source = watched(bytesFromBuffer(bytes));
    const file = await SafetensorsFile.open(source);
    expect(Math.max(...source.reads.map(read => read.offset + read.byteLength))).toBe(bytes.length - 16);
    await file.close();
    expect(source.closed).toBe(1);
    const bad = watched(bytesFromBuffer(bytes.slice(0, -1)));
    await expect(SafetensorsFile.open(bad)).rejects.toThrow(SafetensorsError);
    expect(bad.closed).toBe(1);
  });

  test("a buffer, a Blob and a file on disk are the same", async () => {
    const bytes = fileBytes(`{${WEIGHT}}`, 16);
    const folder = await mkdtemp(join(tmpdir(), "safetensors-"));
    await writeFile(join(folder, "a"), bytes);
    const datas = [];
    for (const source of [
      bytesFromBuffer(bytes),
      bytesFromBlob(new Blob([bytes])),
      await bytesFromFile(join(folder, "a")),
    ]) {
      const file = await SafetensorsFile.open(source);
      datas.push((await file.read("w")).data);
      await file.close();
    }
    await rm(folder, { recursive: true });
    expect(datas[1]).toEqual(datas[0]);
    expect(datas[2]).toEqual(datas[0]);
  });

  test("every dtype", async () => {
    for (const dtype of DTYPES) {
      const byteLength = tensorByteLength(dtype, [2, 4])!;
      const file = await openBytes(
        fileBytes(`{"a":{"dtype":"${dtype}","shape":[2,4],"data_offsets":[0,${byteLength}]}}`, byteLength),
      );
      expect((await file.read("a")).bytes()).toEqual(Uint8Array.from({ length: byteLength }, (_, i) => i));
    }
  });
});

describe("everything that the reference accepts is accepted", () => {
  test.each<[string, string | Uint8Array, number]>([
    ["no tensors", "{}", 0],
    ["white space before and after", " \t\r\n{ } \n", 0],
    [
      "fields in any order, escapes in names of fields and dtypes",
      '{"a":{"data_offsets":[0,1],"sh\\u0061pe":[1],"dtype":"\\u00558"}}',
      1,
    ],
    ["a tensor as an array", '{"a":["U8",[1],[0,1]]}', 1],
    ["a dtype as an object", '{"a":{"dtype":{"U8":null},"shape":[1],"data_offsets":[0,1]}}', 1],
    ["metadata that is null", '{"__metadata__":null}', 0],
    ["metadata with a key twice", '{"__metadata__":{"a":"b","a":"c"}}', 0],
    ["a tensor without a name", `{"":${ONE}}`, 1],
    ["tensors in another order than their data", `{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":${ONE}}`, 2],
    ["empty tensors between others", `{"e":{"dtype":"F32","shape":[0,3],"data_offsets":[1,1]},"a":${ONE}}`, 1],
    [
      "a huge shape after a zero",
      '{"a":{"dtype":"U8","shape":[0,1099511627776,1099511627776],"data_offsets":[0,0]}}',
      0,
    ],
    [
      "a product of 2^63 before a zero",
      '{"a":{"dtype":"U8","shape":[4294967296,2147483648,0],"data_offsets":[0,0]}}',
      0,
    ],
  ])("%s", async (_, header, dataBytes) => {
    const file = await openBytes(fileBytes(header, dataBytes));
    for (const name of file.tensors.keys()) await file.read(name);
  });

  test.each([
    "0",
    "-0",
    "1.5e3",
    "1e308",
    "1.7976931348623157e308",
    "1e-9999999999",
    "0e9999999999",
    "18446744073709551616",
    "1".repeat(309),
  ])("the number %s where nobody looks", async value => void (await openBytes(unread(value))));

  test.each([
    '"\\ud83d\\ude00"',
    '"\\u0000\\/\\b\\f\\n\\r\\t\\"\\\\"',
    '"\x7f\ufeff"',
    `"${"é".repeat(40_000)}"`,
    `[${"1,".repeat(40_000)}1]`,
  ])("%.20s where nobody looks", async value => void (await openBytes(unread(value))));

  test("125 arrays inside a field of a tensor", async () => {
    await openBytes(unread("[".repeat(125) + "]".repeat(125)));
  });

  test("names keep every character", async () => {
    const names = ["\ufeffa", "é", "😀", "\u0000", 'a"b\\c/\b\f\n\r\t', "\u2028", "__proto__", "constructor"];
    const entries = names.map(
      (name, i) => `${JSON.stringify(name)}:{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`,
    );
    const file = await openBytes(fileBytes(`{${entries}}`, names.length));
    expect([...file.tensors.keys()]).toEqual(names);
    const escaped = names.map(
      (name, i) => `"${escapeAll(name)}":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`,
    );
    expect([...(await openBytes(fileBytes(`{${escaped}}`, names.length))).tensors.keys()]).toEqual(names);
  });
});

describe("a long header", () => {
  test("a key of the metadata is kept whole", async () => {
    const key = "k".repeat(200);
    expect([...(await openBytes(fileBytes(`{"__metadata__":{"${key}":"v","":""}}`))).metadata]).toEqual([
      [key, "v"],
      ["", ""],
    ]);
  });

  test("empty tensors may lie anywhere between others, in any order", async () => {
    const entries = [
      `"a":${ONE}`,
      ...["e", "f"].map(name => `"${name}":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}`),
      '"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}',
      '"g":{"dtype":"F32","shape":[0],"data_offsets":[2,2]}',
    ];
    for (let i = 0; i < entries.length; i++) {
      for (const order of [entries, entries.toReversed()]) {
        const file = await openBytes(fileBytes(`{${[...order.slice(i), ...order.slice(0, i)]}}`, 2));
        expect([(await file.read("b")).data, (await file.read("e")).length]).toEqual([Uint8Array.of(1), 0]);
      }
    }
  });

  test("a header of exactly 100 MB is read", async () => {
    const readInto = async (target: Uint8Array, offset: number): Promise<void> => {
      if (offset > 0) throw new Error(`read from ${offset} on`);
      target.set(fileBytes("", 0, 100_000_000n).subarray(0, target.length));
    };
    const source = { name: "f", byteLength: 100_000_008, readInto, close: async () => {} };
    await expect(SafetensorsFile.open(source)).rejects.toThrow("read from 8 on");
  });
});

describe("attacks on the length", () => {
  test.each<[string, Uint8Array, RegExp]>([
    ["an empty file", new Uint8Array(0), /expected at least 8 bytes, got 0/],
    ["a file of seven bytes", new Uint8Array(7), /expected at least 8 bytes, got 7/],
    ["a header of no bytes", new Uint8Array(8), /expected a header that is a JSON object, got the end/],
    [
      "a header longer than the file",
      fileBytes("{}", 0, 3n),
      /expected a header within the file's 10 bytes, got a header of 3 bytes/,
    ],
    [
      "a git-lfs pointer",
      new TextEncoder().encode(
        `version https://git-lfs.github.com/spec/v1\noid sha256:${"a".repeat(64)}\nsize 1192135096\n`,
      ),
      /attack.safetensors: expected the file itself, got a git-lfs pointer \(git lfs pull fetches it\)$/,
    ],
    [
      "a header above 100 MB",
      fileBytes("{}", 0, 100_000_001n),
      /expected a header of at most 100000000 bytes, got 100000001/,
    ],
    ["a length of 2^32 + 2", fileBytes("{}", 0, 2n ** 32n + 2n), /got 4294967298/],
    ["a length of 2^53 + 1", fileBytes("{}", 0, 2n ** 53n + 1n), /got 9007199254740993/],
    ["a length of 2^64 - 1", fileBytes("{}", 0, 2n ** 64n - 1n), /got 18446744073709551615/],
  ])("%s", async (_, bytes, message) => expect(await refusal(bytes)).toMatch(message));
});

describe("attacks on the JSON", () => {
  test.each<[string, string | Uint8Array, RegExp]>([
    ["no object", "[]", /expected a header that is a JSON object, got "\[" at byte 8/],
    ["a byte order mark", "\ufeff{}", /got byte 0xef at byte 8/],
    ["something after the object", "{}x", /expected the end, got "x" at byte 10/],
    ["zeros after the object", "{}\0", /expected the end, got byte 0x00/],
    ["an object that does not end", '{"__metadata__":{}', /expected "," or "}", got the end/],
    ["a name that does not end", '{"abc', /expected a closing quote, got the end/],
    ["a trailing comma", `{"a":${ONE},}`, /expected a key in quotes, got "}"/],
    ["no comma", `{"a":${ONE} "b":${ONE}}`, /expected "," or "}", got """/],
    ["no colon", `{"a" ${ONE}}`, /expected ":", got "{"/],
    ["a name without quotes", `{a:${ONE}}`, /expected a key in quotes, got "a"/],
    [
      "a control character in a name",
      `{"a\n":${ONE}}`,
      /expected an escape in place of a control character, got byte 0x0a/,
    ],
    ["an unknown escape", `{"\\x":${ONE}}`, /expected one of/],
    ["a short escape", `{"\\u12":${ONE}}`, /expected four hexadecimal digits, got """/],
    ["half a surrogate pair", `{"\\ud83d":${ONE}}`, /expected a pair of surrogate escapes, got one alone/],
    ["the wrong half first", `{"\\ude00\\ud83d":${ONE}}`, /expected a pair of surrogate escapes/],
    ["two first halves", `{"\\ud83d\\ud83d":${ONE}}`, /expected a pair of surrogate escapes/],
    ["bytes that are not UTF-8", Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a), /expected UTF-8/],
    ["a surrogate in UTF-8", Uint8Array.of(0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a), /expected UTF-8/],
    ["an overlong slash", Uint8Array.of(0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x3a), /expected UTF-8/],
    ["a character cut by the quote", Uint8Array.of(0x7b, 0x22, 0xc3, 0x22, 0x3a), /expected UTF-8/],
  ])("%s", async (_, header, message) => expect(await refusal(fileBytes(header, 1))).toMatch(message));

  test.each([
    "01",
    "1.",
    ".5",
    "-",
    "+1",
    "1e",
    "1e+",
    "1e400",
    "-1e400",
    "1.7976931348623159e308",
    `1${"0".repeat(309)}`,
    "1e9999999999",
    "NaN",
    "Infinity",
    "0x1",
  ])("the number %s where nobody looks", async value =>
    expect(await refusal(unread(value))).toMatch(/tensor "a": expected/),
  );

  test.each([
    "nul",
    "True",
    '"\\ud800"',
    '"\t"',
    "[1,]",
    "[,]",
    "{,}",
    '{"a":1,}',
    '{"a"}',
    "[1 2]",
    "",
    `"${"a".repeat(70_000)}\\x"`,
  ])("%.20s where nobody looks", async value => expect(await refusal(unread(value))).toMatch(/tensor "a": expected/));

  test.each(["[", '{"a":', '[{"a":'])("a million %s inside each other", async open => {
    expect(await refusal(unread(open.repeat(1_000_000)))).toMatch(
      /expected at most 127 objects and arrays inside each other, got more/,
    );
  });
});

describe("attacks on a tensor", () => {
  const tensor = (dtype: string, shape: string, offsets: string): string =>
    `{"a":{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}}`;
  test.each<[string, string, RegExp]>([
    ["no object", '{"a":5}', /tensor "a": expected an object with dtype, shape and data_offsets, got "5"/],
    [
      "no dtype",
      '{"a":{"shape":[1],"data_offsets":[0,1]}}',
      /tensor "a": expected dtype, shape, data_offsets, got no dtype/,
    ],
    ["no shape", '{"a":{"dtype":"U8","data_offsets":[0,1]}}', /got no shape/],
    ["no offsets", '{"a":{"dtype":"U8","shape":[1]}}', /got no data_offsets/],
    [
      "two dtypes",
      '{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
      /expected one dtype, got a second one/,
    ],
    [
      "two shapes",
      '{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}',
      /expected one shape, got a second one/,
    ],
    [
      "two offsets",
      '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}}',
      /expected one data_offsets, got a second one/,
    ],
    ["four elements", '{"a":["U8",[1],[0,1],0]}', /expected three elements, got more/],
    ["two elements", '{"a":["U8",[1]]}', /got no data_offsets/],
    ["an unknown dtype", tensor('"F128"', "[1]", "[0,1]"), /expected a dtype \(BOOL, .*U64\), got "F128"/],
    ["an inherited property as dtype", tensor('"constructor"', "[1]", "[0,1]"), /got "constructor"/],
    ["a long dtype", tensor(`"${"U8".repeat(49)}"`, "[1]", "[0,1]"), /got "…"/],
    ["a dtype that is a number", tensor("8", "[1]", "[0,1]"), /tensor "a": expected a dtype in quotes, got "8"/],
    ["a dtype in an object that is not null", tensor('{"U8":0}', "[1]", "[0,1]"), /tensor "a": expected null, got "0"/],
    [
      "offsets that are a number",
      tensor('"U8"', "[1]", "0"),
      /tensor "a": expected data_offsets that are an array, got "0"/,
    ],
    ["an empty object as dtype", tensor("{}", "[1]", "[0,1]"), /expected a dtype, got an empty object/],
    [
      "two dtypes in an object",
      tensor('{"U8":null,"U8":null}', "[1]", "[0,1]"),
      /expected one dtype, got a second one/,
    ],
    ["a shape that is a number", tensor('"U8"', "1", "[0,1]"), /expected a shape that is an array, got "1"/],
    [
      "a fraction in a shape",
      tensor('"U8"', "[1.0]", "[0,1]"),
      /expected an integer from 0 to 2\^53 - 1, got another number/,
    ],
    ["an exponent in a shape", tensor('"U8"', "[1e0]", "[0,1]"), /expected an integer/],
    ["minus zero in a shape", tensor('"U8"', "[-0]", "[0,0]"), /expected an integer/],
    ["a negative dimension", tensor('"U8"', "[-1]", "[0,1]"), /expected an integer/],
    ["a dimension of 2^53 beside a zero", tensor('"U8"', "[0,9007199254740992]", "[0,0]"), /expected an integer/],
    ["a dimension of 2^64 + 1", tensor('"U8"', "[18446744073709551617]", "[0,1]"), /expected an integer/],
    [
      "a product that wraps to 1 in 64 bits",
      tensor('"U8"', "[274177,67280421310721]", "[0,1]"),
      /expected a whole number of bytes below 2\^64/,
    ],
    [
      "a product that wraps to 0 in 64 bits",
      tensor('"U8"', "[4294967296,4294967296]", "[0,0]"),
      /expected a whole number of bytes/,
    ],
    [
      "a zero after a product that overflows",
      tensor('"U8"', "[4294967296,4294967296,0]", "[0,0]"),
      /expected a whole number of bytes/,
    ],
    [
      "half a byte",
      tensor('"F4"', "[1]", "[0,1]"),
      /expected a whole number of bytes below 2\^64 for F4 \[1\], got 1 bytes/,
    ],
    ["more bytes than the shape", tensor('"U8"', "[1]", "[0,2]"), /expected 1 bytes for U8 \[1\], got 2 bytes/],
    ["fewer bytes than the shape", tensor('"F32"', "[1]", "[0,2]"), /expected 4 bytes for F32 \[1\], got 2 bytes/],
    ["one offset", tensor('"U8"', "[1]", "[0]"), /expected data_offsets \[begin, end\], got 1 integers/],
    ["three offsets", tensor('"U8"', "[1]", "[0,1,2]"), /expected 2 integers, got more/],
    [
      "an end before the beginning",
      tensor('"U8"', "[1]", "[1,0]"),
      /expected data_offsets within the file's 2 bytes of data, got \[1, 0\]/,
    ],
    [
      "an end outside the file",
      tensor('"U8"', "[3]", "[0,3]"),
      /expected data_offsets within the file's 2 bytes of data, got \[0, 3\]/,
    ],
    ["offsets near 2^53", tensor('"U8"', "[1]", "[9007199254740990,9007199254740991]"), /within the file's 2 bytes/],
    [
      "a hole before the first tensor",
      tensor('"U8"', "[1]", "[1,2]"),
      /tensor "a": expected data from 0 on, got a gap: from 1 on/,
    ],
    [
      "bytes after the last tensor",
      tensor('"U8"', "[1]", "[0,1]"),
      /expected 1 bytes of data, as the header says, got 2/,
    ],
    ["a tensor twice", `{"a":${ONE},"a":${ONE}}`, /tensor "a": expected one tensor of that name, got a second one/],
    ["a tensor twice, once in escapes", `{"a":${ONE},"\\u0061":${ONE}}`, /got a second one/],
    [
      "two tensors in the same bytes",
      `{"a":${ONE},"b":${ONE}}`,
      /tensor "b": expected data from 1 on, got an overlap: from 0 on/,
    ],
    [
      "metadata that is an array",
      '{"__metadata__":[]}',
      /__metadata__: expected an object of strings, or null, got "\["/,
    ],
    ["a number in the metadata", '{"__metadata__":{"a":1}}', /__metadata__: expected a string, got "1"/],
    ["metadata twice", '{"__metadata__":null,"__metadata__":{}}', /expected one __metadata__, got a second one/],
  ])("%s", async (_, header, message) => expect(await refusal(fileBytes(header, 2))).toMatch(message));

  test("a name that forges log lines, or is very long", async () => {
    const forged = `a\r\nERROR \u001b[31m\u202e${"x".repeat(1000)}`;
    const message = await refusal(fileBytes(`{${JSON.stringify(forged)}:5}`));
    expect(message).toMatch(/tensor "a\\u\{d\}\\u\{a\}ERROR \\u\{1b\}\[31m\\u\{202e\}x+…": expected/);
    expect(message.length).toBeLessThan(250);
  });

  test("bytes that are too many are counted from the tensor's own beginning", async () => {
    const header = `{"a":${ONE},"b":{"dtype":"U8","shape":[1,1],"data_offsets":[1,3]}}`;
    expect(await refusal(fileBytes(header, 3))).toMatch(
      /expected 1 bytes for U8 \[1, 1\], got 2 bytes, data_offsets \[1, 3\]/,
    );
  });

  test("eight dimensions are shown, and beyond that their number", async () => {
    const shown = async (count: number): Promise<string> =>
      refusal(fileBytes(tensor('"U8"', `[${Array.from({ length: count }, (_, i) => i + 1)}]`, "[0,1]"), 1));
    expect(await shown(8)).toContain("expected 40320 bytes for U8 [1, 2, 3, 4, 5, 6, 7, 8], got 1 bytes");
    expect(await shown(9)).toContain("for U8 [1, 2, 3, 4, 5, 6, 7, 8, … 9 dimensions], got 1 bytes");
  });

  test("a thousand dimensions in a message", async () => {
    expect((await refusal(fileBytes(tensor('"U8"', `[${"2,".repeat(999)}2]`, "[0,1]"), 1))).length).toBeLessThan(250);
  });
});

function escapeAll(text: string): string {
  return Array.from({ length: text.length }, (_, i) => `\\u${text.charCodeAt(i).toString(16).padStart(4, "0")}`).join(
    "",
  );
}
