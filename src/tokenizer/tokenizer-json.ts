/**
 * Reads a tokenizer.json (the format of the tokenizers library). Everything is checked here, once, so that encoding and
 * decoding need not.
 *
 * The format can describe many tokenizers. This project implements the one that Qwen uses: NFC, the split regex of
 * pre-tokenizer.ts, byte-level BPE without extras, and added tokens that match raw text exactly. Every other part is
 * refused by name, because a tokenizer that is nearly right would silently give wrong ids. The file is untrusted input:
 * every shape is checked before it is used, and no allocation depends on a number in it.
 */

import type { AddedToken } from "./added-tokens.ts";
import { MergeTable } from "./bpe.ts";
import { BYTE_CHARACTERS } from "./byte-level.ts";
import { SPLIT_REGEX } from "./pre-tokenizer.ts";

export interface TokenizerData {
  /** Id -> entry: the vocabulary, then the added tokens that are not in it. */
  readonly tokens: readonly string[];
  /** The id of each single byte. */
  readonly byteIds: Int32Array;
  readonly merges: MergeTable;
  readonly addedTokens: readonly AddedToken[];
}

type JsonObject = Readonly<Record<string, unknown>>;

/** An untrusted value as it may appear in an error message. */
export function describe(value: unknown): string {
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object" && value !== null) {
    return "type" in value && typeof value.type === "string"
      ? `an object of type ${describe(value.type)}`
      : "an object";
  }
  if (typeof value === "function") return "a function";
  if (typeof value !== "string") return String(value);
  return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
}

export function expectObject(value: unknown, what: string): JsonObject {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new TypeError(`${what}: expected an object, got ${describe(value)}`);
  return value as JsonObject;
}

/**
 * Reads the parsed JSON. Errors name `file` and the part: TypeError for a wrong shape, RangeError for anything not
 * implemented or inconsistent.
 */
export function readTokenizerJson(json: unknown, file: string): TokenizerData {
  const root = expectObject(json, file);
  const at = (path: string): string => `${file}: ${path}`;
  expectOnlyKeys(root, at("top level"), [
    "version",
    "truncation",
    "padding",
    "added_tokens",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "decoder",
    "model",
  ]);
  expectOneOf(root.version, at("version"), ["1.0", undefined]);
  expectOneOf(root.truncation, at("truncation"), [null, undefined]);
  expectOneOf(root.padding, at("padding"), [null, undefined]);
  checkPipeline(root, at);

  const model = expectObject(root.model, at("model"));
  checkModelOptions(model, at);
  const vocabulary = expectObject(model.vocab, at("model.vocab"));
  const tokens = readVocabulary(vocabulary, at("model.vocab"));
  const byteIds = readByteIds(vocabulary, at("model.vocab"));
  const merges = readMerges(model.merges, vocabulary, tokens, at("model.merges"));
  const addedTokens = readAddedTokens(root.added_tokens, vocabulary, tokens.length, at("added_tokens"));
  for (const token of addedTokens) tokens[token.id] = token.content;
  return { tokens, byteIds, merges, addedTokens };
}

/** Checks that normalizer, pre-tokenizer, post-processor and decoder are exactly those of Qwen. */
function checkPipeline(root: JsonObject, at: (path: string) => string): void {
  const normalizer = expectType(root.normalizer, at("normalizer"), "NFC");
  expectOnlyKeys(normalizer, at("normalizer"), ["type"]);

  const sequence = expectType(root.pre_tokenizer, at("pre_tokenizer"), "Sequence");
  expectOnlyKeys(sequence, at("pre_tokenizer"), ["type", "pretokenizers"]);
  const steps = expectArray(sequence.pretokenizers, at("pre_tokenizer.pretokenizers"));
  if (steps.length !== 2)
    throw new RangeError(
      `${at("pre_tokenizer.pretokenizers")}: expected Split and ByteLevel, got ${steps.length} parts`,
    );

  const split = expectType(steps[0], at("pre_tokenizer.pretokenizers[0]"), "Split");
  expectOnlyKeys(split, at("pre_tokenizer.pretokenizers[0]"), ["type", "pattern", "behavior", "invert"]);
  const pattern = expectObject(split.pattern, at("pre_tokenizer.pretokenizers[0].pattern"));
  expectOneOf(pattern.Regex, at("pre_tokenizer.pretokenizers[0].pattern.Regex"), [SPLIT_REGEX]);
  expectOnlyKeys(pattern, at("pre_tokenizer.pretokenizers[0].pattern"), ["Regex"]);
  expectOneOf(split.behavior, at("pre_tokenizer.pretokenizers[0].behavior"), ["Isolated"]);
  expectOneOf(split.invert, at("pre_tokenizer.pretokenizers[0].invert"), [false]);

  const byteLevel = expectByteLevel(steps[1], at("pre_tokenizer.pretokenizers[1]"));
  expectOneOf(byteLevel.add_prefix_space, at("pre_tokenizer.pretokenizers[1].add_prefix_space"), [false]);
  expectOneOf(byteLevel.use_regex, at("pre_tokenizer.pretokenizers[1].use_regex"), [false]);

  // As a post-processor, ByteLevel only moves offsets, which we do not report. As a decoder, its options mean nothing.
  if (root.post_processor !== null && root.post_processor !== undefined)
    expectByteLevel(root.post_processor, at("post_processor"));
  expectByteLevel(root.decoder, at("decoder"));
}

function checkModelOptions(model: JsonObject, at: (path: string) => string): void {
  expectType(model, at("model"), "BPE");
  expectOnlyKeys(model, at("model"), [
    "type",
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
    "vocab",
    "merges",
  ]);
  expectOneOf(model.dropout, at("model.dropout"), [null, undefined]);
  expectOneOf(model.unk_token, at("model.unk_token"), [null, undefined]);
  expectOneOf(model.continuing_subword_prefix, at("model.continuing_subword_prefix"), [null, "", undefined]);
  expectOneOf(model.end_of_word_suffix, at("model.end_of_word_suffix"), [null, "", undefined]);
  expectOneOf(model.fuse_unk, at("model.fuse_unk"), [false, true, undefined]); // matters only with an unk_token
  expectOneOf(model.byte_fallback, at("model.byte_fallback"), [false, undefined]);
  expectOneOf(model.ignore_merges, at("model.ignore_merges"), [false, undefined]);
}

/**
 * Id -> entry. The ids of n entries must be 0 to n - 1, each once, so no id can make us allocate more than the file is
 * long.
 */
function readVocabulary(vocabulary: JsonObject, what: string): string[] {
  const entries = Object.keys(vocabulary);
  const tokens: string[] = new Array(entries.length);
  for (const token of entries) {
    const id = vocabulary[token];
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= entries.length) {
      const expected = `an integer from 0 to ${entries.length - 1} (one per entry)`;
      throw new RangeError(`${what}: id of ${describe(token)}: expected ${expected}, got ${describe(id)}`);
    }
    const other = tokens[id];
    if (other !== undefined)
      throw new RangeError(`${what}: id ${id}: expected one entry, got ${describe(other)} and ${describe(token)}`);
    tokens[id] = token;
  }
  return tokens;
}

/**
 * The id of an entry of a vocabulary that `readVocabulary` has checked. The parsed object itself is the look-up table:
 * building a Map of it took 25 of 150 ms. The properties that every object inherits ("constructor", "__proto__") are
 * not numbers, and an entry of such a name hides the inherited one.
 */
function idOf(vocabulary: JsonObject, token: string): number | undefined {
  const id = vocabulary[token];
  return typeof id === "number" ? id : undefined;
}

function readByteIds(vocabulary: JsonObject, what: string): Int32Array {
  return Int32Array.from(BYTE_CHARACTERS, (character, byte) => {
    const id = idOf(vocabulary, character);
    if (id === undefined)
      throw new RangeError(`${what}: expected an entry ${describe(character)} for byte ${byte}, got none`);
    return id;
  });
}

/**
 * Merges in order of rank, each `["a", "b"]` or, in older files, `"a b"`. The two parts and their join must be entries.
 *
 * A merge nearly always makes the entry that follows the result of the merge before it, because they were learned in
 * that order. So that entry is compared first: joining the two strings to look them up takes three times as long.
 */
function readMerges(value: unknown, vocabulary: JsonObject, tokens: readonly string[], what: string): MergeTable {
  const list = expectArray(value, what);
  const merges = new MergeTable(list.length);
  let merged: number | undefined = -1;
  for (let rank = 0; rank < list.length; rank++) {
    const parts = mergeParts(list[rank]);
    if (parts === undefined) throw new TypeError(`${what}[${rank}]: expected two strings, got ${describe(list[rank])}`);
    const left = parts[0];
    const right = parts[1];
    const leftId = idOf(vocabulary, left);
    const rightId = idOf(vocabulary, right);
    const guess: number = merged + 1;
    merged = isJoin(tokens[guess], left, right) ? guess : idOf(vocabulary, left + right);
    if (leftId === undefined || rightId === undefined || merged === undefined) {
      const unknown = leftId === undefined ? left : rightId === undefined ? right : left + right;
      throw new RangeError(`${what}[${rank}]: expected an entry of the vocabulary, got ${describe(unknown)}`);
    }
    merges.add(leftId, rightId, merged);
  }
  return merges;
}

/** Whether `token` is `left + right`. */
function isJoin(token: string | undefined, left: string, right: string): boolean {
  return (
    token !== undefined &&
    token.length === left.length + right.length &&
    token.startsWith(left) &&
    token.endsWith(right)
  );
}

function mergeParts(merge: unknown): readonly [string, string] | undefined {
  const parts: unknown = typeof merge === "string" ? merge.split(" ") : merge;
  if (!Array.isArray(parts) || parts.length !== 2 || typeof parts[0] !== "string" || typeof parts[1] !== "string")
    return undefined;
  return parts as [string, string];
}

/** The longest added token in the Qwen family has 30 units. */
const MAX_ADDED_TOKEN_UNITS = 256;
/**
 * The limit for all added tokens together. Each unit may become a node of 230 bytes in the tree that finds them. The
 * Qwen family has 340 units.
 */
const MAX_ADDED_UNITS = 2 ** 16;

/**
 * Reads the added tokens. The reference ignores their ids: a token that is in the vocabulary has its id there, and each
 * other one gets the next number after the vocabulary. A file with other ids would mean one thing to a human reader and
 * another to the reference, so it is refused.
 */
function readAddedTokens(value: unknown, vocabulary: JsonObject, vocabularySize: number, what: string): AddedToken[] {
  const seen = new Set<string>();
  let next = vocabularySize;
  let units = 0;
  return expectArray(value ?? [], what).map((item, index) => {
    const where = `${what}[${index}]`;
    const token = expectObject(item, where);
    expectOnlyKeys(token, where, ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"]);
    const { content, special } = token;
    if (typeof content !== "string" || content === "" || /\p{Surrogate}/u.test(content)) {
      throw new TypeError(`${where}.content: expected a well-formed text that is not empty, got ${describe(content)}`);
    }
    if (content.length > MAX_ADDED_TOKEN_UNITS) {
      throw new RangeError(
        `${where}.content: expected at most ${MAX_ADDED_TOKEN_UNITS} UTF-16 units, got ${content.length}`,
      );
    }
    units += content.length;
    if (units > MAX_ADDED_UNITS)
      throw new RangeError(`${what}: expected at most ${MAX_ADDED_UNITS} UTF-16 units in all, got more`);
    if (seen.has(content))
      throw new RangeError(`${where}.content: expected each added token once, got ${describe(content)} again`);
    seen.add(content);
    for (const option of ["single_word", "lstrip", "rstrip", "normalized"]) {
      expectOneOf(token[option], `${where}.${option} of ${describe(content)}`, [false]);
    }
    if (typeof special !== "boolean")
      throw new TypeError(`${where}.special: expected a boolean, got ${describe(special)}`);
    const id = idOf(vocabulary, content) ?? next++;
    if (token.id !== id)
      throw new RangeError(`${where}.id of ${describe(content)}: expected ${id}, got ${describe(token.id)}`);
    return { id, content, special };
  });
}

function expectArray(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new TypeError(`${what}: expected an array, got ${describe(value)}`);
  return value;
}

/** Refuses every value that is not implemented. */
function expectOneOf(value: unknown, what: string, implemented: readonly unknown[]): void {
  if (implemented.includes(value)) return;
  const expected = implemented
    .filter(v => v !== undefined)
    .map(v => (typeof v === "string" ? JSON.stringify(v) : String(v)));
  throw new RangeError(
    `${what}: expected ${expected.join(" or ")} (nothing else is implemented), got ${describe(value)}`,
  );
}

function expectType(value: unknown, what: string, type: string): JsonObject {
  const object = expectObject(value, what);
  expectOneOf(object.type, `${what}.type`, [type]);
  return object;
}

function expectByteLevel(value: unknown, what: string): JsonObject {
  const byteLevel = expectType(value, what, "ByteLevel");
  expectOnlyKeys(byteLevel, what, ["type", "add_prefix_space", "trim_offsets", "use_regex"]);
  return byteLevel;
}

function expectOnlyKeys(object: JsonObject, what: string, implemented: readonly string[]): void {
  for (const key of Object.keys(object)) {
    if (!implemented.includes(key))
      throw new RangeError(`${what}: expected nothing but ${implemented.join(", ")}, got ${describe(key)}`);
  }
}
