/**
 * Ids of ordinary text that arrives in pieces.
 *
 * In: pieces of a text, cut anywhere (in a word, in a character, between surrogates). Out: the ids that no later text
 * can change, and at the end the rest. Together they are the ids of the whole text, wherever the cuts are. Text whose
 * ids are not certain yet waits, in this order:
 *
 * 1. half of a surrogate pair;
 * 2. the last character that begins a stretch of NFC, and the marks after it, because another mark may join them;
 * 3. the last piece of the split, because a word may go on. Only the last few letters of a long run wait
 *    (open-piece.ts).
 *
 * So a word waits for the first character after it, and in a text without spaces the last few characters wait. A run
 * that has no boundary waits until one comes: white space, punctuation, marks, one repeated letter. `pending` says how
 * much is waiting, and a caller with a limit (a model's context) checks it there.
 *
 * The alternative was to feed a model eagerly and roll back what later text changes. That runs the end of the text
 * again with every piece, and gives verdicts that are withdrawn.
 *
 * O(n) for n characters in any number of pieces, except for the logarithms of BPE and NFC: waiting text is looked at
 * again only when something arrives that does not just continue it.
 */

import type { BytePairEncoder } from "./bpe.ts";
import { utf8Into } from "./byte-level.ts";
import { type Encoding, EncodingBuilder } from "./offsets.ts";
import { OpenPiece } from "./open-piece.ts";
import { forEachPiece, openStart } from "./pre-tokenizer.ts";
import {
  codePointClasses,
  LETTER,
  lastStableStart,
  type NfcChange,
  NUMBER,
  normalizeNfc,
  SPACE,
  toWellFormed,
} from "./unicode.ts";

/** What a tokenizer lends to its streams. */
export interface StreamParts {
  readonly encoder: BytePairEncoder;
  readonly byteLengthOf: (id: number) => number;
  /** The vocabulary's entries, sorted by UTF-16 units. */
  readonly sortedEntries: () => readonly string[];
}

export class EncodeStream {
  readonly #parts: StreamParts;
  readonly #nfc = new NfcStream();
  /** Normalized text that is not encoded yet, in the parts in which it came, and its length. */
  #text: string[] = [];
  #length = 0;
  /** What NFC changed in that text, and where in the whole text it begins. Offsets of the changes count from there. */
  #changes: NfcChange[] = [];
  #origin: number;
  /** The class of its last character. */
  #lastClass = 0;
  /** Set while the waiting text is one run of letters. */
  #openPiece: OpenPiece | undefined;

  /** `origin` is the offset of the first character in ranges. */
  constructor(parts: StreamParts, origin: number = 0) {
    this.#parts = parts;
    this.#origin = origin;
  }

  /** How many UTF-16 units of the text are waiting. */
  get pending(): number {
    return this.#nfc.pending + this.#length;
  }

  /**
   * The earliest place where the range of the next id can begin. It lies before the waiting text where NFC made several
   * pieces of one stretch.
   */
  get openStart(): number {
    return this.#origin + Math.min(0, this.#changes[0]?.start ?? 0);
  }

  /** The ids that the next part of the text makes certain, with their ranges in the whole text. */
  push(text: string): Encoding {
    const encoding = new EncodingBuilder();
    const changes: NfcChange[] = [];
    const chunk = this.#nfc.push(text, changes);
    if (chunk === "") return encoding.finish();
    const isContinuation = this.#length > 0 && !this.#mayBeContraction() && isRunOf(chunk, this.#lastClass);
    this.#append(chunk, changes);
    if (!isContinuation) {
      const joined = this.#joined();
      this.#emit(openStart(joined), encoding, false);
      this.#openPiece =
        this.#lastClass === LETTER ? new OpenPiece(this.#parts.encoder, this.#parts.sortedEntries) : undefined;
      this.#cutLetters(this.#joined(), encoding);
    } else this.#cutLetters(chunk, encoding);
    return encoding.finish();
  }

  /** The ids of the rest. The stream must not be used afterwards. */
  end(): Encoding {
    const encoding = new EncodingBuilder();
    const changes: NfcChange[] = [];
    const chunk = this.#nfc.end(changes);
    if (chunk !== "") this.#append(chunk, changes);
    this.#emit(this.#length, encoding, false);
    return encoding.finish();
  }

  /**
   * Whether an apostrophe and at most two letters are waiting. More letters may continue them, or begin a piece of
   * their own.
   */
  #mayBeContraction(): boolean {
    return this.#length < 4 && this.#joined().startsWith("'");
  }

  #append(chunk: string, changes: readonly NfcChange[]): void {
    const normalizedBefore = this.#length;
    const before = normalizedBefore + shiftAfter(this.#changes);
    for (const { start, end, normalizedStart, normalizedEnd } of changes) {
      this.#changes.push({
        start: before + start,
        end: before + end,
        normalizedStart: normalizedBefore + normalizedStart,
        normalizedEnd: normalizedBefore + normalizedEnd,
      });
    }
    this.#text.push(chunk);
    this.#length += chunk.length;
    this.#lastClass = classAt(chunk, chunk.length - (isLowSurrogate(chunk, chunk.length - 1) ? 2 : 1));
  }

  #joined(): string {
    if (this.#text.length !== 1) this.#text = [this.#text.join("")];
    return this.#text[0];
  }

  /** If the waiting text is a run of letters, whose last ones are `letters`, encodes the part that is certain. */
  #cutLetters(letters: string, encoding: EncodingBuilder): void {
    if (this.#openPiece === undefined) return;
    const bytes = new Uint8Array(3 * letters.length);
    const certain = this.#openPiece.push(bytes, utf8Into(letters, 0, letters.length, bytes));
    if (certain === 0) return;
    this.#openPiece.cut(certain);
    const text = this.#joined();
    let units = 0;
    for (let left = certain; left > 0; ) {
      const c = text.codePointAt(units)!;
      left -= c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
      units += c > 0xffff ? 2 : 1;
    }
    this.#emit(units, encoding, true);
  }

  /** Encodes the waiting text up to `end`, as one piece or as the pieces that the split makes of it. */
  #emit(end: number, encoding: EncodingBuilder, isOnePiece: boolean): void {
    if (end === 0) return;
    const text = this.#joined();
    const normalized = text.slice(0, end);
    const { encoder, byteLengthOf } = this.#parts;
    if (isOnePiece) encoder.encodeInto(text, 0, end, encoding.ids);
    else {
      forEachPiece(text, (from, to) => {
        if (to <= end) encoder.encodeInto(text, from, to, encoding.ids);
      });
    }
    encoding.locate(normalized, this.#changes, this.#origin, byteLengthOf);

    let done = 0; // changes that end here or before; the next one may cross the end, and then belongs to both sides
    while (done < this.#changes.length && this.#changes[done].normalizedEnd <= end) done++;
    const originalEnd = end + shiftAfter(this.#changes.slice(0, done));
    this.#changes = this.#changes.slice(done).map(change => ({
      start: change.start - originalEnd,
      end: change.end - originalEnd,
      normalizedStart: change.normalizedStart - end,
      normalizedEnd: change.normalizedEnd - end,
    }));
    this.#origin += originalEnd;
    this.#text = [text.slice(end)];
    this.#length -= end;
  }
}

/** NFC of a text that arrives in pieces: returns what is certain. */
class NfcStream {
  /** A high surrogate whose other half may follow. */
  #half = "";
  #held: string[] = [];
  #heldLength = 0;

  get pending(): number {
    return this.#half.length + this.#heldLength;
  }

  /** Returns the normalized text that is now certain, and appends what NFC changed, with offsets from its beginning. */
  push(text: string, changes: NfcChange[]): string {
    const complete = this.#half + text;
    this.#half = /[\uD800-\uDBFF]$/.test(complete) ? complete.slice(-1) : "";
    const wellFormed = toWellFormed(complete.slice(0, complete.length - this.#half.length));
    const stable = lastStableStart(wellFormed);
    if (stable < 0) {
      this.#hold(wellFormed);
      return "";
    }
    const certain = this.#held.join("") + wellFormed.slice(0, stable);
    this.#held = [];
    this.#heldLength = 0;
    this.#hold(wellFormed.slice(stable));
    return normalizeNfc(certain, changes);
  }

  end(changes: NfcChange[]): string {
    return normalizeNfc(this.#held.join("") + toWellFormed(this.#half), changes);
  }

  #hold(text: string): void {
    this.#held.push(text);
    this.#heldLength += text.length;
  }
}

/** By how much an offset in the text exceeds the one in the normalized text, after the last of the changes. */
function shiftAfter(changes: readonly NfcChange[]): number {
  const last = changes.at(-1);
  return last === undefined ? 0 : last.end - last.normalizedEnd;
}

function classAt(text: string, at: number): number {
  return codePointClasses()[text.codePointAt(at)!] & (LETTER | NUMBER | SPACE);
}

/**
 * Whether all of `text` has the class `kind`, and it is a class that forms runs. Numbers do not: each is a piece of its
 * own.
 */
function isRunOf(text: string, kind: number): boolean {
  if (kind === NUMBER) return false;
  for (let i = 0; i < text.length; i += isLowSurrogate(text, i + 1) ? 2 : 1)
    if (classAt(text, i) !== kind) return false;
  return true;
}

function isLowSurrogate(text: string, at: number): boolean {
  return (text.charCodeAt(at) & 0xfc00) === 0xdc00;
}
