/**
 * A text in a file, seen through a small window by a parser that may reach the window's end.
 *
 * In: a range of a ByteSource. Out: bytes, one at a time, for a synchronous parser that works in steps. When the window
 * ends before the text does, the step is dropped, more is read, and the step starts again from its first byte. A step
 * takes about 100 bytes and the window 64 KB, so this is rare. For a long step the window grows fourfold, so it stays
 * cheap. (In the first version, generators yielded when they needed more bytes. That was five times slower, and took
 * twice the memory in frames and closures.)
 */

import type { ByteSource } from "./bytes.ts";
import { SafetensorsError } from "./safetensors-error.ts";

/** The size of the window to begin with. An ordinary header (30 KB for 300 tensors) takes one read. */
export const WINDOW_BYTES: number = 2 ** 16;

const WINDOW_GROWTH = 4;

/**
 * The memory that the parts kept of one text may take: enough for 160,000 tensors, more than any published file has.
 * The 100 MB of a header could otherwise hold four million tensors, and take gigabytes before the last byte shows that
 * the file is bad.
 */
const MEMORY_BYTES = 48 * 2 ** 20;

/** Stands for the byte after the last one. */
export const END = -1;

/** Thrown to leave the parser when the window ends before the text does. */
const OUT_OF_BYTES: unique symbol = Symbol("out of bytes");

export class TextWindow {
  /** For messages, the part that is being read: `tensor "a": `. Each step starts with an empty one. */
  where: string = "";
  protected window: Uint8Array = new Uint8Array(WINDOW_BYTES);
  /** Where the next byte is in the window. */
  protected position: number = 0;
  /** How many objects and arrays are open at the position. Kept here because a dropped step must not count. */
  protected depth: number = 0;
  readonly #source: ByteSource;
  /** How many bytes of the window hold text. */
  #loaded = 0;
  /** Where the window's first byte is in the file. */
  #windowOffset: number;
  /** Where the text ends in the file. */
  readonly #textEnd: number;
  readonly #maxStepBytes: number;
  #memoryLeft = MEMORY_BYTES;

  constructor(source: ByteSource, offset: number, byteLength: number, maxStepBytes: number) {
    this.#source = source;
    this.#windowOffset = offset;
    this.#textEnd = offset + byteLength;
    this.#maxStepBytes = maxStepBytes;
  }

  /**
   * Parses a part of the text. `parse` may be called several times, so it must store nothing before it has read its
   * whole part.
   */
  async step<T>(parse: () => T): Promise<T> {
    for (;;) {
      // There may be any amount of white space.
      while (this.position < this.#loaded && isSpace(this.window[this.position])) this.position++;
      const { position, depth } = this;
      const memoryLeft = this.#memoryLeft;
      this.where = "";
      try {
        return parse();
      } catch (error) {
        if (error !== OUT_OF_BYTES) throw error;
      }
      this.position = position;
      this.depth = depth;
      this.#memoryLeft = memoryLeft;
      await this.#load();
    }
  }

  /** Throws SafetensorsError: `<file>: <where>expected …, got …`. */
  fail(expected: string, got: string): never {
    const offset = this.#windowOffset + this.position;
    throw new SafetensorsError(`${this.#source.name}: ${this.where}expected ${expected}, got ${got} at byte ${offset}`);
  }

  /** Charges for memory that something kept will take. */
  charge(bytes: number): void {
    this.#memoryLeft -= bytes;
    if (this.#memoryLeft < 0)
      this.fail(`names, shapes and metadata that fit ${MEMORY_BYTES / 2 ** 20} MiB of memory`, "more");
  }

  /** The byte at the position, or END after the last one. */
  protected byte(): number {
    if (this.position < this.#loaded) return this.window[this.position];
    if (this.#windowOffset + this.#loaded < this.#textEnd) throw OUT_OF_BYTES;
    return END;
  }

  /** Consumes a byte and returns the one after it. */
  protected next(): number {
    this.position++;
    return this.byte();
  }

  /**
   * Drops the bytes before the position and reads more after those that are left. The window grows where nothing was
   * dropped.
   */
  async #load(): Promise<void> {
    const kept = this.window.subarray(this.position, this.#loaded);
    if (kept.length === this.window.length) {
      if (kept.length >= this.#maxStepBytes)
        this.fail(`entries of at most ${this.#maxStepBytes / 2 ** 20} MiB`, "a larger one");
      this.window = new Uint8Array(Math.min(WINDOW_GROWTH * kept.length, this.#maxStepBytes));
    }
    this.window.set(kept);
    this.#windowOffset += this.position;
    this.position = 0;
    const offset = this.#windowOffset + kept.length;
    const free = this.window.subarray(kept.length).subarray(0, this.#textEnd - offset);
    await this.#source.readInto(free, offset);
    this.#loaded = kept.length + free.length;
  }
}

/** JSON's white space: space, tab, line feed, carriage return. */
export function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d;
}
