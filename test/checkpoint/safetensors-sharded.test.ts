import { access } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { bytesFromFile } from "../../src/checkpoint/bytes.node.ts";
import { bytesFromBuffer } from "../../src/checkpoint/bytes.ts";
import type { NamedSources } from "../../src/checkpoint/files.ts";
import { SafetensorsError } from "../../src/checkpoint/safetensors-error.ts";
import { readIndex, SafetensorsCheckpoint } from "../../src/checkpoint/safetensors-sharded.ts";
import { TextWindow } from "../../src/checkpoint/safetensors-window.ts";
import { fileBytes, memory } from "./safetensors-files.ts";

const root = join(import.meta.dirname, "../..");

function folderOf(path: string): NamedSources {
  return {
    name: path,
    open: async file =>
      access(join(path, file)).then(
        () => bytesFromFile(join(path, file)),
        () => undefined,
      ),
  };
}

const INDEX = "model.safetensors.index.json";
const shard = (...names: string[]): Uint8Array =>
  fileBytes(
    `{${names.map((name, i) => `"${name}":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`)}}`,
    names.length,
  );
const index = (map: Record<string, string>): string => JSON.stringify({ metadata: { total_size: 1 }, weight_map: map });

describe("real checkpoints", () => {
  test("shards of the odd fixture", async () => {
    const checkpoint = await SafetensorsCheckpoint.open(folderOf(join(root, "test/fixtures/odd")));
    expect(checkpoint.tensors.size).toBe(36);
    // The index's total_size.
    expect([...checkpoint.tensors.values()].reduce((sum, info) => sum + info.byteLength, 0)).toBe(344_592);
    const all = await checkpoint.readAll();
    expect([...all.keys()]).toEqual([...checkpoint.tensors.keys()]);
    const embedding = all.get("model.embed_tokens.weight")!;
    expect(embedding.shape).toEqual([331, 52]);
    expect((await checkpoint.readRows("model.embed_tokens.weight", 7, 9)).data).toEqual(embedding.rows(7, 9).data);
    const bytes = new Uint8Array(8);
    await checkpoint.readInto("model.embed_tokens.weight", bytes, 16);
    expect(bytes).toEqual(embedding.bytes().slice(16, 24));
    await expect(checkpoint.read("model.embed")).rejects.toThrow(
      /tensor "model.embed": expected a tensor of the checkpoint/,
    );
    await checkpoint.close();
  });

  test("the single file of the demo guard", async () => {
    const checkpoint = await SafetensorsCheckpoint.open(folderOf(join(root, "models/tiny-guard-gen")));
    expect(checkpoint.tensors.get("model.norm.weight")?.dtype).toBe("BF16");
    for (const value of (await checkpoint.read("model.norm.weight")).toFloat32())
      expect(Number.isFinite(value)).toBe(true);
    await checkpoint.close();
  });
});

describe("which files", () => {
  test("model.safetensors wins over an index", async () => {
    const folder = memory({ "model.safetensors": shard("a"), [INDEX]: index({ b: "s" }), s: shard("b") });
    const checkpoint = await SafetensorsCheckpoint.open(folder);
    expect([...checkpoint.tensors.keys()]).toEqual(["a"]);
  });

  test("the single file is closed with the checkpoint, and its metadata is the checkpoint's", async () => {
    const folder = memory({ "model.safetensors": fileBytes('{"__metadata__":{"k":"v"}}') });
    const checkpoint = await SafetensorsCheckpoint.open(folder);
    expect([checkpoint.name, checkpoint.files.length, [...checkpoint.metadata]]).toEqual(["attack", 1, [["k", "v"]]]);
    await checkpoint.close();
    expect(folder.opened.map(source => source.closed)).toEqual([1]);
  });

  test("where two shards have the same metadata key, the first shard's counts; long names are kept whole", async () => {
    const long = "n".repeat(200);
    const metadata = (text: string, name: string): Uint8Array =>
      fileBytes(`{"__metadata__":{${text}},"${name}":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1);
    const folder = memory({
      [INDEX]: index({ [long]: "1", b: "2" }),
      1: metadata('"k":"first","a":"1"', long),
      2: metadata('"k":"second","b":"2"', "b"),
    });
    const checkpoint = await SafetensorsCheckpoint.open(folder);
    expect(Object.fromEntries(checkpoint.metadata)).toEqual({ k: "first", a: "1", b: "2" });
    expect([...checkpoint.tensors.keys()]).toEqual([long, "b"]);
  });

  test("each shard is opened once, and closed once", async () => {
    const folder = memory({ [INDEX]: index({ a: "1", b: "2", c: "1" }), 1: shard("a", "c"), 2: shard("b") });
    const checkpoint = await SafetensorsCheckpoint.open(folder);
    expect(folder.opened.map(source => source.name)).toEqual([`attack/${INDEX}`, "attack/1", "attack/2"]);
    await checkpoint.close();
    expect(folder.opened.map(source => source.closed)).toEqual([1, 1, 1]);
  });

  test("a tensor that is in a shard but not in the index is not part of the checkpoint", async () => {
    const folder = memory({ [INDEX]: index({ a: "1", b: "2" }), 1: shard("a", "stale"), 2: shard("b", "a") });
    const checkpoint = await SafetensorsCheckpoint.open(folder);
    expect([...checkpoint.tensors.keys()]).toEqual(["a", "b"]);
    expect((await checkpoint.read("a")).data).toEqual(Uint8Array.of(0)); // the tensor in shard 1
  });
});

describe("attacks on the index", () => {
  const map = (weightMap: string): Record<string, string | Uint8Array> => ({
    [INDEX]: `{"weight_map":${weightMap}}`,
    s: shard("a"),
  });
  test.each<[string, Record<string, string | Uint8Array>, RegExp]>([
    ["no weights at all", {}, /attack: expected model.safetensors or model.safetensors.index.json, got neither/],
    ["no object", { [INDEX]: "[]" }, /expected an index that is a JSON object, got "\["/],
    ["no JSON", { [INDEX]: "<html>" }, /expected an index that is a JSON object, got "<"/],
    ["an empty file", { [INDEX]: "" }, /got the end/],
    ["no weight_map", { [INDEX]: '{"metadata":{}}' }, /expected a weight_map, got none/],
    ["two weight_maps", { [INDEX]: '{"weight_map":{},"weight_map":{}}' }, /expected one weight_map, got a second one/],
    ["a weight_map that is an array", map('["s"]'), /expected a weight_map that is an object/],
    ["a shard that is a number", map('{"a":1}'), /tensor "a": expected a shard's name in quotes, got "1"/],
    [
      "a tensor in two shards",
      map('{"a":"s","a":"t"}'),
      /tensor "a": expected one tensor of that name, got a second one/,
    ],
    [
      "a shard that is not there",
      map('{"a":"t"}'),
      /expected the shard "t" that attack\/model.safetensors.index.json names, got no such file/,
    ],
    ["a tensor that is not in its shard", map('{"b":"s"}'), /attack\/s: tensor "b": expected it here/],
  ])("%s", async (_, files, message) => {
    const folder = memory(files);
    await expect(SafetensorsCheckpoint.open(folder)).rejects.toMatchObject({
      name: "SafetensorsError",
      message: expect.stringMatching(message),
    });
    for (const source of folder.opened) expect(source.closed).toBe(1);
  });

  const escapes = [
    "",
    ".",
    "..",
    "../s",
    "a/s",
    "/etc/passwd",
    "..\\s",
    "C:s",
    "s\0",
    "s\n",
    "%2e%2e",
    "s?x",
    "s#x",
    "data:,{}",
    "s".repeat(300),
  ];
  test.each(escapes)("a shard named %j would leave the folder or is not a file name", async name => {
    const folder = memory({ [INDEX]: index({ a: name }), [name]: shard("a") });
    await expect(SafetensorsCheckpoint.open(folder)).rejects.toThrow(
      /expected a shard's name that stays in this folder, got/,
    );
    expect(folder.opened).toHaveLength(1);
  });

  test.each([".a", "..a", "...", "a..", "s".repeat(255), "é", "a b"])(
    "a shard named %j is in the folder",
    async name => {
      const checkpoint = await SafetensorsCheckpoint.open(memory({ [INDEX]: index({ a: name }), [name]: shard("a") }));
      expect((await checkpoint.read("a")).length).toBe(1);
    },
  );

  test("an index of more than 100 MB is refused unread, and one of 100 MB is read", async () => {
    const open = (byteLength: number): Promise<SafetensorsCheckpoint> => {
      const readInto = () => Promise.reject(new Error("read"));
      const source = { name: "index", byteLength, readInto, close: async () => {} };
      return SafetensorsCheckpoint.open({ name: "attack", open: async file => (file === INDEX ? source : undefined) });
    };
    await expect(open(100_000_001)).rejects.toThrow(
      new SafetensorsError("index: expected at most 100000000 bytes, got 100000001"),
    );
    await expect(open(100_000_000)).rejects.toThrow(/^read$/);
  });

  test("a shard's name costs memory once, an entry each time", async () => {
    const charged: number[] = [];
    const charge = vi.spyOn(TextWindow.prototype, "charge").mockImplementation(bytes => void charged.push(bytes));
    onTestFinished(() => charge.mockRestore());
    const source = bytesFromBuffer(
      new TextEncoder().encode(`{"metadata":{"a":"b"},"weight_map":{"a":"12","bc":"12","d":"3"}}`),
    );
    expect(await readIndex(source)).toEqual(new Map(Object.entries({ a: "12", bc: "12", d: "3" })));
    // Key, entry, shard's name and, the first time, the shard.
    expect(charged).toEqual([1, 64, 2, 128, 2, 64, 2, 1, 64, 1, 128]);
  });

  test("a bad third shard closes the first two", async () => {
    const folder = memory({
      [INDEX]: index({ a: "1", b: "2", c: "3" }),
      1: shard("a"),
      2: shard("b"),
      3: "not safetensors",
    });
    await expect(SafetensorsCheckpoint.open(folder)).rejects.toThrow(/attack\/3: expected a header/);
    expect(folder.opened.map(source => source.closed)).toEqual([1, 1, 1, 1]);
  });
});
