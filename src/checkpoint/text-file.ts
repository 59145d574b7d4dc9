/**
 * The text files of a checkpoint, wherever they come from: how large they may be, and how their bytes become text. The
 * one way of reading for the tokenizer's files and the model's.
 */

/**
 * How large a text file of a checkpoint may be. JSON takes some ten times its size once it is parsed, whatever is in
 * it, and is parsed whole before it can be checked. The real tokenizer.json has 11 MB, everything else some thousand
 * bytes.
 */
export function maxTextBytes(file: string): number {
  return file === "tokenizer.json" ? 16 * 2 ** 20 : 2 ** 20;
}

/** What a clone without git-lfs has in place of a large file. */
const LFS_POINTER = "version https://git-lfs.github.com/spec/";

/**
 * UTF-8 to text, strictly, and of at most `maxBytes`. A byte order mark at the beginning is left out, as editors that
 * write one expect.
 */
export function decodeText(bytes: ArrayBuffer | Uint8Array, name: string, maxBytes: number): string {
  if (bytes.byteLength > maxBytes) throw new RangeError(`${name}: expected at most ${maxBytes} bytes, got more`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new TypeError(`${name}: expected UTF-8 text, got bytes that are not`);
  }
  if (text.startsWith(LFS_POINTER))
    throw new TypeError(`${name}: expected the file itself, got a git-lfs pointer (git lfs pull fetches it)`);
  return text;
}
