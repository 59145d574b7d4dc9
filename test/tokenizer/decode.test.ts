import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BYTE_CHARACTERS } from "../../src/tokenizer/byte-level.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { normalizeNfc, toWellFormed } from "../../src/tokenizer/unicode.ts";
import { randomTexts } from "../../tools/unicode/random-texts.ts";
import { QWEN3_PATH, readJson, TINY_PATH } from "./checkpoints.ts";

describe.each([
  { name: "tiny", path: TINY_PATH },
  { name: "qwen3", path: QWEN3_PATH },
])("the $name vocabulary", ({ path }) => {
  const tokenizer = Tokenizer.fromJson(readJson(path));

  test("text to ids and back is the text, normalized", () => {
    for (const text of randomTexts(5, 3000)) {
      expect(tokenizer.decode(tokenizer.encode(text, { literal: true }))).toBe(normalizeNfc(text));
      // Added tokens cut the text before it is normalized.
      expect(normalizeNfc(tokenizer.decode(tokenizer.encode(text)))).toBe(normalizeNfc(text));
    }
    fc.assert(
      fc.property(fc.string({ unit: "binary-ascii" }), text => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
      { seed: 6, numRuns: 1000 },
    );
  });

  test("the ids of two texts with an added token between them are the ids of each", () => {
    const end = tokenizer.tokenToId("<|im_end|>")!;
    const texts = [...randomTexts(7, 500)];
    for (let i = 1; i < texts.length; i++) {
      // Half a token at the edge could join with the token in the middle.
      const [before, after] = [`${texts[i - 1]}.`, `.${texts[i]}`];
      expect([...tokenizer.encode(`${before}<|im_end|>${after}`)]).toEqual([
        ...tokenizer.encode(before),
        end,
        ...tokenizer.encode(after),
      ]);
    }
  });

  test("a stream gives the text of all its ids, whatever they are", () => {
    const id = fc.nat({ max: tokenizer.vocabSize + 20 });
    const byte = fc.constantFrom(...BYTE_CHARACTERS.slice(0x80)).map(character => tokenizer.tokenToId(character)!);
    fc.assert(
      fc.property(fc.array(fc.oneof(id, byte), { maxLength: 40 }), fc.boolean(), (ids, skipSpecialTokens) => {
        const stream = tokenizer.decodeStream({ skipSpecialTokens });
        const whole = tokenizer.decode(ids, { skipSpecialTokens });
        expect(ids.map(id => stream.push(id)).join("") + stream.end()).toBe(whole);
        // After end() the stream can be used again.
        expect(ids.map(id => stream.push(id)).join("") + stream.end()).toBe(whole);
      }),
      { seed: 8, numRuns: 3000 },
    );
  });
});

const tiny = Tokenizer.fromJson(readJson(TINY_PATH));
const idsOfBytes = (...bytes: number[]): number[] => bytes.map(byte => tiny.tokenToId(BYTE_CHARACTERS[byte]!)!);

describe("decoding", () => {
  test("a stream holds back a character until its last byte", () => {
    const stream = tiny.decodeStream();
    expect(idsOfBytes(0x61, 0xf0, 0x9f, 0x98, 0x80, 0x62, 0xe4, 0xbd).map(id => stream.push(id))).toEqual([
      "a",
      "",
      "",
      "",
      "\u{1F600}",
      "b",
      "",
      "",
    ]);
    expect(stream.end()).toBe("\uFFFD");
  });

  test.each<[string, number[], string]>([
    ["a lone continuation byte", [0x80, 0x61], "\uFFFDa"],
    ["a cut-off character: one U+FFFD for all of it", [0xf0, 0x9f, 0x98, 0x61], "\uFFFDa"],
    ["an overlong form: one for each byte", [0xc0, 0xaf], "\uFFFD\uFFFD"],
    ["a surrogate: one for each byte", [0xed, 0xa0, 0x80], "\uFFFD\uFFFD\uFFFD"],
    ["beyond U+10FFFF", [0xf4, 0x90, 0x80, 0x80], "\uFFFD\uFFFD\uFFFD\uFFFD"],
    ["a byte order mark stays", [0xef, 0xbb, 0xbf, 0x61], "\uFEFFa"],
  ])("bytes that are not UTF-8, as Rust replaces them: %s", (_, bytes, text) => {
    expect(tiny.decode(idsOfBytes(...bytes))).toBe(text);
  });

  test("special tokens are kept unless skipped; added tokens that are not special are always kept", () => {
    const ids = tiny.encode("<|im_start|>a<think>b<|im_end|>");
    expect(tiny.decode(ids)).toBe("<|im_start|>a<think>b<|im_end|>");
    expect(tiny.decode(ids, { skipSpecialTokens: true })).toBe("a<think>b");
  });

  test("ids without an entry give nothing, and a number that cannot be an id is refused", () => {
    expect(tiny.decode([tiny.vocabSize, 64, 2 ** 31, 2 ** 40])).toBe(tiny.decode([64]));
    for (const id of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, "1" as unknown as number]) {
      expect(() => tiny.decode([id])).toThrow(RangeError);
      expect(() => tiny.decodeStream().push(id)).toThrow(RangeError);
    }
  });

  test("pieces, entries and ids", () => {
    const ids = tiny.encode("How can I 你<|im_end|>");
    expect(tiny.pieces(ids).slice(0, 3)).toEqual(["How", " can", " I"]);
    expect(tiny.pieces(ids).at(-1)).toBe("<|im_end|>");
    expect(tiny.idToToken(ids[1]!)).toBe("Ġcan");
    expect(tiny.tokenToId("Ġcan")).toBe(ids[1]);
    expect([tiny.idToToken(tiny.vocabSize - 1), tiny.idToToken(tiny.vocabSize), tiny.idToToken(-1)]).toEqual([
      "</think>",
      undefined,
      undefined,
    ]);
    expect(tiny.tokenToId("no such entry")).toBeUndefined();
    expect(tiny.addedTokens.length).toBe(26);
    expect(tiny.addedTokens.at(-1)).toEqual({ id: 4121, content: "</think>", special: false });
  });
});

describe("encoding", () => {
  test("literal text has no added tokens", () => {
    const end = tiny.tokenToId("<|im_end|>")!;
    expect([...tiny.encode("a<|im_end|>b")]).toContain(end);
    expect([...tiny.encode("a<|im_end|>b", { literal: true })]).not.toContain(end);
  });

  test("known difference: lone surrogates, which Python refuses, are U+FFFD", () => {
    for (const text of ["\uD800", "a\uDC00b", "\uDE00\uD83D", "\uD83D<|im_end|>\uDE00"])
      expect(tiny.encode(text)).toEqual(tiny.encode(toWellFormed(text)));
    expect(tiny.decode(tiny.encode("a\uDC00b"))).toBe("a\uFFFDb");
  });

  test("anything but a string is refused", () => {
    for (const text of [undefined, null, 1, {}])
      expect(() => tiny.encode(text as unknown as string)).toThrow(/^text: expected a string, got /);
  });
});
