/**
 * GPT-2's byte alphabet: it lets a vocabulary of byte strings be written in JSON as ordinary text.
 *
 * Each of the 256 bytes has one printable character. The printable characters of Latin-1 stand for themselves, and the
 * other 68 bytes (controls, space, DEL, no-break space, soft hyphen) get U+0100, U+0101, ... in order. So a space shows
 * as "Ġ" (U+0120) and a line feed as "Ċ" (U+010A). Source: the encoder of the GPT-2 release (2019), which every
 * byte-level BPE has kept since.
 */

function isPrintableLatin1(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** The character of each byte. */
export const BYTE_CHARACTERS: readonly string[] = byteCharacters();

/**
 * The byte of each character by its UTF-16 unit; -1 for one that is not in the alphabet. Units from `length` on are not
 * in it either.
 */
const BYTE_OF_UNIT: Int16Array = bytesOfUnits();

/** The byte of a character of the alphabet. */
export function byteOfUnit(unit: number): number {
  return BYTE_OF_UNIT[unit];
}

function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintableLatin1(byte) ? byte : next++));
}

function bytesOfUnits(): Int16Array {
  const byteOf = new Int16Array(0x100 + 68).fill(-1);
  BYTE_CHARACTERS.forEach((character, byte) => {
    byteOf[character.charCodeAt(0)] = byte;
  });
  return byteOf;
}

/**
 * The bytes of a vocabulary entry. As in the reference, an entry with any character outside the alphabet stands for its
 * own UTF-8.
 */
export function tokenBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_OF_UNIT[token.charCodeAt(i)] ?? -1;
    if (byte < 0) return new TextEncoder().encode(token);
    bytes[i] = byte;
  }
  return bytes;
}

/**
 * Writes the UTF-8 bytes of the well-formed `text[start, end)` into `out` and returns how many. Room for 3 bytes per
 * UTF-16 unit is always enough.
 */
export function utf8Into(text: string, start: number, end: number, out: Int32Array | Uint8Array): number {
  let n = 0;
  for (let i = start; i < end; i++) {
    const c = text.codePointAt(i)!;
    if (c < 0x80) {
      out[n++] = c;
    } else if (c < 0x800) {
      out[n++] = 0xc0 | (c >> 6);
      out[n++] = 0x80 | (c & 0x3f);
    } else if (c < 0x10000) {
      out[n++] = 0xe0 | (c >> 12);
      out[n++] = 0x80 | ((c >> 6) & 0x3f);
      out[n++] = 0x80 | (c & 0x3f);
    } else {
      out[n++] = 0xf0 | (c >> 18);
      out[n++] = 0x80 | ((c >> 12) & 0x3f);
      out[n++] = 0x80 | ((c >> 6) & 0x3f);
      out[n++] = 0x80 | (c & 0x3f);
      i++; // the low surrogate
    }
  }
  return n;
}
