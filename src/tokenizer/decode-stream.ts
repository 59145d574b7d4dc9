/**
 * Text from ids that arrive one by one.
 *
 * A token is a string of bytes, and a character of several bytes may be spread over several tokens. The stream holds
 * back the bytes of an incomplete character, so the results of `push` and `end`, joined, are what `decode` returns for
 * all ids together.
 */

/**
 * Turns bytes into text as Rust's `from_utf8_lossy` does: each maximal wrong or cut-off sequence becomes one U+FFFD,
 * and U+FEFF is kept.
 */
export function newUtf8Decoder(): InstanceType<typeof TextDecoder> {
  return new TextDecoder("utf-8", { ignoreBOM: true });
}

export class DecodeStream {
  readonly #bytesOf: (id: number) => Uint8Array;
  #decoder = newUtf8Decoder();

  /** `bytesOf(id)` returns the bytes that an id stands for, and throws RangeError for a number that is not an id. */
  constructor(bytesOf: (id: number) => Uint8Array) {
    this.#bytesOf = bytesOf;
  }

  /** The text that `id` completes; "" while a character is unfinished. */
  push(id: number): string {
    return this.#decoder.decode(this.#bytesOf(id), { stream: true });
  }

  /**
   * The rest: U+FFFD if the ids ended in the middle of a character, else "". The stream can then be used again from the
   * beginning.
   */
  end(): string {
    return this.#decoder.decode();
  }
}
