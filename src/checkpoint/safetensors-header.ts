/**
 * The header of a safetensors file: 8 bytes of length (little-endian), then that many bytes of JSON, then the tensors'
 * data up to the end of the file. <https://huggingface.co/docs/safetensors/en/index#format>
 *
 *     {"__metadata__": {"format": "pt"}, "weight": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [0, 16]}}
 *
 * In: a ByteSource. Out: the checked contents, so that no later read has to check again. Every tensor lies in the file,
 * and the tensors lie end to end and fill it, so no byte is hidden and none belongs to two tensors.
 *
 * The rules are the reference's (the Rust crate, as in Python's safetensors 0.8.0), including its oddities: a tensor
 * may be written as an array `["BF16", [4, 2], [0, 16]]`, a dtype as `{"BF16": null}`, and unknown fields are skipped.
 * We refuse three things that it accepts:
 *  - a tensor name that occurs twice (the reference takes the last);
 *  - a dimension above 2^53 - 1, which no JavaScript number holds (possible only next to a dimension of 0);
 *  - a header whose names, shapes and metadata would take more than 48 MiB of memory, or with one entry above 16 MiB.
 */

import { DTYPES, type Dtype, isDtype } from "../tensor/dtype.ts";
import { tensorByteLength } from "../tensor/tensor.ts";
import type { ByteSource } from "./bytes.ts";
import { GOT_LFS_POINTER, isLfsPointer, LFS_MARK_BYTES } from "./lfs-pointer.ts";
import { quoteName, SafetensorsError } from "./safetensors-error.ts";
import { type JsonReader, parseJsonObject, STARTS } from "./safetensors-json.ts";

export interface TensorInfo {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Where the tensor's first byte is, counted from the beginning of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface SafetensorsHeader {
  /** In the order of the header. */
  readonly tensors: Map<string, TensorInfo>;
  readonly metadata: Map<string, string>;
}

/** The reference's limit. The headers of the largest published models have a few MB. */
export const MAX_HEADER_BYTES = 100_000_000;

/**
 * The limit for one tensor's entry, and for all metadata together. We have seen metadata of a few MB, with training
 * logs and pictures.
 */
const MAX_ENTRY_BYTES = 2 ** 24;

/** The length that precedes the header. */
export const LENGTH_BYTES = 8;

/**
 * The memory that a tensor takes besides its name and dimensions: an entry of the Map, the object, its array. Measured:
 * 186 bytes with a short name on Node 24. An entry of the metadata takes less, and is charged more because it may be
 * parsed more than once.
 */
const TENSOR_MEMORY_BYTES = 224;
const METADATA_MEMORY_BYTES = 192;

/** Reads and checks the header. Throws SafetensorsError where the file breaks a rule. */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const headerBytes = await readHeaderLength(source);
  const dataOffset = LENGTH_BYTES + headerBytes;
  const dataBytes = source.byteLength - dataOffset;
  const tensors = new Map<string, TensorInfo>();
  let metadata: Map<string, string> | undefined;
  const options = { what: "a header that is a JSON object", keepKeys: true, maxMemberBytes: MAX_ENTRY_BYTES };
  await parseJsonObject(source, LENGTH_BYTES, headerBytes, options, (json, name) => {
    if (name === "__metadata__") {
      json.where = "__metadata__: ";
      if (metadata !== undefined) json.fail("one __metadata__", "a second one");
      metadata = parseMetadata(json);
    } else {
      json.where = `tensor ${quoteName(name)}: `;
      if (tensors.has(name)) json.fail("one tensor of that name", "a second one");
      tensors.set(name, parseTensor(json, name, dataOffset, dataBytes));
    }
  });
  checkContiguous(source.name, tensors, dataOffset, dataBytes);
  return { tensors, metadata: metadata ?? new Map() };
}

async function readHeaderLength(source: ByteSource): Promise<number> {
  const { name, byteLength } = source;
  if (byteLength < LENGTH_BYTES)
    throw new SafetensorsError(`${name}: expected at least ${LENGTH_BYTES} bytes, got ${byteLength}`);
  // More than the length, to know a git-lfs pointer: its first 8 bytes would be a length of 2 * 10^18.
  const bytes = new Uint8Array(Math.min(byteLength, LFS_MARK_BYTES));
  await source.readInto(bytes, 0);
  if (isLfsPointer(bytes)) throw new SafetensorsError(`${name}: ${GOT_LFS_POINTER}`);
  const headerBytes = new DataView(bytes.buffer).getBigUint64(0, true);
  if (headerBytes > MAX_HEADER_BYTES) {
    throw new SafetensorsError(`${name}: expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${headerBytes}`);
  }
  if (headerBytes > byteLength - LENGTH_BYTES) {
    throw new SafetensorsError(
      `${name}: expected a header within the file's ${byteLength} bytes, got a header of ${headerBytes} bytes`,
    );
  }
  return Number(headerBytes);
}

/** Texts by name, or null. The last of two equal names counts, as in the reference. */
function parseMetadata(json: JsonReader): Map<string, string> {
  const metadata = new Map<string, string>();
  if (json.startsWith(STARTS.null)) json.literal("null");
  else {
    json.object("an object of strings, or null", true, key => {
      json.charge(METADATA_MEMORY_BYTES);
      metadata.set(key, json.text("a string"));
    });
  }
  return metadata;
}

const FIELDS = ["dtype", "shape", "data_offsets"] as const;

function parseTensor(json: JsonReader, name: string, dataOffset: number, dataBytes: number): TensorInfo {
  json.charge(TENSOR_MEMORY_BYTES);
  let dtype: Dtype | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  const parseField = (field: string): void => {
    if (field === "dtype") {
      if (dtype !== undefined) json.fail("one dtype", "a second one");
      dtype = parseDtype(json);
    } else if (field === "shape") {
      if (shape !== undefined) json.fail("one shape", "a second one");
      shape = json.integers("a shape that is an array", Infinity);
    } else if (field === "data_offsets") {
      if (offsets !== undefined) json.fail("one data_offsets", "a second one");
      offsets = json.integers("data_offsets that are an array", 2);
    } else json.skip();
  };
  if (json.startsWith(STARTS.array)) {
    json.array("an array", index =>
      index < FIELDS.length ? parseField(FIELDS[index]) : json.fail("three elements", "more"),
    );
  } else json.object("an object with dtype, shape and data_offsets", false, parseField);
  if (dtype === undefined || shape === undefined || offsets === undefined) {
    return json.fail(
      FIELDS.join(", "),
      `no ${dtype === undefined ? "dtype" : shape === undefined ? "shape" : "data_offsets"}`,
    );
  }
  if (offsets.length !== 2) return json.fail("data_offsets [begin, end]", `${offsets.length} integers`);

  const [begin, end] = offsets;
  if (begin > end || end > dataBytes)
    json.fail(`data_offsets within the file's ${dataBytes} bytes of data`, `[${begin}, ${end}]`);
  const byteLength = tensorByteLength(dtype, shape);
  if (byteLength !== end - begin) {
    const needed = byteLength === undefined ? "a whole number of bytes below 2^64" : `${byteLength} bytes`;
    json.fail(`${needed} for ${dtype} [${shownShape(shape)}]`, `${end - begin} bytes, data_offsets [${begin}, ${end}]`);
  }
  return { name, dtype, shape, byteOffset: dataOffset + begin, byteLength: end - begin };
}

/**
 * A string. Because the reference's deserializer also accepts an enum, an object whose only key is the dtype and whose
 * value is null will do too.
 */
function parseDtype(json: JsonReader): Dtype {
  let word: string | undefined;
  if (json.startsWith(STARTS.object)) {
    json.object("an object", false, key => {
      if (word !== undefined) json.fail("one dtype", "a second one");
      word = key;
      json.literal("null");
    });
    if (word === undefined) return json.fail("a dtype", "an empty object");
  } else word = json.word("a dtype in quotes");
  return isDtype(word) ? word : json.fail(`a dtype (${DTYPES.join(", ")})`, quoteName(word));
}

/**
 * Checks that the tensors, in the order of their data, lie end to end from the first byte of data to the last of the
 * file.
 */
function checkContiguous(
  file: string,
  tensors: ReadonlyMap<string, TensorInfo>,
  dataOffset: number,
  dataBytes: number,
): void {
  const inOrder = [...tensors.values()].sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  let end = dataOffset;
  for (const { name, byteOffset, byteLength } of inOrder) {
    if (byteOffset !== end) {
      const what = byteOffset > end ? "a gap" : "an overlap";
      const where = `${file}: tensor ${quoteName(name)}`;
      throw new SafetensorsError(
        `${where}: expected data from ${end - dataOffset} on, got ${what}: from ${byteOffset - dataOffset} on`,
      );
    }
    end += byteLength;
  }
  if (end !== dataOffset + dataBytes) {
    throw new SafetensorsError(
      `${file}: expected ${end - dataOffset} bytes of data, as the header says, got ${dataBytes}`,
    );
  }
}

/** A shape may have any number of dimensions, but a message may not. */
function shownShape(shape: readonly number[]): string {
  return shape.length <= 8 ? shape.join(", ") : `${shape.slice(0, 8).join(", ")}, … ${shape.length} dimensions`;
}
