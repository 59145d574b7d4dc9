/** Random texts that are hard for a tokenizer, the same for the same seed in every engine. */

import {
  COMBINING_CLASSES,
  DECOMPOSES,
  LETTERS,
  NFC_UNSTABLE,
  NUMBERS,
  WHITE_SPACE,
} from "../../src/tokenizer/unicode-tables.ts";

/** `random(n)`: integers from 0 to n - 1 by mulberry32 (Tommy Ettinger, public domain). */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return below => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

// biome-ignore format: a list of texts
const PIECES = [
  " ", " ", " ", "  ", "\n", "\n\n", "\r\n", "\r", "\t", "\u00A0", "\u3000", "\u0085", "\uFEFF", "\u200D", "'", "'s", "'S", "'\u017F", "'ll", "'LL", "'Re", "'ve", "'x", "'l",
  ".", ",", "!", "?!", "...", "(", "1", "42", "a", "The", " the", "word", "Wort", "e\u0301", "\u0301", "\u0323", "\u1100\u1161\u11A8", "\uAC00\u11A8", "\u4F60\u597D", "\u{1F600}", "\u{1F1EB}\u{1F1F7}",
  "<|im_end|>", "<|im_start|>", "</think>", "<think>", "<|im_", "end|>", "<", "|", ">", "<|endoftext|>",
];

const BLOCKS = [
  [0x00, 0x24f],
  [0x2b0, 0x36f],
  [0x370, 0x5ff],
  [0x600, 0x109f],
  [0x10a0, 0x1aff],
  [0x1b00, 0x2bff],
  [0x3000, 0x9fff],
  [0xa000, 0xd7ff],
  [0xe000, 0xffff],
  [0x10000, 0x1ffff],
  [0x20000, 0x10ffff],
] as const;

/**
 * Texts of up to 16 parts: the pieces above, characters of one block, and characters next to a border between two
 * classes.
 */
export function* randomTexts(seed: number, count: number): Generator<string> {
  const random = randomNumbers(seed);
  const pick = <T>(list: readonly T[]): T => list[random(list.length)];
  const borders = [LETTERS, NUMBERS, WHITE_SPACE, DECOMPOSES, NFC_UNSTABLE]
    .flatMap(table => runBorders(table, 2))
    .concat(runBorders(COMBINING_CLASSES, 3));
  for (let n = 0; n < count; n++) {
    let text = "";
    for (let parts = 1 + random(16); parts > 0; parts--) {
      const kind = random(10);
      if (kind < 5) text += pick(PIECES);
      else if (kind < 7) text += character(pick(borders) - 1 + random(2));
      else {
        const [low, high] = pick(BLOCKS);
        for (let k = 1 + random(5); k > 0; k--) text += character(low + random(high - low + 1));
      }
    }
    yield text;
  }
}

/** The first code point of each run of a table, and the one after each. */
function runBorders(table: string, width: number): number[] {
  const borders: number[] = [];
  let end = 0;
  table
    .trim()
    .split(/\s/)
    .forEach((word, i) => {
      if (i % width === 2) return; // a combining class
      end += Number.parseInt(word, 36);
      borders.push(end);
    });
  return borders;
}

function character(codePoint: number): string {
  return codePoint < 0 || (codePoint >= 0xd800 && codePoint <= 0xdfff) ? " " : String.fromCodePoint(codePoint);
}
