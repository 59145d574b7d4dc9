/**
 * One safetensors file: the header is read and checked when the file is opened, a tensor when it is asked for.
 *
 * In: a ByteSource. Out: `Tensor`s, whole or by rows, or bytes written straight into the caller's buffer.
 * safetensors-header.ts describes the format, and safetensors-sharded.ts reads a checkpoint of several files.
 */

import { rowRange, Tensor } from "../tensor/tensor.ts";
import type { ByteSource } from "./bytes.ts";
import { quoteName } from "./safetensors-error.ts";
import { readSafetensorsHeader, type SafetensorsHeader, type TensorInfo } from "./safetensors-header.ts";

export type { TensorInfo };

export class SafetensorsFile {
  readonly name: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
  readonly #source: ByteSource;

  private constructor(source: ByteSource, header: SafetensorsHeader) {
    this.name = source.name;
    this.tensors = header.tensors;
    this.metadata = header.metadata;
    this.#source = source;
  }

  /**
   * Opens a file and takes over its source, which is closed with the file, or at once if this fails. Throws
   * SafetensorsError for a bad file.
   */
  static async open(source: ByteSource): Promise<SafetensorsFile> {
    try {
      return new SafetensorsFile(source, await readSafetensorsHeader(source));
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  /** Reads a tensor into newly allocated memory. Throws RangeError where the file has no tensor of that name. */
  async read(name: string): Promise<Tensor> {
    const { dtype, shape, byteLength } = this.#info(name);
    const bytes = new Uint8Array(byteLength);
    await this.readInto(name, bytes);
    return Tensor.fromBytes(name, dtype, shape, bytes);
  }

  /**
   * Reads rows [start, end) of the first dimension, and no other byte. Throws RangeError for rows that the tensor does
   * not have.
   */
  async readRows(name: string, start: number, end: number): Promise<Tensor> {
    const { dtype, shape } = this.#info(name);
    const range = rowRange(name, dtype, shape, start, end);
    const bytes = new Uint8Array(range.byteLength);
    await this.readInto(name, bytes, range.byteOffset);
    return Tensor.fromBytes(name, dtype, range.shape, bytes);
  }

  /** Reads every tensor, in the order of `tensors`. */
  async readAll(): Promise<Map<string, Tensor>> {
    const all = new Map<string, Tensor>();
    for (const name of this.tensors.keys()) all.set(name, await this.read(name));
    return all;
  }

  /**
   * Fills `target` with the tensor's raw bytes (little-endian) from its byte `byteOffset` on. Throws RangeError where
   * the tensor has fewer.
   */
  async readInto(name: string, target: Uint8Array, byteOffset: number = 0): Promise<void> {
    const info = this.#info(name);
    if (!(Number.isSafeInteger(byteOffset) && byteOffset >= 0 && target.byteLength <= info.byteLength - byteOffset)) {
      const got = `${target.byteLength} bytes from ${byteOffset} on`;
      throw new RangeError(
        `${this.name}: tensor ${quoteName(name)}: expected a range within ${info.byteLength} bytes, got ${got}`,
      );
    }
    await this.#source.readInto(target, info.byteOffset + byteOffset);
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  #info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (info === undefined)
      throw new RangeError(`${this.name}: tensor ${quoteName(name)}: expected a tensor of the file, got no such name`);
    return info;
  }
}
