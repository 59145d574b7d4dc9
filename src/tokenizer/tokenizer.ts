/**
 * Text <-> ids for the tokenizer of Qwen3: the public face of this room.
 *
 *     text --added tokens cut out--> stretches --NFC--> --split--> pieces --bytes, merges--> ids          encode
 *     ids --entries--> bytes --UTF-8--> text                                                             decode
 *     messages --chat template--> text --> ids                                                           encodeChat
 *     text in pieces --as far as certain--> ids                                                   encodeStream, chatStream
 *
 * Reading order: this file; pre-tokenizer.ts (the split); byte-level.ts and bpe.ts (the merges); offsets.ts;
 * added-tokens.ts; chat-template.ts (why users cannot forge control tokens); unicode.ts; encode-stream.ts,
 * open-piece.ts, chat-stream.ts (text that arrives in pieces); tokenizer-json.ts (what is refused, and why).
 *
 * The reference is Python's tokenizers library reading the same tokenizer.json. Ids equal its ids with
 * `add_special_tokens=False`. The differences:
 * - A lone surrogate, which Python refuses to encode, is encoded as U+FFFD.
 * - `encodeChat` does not let contents become control tokens. With `{ reference: true }` they can, as in the reference.
 * - Templates run in JavaScript, so their `trim` removes what JavaScript counts as white space (U+FEFF, but not U+0085
 *   and U+001C..U+001F).
 */

import type { TextFiles } from "../checkpoint/files.ts";
import { type CheckpointSource, openCheckpointFiles } from "../checkpoint/open.ts";
import { type AddedToken, AddedTokenMatcher } from "./added-tokens.ts";
import { BytePairEncoder } from "./bpe.ts";
import { tokenBytes } from "./byte-level.ts";
import { ChatStream, type Opening } from "./chat-stream.ts";
import { type ChatMessage, ChatTemplate, checkMessages, readTokenizerConfig } from "./chat-template.ts";
import { DecodeStream, newUtf8Decoder } from "./decode-stream.ts";
import { EncodeStream } from "./encode-stream.ts";
import { type Encoding, EncodingBuilder } from "./offsets.ts";
import { forEachPiece } from "./pre-tokenizer.ts";
import { describe, readTokenizerJson, type TokenizerData } from "./tokenizer-json.ts";
import { type NfcChange, normalizeNfc, toWellFormed } from "./unicode.ts";

export interface EncodeOptions {
  /** Does not recognise added tokens: all of the text is ordinary. False by default. */
  literal?: boolean;
}

export interface DecodeOptions {
  /** Leaves out added tokens marked `special`. False by default. */
  skipSpecialTokens?: boolean;
}

export interface ChatTemplateOptions {
  /** Asks the template for the header of the assistant's next message. False by default. */
  addGenerationPrompt?: boolean;
}

export interface EncodeChatOptions extends ChatTemplateOptions {
  /** Recognises control tokens in contents, as the reference does. False by default. */
  reference?: boolean;
}

const NO_BYTES = new Uint8Array(0);

export class Tokenizer {
  readonly #name: string;
  readonly #data: TokenizerData;
  readonly #encoder: BytePairEncoder;
  readonly #matcher: AddedTokenMatcher;
  /** Built at the first `tokenToId`. Encoding does not need it, and 150,000 entries take 25 ms. */
  #idOfToken: ReadonlyMap<string, number> | undefined;
  readonly #specialIds: ReadonlySet<number>;
  readonly #template: ChatTemplate | undefined;
  #longestToken: number | undefined;
  #sortedEntries: readonly string[] | undefined;

  private constructor(name: string, data: TokenizerData, template: ChatTemplate | undefined) {
    this.#name = name;
    this.#data = data;
    this.#encoder = new BytePairEncoder(data.byteIds, data.merges);
    this.#matcher = new AddedTokenMatcher(data.addedTokens);
    this.#specialIds = new Set(data.addedTokens.filter(token => token.special).map(token => token.id));
    this.#template = template;
  }

  /**
   * Reads tokenizer.json, and tokenizer_config.json and chat_template.jinja where they exist. The latter wins over the
   * config's chat_template, as in transformers. The source is anything that `openCheckpointFiles` opens (a Hub id that
   * is not in the cache is downloaded whole), or an object that returns texts by name. Errors name the file.
   */
  static async load(source: CheckpointSource | TextFiles): Promise<Tokenizer> {
    const files = isTextFiles(source) ? source : await openCheckpointFiles(source);
    const [json, config, template] = await Promise.all(
      ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"].map(file => files.readText(file)),
    );
    if (json === undefined) {
      const hint = "copy it, and tokenizer_config.json, from the original";
      throw new Error(`${files.name}/tokenizer.json: expected a file, got none (${hint})`);
    }
    return Tokenizer.fromJson(
      parseJson(json, `${files.name}/tokenizer.json`),
      config === undefined ? undefined : parseJson(config, `${files.name}/tokenizer_config.json`),
      template,
      files.name,
    );
  }

  /**
   * Makes a tokenizer from parsed JSON: tokenizer.json, tokenizer_config.json, and the text of chat_template.jinja.
   * `name` comes before the file names in errors.
   */
  static fromJson(tokenizerJson: unknown, config?: unknown, chatTemplate?: string, name?: string): Tokenizer {
    const path = (file: string): string => (name === undefined ? file : `${name}/${file}`);
    const data = readTokenizerJson(tokenizerJson, path("tokenizer.json"));
    const fromConfig = readTokenizerConfig(config ?? {}, path("tokenizer_config.json"));
    const source = chatTemplate ?? fromConfig.template;
    const origin =
      chatTemplate === undefined ? `${path("tokenizer_config.json")}: chat_template` : path("chat_template.jinja");
    const template = source === undefined ? undefined : new ChatTemplate(source, origin, fromConfig.variables);
    return new Tokenizer(name ?? "tokenizer", data, template);
  }

  /**
   * The ids of a text, as in the reference without special tokens around it. Added tokens are recognised unless
   * `literal` is set.
   */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const wellFormed = checkText(text);
    const ids: number[] = [];
    if (options.literal) this.#encodeOrdinary(wellFormed, ids);
    else this.#encodeParts(wellFormed, part => part, ids);
    return new Int32Array(ids);
  }

  /** The same ids, each with the range of the text that it comes from (see offsets.ts). */
  encodeWithOffsets(text: string, options: EncodeOptions = {}): Encoding {
    const wellFormed = checkText(text);
    const encoding = new EncodingBuilder();
    const ordinary = (start: number, end: number): void => {
      const changes: NfcChange[] = [];
      const normalized = this.#encodeOrdinary(wellFormed.slice(start, end), encoding.ids, changes);
      encoding.locate(normalized, changes, start, this.#byteLengthOf);
    };
    let end = 0;
    for (const match of options.literal ? [] : this.#matcher.findAll(wellFormed)) {
      ordinary(end, match.start);
      encoding.push(match.id, match.start, match.end);
      end = match.end;
    }
    ordinary(end, wellFormed.length);
    return encoding.finish();
  }

  /**
   * The text of ids, as in the reference: ids without an entry give nothing, and bytes that are not UTF-8 give U+FFFD.
   * Throws RangeError for a number that cannot be an id.
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const tokens = Array.from(ids, id => this.#bytesOf(id, options));
    const bytes = new Uint8Array(tokens.reduce((length, token) => length + token.length, 0));
    let end = 0;
    for (const token of tokens) {
      bytes.set(token, end);
      end += token.length;
    }
    return newUtf8Decoder().decode(bytes);
  }

  /** Decodes ids as they arrive. */
  decodeStream(options: DecodeOptions = {}): DecodeStream {
    return new DecodeStream(id => this.#bytesOf(id, options));
  }

  /**
   * Encodes ordinary text as it arrives. Returns the ids of `encode` with `literal`, each as soon as no later text can
   * change it.
   */
  encodeStream(): EncodeStream {
    return this.#newStream(0);
  }

  /** The text of each id by itself, for display. Part of a character shows as U+FFFD. */
  pieces(ids: Iterable<number>): string[] {
    return Array.from(ids, id => this.decode([id]));
  }

  /** The id of an added token, or of a vocabulary entry in its raw form ("Ġthe" is " the"). */
  tokenToId(token: string): number | undefined {
    this.#idOfToken ??= new Map(this.#data.tokens.map((entry, id) => [entry, id]));
    return this.#idOfToken.get(token);
  }

  /** The raw entry of an id. */
  idToToken(id: number): string | undefined {
    return this.#data.tokens[id];
  }

  /**
   * A lower bound for the number of ids that `units` UTF-16 units encode to, found without encoding them. The longest
   * entry bounds the bytes of one id. NFC may turn four units into one (a letter with three marks), and that one has at
   * least three quarters as many bytes, so half is safe.
   */
  leastIds(units: number): number {
    this.#longestToken ??= this.#data.tokens.reduce((longest, token) => Math.max(longest, token.length), 1);
    return Math.ceil(units / (2 * this.#longestToken));
  }

  /** The highest id + 1. A model's logits may be wider, because checkpoints pad them. */
  get vocabSize(): number {
    return this.#data.tokens.length;
  }

  get addedTokens(): readonly AddedToken[] {
    return this.#data.addedTokens;
  }

  get hasChatTemplate(): boolean {
    return this.#template !== undefined;
  }

  /**
   * Returns exactly what the checkpoint's template renders. For a model's input use `encodeChat`: in this text,
   * contents can forge control tokens.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    return this.#requireTemplate().render(checkMessages(messages), options.addGenerationPrompt ?? false);
  }

  /** The ids of a conversation, in which contents are always ordinary text (see chat-template.ts). */
  encodeChat(messages: readonly ChatMessage[], options: EncodeChatOptions = {}): Int32Array {
    if (options.reference) return this.encode(this.applyChatTemplate(messages, options));
    const { text, restore } = this.#requireTemplate().renderShadowed(
      checkMessages(messages),
      options.addGenerationPrompt ?? false,
      this.#matcher.characters,
    );
    const ids: number[] = [];
    this.#encodeParts(text, restore, ids);
    return new Int32Array(ids);
  }

  /**
   * Encodes a conversation whose answer arrives in pieces. Returns the ids of `encodeChat` for `messages` followed by
   * the answer, up to the token that closes the answer.
   */
  chatStream(messages: readonly ChatMessage[]): ChatStream {
    const template = this.#requireTemplate();
    const checked = checkMessages(messages);
    const open = (space: string): Opening => {
      const { before, after, restore } = template.renderOpen(checked, space, this.#matcher.characters);
      if (this.#matcher.findAll(after)[0]?.start !== 0) {
        throw new Error(
          `${this.#name}: expected a chat template that closes an answer with an added token, got ${describe(after)}`,
        );
      }
      const end = this.#matcher.findAll(before).at(-1)?.end ?? 0;
      const ids: number[] = [];
      this.#encodeParts(before.slice(0, end), restore, ids);
      return { ids: Int32Array.from(ids), lead: restore(before.slice(end)) };
    };
    return new ChatStream(open, origin => this.#newStream(origin));
  }

  #newStream(origin: number): EncodeStream {
    return new EncodeStream(
      {
        encoder: this.#encoder,
        byteLengthOf: this.#byteLengthOf,
        sortedEntries: () => {
          this.#sortedEntries ??= [...this.#data.tokens].sort();
          return this.#sortedEntries;
        },
      },
      origin,
    );
  }

  /** Encodes added tokens as their ids. `restore` returns the ordinary text of a stretch between them. */
  #encodeParts(text: string, restore: (stretch: string) => string, ids: number[]): void {
    let end = 0;
    for (const match of this.#matcher.findAll(text)) {
      this.#encodeOrdinary(restore(text.slice(end, match.start)), ids);
      ids.push(match.id);
      end = match.end;
    }
    this.#encodeOrdinary(restore(text.slice(end)), ids);
  }

  /** Encodes ordinary text. Returns the normalized text, and appends to `changes` what normalization changed. */
  #encodeOrdinary(text: string, ids: number[], changes?: NfcChange[]): string {
    const normalized = normalizeNfc(text, changes);
    forEachPiece(normalized, (start, end) => this.#encoder.encodeInto(normalized, start, end, ids));
    return normalized;
  }

  /** How many bytes an id from BPE stands for: its entry is in the byte alphabet, one character per byte. */
  readonly #byteLengthOf = (id: number): number => this.#data.tokens[id].length;

  #bytesOf(id: number, options: DecodeOptions): Uint8Array {
    if (!Number.isInteger(id) || id < 0) throw new RangeError(`id: expected an integer from 0, got ${describe(id)}`);
    const token = this.#data.tokens[id];
    if (token === undefined || (options.skipSpecialTokens && this.#specialIds.has(id))) return NO_BYTES;
    return tokenBytes(token);
  }

  #requireTemplate(): ChatTemplate {
    if (this.#template === undefined) {
      throw new Error(
        `${this.#name}: expected a chat template in chat_template.jinja or tokenizer_config.json, got none`,
      );
    }
    return this.#template;
  }
}

/** Whether a source has texts. A tokenizer needs no bytes, so `open` may be missing. */
function isTextFiles(source: CheckpointSource | TextFiles): source is TextFiles {
  return typeof source === "object" && source !== null && "readText" in source && typeof source.readText === "function";
}

/** Checks a text and makes it well-formed. */
function checkText(text: unknown): string {
  if (typeof text !== "string") throw new TypeError(`text: expected a string, got ${describe(text)}`);
  return toWellFormed(text);
}

/**
 * The most values and keys that a JSON text may have. Each may be one character of text and take up to 100 bytes of
 * memory once parsed, so the size of a file alone does not bound what it takes. Qwen3's tokenizer.json has 763,000,
 * nested 5 deep.
 */
const MAX_JSON_PARTS = 800_000;
/**
 * The most keys. A key takes more than a value, because an object with many keys is a hash table. Qwen3's
 * tokenizer.json has 152,000.
 */
const MAX_JSON_KEYS = 250_000;
const MAX_JSON_DEPTH = 100;

function parseJson(text: string, file: string): unknown {
  checkJsonSize(text, file);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new SyntaxError(`${file}: expected JSON, got ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Throws RangeError for a text with too many values or keys, or one nested too deep. Each value or key follows one of
 * `,:[{` outside of strings.
 */
function checkJsonSize(text: string, file: string): void {
  let parts = 0;
  let keys = 0;
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) inString = !inString;
    else if (inString) at += code === BACKSLASH ? 1 : 0;
    else if (code === COMMA) parts++;
    else if (code === COLON) {
      parts++;
      keys++;
    } else if (code === OPEN_BRACKET || code === OPEN_BRACE) {
      parts++;
      if (++depth > MAX_JSON_DEPTH)
        throw new RangeError(`${file}: expected JSON at most ${MAX_JSON_DEPTH} deep, got deeper`);
    } else if (code === CLOSE_BRACKET || code === CLOSE_BRACE) depth--;
  }
  if (parts > MAX_JSON_PARTS)
    throw new RangeError(`${file}: expected at most ${MAX_JSON_PARTS} values and keys, got ${parts}`);
  if (keys > MAX_JSON_KEYS) throw new RangeError(`${file}: expected at most ${MAX_JSON_KEYS} keys, got ${keys}`);
}

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_BRACKET, OPEN_BRACE, CLOSE_BRACKET, CLOSE_BRACE] = [0x5b, 0x7b, 0x5d, 0x7d];
