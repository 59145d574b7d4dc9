/**
 * The weights of a checkpoint: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
 *
 *     {"metadata": {"total_size": 344592}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors", ...}}
 *
 * In: a folder. Out: the same reading interface as for a single file. Where a folder has both forms, the single file
 * wins, as in transformers.
 *
 * The index is the table of contents: a tensor that is in a shard but not in the index does not belong to the
 * checkpoint. Loaders differ here. transformers takes every tensor of every shard that the index mentions. vLLM once
 * did so too, until a checkpoint that reuses another's shards had its weights silently overwritten by stale ones
 * (vllm-project/vllm#54230). If a needed weight is not in the index, the error names it, which is better than a guess.
 * `metadata.total_size` is not checked: it is wrong in many published checkpoints.
 */

import type { Tensor } from "../tensor/tensor.ts";
import type { ByteSource } from "./bytes.ts";
import type { NamedSources } from "./files.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { quoteName, SafetensorsError } from "./safetensors-error.ts";
import { MAX_HEADER_BYTES, type TensorInfo } from "./safetensors-header.ts";
import { type JsonReader, parseJsonObject } from "./safetensors-json.ts";

export const SINGLE_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";

/**
 * A file in the folder itself. No separators, and nothing that leads out of it. No colon (a drive on Windows, a scheme
 * in a URL). No `%?#`, which mean something in the URL of a folder (`%2e%2e` is `..` there).
 */
const SHARD_NAME = /^(?!\.{1,2}$)[^/\\:%?#\p{Cc}]{1,255}$/u;

/** The limit for one entry of the index, and for its metadata, which nobody reads. */
const MAX_ENTRY_BYTES = 2 ** 22;

/** The memory that one entry of the index takes besides its name, and that a shard takes besides its own. */
const ENTRY_MEMORY_BYTES = 64;
const SHARD_MEMORY_BYTES = 128;

export class SafetensorsCheckpoint {
  readonly name: string;
  /** In the order of the index. `byteOffset` counts within the tensor's shard. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The metadata of all files. Where two have the same key, that of the first shard counts. */
  readonly metadata: ReadonlyMap<string, string>;
  /** The opened files, each once: one file, or the shards. */
  readonly files: readonly SafetensorsFile[];
  readonly #fileOf: ReadonlyMap<string, SafetensorsFile>;

  private constructor(name: string, files: readonly SafetensorsFile[], fileOf: ReadonlyMap<string, SafetensorsFile>) {
    this.name = name;
    this.files = files;
    this.#fileOf = fileOf;
    this.tensors = new Map([...fileOf].map(([tensor, file]) => [tensor, file.tensors.get(tensor)!]));
    this.metadata = new Map(files.toReversed().flatMap(file => [...file.metadata]));
  }

  /**
   * Opens all files and checks their headers. Throws SafetensorsError where there are no weights, where the index or a
   * shard is bad, or where they do not fit each other. Every file that was opened is then closed again.
   */
  static async open(folder: NamedSources): Promise<SafetensorsCheckpoint> {
    const single = await folder.open(SINGLE_FILE);
    if (single !== undefined) {
      const file = await SafetensorsFile.open(single);
      return new SafetensorsCheckpoint(
        folder.name,
        [file],
        new Map([...file.tensors.keys()].map(tensor => [tensor, file])),
      );
    }
    const index = await folder.open(INDEX_FILE);
    if (index === undefined)
      throw new SafetensorsError(`${folder.name}: expected ${SINGLE_FILE} or ${INDEX_FILE}, got neither`);

    const shardOf = await readIndex(index);
    const files = new Map<string, SafetensorsFile>();
    try {
      const fileOf = new Map<string, SafetensorsFile>();
      for (const [tensor, shard] of shardOf) {
        const file = files.get(shard) ?? (await openShard(folder, index.name, shard));
        files.set(shard, file);
        if (!file.tensors.has(tensor)) {
          throw new SafetensorsError(
            `${file.name}: tensor ${quoteName(tensor)}: expected it here, as ${index.name} says, got no such tensor`,
          );
        }
        fileOf.set(tensor, file);
      }
      return new SafetensorsCheckpoint(folder.name, [...files.values()], fileOf);
    } catch (error) {
      await Promise.all([...files.values()].map(file => file.close()));
      throw error;
    }
  }

  /** As `SafetensorsFile.read`. */
  async read(name: string): Promise<Tensor> {
    return this.#file(name).read(name);
  }

  /** As `SafetensorsFile.readRows`. */
  async readRows(name: string, start: number, end: number): Promise<Tensor> {
    return this.#file(name).readRows(name, start, end);
  }

  /** Reads every tensor, in the order of `tensors`. */
  async readAll(): Promise<Map<string, Tensor>> {
    const all = new Map<string, Tensor>();
    for (const name of this.tensors.keys()) all.set(name, await this.read(name));
    return all;
  }

  /** As `SafetensorsFile.readInto`. */
  async readInto(name: string, target: Uint8Array, byteOffset: number = 0): Promise<void> {
    await this.#file(name).readInto(name, target, byteOffset);
  }

  async close(): Promise<void> {
    await Promise.all(this.files.map(file => file.close()));
  }

  #file(name: string): SafetensorsFile {
    const file = this.#fileOf.get(name);
    if (file === undefined)
      throw new RangeError(
        `${this.name}: tensor ${quoteName(name)}: expected a tensor of the checkpoint, got no such name`,
      );
    return file;
  }
}

async function openShard(folder: NamedSources, index: string, shard: string): Promise<SafetensorsFile> {
  const source = await folder.open(shard);
  if (source === undefined)
    throw new SafetensorsError(
      `${folder.name}: expected the shard ${quoteName(shard)} that ${index} names, got no such file`,
    );
  return SafetensorsFile.open(source);
}

/**
 * The shard of every tensor, as the name of a file in the index's own folder. Closes the source. Throws
 * SafetensorsError for a bad index.
 */
export async function readIndex(source: ByteSource): Promise<Map<string, string>> {
  try {
    if (source.byteLength > MAX_HEADER_BYTES) {
      throw new SafetensorsError(
        `${source.name}: expected at most ${MAX_HEADER_BYTES} bytes, got ${source.byteLength}`,
      );
    }
    let shardOf: Map<string, string> | undefined;
    const options = { what: "an index that is a JSON object", keepKeys: false, maxMemberBytes: MAX_ENTRY_BYTES };
    await parseJsonObject(source, 0, source.byteLength, options, (json, key) => {
      if (key !== "weight_map") return json.skip();
      if (shardOf !== undefined) json.fail("one weight_map", "a second one");
      const entries = new Map<string, string>();
      shardOf = entries;
      return () => parseWeightMap(json, entries);
    });
    if (shardOf === undefined) throw new SafetensorsError(`${source.name}: expected a weight_map, got none`);
    return shardOf;
  } finally {
    await source.close();
  }
}

async function parseWeightMap(json: JsonReader, shardOf: Map<string, string>): Promise<void> {
  const shards = new Map<string, string>();
  await json.membersInSteps("a weight_map that is an object", true, (_, tensor) => {
    json.where = `tensor ${quoteName(tensor)}: `;
    if (shardOf.has(tensor)) json.fail("one tensor of that name", "a second one");
    json.charge(ENTRY_MEMORY_BYTES);
    const shard = json.text("a shard's name in quotes");
    if (!SHARD_NAME.test(shard)) json.fail("a shard's name that stays in this folder", quoteName(shard));
    // The same few names occur again and again, so keep one copy of each.
    const known = shards.get(shard);
    if (known === undefined) {
      json.charge(SHARD_MEMORY_BYTES);
      shards.set(shard, shard);
    }
    shardOf.set(tensor, known ?? shard);
  });
}
