/**
 * The tokens of JSON: strings, numbers, `null`, `true` and `false`, read through a window from text that nobody vouches
 * for. safetensors-json.ts builds objects and arrays from them.
 */

import { END, isSpace, TextWindow, WINDOW_BYTES } from "./safetensors-window.ts";

/**
 * A `word` that takes more bytes than this in the file is not one that a grammar knows. The longest escape takes six
 * bytes.
 */
const WORD_BYTES = 6 * 16;
const MAX_U64 = 2n ** 64n - 1n;

export class JsonTokens extends TextWindow {
  // ignoreBOM: U+FEFF is a character of the name, not a mark to drop.
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** Room to decode texts with escapes. It is kept, because the garbage collector is slow to notice such buffers. */
  #scratch: Uint8Array = new Uint8Array(0);

  /** Whether the next token begins with this byte. */
  startsWith(byte: number): boolean {
    return this.peek() === byte;
  }

  /** A string that the caller keeps, and that is charged. */
  text(what: string): string {
    const { start, end, hasEscapes } = this.#string(what);
    const text = this.#decode(start, end, hasEscapes);
    // V8 takes one byte per character, or two as soon as one of them is beyond Latin-1.
    this.charge(text.length === end - start ? text.length : 2 * text.length);
    return text;
  }

  /** A string that matters only if it is one of a few short ones. A long one is checked and becomes "…". */
  word(what: string): string {
    const { start, end, hasEscapes } = this.#string(what);
    if (end - start <= WORD_BYTES) return this.#decode(start, end, hasEscapes);
    this.#checkUtf8(start, end);
    return "…";
  }

  /** `null`, `true` or `false`. */
  literal(text: string): void {
    let byte = this.peek();
    for (const character of text) {
      if (byte !== character.charCodeAt(0)) this.unexpected(text);
      byte = this.next();
    }
  }

  /** The first byte of the next token, which is not consumed. */
  protected peek(): number {
    let byte = this.byte();
    while (isSpace(byte)) byte = this.next();
    return byte;
  }

  protected unexpected(expected: string): never {
    const byte = this.byte();
    const isVisible = byte > SPACE && byte < 0x7f;
    const got =
      byte === END
        ? "the end"
        : isVisible
          ? `"${String.fromCharCode(byte)}"`
          : `byte 0x${byte.toString(16).padStart(2, "0")}`;
    return this.fail(expected, got);
  }

  /** Consumes a string and returns where its characters lie in the window. Checks escapes, but not UTF-8 yet. */
  #string(what: string): { start: number; end: number; hasEscapes: boolean } {
    if (!this.startsWith(QUOTE)) this.unexpected(what);
    const start = this.position + 1;
    let hasEscapes = false;
    let byte = this.next();
    while (byte !== QUOTE) {
      if (byte === BACKSLASH) {
        hasEscapes = true;
        this.#escape();
        byte = this.byte();
      } else if (byte === END) this.unexpected("a closing quote");
      else if (byte < SPACE) this.unexpected("an escape in place of a control character");
      else byte = this.next();
    }
    return { start, end: this.position++, hasEscapes };
  }

  /** Consumes a backslash and the rest of its escape. Returns the code point that they stand for. */
  #escape(): number {
    const byte = this.next();
    const simple = ESCAPES.get(byte);
    if (simple !== undefined) {
      this.position++;
      return simple;
    }
    if (byte !== LOWER_U) this.unexpected('one of "\\/bfnrtu after a backslash');
    const first = this.#hex();
    if (first < 0xd800 || first > 0xdfff) return first;
    // Half of a pair. It must be the first half, and the second must follow at once.
    if (first < 0xdc00 && this.byte() === BACKSLASH && this.next() === LOWER_U) {
      const second = this.#hex();
      if (second >= 0xdc00 && second <= 0xdfff) return 0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
    }
    return this.fail("a pair of surrogate escapes", "one alone");
  }

  /** Consumes a `u` and four hexadecimal digits. */
  #hex(): number {
    let value = 0;
    for (let i = 0; i < 4; i++) {
      const byte = this.next();
      const letter = byte | 0x20; // lower case
      const digit = isDigit(byte) ? byte - ZERO : letter >= LOWER_A && letter <= LOWER_F ? letter - LOWER_A + 10 : -1;
      if (digit < 0) this.unexpected("four hexadecimal digits");
      value = value * 16 + digit;
    }
    this.position++;
    return value;
  }

  /** The text from `start` to `end` of the window. */
  #decode(start: number, end: number, hasEscapes: boolean): string {
    let bytes = this.window.subarray(start, end);
    if (hasEscapes) {
      // Decoded as UTF-8 rather than piece by piece, so that a string of a million escapes is as cheap as any other.
      if (this.#scratch.length < bytes.length) this.#scratch = new Uint8Array(bytes.length);
      const unescaped = this.#scratch;
      const after = this.position;
      let length = 0;
      this.position = start;
      while (this.position < end) {
        if (this.window[this.position] !== BACKSLASH) unescaped[length++] = this.window[this.position++];
        else length = putUtf8(unescaped, length, this.#escape());
      }
      this.position = after;
      bytes = unescaped.subarray(0, length);
    }
    try {
      return this.#decoder.decode(bytes);
    } catch {
      return this.fail("UTF-8", "other bytes in the string that ends");
    }
  }

  /** Checks UTF-8 as `#decode` does, without keeping the text or ever holding all of it. */
  #checkUtf8(start: number, end: number): void {
    try {
      for (let at = start; at < end; at += WINDOW_BYTES) {
        this.#decoder.decode(this.window.subarray(at, Math.min(at + WINDOW_BYTES, end)), { stream: true });
      }
      this.#decoder.decode();
    } catch {
      this.fail("UTF-8", "other bytes in the string that ends");
    }
  }

  /**
   * A number. Returns its value if it is an integer from 0 to 2^53 - 1, written without sign, fraction and exponent,
   * and NaN for any other number.
   */
  protected number(what: string): number {
    let byte = this.peek();
    if (byte !== MINUS && !isDigit(byte)) this.unexpected(what);
    let isInteger = byte !== MINUS;
    if (byte === MINUS) byte = this.next();
    if (!isDigit(byte)) this.unexpected("a digit");

    const start = this.position;
    const hasLeadingZero = byte === ZERO;
    let value = 0;
    for (; isDigit(byte) && this.position - start < 15; byte = this.next()) value = value * 10 + byte - ZERO;
    if (hasLeadingZero && this.position - start > 1) this.fail("a number without a leading zero", "one");
    if (!isDigit(byte) && byte !== POINT && byte !== LOWER_E && byte !== UPPER_E) return isInteger ? value : Number.NaN;

    // The long way, as serde_json does it: digits that fit 64 bits count, the others only move the decimal point.
    let significand = BigInt(value);
    let exponent = 0;
    const append = (digit: number): boolean => {
      const longer = significand * 10n + BigInt(digit - ZERO);
      if (longer > MAX_U64) return false;
      significand = longer;
      return true;
    };
    for (; isDigit(byte); byte = this.next()) {
      if (exponent > 0 || !append(byte)) exponent++;
    }
    if (byte === POINT) {
      isInteger = false;
      byte = this.next();
      if (!isDigit(byte)) this.unexpected("a digit after the decimal point");
      for (let fits = true; isDigit(byte); byte = this.next()) {
        fits &&= append(byte);
        if (fits) exponent--;
      }
    }
    if (byte === LOWER_E || byte === UPPER_E) {
      isInteger = false;
      byte = this.next();
      const sign = byte === MINUS ? -1 : 1;
      if (byte === MINUS || byte === PLUS) byte = this.next();
      if (!isDigit(byte)) this.unexpected("a digit of the exponent");
      let written = 0;
      for (; isDigit(byte); byte = this.next()) written = Math.min(written * 10 + byte - ZERO, 2 ** 40);
      exponent += sign * written;
    }
    const float = Number(significand);
    const isFinite64 = float === 0 || float * Number(`1e${exponent}`) < Infinity;
    if (!isFinite64) this.fail("a number within the range of float64", "a larger one");
    return isInteger && Number.isSafeInteger(float) ? float : Number.NaN;
  }
}

/** Writes a code point as UTF-8 from `at` on. Returns the position after it. */
function putUtf8(target: Uint8Array, at: number, code: number): number {
  if (code < 0x80) target[at++] = code;
  else {
    if (code < 0x800) target[at++] = 0xc0 | (code >> 6);
    else {
      if (code < 0x10000) target[at++] = 0xe0 | (code >> 12);
      else {
        target[at++] = 0xf0 | (code >> 18);
        target[at++] = 0x80 | ((code >> 12) & 0x3f);
      }
      target[at++] = 0x80 | ((code >> 6) & 0x3f);
    }
    target[at++] = 0x80 | (code & 0x3f);
  }
  return at;
}

const TAB = 0x09;
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const SPACE = 0x20;
export const QUOTE = 0x22;
const PLUS = 0x2b;
export const COMMA = 0x2c;
export const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
export const COLON = 0x3a;
const UPPER_E = 0x45;
export const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
export const CLOSE_BRACKET = 0x5d;
const LOWER_A = 0x61;
const LOWER_E = 0x65;
export const LOWER_F = 0x66;
export const LOWER_N = 0x6e;
export const LOWER_T = 0x74;
const LOWER_U = 0x75;
export const OPEN_BRACE = 0x7b;
export const CLOSE_BRACE = 0x7d;

/** What may follow a backslash, except `u`, and what it stands for. */
const ESCAPES: ReadonlyMap<number, number> = new Map([
  [QUOTE, QUOTE],
  [BACKSLASH, BACKSLASH],
  [0x2f, 0x2f], // a slash
  [0x62, 0x08], // b
  [LOWER_F, 0x0c],
  [LOWER_N, NEWLINE],
  [0x72, RETURN], // r
  [LOWER_T, TAB],
]);

export function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= 0x39;
}
