/** The guard end to end with the embedded checkpoint: goldens' verdicts, scores, and what it refuses. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { TEXT_FILES } from "../../src/checkpoint/files.ts";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import { SafetensorsCheckpoint } from "../../src/checkpoint/safetensors-sharded.ts";
import type { ModerationInput } from "../../src/guard/conversation.ts";
import { type BatchResult, Guard } from "../../src/guard/guard.ts";
import { probabilities } from "../../src/guard/labels.ts";
import type { ModerateOptions } from "../../src/guard/moderate-options.ts";
import type { SafetyLevel } from "../../src/guard/policy.ts";
import { readTasks } from "../../src/guard/task.ts";
import { compareVerdicts, type Verdict, type VerdictWindow } from "../../src/guard/verdict.ts";
import { cutIntoWindows } from "../../src/guard/windows.ts";
import { Qwen3, readConfig } from "../../src/model/qwen3.ts";
import { loadWeights } from "../../src/model/weights.ts";
import { WasmEngine } from "../../src/tensor/wasm/wasm-engine.ts";
import type { ChatMessage } from "../../src/tokenizer/chat-template.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { GEN, loadGuard, loadModel, ODD, STREAM } from "../checkpoints.ts";
import { expectAtMost, readJsonLines } from "../helpers.ts";
import { FORGERIES, randomConversations } from "./conversations.ts";

interface Golden {
  readonly messages: ChatMessage[];
  readonly prompt_ids: number[];
  readonly ids: number[];
  readonly text: string;
  readonly margins: number[];
  readonly levels: Record<SafetyLevel, number>;
  readonly verdict: { safety: SafetyLevel | null; categories: string[]; refusal?: "Yes" | "No" | null };
}

const goldens = readJsonLines<Golden>("test/goldens/tiny-guard-gen/generate.jsonl");

// The first 16 are the hand-picked ones: empty text, control tokens typed by a user, other languages, responses, a
// system message.
test.each(goldens.slice(0, 16).map((golden, i) => [i, golden.messages.at(-1)?.content, golden] as const))(
  "golden %i is judged as the reference judges it: %j",
  async (_, __, golden) => {
    const guard = await loadGuard();
    expect(Array.from(guard.encode(golden.messages))).toEqual(golden.prompt_ids);
    const verdict = await guard.moderate(golden.messages);
    expect(verdict.text).toBe(golden.text);
    expect(verdict.error).toBeUndefined();
    expect(verdict.safety).toBe(golden.verdict.safety);
    expect(verdict.categories).toEqual(golden.verdict.categories.filter(name => name !== "None"));
    expect(verdict.refusal).toBe(golden.verdict.refusal ?? null);
    expect(verdict.usage).toMatchObject({
      promptTokens: golden.prompt_ids.length,
      completionTokens: golden.ids.length,
    });
    expect(verdict.score).toBe(1 - (verdict.scores?.Safe as number));

    for (const [level, probability] of Object.entries(golden.levels)) {
      expectAtMost(Math.abs((verdict.scores as Record<string, number>)[level] - probability), 1e-5, level);
    }
    for (const scores of [verdict.scores, verdict.categoryScores]) {
      expectAtMost(
        Math.abs(Object.values(scores as Record<string, number>).reduce((a, b) => a + b) - 1),
        1e-6,
        "sum of scores",
      );
    }
    const likeliest = Object.entries(verdict.categoryScores as Record<string, number>).sort(
      (a, b) => b[1] - a[1],
    )[0][0];
    expect(likeliest).toBe(verdict.categories[0] ?? "None");
    expect(Object.keys(verdict.categoryScores as object)).toHaveLength(verdict.refusal === null ? 10 : 9);
    if (verdict.refusal === null) expect(verdict.refusalScore).toBeNull();
    else expect((verdict.refusalScore as number) > 0.5).toBe(verdict.refusal === "Yes");
  },
);

describe("forms of input and modes", () => {
  test("a text, a prompt and a conversation of one message are the same question", async () => {
    const guard = await loadGuard();
    const question = "How can I make a bomb?";
    const ids = guard.encode(question);
    expect(guard.encode({ prompt: question })).toEqual(ids);
    expect(guard.encode([{ role: "user", content: question }])).toEqual(ids);
    expect(guard.encode({ prompt: question, response: "No." })).not.toEqual(ids);
  });

  test("strict flags Controversial and loose does not, in a question and in an answer, whole or streamed", async () => {
    const guard = await loadGuard();
    const controversial = goldens.filter(({ verdict }) => verdict.safety === "Controversial");
    expect(new Set(controversial.map(({ messages }) => messages.at(-1)?.role))).toEqual(new Set(["user", "assistant"]));
    for (const { messages } of controversial) {
      for (const mode of ["strict", "loose"] as const) {
        expect(await guard.moderate(messages, { mode })).toMatchObject({
          safety: "Controversial",
          mode,
          flagged: mode === "strict",
        });
        const last = messages[messages.length - 1];
        if (last.role === "user") continue;
        const stream = guard.stream({ messages: messages.slice(0, -1) }, { mode, every: 1000 });
        await stream.push(last.content);
        expect((await stream.end()).violation?.risk).toBe(mode === "strict" ? "Controversial" : undefined);
      }
    }
  });

  test("an answer cut short is unparsed: no level, flagged in both modes, and its text is there", async () => {
    const guard = await loadGuard();
    for (const mode of ["strict", "loose"] as const) {
      const verdict = await guard.moderate("What is the capital of France?", { maxNewTokens: 4, mode });
      expect(verdict).toMatchObject({
        safety: null,
        categories: [],
        refusal: null,
        flagged: true,
        mode,
        error: "unparsed",
        text: "Safety: Safe\n",
      });
      expect(verdict.scores?.Safe).toBeGreaterThan(0.5);
      expect(verdict.categoryScores).toBeNull();
    }
    expect(await guard.moderate("hi", { maxNewTokens: 1 })).toMatchObject({
      safety: null,
      flagged: true,
      error: "unparsed",
      scores: null,
    });
  });

  test("an aborted verdict throws the signal's reason", async () => {
    const reason = new Error("enough");
    await expect((await loadGuard()).moderate("hi", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test.each<[ModerateOptions, string]>([
    [{ mode: "lax" as "loose" }, 'mode: expected "strict" or "loose", got "lax"'],
    [{ maxNewTokens: 0 }, "maxNewTokens: expected an integer of at least 1, got 0"],
    [{ threshold: 1.5 }, "threshold: expected a number from 0 to 1, got 1.5"],
    [{ threshold: Number.NaN }, "threshold: expected a number from 0 to 1, got null"],
    [{ scores: "all" as "full" }, 'scores: expected "basic" or "full", got "all"'],
    [{ window: 8 }, "window: expected an integer from 16 to"],
    [{ window: 1e9 }, "the room in the context, got 1000000000"],
    [{ window: 64, overlap: 33 }, "overlap: expected an integer from 0 to half of the window, 32, got 33"],
    [{ overlap: 3 }, "overlap: expected a window to go with it"],
    [{ maxTokens: 3 } as ModerateOptions, "moderate: expected options among"],
  ])("%j is refused", async (options, message) => {
    await expect((await loadGuard()).moderate("hi", options)).rejects.toThrow(message);
  });
});

test("options are checked without an input, except for what depends on it", async () => {
  const guard = await loadGuard();
  for (const [options, message] of [
    [{ mode: "lax" as "loose" }, "mode: expected"],
    [{ window: 8 }, "window: expected an integer from 16 to"],
    [{ window: guard.model.config.maxPositionEmbeddings }, "the room in the context, got"],
    [{ window: 64, overlap: 33 }, "overlap: expected an integer from 0 to half of the window, 32, got 33"],
  ] as const) {
    expect(() => guard.checkOptions(options)).toThrow(message);
  }
  expect(guard.checkOptions({})).toBeUndefined();
  // The largest possible window: accepted here and for the input that leaves most room, but not for a longer one.
  const [, most] = /to (\d+), the room/.exec(String(await guard.moderate("hi", { window: 1e9 }).catch(String))) ?? [];
  const options = { window: Number(most) };
  guard.checkOptions(options);
  expect((await guard.moderate("hi", options)).safety).toBe("Safe");
  await expect(guard.moderate({ prompt: "word ".repeat(200), response: "hi" }, options)).rejects.toThrow(
    "window: expected",
  );
});

describe("scores", () => {
  test("a threshold decides what is flagged, and the level no longer does", async () => {
    const guard = await loadGuard();
    const { score, ...strict } = await guard.moderate("How can I make a bomb?");
    expect([strict.flagged, strict.threshold]).toEqual([true, undefined]);
    const bomb = score as number;
    expect(bomb).toBeGreaterThan(0.9);
    expect(await guard.moderate("How can I make a bomb?", { threshold: bomb })).toMatchObject({
      flagged: true,
      threshold: bomb,
    });
    expect((await guard.moderate("How can I make a bomb?", { threshold: Math.min(1, bomb + 1e-7) })).flagged).toBe(
      false,
    );
    expect((await guard.moderate("Tell me a joke about cats.", { threshold: 0 })).flagged).toBe(true);
    // Unparsed: always, also where a score was read that is below it.
    expect(await guard.moderate("hi", { threshold: 1, maxNewTokens: 1 })).toMatchObject({
      error: "unparsed",
      score: null,
      flagged: true,
    });
    const cut = await guard.moderate("Tell me a joke about cats.", { threshold: 1, maxNewTokens: 4 });
    expect(cut).toMatchObject({ error: "unparsed", safety: null, flagged: true });
    expect(cut.score).toBeLessThan(0.1);
  });

  test("full: the categories of an unsafe reading, the same bits as forcing one, for one more pass", async () => {
    const guard = await loadGuard();
    const { labels } = readTasks(guard.model.config, guard.tokenizer, "test").user;
    for (const text of ["How do I kill a Python process?", "How can I make a bomb?"]) {
      const basic = await guard.moderate(text);
      const full = await guard.moderate(text, { scores: "full" });
      expect(basic.unsafeCategoryScores).toBeUndefined();
      const logits = guard.model.newSession().forward([...guard.encode(text), ...labels.unsafe]);
      expect(full.unsafeCategoryScores).toEqual(probabilities(logits, labels.category));
      expect([full.text, full.scores, full.categoryScores]).toEqual([basic.text, basic.scores, basic.categoryScores]);
      if (basic.safety === "Safe") expect(full.usage.passes).toBe(basic.usage.passes + 1);
      else expect(full.unsafeCategoryScores).toEqual(full.categoryScores);
    }
  });
});

describe("texts longer than the context", () => {
  const filler = "What is the capital of France? ".repeat(200);

  test("are judged in windows; the worst verdict wins and says where", async () => {
    const guard = await loadGuard();
    const text = `${filler}How can I make a bomb? ${filler}`;
    const options = { window: 24, overlap: 6 };
    const verdict = await guard.moderate(text, options);
    const { index, count, start, end } = verdict.window as VerdictWindow;
    expect(verdict).toMatchObject({ safety: "Unsafe", categories: ["Violent"], flagged: true });
    expect(text.slice(start, end)).toContain("make a bomb");
    // The same as judging each stretch alone and taking the worst.
    const windows = cutIntoWindows(text, guard.tokenizer, 1500, options) as VerdictWindow[];
    expect([windows.length, windows[index]]).toEqual([count, verdict.window]);
    const alone: Verdict[] = [];
    for (const window of windows) alone.push(await guard.moderate(text.slice(window.start, window.end)));
    expect([verdict.text, verdict.scores]).toEqual([alone[index].text, alone[index].scores]);
    expect(alone.filter(other => compareVerdicts(other, verdict) > 0)).toEqual([]);
    expect(verdict.usage.promptTokens).toBe(alone.reduce((sum, { usage }) => sum + usage.promptTokens, 0));
  });

  test("of equally bad windows, the first wins", async () => {
    const guard = await loadGuard();
    const line = "How can I make a bomb? How can I make a bomb at home?\n";
    const text = line.repeat(5);
    const options = { window: guard.tokenizer.encode(line, { literal: true }).length, overlap: 0 };
    const windows = cutIntoWindows(text, guard.tokenizer, 1500, options) as VerdictWindow[];
    expect(windows.map(({ start, end }) => text.slice(start, end))).toEqual(Array(5).fill(line));
    expect((await guard.moderate(text, options)).window).toEqual(windows[0]);
  });

  test("are cut without any option too, and a short one is judged whole", async () => {
    const guard = await loadGuard();
    const verdict = await guard.moderate(filler.repeat(3));
    expect(verdict.window?.count).toBeGreaterThan(1);
    expect((await guard.moderate("hi")).window).toBeUndefined();
    expect((await guard.moderate("hi", { window: 128 })).window).toBeUndefined();
  });

  test("a prompt that just leaves room for the answer is judged whole; one token more, and it is judged in windows", async () => {
    const guard = await loadGuard();
    const { maxPositionEmbeddings } = guard.model.config;
    for (const prompt of [undefined, "What do you see?"]) {
      const { user, assistant } = readTasks(guard.model.config, guard.tokenizer, "test");
      const { longest } = (prompt === undefined ? user : assistant).draft;
      const input = (cats: number): ModerationInput => {
        const text = `cat${" cat".repeat(cats)}`;
        return prompt === undefined ? text : { prompt, response: text };
      };
      const most = maxPositionEmbeddings - longest - guard.encode(input(0)).length;
      expect(guard.encode(input(most)).length + longest).toBe(maxPositionEmbeddings);
      expect((await guard.moderate(input(most))).window).toBeUndefined();
      expect((await guard.moderate(input(most + 1))).window?.count).toBe(2);
    }
  });

  test("a prompt as long as the context is too long, one with a token less is not", async () => {
    const guard = await loadGuard();
    const { maxPositionEmbeddings } = guard.model.config;
    const text = (cats: number): string => `cat${" cat".repeat(cats)}`;
    const most = maxPositionEmbeddings - 1 - guard.encode(text(0)).length;
    expect(guard.encode(text(most)).length).toBe(maxPositionEmbeddings - 1);
    expect(() => guard.encode(text(most + 1))).toThrow(
      /^conversation too long: expected fewer than 2048 tokens .*, got 2048$/,
    );
  });

  test("what comes before the message to judge is never cut: an error has both numbers", async () => {
    const guard = await loadGuard();
    const messages = [
      { role: "user", content: "word ".repeat(1900) },
      { role: "assistant", content: "No." },
    ];
    await expect(guard.moderate(messages)).rejects.toThrow(
      /^conversation too long: expected room for 32 tokens .* got -?\d+$/,
    );
    expect(() => guard.encode("word ".repeat(3000))).toThrow(
      /^conversation too long: expected fewer than 2048 tokens with the guard's prompt, got \d{4,}$/,
    );
  });
});

describe("many", () => {
  test("give one result each, in order and on demand; a bad one gives its error", async () => {
    const guard = await loadGuard();
    let taken = 0;
    function* inputs(): Generator<ModerationInput> {
      for (const input of [
        "How can I make a bomb?",
        7 as never,
        [],
        { prompt: "hi", response: "Hello." },
        "Tell me a joke about cats.",
      ]) {
        taken++;
        yield input;
      }
    }
    const results: BatchResult[] = [];
    for await (const result of guard.moderateMany(inputs(), { mode: "loose" })) {
      results.push(result);
      expect(taken).toBe(results.length);
    }
    expect(results.map(({ index, verdict, error }) => [index, verdict?.safety, error?.message])).toEqual([
      [0, "Unsafe", undefined],
      [
        1,
        undefined,
        "conversation: expected a text, {prompt, response} or an array of messages, got a value of type number",
      ],
      [2, undefined, "conversation: expected at least one message, got none"],
      [3, "Safe", undefined],
      [4, "Safe", undefined],
    ]);
    expect(results[3].verdict).toMatchObject({ mode: "loose", refusal: "No" });
  });

  test("an abort ends the batch, and so do wrong options", async () => {
    const guard = await loadGuard();
    const controller = new AbortController();
    const reason = new Error("enough");
    const seen: number[] = [];
    const run = async (): Promise<void> => {
      for await (const { index } of guard.moderateMany(["a", "b", "c"], { signal: controller.signal })) {
        seen.push(index);
        if (index === 1) controller.abort(reason);
      }
    };
    await expect(run()).rejects.toBe(reason);
    expect(seen).toEqual([0, 1]);
    await expect(guard.moderateMany(["a"], { threshold: 2 }).next()).rejects.toThrow(
      "threshold: expected a number from 0 to 1, got 2",
    );
  });
});

describe("explaining", () => {
  test("leaves out each word in turn: the same as judging the text without it", async () => {
    const guard = await loadGuard();
    const text = "Hello, how can I make a bomb? 💣";
    const { safe, words } = await guard.explain(text);
    expect(safe).toBe((await guard.moderate(text)).scores?.Safe);
    expect(words.map(word => word.text)).toEqual(["Hello", "how", "can", "I", "make", "a", "bomb", "💣"]);
    for (const { text: word, start, end } of words) expect(text.slice(start, end)).toBe(word);
    const without = ["Hello, how can I make a? 💣", "Hello, how can I make a bomb?"];
    expect(words[6].safe).toBe((await guard.moderate(without[0])).scores?.Safe);
    expect(words[7].safe).toBe((await guard.moderate(without[1])).scores?.Safe);
    expect(words[6].change).toBe(words[6].safe - safe);
    expect(words.reduce((best, word) => (word.change > best.change ? word : best)).text).toBe("bomb");
  });

  test("a text without words has none; one of too many is refused", async () => {
    const guard = await loadGuard();
    expect((await guard.explain("...")).words).toEqual([]);
    await expect(guard.explain("a ".repeat(1001))).rejects.toThrow("explain: expected at most 1000 words, got 1001");
  });
});

describe("a user who imitates the template is judged like anyone else", () => {
  /**
   * The same guard whose control tokens are spelled otherwise: to it, what a user types here is ordinary text beyond
   * doubt.
   */
  async function guardWithOtherControlTokens(): Promise<Guard> {
    const respell = (json: string): string => json.replaceAll(/<(\|\w+\||\/?think|\/?tool_\w+)>/g, "\u27e6$1\u27e7");
    const read = (file: string): unknown => JSON.parse(respell(readFileSync(join(GEN, file), "utf8")));
    const tokenizer = Tokenizer.fromJson(read("tokenizer.json"), read("tokenizer_config.json"));
    expect(tokenizer.tokenToId("<|im_end|>")).toBeUndefined();
    return new Guard(gen, tokenizer, "respelled");
  }

  test("every forgery, alone and in conversations, has the ids and the verdict of text that cannot be control tokens", async () => {
    const guard = await loadGuard();
    const other = await guardWithOtherControlTokens();
    const conversations = [
      ...FORGERIES.flatMap(forgery => [
        [{ role: "user", content: `How can I make a bomb?${forgery}` }],
        [{ role: "user", content: forgery }],
        [
          { role: "user", content: `hello ${forgery}` },
          { role: "assistant", content: `Sure: ${forgery}` },
        ],
      ]),
      ...[...randomConversations(7, 150)].filter(messages =>
        messages.some(({ content }) => /[<>]|Safety/.test(content)),
      ),
    ];
    expect(conversations.length).toBeGreaterThan(60);
    const controlIds = new Set(guard.tokenizer.addedTokens.map(({ id }) => id));
    const count = (ids: Int32Array): number => ids.filter(id => controlIds.has(id)).length;
    for (const messages of conversations) {
      const ids = guard.encode(messages);
      expect(ids).toEqual(other.encode(messages));
      // As many control tokens as the same conversation has without a word in it: the template's own.
      expect(count(ids)).toBe(count(guard.encode(messages.map(message => ({ ...message, content: "" })))));
      const [got, expected] = [await guard.moderate(messages), await other.moderate(messages)];
      expect([got.text, got.scores, got.categoryScores]).toEqual([
        expected.text,
        expected.scores,
        expected.categoryScores,
      ]);
    }
  });
});

describe("the prefix cache", () => {
  test("finds what prompts share, and a verdict is the same bits cold and warm", async () => {
    const warm = await Guard.load();
    const cached: number[] = [];
    for (const { messages } of [...goldens.slice(0, 20), ...goldens.slice(10, 16).reverse()]) {
      const cold = new Guard(warm.model, warm.tokenizer, warm.name);
      const [expected, got] = [await cold.moderate(messages), await warm.moderate(messages)];
      const { usage, ms, ...rest } = got;
      expect(rest).toEqual((({ usage: _, ms: __, ...others }) => others)(expected));
      expect(expected.usage.cachedTokens).toBe(0);
      expect(usage.promptTokens).toBe(expected.usage.promptTokens);
      cached.push(usage.cachedTokens);
    }
    expect(cached[0]).toBe(0);
    // From the second of its kind on, a prompt begins with the whole policy; a repeated one leaves only its last id to
    // run.
    expect(Math.min(...cached.slice(1, 13))).toBeGreaterThan(140);
    warm.close();
  });

  test("alternating prompts and responses each find their own policy, even with raw prompts between them", async () => {
    const guard = await Guard.load();
    const judge = async (input: ModerationInput): Promise<number> => (await guard.moderate(input)).usage.cachedTokens;
    expect([await judge("a"), await judge({ prompt: "a", response: "b" })]).toEqual([0, 0]);
    for (const word of ["c", "d"]) {
      for await (const { cachedTokens } of guard.answer(guard.tokenizer.encode("<|im_start|>x"), { maxNewTokens: 1 }))
        expect(cachedTokens).toBe(0);
      expect(await judge(word)).toBeGreaterThan(140);
      expect(await judge({ prompt: word, response: word })).toBeGreaterThan(140);
    }
    guard.close();
  });

  test("the answer to a conversation is greedy generation's, id by id, whatever is drafted or sampled", async () => {
    const guard = await loadGuard();
    for (const { messages } of goldens.slice(0, 5)) {
      for (const sampling of [{}, { temperature: 1.5, seed: 3, maxNewTokens: 12 }]) {
        const ids: number[] = [];
        for await (const { id } of guard.answer(messages, sampling)) ids.push(id);
        expect(ids).toEqual(Array.from((await guard.model.generate(guard.encode(messages), sampling)).ids));
      }
    }
  });

  test("verdicts computed at the same time do not disturb each other", async () => {
    const guard = await loadGuard();
    const some = goldens.slice(0, 12);
    const verdicts = await Promise.all(some.map(({ messages }) => guard.moderate(messages)));
    expect(verdicts.map(({ text }) => text)).toEqual(some.map(({ text }) => text));
  });
});

describe("checkpoints that are not a Gen guard's are refused", () => {
  test("Stream, by its architecture", async () => {
    await expect(Guard.load(STREAM)).rejects.toThrow(
      "tiny-guard-stream: expected a Gen guard (Qwen3ForCausalLM), got Qwen3ForGuardModel",
    );
  });

  test("one without a tokenizer", async () => {
    await expect(Guard.load(ODD)).rejects.toThrow("tokenizer.json");
  });

  test("an ordinary chat template", async () => {
    const tokenizer = await Tokenizer.load(STREAM);
    expect(() => new Guard(new Qwen3(gen.engine, gen.config, gen.weights), tokenizer, "chat")).toThrow(
      "chat: expected a guard's chat template",
    );
  });

  test("a tokenizer with more ids than the model", async () => {
    const tokenizer = await Tokenizer.load(GEN);
    const odd = await loadModel(ODD);
    expect(() => new Guard(odd, tokenizer, "mixed")).toThrow(
      "mixed: tokenizer: expected at most 331 ids, the model's vocabulary, got",
    );
  });
});

test("loading reads config.json once and derives the tasks once, from the template's two branches", async () => {
  const read: string[] = [];
  const files = await openCheckpointFiles(GEN);
  const render = vi.spyOn(Tokenizer.prototype, "applyChatTemplate");
  onTestFinished(() => render.mockRestore());
  const guard = await Guard.load({
    ...files,
    readText: file => {
      read.push(file);
      return files.readText(file);
    },
  });
  guard.close();
  expect(read.sort()).toEqual([...TEXT_FILES].sort());
  expect(render).toHaveBeenCalledTimes(2);
  expect(new Guard(guard.model, guard.tokenizer, "made by hand").name).toBe("made by hand");
  expect(render).toHaveBeenCalledTimes(4);
});

const gen = await loadModel(GEN);

test("whether a text has room does not depend on what was judged before", async () => {
  const files = await openCheckpointFiles(GEN);
  const config = await readConfig(files);
  const checkpoint = await SafetensorsCheckpoint.open(files);
  const engine = WasmEngine.create({ memoryLimit: 18_200_000 });
  const guard = new Guard(
    new Qwen3(engine, config, await loadWeights(checkpoint, config, engine)),
    await Tokenizer.load(files),
    "small",
  );
  await checkpoint.close();
  const long = "The garden was full of flowers and the tea was good. ".repeat(100);
  for (let i = 0; i < 3; i++) {
    for (const input of [long, { prompt: "How was it?", response: long }])
      expect((await guard.moderate(input)).usage.promptTokens).toBeGreaterThan(1500);
  }
  // One that has none at all is no fault of the text's.
  const none = WasmEngine.create({ memoryLimit: 6_000_000 });
  const again = await SafetensorsCheckpoint.open(files);
  const full = new Guard(new Qwen3(none, config, await loadWeights(again, config, none)), guard.tokenizer, "full");
  await again.close();
  const results = full.moderateMany([long]);
  await expect(results.next()).rejects.toThrow(/^memory: expected/);
  guard.close();
  full.close();
});

test("a conversation that is too long before its last message is refused before any of it is encoded", async () => {
  const guard = await loadGuard();
  const messages = [
    { role: "user", content: "x".repeat(8_000_000) },
    { role: "user", content: "Hi" },
  ];
  await expect(guard.moderate(messages)).rejects.toThrow(/^conversation too long: .* before the message to judge$/);
});

test("the policy is that of the last message's role", async () => {
  const guard = await loadGuard();
  const question = { role: "user", content: "Hi" };
  const [asked, answered] = [[question], [question, { role: "assistant", content: "Hello" }]].map(messages =>
    guard.policyOf(messages),
  );
  expect([asked.hasRefusal, answered.hasRefusal]).toEqual([false, true]);
  expect(asked.categories).toContain("Jailbreak");
  expect(answered.categories).not.toContain("Jailbreak");
});
