/**
 * The header of a safetensors file: 8 bytes of length (little-endian), then that many bytes of JSON, then the tensors' data up to the end
 * of the file. <https://huggingface.co/docs/safetensors/en/index#format>
 *
 *     {"__metadata__": {"format": "pt"}, "weight": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [0, 16]}}
 *
 * In: a ByteSource. Out: what the file holds, checked, so that no later read has to look again: every tensor lies in the file, and the
 * tensors lie end to end and fill it, so no byte is hidden and none belongs to two.
 *
 * The rules are the reference's (the Rust crate, as in Python's safetensors 0.8.0), its oddities included: a tensor may be written as an
 * array `["BF16", [4, 2], [0, 16]]`, a dtype as `{"BF16": null}`, unknown fields are skipped. We refuse three things that it accepts:
 *  - a tensor name that comes twice (it takes the last);
 *  - a dimension above 2^53 - 1, which no JavaScript number holds (possible only beside a dimension of 0);
 *  - a header whose names, shapes and metadata would take more than 48 MiB of memory.
 */

import type { ByteSource } from "./bytes.ts";
import { DTYPES, type Dtype, isDtype } from "./dtype.ts";
import { quoteName, SafetensorsError } from "./safetensors-error.ts";
import { type JsonReader, type Parse, parseJson, STARTS } from "./safetensors-json.ts";
import { tensorByteLength } from "./tensor.ts";

export interface TensorInfo {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Of the tensor's first byte, from the beginning of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface SafetensorsHeader {
  /** In the header's order. */
  readonly tensors: Map<string, TensorInfo>;
  readonly metadata: Map<string, string>;
}

/** The reference's limit. Its own header of the largest published models has a few MB. */
export const MAX_HEADER_BYTES = 100_000_000;

/** The length that precedes the header. */
export const LENGTH_BYTES = 8;

/**
 * What one tensor costs in memory beside its name and dimensions, measured: an entry of the Map, the object, its array. Half of it for an
 * entry of the metadata.
 */
const TENSOR_MEMORY_BYTES = 400;

/** Reads and checks the header. Throws SafetensorsError where the file breaks a rule. */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const headerBytes = await readHeaderLength(source);
  const dataOffset = LENGTH_BYTES + headerBytes;
  const dataBytes = source.byteLength - dataOffset;
  const header = await parseJson(source, LENGTH_BYTES, headerBytes, json => parseHeader(json, dataOffset, dataBytes));
  checkContiguous(source.name, header.tensors, dataOffset, dataBytes);
  return header;
}

async function readHeaderLength(source: ByteSource): Promise<number> {
  const { name, byteLength } = source;
  if (byteLength < LENGTH_BYTES) throw new SafetensorsError(`${name}: expected at least ${LENGTH_BYTES} bytes, got ${byteLength}`);
  const bytes = new Uint8Array(LENGTH_BYTES);
  await source.readInto(bytes, 0);
  const headerBytes = new DataView(bytes.buffer).getBigUint64(0, true);
  if (headerBytes > MAX_HEADER_BYTES) {
    throw new SafetensorsError(`${name}: expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${headerBytes}`);
  }
  if (headerBytes > byteLength - LENGTH_BYTES) {
    throw new SafetensorsError(`${name}: expected a header within the file's ${byteLength} bytes, got a header of ${headerBytes} bytes`);
  }
  return Number(headerBytes);
}

function* parseHeader(json: JsonReader, dataOffset: number, dataBytes: number): Parse<SafetensorsHeader> {
  const tensors = new Map<string, TensorInfo>();
  const metadata = new Map<string, string>();
  let sawMetadata = false;
  yield* json.object("a header that is a JSON object", Infinity, function* (name): Parse<void> {
    if (name === "__metadata__") {
      json.where = "__metadata__: ";
      if (sawMetadata) json.fail("one __metadata__", "a second one");
      sawMetadata = true;
      yield* parseMetadata(json, metadata);
    } else {
      json.where = `tensor ${quoteName(name)}: `;
      if (tensors.has(name)) json.fail("one tensor of that name", "a second one");
      json.charge(TENSOR_MEMORY_BYTES);
      tensors.set(name, yield* parseTensor(json, name, dataOffset, dataBytes));
    }
    json.where = "";
  });
  yield* json.end();
  return { tensors, metadata };
}

/** Texts by name, or null. Of two equal names the last counts, as in the reference. */
function* parseMetadata(json: JsonReader, metadata: Map<string, string>): Parse<void> {
  if ((yield* json.peek()) === STARTS.null) return yield* json.literal("null");
  yield* json.object("an object of strings, or null", Infinity, function* (key): Parse<void> {
    json.charge(TENSOR_MEMORY_BYTES / 2);
    metadata.set(key, yield* json.string("a string", Infinity));
  });
}

const FIELDS = ["dtype", "shape", "data_offsets"] as const;

/** Longer than any field name or dtype: a longer text is none of them, and need not be kept. */
const WORD_LENGTH = 16;

function* parseTensor(json: JsonReader, name: string, dataOffset: number, dataBytes: number): Parse<TensorInfo> {
  let dtype: Dtype | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  function* parseField(field: string): Parse<void> {
    if (field === "dtype") {
      if (dtype !== undefined) json.fail("one dtype", "a second one");
      dtype = yield* parseDtype(json);
    } else if (field === "shape") {
      if (shape !== undefined) json.fail("one shape", "a second one");
      shape = yield* json.integers("a shape that is an array", Infinity);
    } else if (field === "data_offsets") {
      if (offsets !== undefined) json.fail("one data_offsets", "a second one");
      offsets = yield* json.integers("data_offsets that are an array", 2);
    } else yield* json.skip();
  }
  if ((yield* json.peek()) === STARTS.array) {
    yield* json.array("an array", index => (index < FIELDS.length ? parseField(FIELDS[index]) : json.fail("three elements", "more")));
  } else {
    yield* json.object("an object with dtype, shape and data_offsets", WORD_LENGTH, parseField);
  }
  if (dtype === undefined || shape === undefined || offsets === undefined) {
    return json.fail(FIELDS.join(", "), `no ${dtype === undefined ? "dtype" : shape === undefined ? "shape" : "data_offsets"}`);
  }
  if (offsets.length !== 2) return json.fail("data_offsets [begin, end]", `${offsets.length} numbers`);

  const [begin, end] = offsets;
  if (begin > end || end > dataBytes) json.fail(`data_offsets within the file's ${dataBytes} bytes of data`, `[${begin}, ${end}]`);
  const byteLength = tensorByteLength(dtype, shape);
  if (byteLength !== end - begin) {
    const needed = byteLength === undefined ? "a whole number of bytes below 2^64" : `${byteLength} bytes`;
    json.fail(`${needed} for ${dtype} [${shownShape(shape)}]`, `${end - begin} bytes, data_offsets [${begin}, ${end}]`);
  }
  return { name, dtype, shape, byteOffset: dataOffset + begin, byteLength: end - begin };
}

/** A string; or, as the reference's deserializer also takes an enum, an object with the dtype as its one key and null as its value. */
function* parseDtype(json: JsonReader): Parse<Dtype> {
  let word: string | undefined;
  if ((yield* json.peek()) === STARTS.object) {
    yield* json.object("an object", WORD_LENGTH, function* (key): Parse<void> {
      if (word !== undefined) json.fail("one dtype", "a second one");
      word = key;
      yield* json.literal("null");
    });
    if (word === undefined) return json.fail("a dtype", "an empty object");
  } else word = yield* json.string("a dtype in quotes", WORD_LENGTH);
  return isDtype(word) ? word : json.fail(`a dtype (${DTYPES.join(", ")})`, quoteName(word));
}

/** Tensors in the order of their data must begin where the last one ended, from the first byte of data to the last of the file. */
function checkContiguous(file: string, tensors: ReadonlyMap<string, TensorInfo>, dataOffset: number, dataBytes: number): void {
  const inOrder = [...tensors.values()].sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  let end = dataOffset;
  for (const { name, byteOffset, byteLength } of inOrder) {
    if (byteOffset !== end) {
      const what = byteOffset > end ? "a gap" : "an overlap";
      const where = `${file}: tensor ${quoteName(name)}`;
      throw new SafetensorsError(`${where}: expected data from ${end - dataOffset} on, got ${what}: from ${byteOffset - dataOffset} on`);
    }
    end += byteLength;
  }
  if (end !== dataOffset + dataBytes) {
    throw new SafetensorsError(`${file}: expected ${end - dataOffset} bytes of data, as the header says, got ${dataBytes}`);
  }
}

/** A shape has as many dimensions as it likes; a message has not. */
function shownShape(shape: readonly number[]): string {
  return shape.length <= 8 ? shape.join(", ") : `${shape.slice(0, 8).join(", ")}, … ${shape.length} dimensions`;
}
