/**
 * A tokenizer.json is untrusted input. Whatever it holds, it works as in the reference, or there is one clear error.
 */

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { filesFromBlobs, type TextFiles } from "../../src/checkpoint/files.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { pathOf, readJson, TINY_PATH } from "./checkpoints.ts";

// biome-ignore lint/suspicious/noExplicitAny: these tests break the JSON in every way
type Json = any;
const TINY = JSON.stringify(readJson(TINY_PATH));
const changed = (change: (json: Json) => void): Json => {
  const json = JSON.parse(TINY);
  change(json);
  return json;
};

describe("a part that is not implemented is refused by name", () => {
  test.each<[string, (json: Json) => void]>([
    ["version", json => (json.version = "2.0")],
    ["truncation", json => (json.truncation = { max_length: 5 })],
    ["padding", json => (json.padding = { strategy: "BatchLongest" })],
    ["surprise", json => (json.surprise = 1)],
    ["normalizer", json => (json.normalizer = null)],
    ["normalizer.type", json => (json.normalizer = { type: "NFKC" })],
    ["pre_tokenizer", json => delete json.pre_tokenizer],
    ["pre_tokenizer.type", json => (json.pre_tokenizer = json.pre_tokenizer.pretokenizers[1])],
    ["pretokenizers", json => json.pre_tokenizer.pretokenizers.push({ type: "Digits" })],
    ["pattern.Regex", json => (json.pre_tokenizer.pretokenizers[0].pattern = { Regex: "\\s+" })],
    ["pattern.Regex", json => (json.pre_tokenizer.pretokenizers[0].pattern = { String: " " })],
    ["behavior", json => (json.pre_tokenizer.pretokenizers[0].behavior = "Removed")],
    ["invert", json => (json.pre_tokenizer.pretokenizers[0].invert = true)],
    ["add_prefix_space", json => (json.pre_tokenizer.pretokenizers[1].add_prefix_space = true)],
    ["use_regex", json => (json.pre_tokenizer.pretokenizers[1].use_regex = true)],
    ["post_processor.type", json => (json.post_processor = { type: "TemplateProcessing", single: [] })],
    ["decoder", json => (json.decoder = null)],
    ["decoder.type", json => (json.decoder = { type: "WordPiece" })],
    ["model.type", json => (json.model.type = "Unigram")],
    ["model.dropout", json => (json.model.dropout = 0.1)],
    ["model.unk_token", json => (json.model.unk_token = "a")],
    ["model.continuing_subword_prefix", json => (json.model.continuing_subword_prefix = "##")],
    ["model.end_of_word_suffix", json => (json.model.end_of_word_suffix = "</w>")],
    ["model.byte_fallback", json => (json.model.byte_fallback = true)],
    ["model.ignore_merges", json => (json.model.ignore_merges = true)],
    ["model", json => (json.model.cache = 1)],
    ["lstrip", json => (json.added_tokens[3].lstrip = true)],
    ["rstrip", json => (json.added_tokens[3].rstrip = true)],
    ["single_word", json => (json.added_tokens[3].single_word = true)],
    ["normalized", json => (json.added_tokens[3].normalized = true)],
    ["at most 256 UTF-16 units, got 257", json => (json.added_tokens[3].content = "x".repeat(257))],
    [
      "added_tokens: expected at most 65536 UTF-16 units in all, got more",
      json => {
        const { length } = Object.keys(json.model.vocab);
        const token = (i: number): object => ({
          ...json.added_tokens[0],
          id: length + i,
          content: `${i}`.padStart(256, "x"),
        });
        json.added_tokens = Array.from({ length: 257 }, (_, i) => token(i));
      },
    ],
  ])("%s", (part, change) => {
    const load = (): Tokenizer => Tokenizer.fromJson(changed(change));
    expect(load).toThrow(/^tokenizer\.json: .*: expected .*, got /);
    expect(load).toThrow(part);
  });
});

describe("what the reference treats as the same is accepted", () => {
  const text = "How can I make it?<|im_end|>你好";
  const ids = Tokenizer.fromJson(JSON.parse(TINY)).encode(text);
  test.each<[string, (json: Json) => void]>([
    ['merges as "a b"', json => (json.model.merges = json.model.merges.map((merge: string[]) => merge.join(" ")))],
    ["no version", json => delete json.version],
    [
      "empty prefix and suffix",
      json => Object.assign(json.model, { continuing_subword_prefix: "", end_of_word_suffix: "" }),
    ],
    [
      "a ByteLevel post-processor",
      json =>
        (json.post_processor = { type: "ByteLevel", add_prefix_space: true, trim_offsets: false, use_regex: true }),
    ],
    ["no post-processor", json => delete json.post_processor],
    ["a merge listed twice in a row", json => json.model.merges.unshift(json.model.merges[0])],
  ])("%s", (_, change) => {
    expect(Tokenizer.fromJson(changed(change)).encode(text)).toEqual(ids);
  });

  test("no added tokens, and an added token that is in the vocabulary", () => {
    const none = Tokenizer.fromJson(changed(json => (json.added_tokens = [])));
    expect(none.encode("<|im_end|>")).toEqual(
      Tokenizer.fromJson(JSON.parse(TINY)).encode("<|im_end|>", { literal: true }),
    );
    const token = { content: "te", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
    const inside = Tokenizer.fromJson(changed(json => (json.added_tokens = [{ ...token, id: json.model.vocab.te }])));
    expect(inside.vocabSize).toBe(none.vocabSize);
    expect(inside.decode(inside.encode("a te"), { skipSpecialTokens: true })).toBe("a ");
  });

  test("the later rank of a merge that is listed twice counts", () => {
    // Symbols a, b, c: with ab first "abc" is ab|c; listed again behind bc, ab comes second: a|bc. (Recorded from the
    // reference.)
    const tokens = (merges: string[]): string[] => {
      const json = changed(json => {
        const vocab: Record<string, number> = {};
        for (const [token, id] of Object.entries<number>(json.model.vocab)) if (token.length === 1) vocab[token] = id;
        const compact = Object.fromEntries([...Object.keys(vocab), "ab", "bc"].map((token, id) => [token, id]));
        Object.assign(json.model, { vocab: compact, merges });
        json.added_tokens = [];
      });
      const tokenizer = Tokenizer.fromJson(json);
      return tokenizer.pieces(tokenizer.encode("abc"));
    };
    expect(tokens(["a b", "b c"])).toEqual(["ab", "c"]);
    expect(tokens(["a b", "b c", "a b"])).toEqual(["a", "bc"]);
  });
});

describe("attack", () => {
  test.each<[string, RegExp, (json: Json) => void]>([
    [
      "an id of a billion",
      /id of "zz": expected an integer from 0 to \d+ .*, got 1000000000$/,
      json => (json.model.vocab.zz = 1e9),
    ],
    ["a negative id", /got -1$/, json => (json.model.vocab.te = -1)],
    ["a fractional id", /got 1\.5$/, json => (json.model.vocab.te = 1.5)],
    ["an id that is a string", /got "7"$/, json => (json.model.vocab.te = "7")],
    ["two entries with one id", /: id 3: expected one entry, got /, json => (json.model.vocab.te = 3)],
    ["no entry for a byte", /expected an entry "Ċ" for byte 10, got none/, json => renameEntry(json, "Ċ", "Ċ?")],
    ["a vocabulary that is a list", /model\.vocab: expected an object, got an array/, json => (json.model.vocab = [])],
    ["no vocabulary", /model\.vocab: expected an object, got undefined/, json => delete json.model.vocab],
    ["no merges", /model\.merges: expected an array, got undefined/, json => delete json.model.merges],
    [
      "a merge of an unknown entry",
      /model\.merges\[0\]: expected an entry of the vocabulary, got "QQQ"/,
      json => (json.model.merges[0] = ["t", "QQQ"]),
    ],
    [
      "a merge into an unknown entry",
      /merges\[0\]: expected an entry of the vocabulary, got "\\u0000/,
      json => (json.model.merges[0] = ["\0", "\0"]),
    ],
    ["a merge of three", /merges\[0\]: expected two strings, got "a b c"/, json => (json.model.merges[0] = "a b c")],
    ["a merge of numbers", /merges\[0\]: expected two strings, got an array/, json => (json.model.merges[0] = [1, 2])],
    ["a merge that is null", /merges\[0\]: expected two strings, got null/, json => (json.model.merges[0] = null)],
    [
      "an empty added token",
      /added_tokens\[0\]\.content: expected .* not empty, got ""/,
      json => (json.added_tokens[0].content = ""),
    ],
    [
      "half a surrogate pair as added token",
      /added_tokens\[0\]\.content: expected a well-formed text/,
      json => (json.added_tokens[0].content = "\uD83D"),
    ],
    [
      "an added token twice",
      /added_tokens\[1\]\.content: expected each added token once/,
      json => (json.added_tokens[1].content = json.added_tokens[0].content),
    ],
    [
      "an added token with the id of an entry",
      /added_tokens\[0\]\.id of .*: expected 4096, got 5/,
      json => (json.added_tokens[0].id = 5),
    ],
    ["an added token far away", /expected 4096, got 4000000000/, json => (json.added_tokens[0].id = 4e9)],
    [
      "an added token without flags",
      /single_word.*expected false .*got undefined/,
      json => (json.added_tokens[0] = { id: 4096, content: "x" }),
    ],
    [
      "special that is no boolean",
      /special: expected a boolean, got "yes"/,
      json => (json.added_tokens[0].special = "yes"),
    ],
    [
      "added tokens that are an object",
      /added_tokens: expected an array, got an object/,
      json => (json.added_tokens = {}),
    ],
    [
      "a null among the added tokens",
      /added_tokens\[2\]: expected an object, got null/,
      json => (json.added_tokens[2] = null),
    ],
  ])("%s", (_, message, change) => {
    expect(() => Tokenizer.fromJson(changed(change))).toThrow(message);
  });

  test("entries named like the members of every object are ordinary entries", () => {
    const tokenizer = Tokenizer.fromJson(
      JSON.parse(
        TINY.replace('"vocab":{', '"vocab":{"__proto__":4096,"constructor":4097,"toString":4098,').replace(
          /"added_tokens":\[.*?\]/,
          '"added_tokens":[]',
        ),
      ),
    );
    expect(tokenizer.tokenToId("__proto__")).toBe(4096);
    expect(tokenizer.idToToken(4097)).toBe("constructor");
    expect(tokenizer.tokenToId("hasOwnProperty")).toBeUndefined();
    expect(tokenizer.encode("abc")).toEqual(Tokenizer.fromJson(JSON.parse(TINY)).encode("abc"));
  });

  test("any JSON in place of any part causes one TypeError or RangeError that names the file", () => {
    const paths: string[][] = [];
    const walk = (value: Json, path: string[]): void => {
      paths.push(path);
      if (typeof value !== "object" || value === null) return;
      for (const key of Object.keys(value).slice(0, 12)) walk(value[key], [...path, key]);
    };
    walk(JSON.parse(TINY), []);
    const junk = fc.oneof(
      fc.jsonValue({ maxDepth: 3 }),
      fc.constantFrom(1e308, -0, [[[]]], { type: { type: null } }, { type: "BPE" }),
    );
    // Parsed once for all runs: the part is put back afterwards.
    const holder: Json = { json: JSON.parse(TINY) };
    fc.assert(
      fc.property(fc.constantFrom(...paths), junk, (path, value) => {
        const parent = ["json", ...path].slice(0, -1).reduce((object, key) => object[key], holder);
        const key = ["json", ...path].at(-1)!;
        const before = parent[key];
        parent[key] = value;
        try {
          Tokenizer.fromJson(holder.json).encode("ab <|im_end|>");
        } catch (error) {
          expect(error === Object(error) && (error instanceof TypeError || error instanceof RangeError)).toBe(true);
          expect((error as Error).message).toMatch(/^tokenizer\.json: .*expected .*got /s);
        } finally {
          parent[key] = before;
        }
      }),
      { seed: 10, numRuns: 1500 },
    );
  });
});

function renameEntry(json: Json, from: string, to: string): void {
  json.model.vocab[to] = json.model.vocab[from];
  delete json.model.vocab[from];
}

describe("loading", () => {
  const files = (texts: Record<string, string>): TextFiles => ({ name: "memory", readText: async file => texts[file] });
  const message = [{ role: "user", content: "hi" }];

  test("from a folder", async () => {
    const tokenizer = await Tokenizer.load(pathOf("models/tiny-guard-gen"));
    expect(tokenizer.vocabSize).toBe(4122);
    expect(tokenizer.hasChatTemplate).toBe(true);
  });

  test("tokenizer.json alone is enough, and says so when a template is needed", async () => {
    const tokenizer = await Tokenizer.load(files({ "tokenizer.json": TINY }));
    expect(tokenizer.hasChatTemplate).toBe(false);
    expect(() => tokenizer.encodeChat(message)).toThrow(
      "memory: expected a chat template in chat_template.jinja or tokenizer_config.json, got none",
    );
  });

  test("chat_template.jinja wins over the config, and sees its tokens", async () => {
    const config = JSON.stringify({
      chat_template: "config",
      bos_token: { content: "<B>" },
      eos_token: "<E>",
      pad_token: null,
    });
    const both = files({
      "tokenizer.json": TINY,
      "tokenizer_config.json": config,
      "chat_template.jinja": "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ messages[0].content }}",
    });
    expect((await Tokenizer.load(both)).applyChatTemplate(message)).toBe("<B><E>hi");
    const one = files({ "tokenizer.json": TINY, "tokenizer_config.json": config });
    expect((await Tokenizer.load(one)).applyChatTemplate(message)).toBe("config");
  });

  test.each<[string, Record<string, string>, string | RegExp]>([
    ["a missing tokenizer.json", {}, "memory/tokenizer.json: expected a file, got none"],
    ["a tokenizer.json that is not JSON", { "tokenizer.json": "{" }, /^memory\/tokenizer\.json: expected JSON, got /],
    [
      "a config that is not JSON",
      { "tokenizer.json": TINY, "tokenizer_config.json": "" },
      /^memory\/tokenizer_config\.json: expected JSON, got /,
    ],
    [
      "a config that is a list",
      { "tokenizer.json": TINY, "tokenizer_config.json": "[]" },
      "memory/tokenizer_config.json: expected an object, got an array",
    ],
    [
      "named templates",
      { "tokenizer.json": TINY, "tokenizer_config.json": '{"chat_template": []}' },
      /chat_template: expected a string .*, got an array/,
    ],
    [
      "a token without content",
      { "tokenizer.json": TINY, "tokenizer_config.json": '{"bos_token": {}}' },
      /bos_token\.content: expected a string, got undefined/,
    ],
    [
      "more keys than are read",
      { "tokenizer.json": `{${'"k":0,'.repeat(250_000)}"k":0}` },
      "memory/tokenizer.json: expected at most 250000 keys, got 250001",
    ],
    [
      "a template longer than is read",
      { "tokenizer.json": TINY, "chat_template.jinja": "x".repeat(2 ** 17 + 1) },
      "memory/chat_template.jinja: expected at most 131072 characters, got 131073",
    ],
    [
      "a template that does not parse",
      { "tokenizer.json": TINY, "chat_template.jinja": "{% if %}" },
      /^memory\/chat_template\.jinja: /,
    ],
  ])("%s", async (_, texts, error) => {
    await expect(Tokenizer.load(files(texts))).rejects.toThrow(error);
  });

  test.each([5, null, undefined, {}])("no source: %j", async source => {
    await expect(Tokenizer.load(source as unknown as string)).rejects.toThrow(
      "checkpoint: expected a folder's path, a Hub id, a URL or files",
    );
  });

  test("every kind of checkpoint source works, and a missing one is named", async () => {
    const folder = pathOf("models/tiny-guard-gen");
    expect((await Tokenizer.load(pathToFileURL(folder))).vocabSize).toBe(4122);
    const bytes = readFileSync(`${folder}/tokenizer.json`);
    expect((await Tokenizer.load(filesFromBlobs(new Map([["tokenizer.json", new Blob([bytes])]])))).vocabSize).toBe(
      4122,
    );
    await expect(Tokenizer.load("no/such/folder")).rejects.toThrow(
      "no/such/folder: expected a checkpoint folder, got no such folder",
    );
    await expect(Tokenizer.load(pathOf("test/fixtures/odd"))).rejects.toThrow(
      /odd\/tokenizer\.json: expected a file, got none/,
    );
  });
});
