/**
 * Headers as large as allowed, and larger ones: they are read or refused, and take no more memory than promised.
 */

import { describe, expect, test } from "vitest";
import { SafetensorsCheckpoint } from "../../src/checkpoint/safetensors-sharded.ts";
import { WINDOW_BYTES } from "../../src/checkpoint/safetensors-window.ts";
import { safetensorsHeader } from "../../src/checkpoint/safetensors-writer.ts";
import { fileBytes, memory, ONE, openBytes, refusal } from "./safetensors-files.ts";

test("entries may begin and end anywhere in the pieces that are read", async () => {
  // The first piece has 64 KiB: move every byte of an entry across its end.
  const long = "n".repeat(70_000);
  const header = `{"a\\ud83d\\ude00é":${ONE},"${long}":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"x":{"dtype":"U8","shape":[0],"data_offsets":[2,2],"y":[1.5e3,null,"ü"]}}`;
  for (let padding = 65_536 - 140; padding <= 65_536; padding++) {
    const file = await openBytes(fileBytes(" ".repeat(padding) + header, 2));
    expect([...file.tensors.keys()]).toEqual(["a😀é", long, "x"]);
  }
});

test("a megabyte of white space", async () => {
  await openBytes(fileBytes(`${" ".repeat(2 ** 20)}{}`));
});

describe("attacks on memory", () => {
  const repeat = (prefix: string, unit: string, count: number, suffix: string): Uint8Array =>
    fileBytes(prefix + unit.repeat(count) + suffix, 1);
  const tensors = Array.from({ length: 300_000 }, (_, i) => `"${i}":["U8",[0],[0,0]]`).join();
  const entries = Array.from({ length: 400_000 }, (_, i) => `"${i}":""`).join();
  test.each<[string, () => Uint8Array, RegExp]>([
    [
      "300,000 tensors",
      () => fileBytes(`{${tensors},"a":5}`),
      /expected names, shapes and metadata that fit 48 MiB of memory, got more/,
    ],
    ["400,000 entries of metadata", () => fileBytes(`{"__metadata__":{${entries}},"a":5}`), /fit 48 MiB of memory/],
    ["3,000,000 dimensions", () => repeat('{"a":["U8",[1', ",1", 3_000_000, "],[0,2]]}"), /fit 48 MiB of memory/],
    [
      "a name of 20 MB",
      () => repeat('{"', "a", 20_000_000, '":5}'),
      /expected entries of at most 16 MiB, got a larger one/,
    ],
    ["a name of 20 MB in escapes", () => repeat('{"', "\\u0061", 3_400_000, '":5}'), /entries of at most 16 MiB/],
    [
      "20 MB in a field that nobody reads",
      () => repeat('{"a":{"x":"', "a", 20_000_000, '"}}'),
      /entries of at most 16 MiB/,
    ],
    ["20 MB of white space inside an entry", () => repeat('{"a":', " ", 20_000_000, "5}"), /entries of at most 16 MiB/],
    [
      "a number of 10 MB",
      () => repeat('{"a":["U8",[1', "1", 10_000_000, "],[0,1]]}"),
      /expected a number within the range of float64/,
    ],
  ])("%s", async (_, bytes, message) => expect(await refusal(bytes())).toMatch(message));
});

const INDEX = "model.safetensors.index.json";

test("200,000 tensors in an index are read", async () => {
  const names = Array.from({ length: 200_000 }, (_, i) => `model.layers.${i}.mlp.experts.gate_proj.weight`);
  const entries = names.map(name => `${JSON.stringify(name)}: "model-00001-of-00163.safetensors"`).join(",\n    ");
  const folder = memory({ [INDEX]: `{\n  "weight_map": {\n    ${entries}\n  }\n}` });
  await expect(SafetensorsCheckpoint.open(folder)).rejects.toThrow(
    /expected the shard "model-00001-of-00163.safetensors"/,
  );
  // Entry by entry: never more of its 17 MB is in memory than an ordinary index has.
  const [index] = folder.opened;
  expect(Math.max(...index.reads.map(read => read.byteLength))).toBeLessThanOrEqual(WINDOW_BYTES);
});

test("300,000 shards are refused; 300,000 tensors in a thousand are read", async () => {
  const map = (count: number, shards: number): string =>
    `{"weight_map": {${Array.from({ length: count }, (_, i) => `"${i}": "${i % shards}"`)}}}`;
  const shards = memory({ [INDEX]: map(300_000, 300_000) });
  await expect(SafetensorsCheckpoint.open(shards)).rejects.toThrow(
    "expected names, shapes and metadata that fit 48 MiB of memory",
  );
  const tensors = memory({ [INDEX]: map(300_000, 1000) });
  await expect(SafetensorsCheckpoint.open(tensors)).rejects.toThrow('expected the shard "0"');
});

test("a header of more than 100 MB is not written", () => {
  const metadata = new Map([["a", "b".repeat(100_000_000)]]);
  const message = "safetensors: expected a header of at most 100000000 bytes, got 100000032";
  expect(() => safetensorsHeader([], metadata)).toThrow(new RangeError(message));
});
