/**
 * Writes safetensors files, byte for byte as the reference's serializer does.
 *
 * In: names, dtypes, shapes. Out: the header and the order in which the data follows it, so that a checkpoint larger
 * than memory can be written as a stream; or the whole file, if it fits.
 *
 * The layout: tensors with the largest elements come first, so that each begins at a multiple of its element's size.
 * Those of one dtype are sorted by the bytes of their names. The JSON has no spaces inside and is padded with spaces to
 * a multiple of 8. The reference writes metadata in the random order of a hash table; we keep the order given.
 */

import { DTYPES, type Dtype } from "../tensor/dtype.ts";
import { type Tensor, tensorByteLength } from "../tensor/tensor.ts";
import { quoteName } from "./safetensors-error.ts";
import { LENGTH_BYTES, MAX_HEADER_BYTES } from "./safetensors-header.ts";

/** What the header says about a tensor. A `Tensor` will do. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

const ALIGNMENT_BYTES = 8;

/**
 * Makes the length and the JSON, ready to be written, and the tensors in the order in which their bytes must follow.
 * Throws RangeError for a name that no file can hold (one that occurs twice, `__metadata__`, or half a surrogate pair),
 * for a shape that does not fill whole bytes, and for a header above 100 MB.
 */
export function safetensorsHeader<T extends TensorSpec>(
  tensors: readonly T[],
  metadata?: ReadonlyMap<string, string>,
): { header: Uint8Array<ArrayBuffer>; order: T[] } {
  const order = inFileOrder(tensors);
  const entries: string[] = [];
  if (metadata !== undefined) {
    const texts = [...metadata].map(([key, value]) => `${jsonString(key)}:${jsonString(value)}`);
    entries.push(`"__metadata__":{${texts.join(",")}}`);
  }
  const names = new Set<string>();
  let offset = 0;
  for (const { name, dtype, shape } of order) {
    if (name === "__metadata__")
      throw new RangeError(`tensor ${quoteName(name)}: expected another name, got the one of the metadata`);
    if (names.has(name)) throw new RangeError(`tensor ${quoteName(name)}: expected one of that name, got two`);
    const byteLength = tensorByteLength(dtype, shape);
    if (byteLength === undefined || !Number.isSafeInteger(offset + byteLength)) {
      throw new RangeError(
        `tensor ${quoteName(name)}: expected a shape that fills whole bytes, got ${dtype} [${shape}]`,
      );
    }
    entries.push(
      `${jsonString(name)}:{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${offset},${offset + byteLength}]}`,
    );
    names.add(name);
    offset += byteLength;
  }
  const json = new TextEncoder().encode(`{${entries.join(",")}}`);
  const headerBytes = Math.ceil(json.length / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  if (headerBytes > MAX_HEADER_BYTES)
    throw new RangeError(`safetensors: expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${headerBytes}`);
  const header = new Uint8Array(LENGTH_BYTES + headerBytes).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(headerBytes), true);
  header.set(json, LENGTH_BYTES);
  return { header, order };
}

/** Makes a whole file in memory. Throws as `safetensorsHeader` does. */
export function serializeSafetensors(
  tensors: Iterable<Tensor>,
  metadata?: ReadonlyMap<string, string>,
): Uint8Array<ArrayBuffer> {
  const { header, order } = safetensorsHeader([...tensors], metadata);
  const dataBytes = order.reduce((sum, tensor) => sum + tensor.data.byteLength, 0);
  const file = new Uint8Array(header.length + dataBytes);
  file.set(header);
  let offset = header.length;
  for (const tensor of order) {
    file.set(tensor.bytes(), offset);
    offset += tensor.data.byteLength;
  }
  return file;
}

function inFileOrder<T extends TensorSpec>(tensors: readonly T[]): T[] {
  const alignment = new Map(DTYPES.map((dtype, i) => [dtype, i]));
  return [...tensors].sort(
    (a, b) => alignment.get(b.dtype)! - alignment.get(a.dtype)! || compareByBytes(a.name, b.name),
  );
}

/**
 * Orders texts by their UTF-8 bytes, which is the order of their code points. JavaScript's `<` goes by UTF-16 units,
 * which puts a surrogate (part of a character above U+FFFF) before U+E000..U+FFFF.
 */
function compareByBytes(a: string, b: string): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const unitA = a.charCodeAt(i);
    const unitB = b.charCodeAt(i);
    if (unitA !== unitB) {
      const isSurrogateA = (unitA & 0xf800) === 0xd800;
      const isSurrogateB = (unitB & 0xf800) === 0xd800;
      return isSurrogateA === isSurrogateB ? unitA - unitB : isSurrogateA ? 1 : -1;
    }
  }
  return a.length - b.length;
}

/**
 * Writes a text as JSON. `JSON.stringify` escapes as serde_json does, except that it also escapes half a surrogate
 * pair, which the reference cannot read back.
 */
function jsonString(text: string): string {
  if (/\p{Cs}/u.test(text))
    throw new RangeError(`safetensors: expected well-formed text, got half a surrogate pair in ${quoteName(text)}`);
  return JSON.stringify(text);
}
