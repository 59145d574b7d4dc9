/**
 * What the tokenizer needs to know about characters: the classes of the split regex, and Unicode normalization form C
 * (NFC).
 *
 * Ids must not depend on the JavaScript engine, but `\p{L}`, `\s` and `normalize` do, because each engine has its own
 * Unicode version. So the classes are tables (unicode-tables.ts) recorded from the reference, Python's tokenizers
 * library.
 *
 * What surprised us:
 * - The reference mixes two Unicode versions: its regex engine knows far newer letters than its normalizer, which
 *   stopped at Unicode 9. The normalizer neither reorders nor composes marks that were added later. `normalizeNfc` does
 *   the same, whatever the engine knows.
 * - JavaScript's `\s` has U+FEFF and lacks U+0085. In the reference it is the other way round.
 * - `"a" + "\u0301\u0323".repeat(500_000)` keeps V8's `normalize` busy for minutes: its canonical ordering inserts one
 *   mark at a time, O(n^2). One megabyte of user text must not stop a server, so here the ordering is a sort.
 */

import { COMBINING_CLASSES, DECOMPOSES, LETTERS, NFC_UNSTABLE, NUMBERS, WHITE_SPACE } from "./unicode-tables.ts";

/** Bits of a code point's class. A code point has at most one of the first three. */
export const LETTER = 1;
export const NUMBER = 2;
export const SPACE = 4;
/** NFC may change the character, reorder it, or join it to the character before it. */
const UNSTABLE = 8;

let classes: Uint8Array | undefined;

/** The class bits of every code point, 1.1 MB. Expanded at the first call, which takes about 1 ms. */
export function codePointClasses(): Uint8Array {
  if (classes === undefined) {
    classes = new Uint8Array(0x110000);
    for (const [bit, table] of [
      [LETTER, LETTERS],
      [NUMBER, NUMBERS],
      [SPACE, WHITE_SPACE],
      [UNSTABLE, NFC_UNSTABLE],
    ] as const) {
      forEachRun(table, 2, (start, end) => {
        for (let c = start; c < end; c++) classes![c] |= bit;
      });
    }
  }
  return classes;
}

/**
 * Calls `visit(start, end, value)` for each run of a table of unicode-tables.ts. A run has `width` numbers, and a value
 * only if that is 3.
 */
function forEachRun(table: string, width: 2 | 3, visit: (start: number, end: number, value: number) => void): void {
  const numbers = table
    .trim()
    .split(/\s/)
    .map(word => Number.parseInt(word, 36));
  let end = 0;
  for (let i = 0; i < numbers.length; i += width) {
    const start = end + numbers[i];
    end = start + numbers[i + 1];
    visit(start, end, numbers[i + 2]);
  }
}

/**
 * Replaces lone surrogates by U+FFFD, as `String.prototype.toWellFormed` does (not every browser has it yet), because
 * UTF-8 cannot hold them.
 */
export function toWellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\uFFFD");
}

/** A stretch that NFC changed: `text.slice(start, end)` became `normalized.slice(normalizedStart, normalizedEnd)`. */
export interface NfcChange {
  readonly start: number;
  readonly end: number;
  readonly normalizedStart: number;
  readonly normalizedEnd: number;
}

/**
 * NFC of a well-formed text, equal to the reference's. O(n log n).
 *
 * Nothing from a stable character on can change the text before it. So only the stretches of one stable character and
 * the unstable ones after it are normalized, and most texts have none. Appends to `changes` each stretch that comes out
 * different, in order.
 */
export function normalizeNfc(text: string, changes?: NfcChange[]): string {
  const classOf = codePointClasses();
  let result = "";
  let copied = 0; // text before this offset is in `result`
  let base = 0; // where the last stable character starts
  for (let i = 0; i < text.length; ) {
    const c = text.codePointAt(i)!;
    if ((classOf[c] & UNSTABLE) === 0) {
      base = i;
      i += c > 0xffff ? 2 : 1;
      continue;
    }
    while (i < text.length) {
      const mark = text.codePointAt(i)!;
      if ((classOf[mark] & UNSTABLE) === 0) break;
      i += mark > 0xffff ? 2 : 1;
    }
    const stretch = text.slice(base, i);
    const composed = composeCharacters(orderMarks(decomposeCharacters(stretch)));
    result += text.slice(copied, base);
    if (changes !== undefined && composed !== stretch) {
      changes.push({
        start: base,
        end: i,
        normalizedStart: result.length,
        normalizedEnd: result.length + composed.length,
      });
    }
    result += composed;
    copied = base = i;
  }
  return copied === 0 ? text : result + text.slice(copied);
}

/**
 * Where the last stable character of a well-formed text starts: NFC never changes the text before it again. -1 where
 * there is none.
 */
export function lastStableStart(text: string): number {
  const classOf = codePointClasses();
  for (let i = text.length - 1; i >= 0; i--) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00) i--;
    if ((classOf[text.codePointAt(i)!] & UNSTABLE) === 0) return i;
  }
  return -1;
}

interface Normalization {
  /**
   * The full canonical decomposition of each character that has one, in canonical order, except for Hangul syllables.
   */
  readonly decomposition: ReadonlyMap<string, string>;
  /** The composite of a first and a second character, keyed by the two; without Hangul too. */
  readonly composite: ReadonlyMap<string, string>;
  /** The canonical combining class of each mark. Starters (class 0) are not in it. */
  readonly combiningClass: ReadonlyMap<string, number>;
}

let normalization: Normalization | undefined;

/**
 * Built at the first text that needs it, in about 2 ms. It asks the engine to `normalize` single characters that the
 * reference knows: Unicode promises that their decompositions never change, so every engine gives the same. The 11,172
 * Hangul syllables, which would take 10 ms more, are looked up one by one when they occur.
 */
function normalizationData(): Normalization {
  if (normalization === undefined) {
    const decomposition = new Map<string, string>();
    const composite = new Map<string, string>();
    const combiningClass = new Map<string, number>();
    forEachRun(DECOMPOSES, 2, (start, end) => {
      for (let c = start; c < end; c++) {
        const character = String.fromCodePoint(c);
        if (isHangulSyllable(character)) continue;
        const parts = character.normalize("NFD");
        decomposition.set(character, parts);
        // A character that NFC takes apart for good (a composition exclusion, U+212B ANGSTROM SIGN) is not a composite.
        if (character.normalize("NFC") !== character) continue;
        const last = [...parts].at(-1)!;
        composite.set(parts.slice(0, -last.length).normalize("NFC") + last, character);
      }
    });
    forEachRun(COMBINING_CLASSES, 3, (start, end, value) => {
      for (let c = start; c < end; c++) combiningClass.set(String.fromCodePoint(c), value);
    });
    normalization = { decomposition, composite, combiningClass };
  }
  return normalization;
}

function isHangulSyllable(character: string): boolean {
  return character >= "\uAC00" && character <= "\uD7A3";
}

/** The Hangul syllable that a starter makes with a vowel or a final consonant after it. */
function hangulComposite(starter: string, jamo: string): string | undefined {
  if (jamo < "\u1161" || jamo > "\u11C2") return undefined;
  const joined = (starter + jamo).normalize("NFC");
  return joined.length === 1 ? joined : undefined;
}

/** Step 1 of NFC: replace every character by its full decomposition. */
function decomposeCharacters(text: string): string[] {
  const { decomposition } = normalizationData();
  const characters: string[] = [];
  for (const character of text) {
    const parts = isHangulSyllable(character) ? character.normalize("NFD") : decomposition.get(character);
    if (parts === undefined) characters.push(character);
    else for (const part of parts) characters.push(part);
  }
  return characters;
}

/**
 * Step 2, canonical ordering: sort each run of marks by combining class. Marks of one class keep their order, because
 * the sort is stable.
 */
function orderMarks(characters: string[]): string[] {
  const { combiningClass } = normalizationData();
  for (let i = 0; i < characters.length; ) {
    const start = i;
    while (i < characters.length && combiningClass.has(characters[i])) i++;
    if (i - start > 1) {
      const marks = characters.slice(start, i).sort((a, b) => combiningClass.get(a)! - combiningClass.get(b)!);
      for (let k = 0; k < marks.length; k++) characters[start + k] = marks[k];
    }
    if (i === start) i++;
  }
  return characters;
}

/**
 * Step 3: join each character with the starter before it, if the two have a composite and nothing blocks them. A
 * character between them blocks if it is a starter, or has the same class or a higher one.
 */
function composeCharacters(characters: string[]): string {
  const { composite, combiningClass } = normalizationData();
  const kept: string[] = [];
  let starter = -1; // the index in `kept` of the last starter
  let classBefore = 0; // class of the last character kept after it; 0 if none was
  for (const character of characters) {
    const own = combiningClass.get(character) ?? 0;
    const blocked = starter < 0 || (classBefore !== 0 && classBefore >= own);
    const joined = blocked
      ? undefined
      : (composite.get(kept[starter] + character) ?? hangulComposite(kept[starter], character));
    if (joined !== undefined) {
      kept[starter] = joined;
      continue;
    }
    if (own === 0) starter = kept.length;
    classBefore = own;
    kept.push(character);
  }
  return kept.join("");
}
