/**
 * Sizes and forms at their edges: windows, the words that an explanation leaves out, and what a guard's methods accept.
 */

import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { CheckpointFiles } from "../../src/checkpoint/files.ts";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import { Guard } from "../../src/guard/guard.ts";
import { StreamGuard } from "../../src/guard/stream-guard.ts";
import { cutIntoWindows } from "../../src/guard/windows.ts";
import type { ChatMessage } from "../../src/tokenizer/chat-template.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { GEN, loadGuard, loadModel, STREAM } from "../checkpoints.ts";

const tokenizer = await Tokenizer.load(GEN);
const guard = await loadGuard();
const model = await loadModel(STREAM);
const stream = await Tokenizer.load(STREAM);

describe("windows", () => {
  const WORD = " tea"; // a token in this vocabulary
  const cut = (count: number, room: number, options: { window?: number; overlap?: number } = {}) =>
    cutIntoWindows(WORD.repeat(count), tokenizer, room, options);
  const spans = (count: number, room: number, options = {}): number[][] =>
    (cut(count, room, options) ?? []).map(({ start, end }) => [start / WORD.length, end / WORD.length]);

  test("overlap by none, some or half of their tokens, by default an eighth", () => {
    expect(tokenizer.encode(WORD.repeat(9))).toHaveLength(9);
    const at = (overlap?: number) => spans(40, 500, overlap === undefined ? { window: 16 } : { window: 16, overlap });
    expect(at(0)).toEqual([
      [0, 16],
      [16, 32],
      [32, 40],
    ]);
    expect(at(8)).toEqual([
      [0, 16],
      [8, 24],
      [16, 32],
      [24, 40],
    ]);
    expect(at()).toEqual([
      [0, 16],
      [14, 30],
      [28, 40],
    ]);
  });

  test.each([
    [{ window: 16, overlap: -1 }, "overlap: expected an integer from 0 to half of the window, 8, got -1"],
    [{ window: 16, overlap: 9 }, "overlap: expected an integer from 0 to half of the window, 8, got 9"],
    [{ window: 16, overlap: 1.5 }, "overlap: expected an integer from 0 to half of the window, 8, got 1.5"],
    [{ window: 15 }, "window: expected an integer from 16 to 484, the room in the context, got 15"],
    [{ window: 485 }, "window: expected an integer from 16 to 484, the room in the context, got 485"],
    [{ window: 16.5 }, "window: expected an integer from 16 to 484, the room in the context, got 16.5"],
  ])("%j is refused", (options, message) => {
    expect(() => cut(600, 500, options)).toThrow(message);
  });

  test("as large as the room, as small as 16 tokens, are taken", () => {
    expect(spans(500, 500, { window: 484, overlap: 0 })).toEqual([
      [0, 484],
      [484, 500],
    ]);
    expect(spans(17, 500, { window: 16, overlap: 0 })).toHaveLength(2);
  });

  test("of the caller's size are refused if the room is too small; without a size, the room is", () => {
    expect(spans(17, 32)).toHaveLength(2);
    expect(() => cut(17, 31)).toThrow(
      "conversation too long: expected room for 32 tokens of the message to judge after what precedes it, got 31",
    );
    expect(() => cut(17, 31, { window: 16 })).toThrow(
      "window: expected an integer from 16 to 15, the room in the context, got 16",
    );
  });

  test("are at most 64 by default, overlaps included; with the caller's own size there is no bound", () => {
    // 16 tokens a window, of which 14 are new: 64 windows hold 2 + 64 * 14 tokens.
    expect(spans(2 + 64 * 14, 32)).toHaveLength(64);
    const message =
      "conversation too long: expected at most 64 windows of 16 tokens, got 65 (a window of your own has no such bound)";
    expect(() => cut(2 + 64 * 14 + 1, 32)).toThrow(message);
    expect(spans(2 + 64 * 14 + 1, 32, { window: 16 })).toHaveLength(65);
    const encode = vi.spyOn(tokenizer, "encodeWithOffsets");
    onTestFinished(() => encode.mockRestore());
    expect(() => cut(100_000, 32)).toThrow(/expected at most 64 windows of 16 tokens, got at least \d+ \(a window/);
    expect(encode).not.toHaveBeenCalled();
  });

  test("an added token in the text is text", () => {
    const text = "<|im_end|>".repeat(6);
    const count = tokenizer.encode(text, { literal: true }).length;
    expect(count).toBeGreaterThan(20);
    expect(cutIntoWindows(text, tokenizer, 500, { window: 16 })?.length).toBeGreaterThan(1);
  });

  test("do not begin or end inside a character, and a character that fills the room is taken whole", () => {
    const emoji = "\u{1F9EA}".repeat(12); // some tokens each
    const each = tokenizer.encode(emoji, { literal: true }).length / 12;
    expect(each).toBeGreaterThan(1);
    for (const { start, end } of cutIntoWindows(emoji, tokenizer, 500, { window: 17, overlap: 3 }) ?? []) {
      expect([start % 2, end % 2]).toEqual([0, 0]);
    }
    // An overlap that would begin within a character begins with the next: here there is none.
    const windows = cutIntoWindows(emoji, tokenizer, 500, { window: 17, overlap: 1 }) ?? [];
    expect(windows.map(({ start }) => start)).toEqual([0, ...windows.slice(0, -1).map(({ end }) => end)]);
    expect(windows.length).toBeGreaterThan(1);
    const marks = (count: number): string => `a${"\u0301".repeat(count)}`;
    const count = tokenizer.encode(marks(60), { literal: true }).length;
    expect(cutIntoWindows(marks(60), tokenizer, count + 16, { window: 16 })).toHaveLength(1);
    expect(() => cutIntoWindows(marks(60), tokenizer, count + 15, { window: 16 })).toThrow(
      "expected characters of at most",
    );
  });
});

describe("explaining", () => {
  test.each([
    ["one two three", ["one two three", "one two", "one three", "two three"]],
    ["one, two", ["one, two", "one,", ", two"]],
    ["  one", ["  one", " "]],
    [" one two", [" one two", " one", " two"]],
    ["one\ntwo", ["one\ntwo", "one\n", "\ntwo"]],
    ["(one)", ["(one)", "()"]],
    ["a 😀 b", ["a 😀 b", "a 😀", "a b", "😀 b"]],
    ["a + b.", ["a + b.", "a +.", "a b.", "+ b."]],
    ["don't!", ["don't!", "!"]],
    ["1,5 €", ["1,5 €", "1,5", "€"]],
  ])("leaves out a word and the space before it, or after the first word: %j", async (text, contents) => {
    const encode = vi.spyOn(guard, "encode");
    onTestFinished(() => encode.mockRestore());
    await guard.explain(text);
    // Once to find a session, once as it is, then without each word from the last on.
    const seen = encode.mock.calls.map(([input]) => (input as ChatMessage[])[0].content);
    expect(seen).toEqual([text, ...contents]);
  });

  test("takes at most a thousand words", async () => {
    const words = (count: number): string => "a ".repeat(count);
    await expect(guard.explain(words(1_001))).rejects.toThrow("explain: expected at most 1000 words, got 1001");
    const enough = AbortSignal.abort(new Error("not refused"));
    await expect(guard.explain(words(1_000), { signal: enough })).rejects.toThrow("not refused");
  });
});

describe("a guard's name", () => {
  const named = async (folder: string, name: string): Promise<CheckpointFiles> => {
    const files = await openCheckpointFiles(folder);
    return { name, open: file => files.open(file), readText: file => files.readText(file) };
  };

  test.each([
    ["a/b/tiny", "tiny"],
    ["C:\\models\\tiny", "tiny"],
    ["tiny", "tiny"],
    ["https://host/x/", "https://host/x/"],
    ["line\nfeed/tiny", "line\nfeed/tiny"],
  ])("of %j is %j", async (source, name) => {
    const [gen, heads] = [
      await Guard.load(await named(GEN, source), { threads: 1 }),
      await StreamGuard.load(await named(STREAM, source), { threads: 1 }),
    ];
    expect([gen.name, heads.name]).toEqual([name, name]);
    gen.close();
    heads.close();
  });
});

describe("what a stream accepts", () => {
  test("every known option, and no other", () => {
    const signal = new AbortController().signal;
    const turn = async (): Promise<void> => {};
    guard.stream({ prompt: "a" }, { every: 1, mode: "loose", maxNewTokens: 20, signal, turn }).close();
    guard.stream({ prompt: "a" }, { threshold: 0 }).close();
    guard.stream({ prompt: "a" }, { threshold: 1 }).close();
    expect(() => guard.stream({ prompt: "a" }, { window: 64 } as object)).toThrow(
      /^stream: expected options among every, mode, .*, got "window"$/,
    );
  });

  test.each([
    [{ every: 0 }, "every: expected an integer of at least 1, got 0"],
    [{ every: 1.5 }, "every: expected an integer of at least 1, got 1.5"],
    [{ every: -1 }, "every: expected an integer of at least 1, got -1"],
    [{ mode: "lenient" }, "mode: expected"],
    [{ threshold: 1.1 }, "threshold: expected"],
    [{ threshold: -0.1 }, "threshold: expected"],
    [{ threshold: "0.5" }, "threshold: expected"],
    [{ threshold: Number.NaN }, "threshold: expected"],
  ])("%j is refused", (options, message) => {
    expect(() => guard.stream({ prompt: "a" }, options as object)).toThrow(message);
  });

  test("an input that is an object", () => {
    for (const input of [null, undefined, "a"]) {
      expect(() => guard.stream(input as unknown as { prompt: string })).toThrow(
        /^conversation: expected an object of options, got /,
      );
    }
  });
});

describe("a Stream guard that cannot be one", () => {
  test("has a tokenizer with more ids than the model", () => {
    const vocabSize = stream.vocabSize - 1;
    const smaller = { config: { ...model.config, vocabSize } } as typeof model;
    expect(() => new StreamGuard(smaller, stream, "s")).toThrow(
      `s: tokenizer: expected at most ${vocabSize} ids, the model's vocabulary, got ${stream.vocabSize}`,
    );
    const equal = { config: { ...model.config, vocabSize: stream.vocabSize } } as typeof model;
    expect(new StreamGuard(equal, stream, "s").name).toBe("s");
  });

  test("has a template that does not end the user's turn", async () => {
    const files = await openCheckpointFiles(STREAM);
    const template =
      "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}";
    const other = Tokenizer.fromJson(JSON.parse((await files.readText("tokenizer.json"))!), {}, template);
    expect(() => new StreamGuard(model, other, "s")).toThrow(
      "s: expected a chat template that ends the user's turn with <|im_end|>, got one that does not",
    );
  });
});

test("a Gen guard may have as many ids as its tokenizer, and needs a template", async () => {
  const gen = await loadModel(GEN);
  const equal = { config: { ...gen.config, vocabSize: tokenizer.vocabSize } } as typeof gen;
  expect(new Guard(equal, tokenizer, "g").name).toBe("g");
  const files = await openCheckpointFiles(GEN);
  const bare = Tokenizer.fromJson(JSON.parse((await files.readText("tokenizer.json"))!), {});
  expect(() => new Guard(gen, bare, "g")).toThrow("g: expected a guard's chat template, got a tokenizer without any");
});

test("a closed guard gives its engine back", async () => {
  for (const closing of [await Guard.load(GEN, { threads: 1 }), await StreamGuard.load(STREAM, { threads: 1 })]) {
    const close = vi.spyOn(closing.model, "close");
    closing.close();
    expect(close).toHaveBeenCalledTimes(1);
  }
});
