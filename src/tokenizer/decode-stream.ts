/**
 * Text from ids that arrive one by one.
 *
 * A token is a string of bytes, and a character of several bytes may be spread over several tokens. The stream holds
 * back the bytes of a character that is not complete, so what `push` and `end` return, joined, is what `decode` gives
 * for all ids together.
 */

/**
 * Bytes to text as Rust's `from_utf8_lossy` does it: each maximal wrong or cut-off sequence becomes one U+FFFD, and
 * U+FEFF is kept.
 */
export function newUtf8Decoder(): InstanceType<typeof TextDecoder> {
  return new TextDecoder("utf-8", { ignoreBOM: true });
}

export class DecodeStream {
  readonly #bytesOf: (id: number) => Uint8Array;
  #decoder = newUtf8Decoder();

  /** `bytesOf(id)`: the bytes an id stands for; it throws a RangeError for what is not an id. */
  constructor(bytesOf: (id: number) => Uint8Array) {
    this.#bytesOf = bytesOf;
  }

  /** The text that `id` completes; "" when a character is still unfinished. */
  push(id: number): string {
    return this.#decoder.decode(this.#bytesOf(id), { stream: true });
  }

  /** The rest: U+FFFD when the ids ended in the middle of a character, else "". The stream is then as new. */
  end(): string {
    return this.#decoder.decode();
  }
}
