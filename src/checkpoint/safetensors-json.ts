/**
 * A JSON reader for text that nobody vouches for.
 *
 * In: a range of a ByteSource that holds one JSON object. Out: whatever a grammar (safetensors-header.ts,
 * safetensors-sharded.ts) makes of its members, one by one. No tree is ever built, so members that nobody asked for
 * cost nothing. `JSON.parse` will not do: it needs the whole text (a header may have 100 MB), silently keeps the last
 * of two equal keys, and turns 2^53 + 1 into 2^53.
 *
 * This file reads objects and arrays, safetensors-tokens.ts strings and numbers, and safetensors-window.ts bytes.
 *
 * It accepts exactly what the reference, Rust's serde_json, accepts. What surprised us, found by experiment:
 *  - 1e400 is refused even where nobody looks at it, and so is a lone surrogate escape. 1e-400 is fine.
 *  - Objects and arrays nested more than 127 deep are refused, whatever they hold.
 */

import type { ByteSource } from "./bytes.ts";
import {
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COLON,
  COMMA,
  isDigit,
  JsonTokens,
  LOWER_F,
  LOWER_N,
  LOWER_T,
  MINUS,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
} from "./safetensors-tokens.ts";
import { END } from "./safetensors-window.ts";

/** How deep objects and arrays may be nested; see above. */
const MAX_DEPTH = 127;

/**
 * What a number is charged in bytes: more than it takes, to account for the copies as its array grows. The first few
 * are paid for with the object that holds the array.
 */
const NUMBER_MEMORY_BYTES = 48;
const FREE_NUMBERS = 8;

export interface ObjectOptions {
  /** For messages: the thing that must be a JSON object. */
  readonly what: string;
  /** Whether the outermost keys are kept and charged. If not, they are words. */
  readonly keepKeys: boolean;
  /** The longest member that is read in one step. */
  readonly maxMemberBytes: number;
}

/**
 * Reads the value of one key. It may be called again for the same key, so it must store nothing before it has read the
 * whole value. For an object of any length it reads nothing itself, and returns a function that reads it member by
 * member with `membersInSteps`.
 */
export type MemberParser = (json: JsonReader, key: string) => void | (() => Promise<void>);

/**
 * Reads `byteLength` bytes of `source` from `offset` on as one JSON object. Throws SafetensorsError at the first byte
 * that does not fit.
 */
export async function parseJsonObject(
  source: ByteSource,
  offset: number,
  byteLength: number,
  { what, keepKeys, maxMemberBytes }: ObjectOptions,
  member: MemberParser,
): Promise<void> {
  const json = new JsonReader(source, offset, byteLength, maxMemberBytes);
  await json.membersInSteps(what, keepKeys, member);
  await json.step(() => json.end());
}

export class JsonReader extends JsonTokens {
  /** An object whose members are each a step of their own, so that the window need not hold more than one. */
  async membersInSteps(what: string, keepKeys: boolean, member: MemberParser): Promise<void> {
    await this.step(() => this.enter(OPEN_BRACE, what));
    let more = !(await this.step(() => this.startsWith(CLOSE_BRACE)));
    while (more) {
      const inSteps = await this.step(() => member(this, this.key(keepKeys)));
      if (inSteps) await inSteps();
      // A step of its own, so that what `member` stored is not parsed again.
      more = await this.step(() => this.comma(CLOSE_BRACE));
    }
    await this.step(() => this.leave());
  }

  /** `member` reads the value of each key. */
  object(what: string, keepKeys: boolean, member: (key: string) => void): void {
    this.enter(OPEN_BRACE, what);
    if (!this.startsWith(CLOSE_BRACE)) {
      do member(this.key(keepKeys));
      while (this.comma(CLOSE_BRACE));
    }
    this.leave();
  }

  /** `element` reads each element. */
  array(what: string, element: (index: number) => void): void {
    this.enter(OPEN_BRACKET, what);
    if (!this.startsWith(CLOSE_BRACKET)) {
      let index = 0;
      do element(index++);
      while (this.comma(CLOSE_BRACKET));
    }
    this.leave();
  }

  /** An array of at most `maxCount` integers from 0 to 2^53 - 1. */
  integers(what: string, maxCount: number): number[] {
    const integers: number[] = [];
    this.array(what, index => {
      if (index === maxCount) this.fail(`${maxCount} integers`, "more");
      if (index >= FREE_NUMBERS) this.charge(NUMBER_MEMORY_BYTES);
      const value = this.number("an integer");
      if (Number.isNaN(value)) this.fail("an integer from 0 to 2^53 - 1", "another number");
      integers.push(value);
    });
    // A short list is copied, because an array that grew keeps room for 16 more.
    return integers.length <= FREE_NUMBERS ? integers.slice() : integers;
  }

  /** Any value, checked and dropped. */
  skip(): void {
    const byte = this.peek();
    if (byte === OPEN_BRACE) this.object("an object", false, () => this.skip());
    else if (byte === OPEN_BRACKET) this.array("an array", () => this.skip());
    else if (byte === QUOTE) this.word("a string");
    else if (byte === MINUS || isDigit(byte)) this.number("a number");
    else if (byte === LOWER_N) this.literal("null");
    else if (byte === LOWER_T) this.literal("true");
    else if (byte === LOWER_F) this.literal("false");
    else this.unexpected("a value");
  }

  enter(bracket: number, what: string): void {
    if (!this.startsWith(bracket)) this.unexpected(what);
    if (++this.depth > MAX_DEPTH) this.fail(`at most ${MAX_DEPTH} objects and arrays inside each other`, "more");
    this.position++;
  }

  leave(): void {
    this.position++;
    this.depth--;
  }

  key(keep: boolean): string {
    const key = keep ? this.text("a key in quotes") : this.word("a key in quotes");
    if (!this.startsWith(COLON)) this.unexpected('":"');
    this.position++;
    return key;
  }

  /** True after a comma, which is consumed; false at the closing bracket, which is not. */
  comma(closing: number): boolean {
    if (this.startsWith(closing)) return false;
    if (!this.startsWith(COMMA)) this.unexpected(`"," or "${String.fromCharCode(closing)}"`);
    this.position++;
    return true;
  }

  /** Nothing but white space up to the end. */
  end(): void {
    if (this.peek() !== END) this.unexpected("the end");
  }
}

/** For grammars that branch on the first byte of a value. */
export const STARTS: { readonly object: number; readonly array: number; readonly null: number } = {
  object: OPEN_BRACE,
  array: OPEN_BRACKET,
  null: LOWER_N,
};
