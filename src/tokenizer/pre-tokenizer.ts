/**
 * Cuts text into the pieces that BPE then encodes one by one: the split regex of Qwen's tokenizer.json, as a scanner
 * written by hand.
 *
 *     (?i:'s|'t|'re|'ve|'m|'ll|'d)          1  a contraction
 *     [^\r\n\p{L}\p{N}]?\p{L}+              2  letters, with one character of space or punctuation before them
 *     \p{N}                                 3  one digit
 *      ?[^\s\p{L}\p{N}]+[\r\n]*             4  punctuation, with one space before it and line ends after it
 *     \s*[\r\n]+                            5  white space up to the last line end in it
 *     \s+(?!\S)                             6  white space, but its last character is left to a word after it
 *     \s+                                   7  white space
 *
 * Why not JavaScript's own regex? Its character classes differ from the reference's and change with the engine (see
 * unicode.ts), and its backtracking would visit a long run of spaces again and again. The scanner is linear.
 *
 * Every character is a letter, a number, white space or none of these, and each kind is taken by some alternative, so
 * the pieces cover the text.
 */

import { codePointClasses, LETTER, NUMBER, SPACE } from "./unicode.ts";

/** The only split regex that is implemented. */
export const SPLIT_REGEX: string =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const LETTER_NUMBER_SPACE = LETTER | NUMBER | SPACE;
const CR = 0x0d;
const LF = 0x0a;
const BLANK = 0x20;
const APOSTROPHE = 0x27;

/**
 * Calls `visit(start, end)` for each piece of a well-formed text, in order. The pieces are adjacent and cover the text.
 * Offsets are in UTF-16 units. O(n).
 */
export function forEachPiece(text: string, visit: (start: number, end: number) => void): void {
  for (let start = 0; start < text.length; ) {
    const end = pieceEnd(text, start);
    visit(start, end);
    start = end;
  }
}

/**
 * Where the pieces that are not certain begin in a text that may go on. More text may lengthen the last piece, and more
 * white space moves the ends of the pieces that a run of white space is cut into. The whole text is certain only if it
 * is empty.
 */
export function openStart(text: string): number {
  let open = 0; // start of the last piece, or of the run of pieces of white space that ends the text
  let wasSpace = false;
  forEachPiece(text, (start, end) => {
    const isSpace = isWhiteSpace(text, start, end);
    if (!(isSpace && wasSpace)) open = start;
    wasSpace = isSpace;
  });
  return open;
}

/** Where the piece that starts at `start` ends: tries the alternatives of the regex in its order. */
function pieceEnd(text: string, start: number): number {
  const classOf = codePointClasses();
  const first = text.codePointAt(start)!;
  const firstClass = classOf[first] & LETTER_NUMBER_SPACE;
  const second = start + width(first);

  if (first === APOSTROPHE) {
    const length = contractionLength(text, start);
    if (length > 0) return start + length; // 1
  }

  if (firstClass === LETTER) return skipLetters(text, second, classOf); // 2, nothing before the letters
  if (firstClass === NUMBER) return second; // 3
  if (!isLineEnd(first)) {
    const end = skipLetters(text, second, classOf);
    if (end > second) return end; // 2
  }

  const punctuation = firstClass === 0 ? start : first === BLANK ? second : text.length;
  if (punctuation < text.length) {
    const end = skipPunctuation(text, punctuation, classOf);
    if (end > punctuation) return skipLineEnds(text, end); // 4
  }

  let end = second; // end of the run of white space, which has no surrogate pairs
  let afterLineEnd = isLineEnd(first) ? second : 0;
  for (; end < text.length && classOf[text.charCodeAt(end)] & SPACE; end++) {
    if (isLineEnd(text.charCodeAt(end))) afterLineEnd = end + 1;
  }
  if (afterLineEnd > 0) return afterLineEnd; // 5
  return end === text.length || end === second ? end : end - 1; // 6, or 7 for a single character before a non-space
}

function isWhiteSpace(text: string, start: number, end: number): boolean {
  const classOf = codePointClasses();
  // No surrogate is white space.
  for (let i = start; i < end; i++) if ((classOf[text.charCodeAt(i)] & SPACE) === 0) return false;
  return true;
}

function width(codePoint: number): number {
  return codePoint > 0xffff ? 2 : 1;
}

function isLineEnd(unit: number): boolean {
  return unit === CR || unit === LF;
}

/** End of `\p{L}*` from `i`. */
function skipLetters(text: string, i: number, classOf: Uint8Array): number {
  while (i < text.length) {
    const c = text.codePointAt(i)!;
    if ((classOf[c] & LETTER) === 0) break;
    i += width(c);
  }
  return i;
}

/** End of `[^\s\p{L}\p{N}]*` from `i`. */
function skipPunctuation(text: string, i: number, classOf: Uint8Array): number {
  while (i < text.length) {
    const c = text.codePointAt(i)!;
    if ((classOf[c] & LETTER_NUMBER_SPACE) !== 0) break;
    i += width(c);
  }
  return i;
}

function skipLineEnds(text: string, i: number): number {
  while (i < text.length && isLineEnd(text.charCodeAt(i))) i++;
  return i;
}

/**
 * The length of the contraction at an apostrophe, or 0. The reference ignores case by Unicode case folding, so U+017F
 * LONG S counts as s.
 */
function contractionLength(text: string, apostrophe: number): number {
  switch (text[apostrophe + 1]) {
    case "s":
    case "S":
    case "\u017F":
    case "t":
    case "T":
    case "m":
    case "M":
    case "d":
    case "D":
      return 2;
    case "r":
    case "R":
    case "v":
    case "V":
      return isOneOf(text[apostrophe + 2], "e", "E") ? 3 : 0;
    case "l":
    case "L":
      return isOneOf(text[apostrophe + 2], "l", "L") ? 3 : 0;
    default:
      return 0;
  }
}

function isOneOf(character: string | undefined, a: string, b: string): boolean {
  return character === a || character === b;
}
