/**
 * What the guard makes of an answer, whatever the model: the answers are the test's own, so each case takes a
 * millisecond.
 */

import { describe, expect, onTestFinished, test, vi } from "vitest";
import { AnswerDraft } from "../../src/guard/answer-draft.ts";
import type { ModerationInput } from "../../src/guard/conversation.ts";
import { type BatchResult, type Guard, isInputError } from "../../src/guard/guard.ts";
import { readTasks, type Task } from "../../src/guard/task.ts";
import type { Verdict, VerdictWindow } from "../../src/guard/verdict.ts";
import { cutIntoWindows } from "../../src/guard/windows.ts";
import { MemoryError } from "../../src/tensor/memory-error.ts";
import { MARGIN, scriptedGuard } from "./scripted-model.ts";

const SAFE = "Safety: Safe\nCategories: None";
const CONTROVERSIAL = "Safety: Controversial\nCategories: PII";
const UNSAFE = "Safety: Unsafe\nCategories: Violent";
/** One token each in the demo guard's vocabulary. */
const cats = (count: number): string => " cat".repeat(count);

/** By what the last message says: "bomb" is Unsafe, "secret" Controversial, "riddle" no answer at all. */
function byWord(prompt: string): string {
  const isResponse = prompt.includes("Refusal: Yes"); // the form that the template asks for
  const message = /<BEGIN CONVERSATION>([\s\S]*)<END CONVERSATION>/.exec(prompt)?.[1] ?? prompt;
  const answer = /bomb/.test(message)
    ? UNSAFE
    : /secret/.test(message)
      ? CONTROVERSIAL
      : /riddle/.test(message)
        ? "Hm."
        : SAFE;
  return isResponse && answer !== "Hm." ? `${answer}\nRefusal: No` : answer;
}

const tasksOf = (guard: Guard) => readTasks(guard.model.config, guard.tokenizer, "test");

describe("a verdict", () => {
  test("has the answer's level, categories and text, and no key that was not asked for", async () => {
    const { guard } = await scriptedGuard(byWord);
    const started = performance.now();
    const { ms, score, scores, categoryScores, ...rest } = await guard.moderate("a bomb");
    expect(ms).toBeGreaterThanOrEqual(0);
    expect(ms).toBeLessThanOrEqual(performance.now() - started);
    expect(Object.keys(rest).sort()).toEqual(
      ["categories", "flagged", "mode", "model", "refusal", "refusalScore", "safety", "text", "usage"].sort(),
    );
    expect(rest).toMatchObject({
      safety: "Unsafe",
      categories: ["Violent"],
      refusal: null,
      refusalScore: null,
      flagged: true,
      mode: "strict",
      model: "scripted",
      text: UNSAFE,
    });
    // One logit stands out: softmax over three levels, and over the categories with "None".
    const out = (others: number): number => Math.exp(MARGIN) / (Math.exp(MARGIN) + others);
    expect(scores?.Unsafe).toBeCloseTo(out(2), 6);
    expect(scores?.Safe).toBeCloseTo((1 - out(2)) / 2, 6);
    expect(score).toBe(1 - (scores?.Safe as number));
    expect(categoryScores?.Violent).toBeCloseTo(out(Object.keys(categoryScores as object).length - 1), 6);
  });

  test("on a response says whether it refuses, and how surely", async () => {
    const { guard } = await scriptedGuard(byWord);
    const verdict = await guard.moderate({ prompt: "a", response: "b" });
    expect(verdict).toMatchObject({ safety: "Safe", refusal: "No", categories: [] });
    expect(verdict.refusalScore).toBeCloseTo(1 / (1 + Math.exp(MARGIN)), 6);
  });

  test("of an answer that is none is flagged, and nothing is learned from it", async () => {
    const learn = vi.spyOn(AnswerDraft.prototype, "learn");
    onTestFinished(() => learn.mockRestore());
    const { guard } = await scriptedGuard(byWord);
    expect(await guard.moderate("a riddle")).toMatchObject({
      safety: null,
      error: "unparsed",
      flagged: true,
      text: "Hm.",
    });
    expect(learn).not.toHaveBeenCalled();
    const { text } = await guard.moderate("a bomb");
    expect(learn).toHaveBeenCalledTimes(1);
    expect(guard.tokenizer.decode(learn.mock.calls[0][0] as number[], { skipSpecialTokens: true })).toBe(text);
  });

  test("with all scores costs a pass, except where the answer was Unsafe, whose own category it is", async () => {
    const { guard, model } = await scriptedGuard(byWord);
    const { user } = tasksOf(guard);
    const passes = async (text: string, scores: "basic" | "full"): Promise<number> =>
      (await guard.moderate(text, { scores })).usage.passes;
    expect(await passes("a bomb", "full")).toBe(await passes("a bomb", "basic"));
    expect(model.forwards).toEqual([]);
    const unsafe = await guard.moderate("a bomb", { scores: "full" });
    expect(unsafe.unsafeCategoryScores).toEqual(unsafe.categoryScores);
    for (const text of ["a cat", "a secret", "a riddle"]) {
      model.forwards.length = 0;
      expect(await passes(text, "full")).toBe((await passes(text, "basic")) + 1);
      expect(model.forwards).toEqual([[...user.labels.unsafe]]);
    }
    const [basic, full] = [await guard.moderate("a cat"), await guard.moderate("a cat", { scores: "full" })];
    expect("unsafeCategoryScores" in basic).toBe(false);
    expect(Object.keys(full.unsafeCategoryScores as object)).toEqual(Object.keys(full.categoryScores as object));
  });

  test("has its threshold only where there was one", async () => {
    const { guard } = await scriptedGuard(byWord);
    expect("threshold" in (await guard.moderate("a bomb"))).toBe(false);
    expect(await guard.moderate("a bomb", { threshold: 1 })).toMatchObject({
      threshold: 1,
      flagged: false,
      mode: "strict",
    });
    expect(await guard.moderate("a cat", { threshold: 0 })).toMatchObject({ threshold: 0, flagged: true });
  });

  test("passes signal, turn and the most ids on to the model, and guesses the answer", async () => {
    const { guard, model } = await scriptedGuard(byWord);
    const signal = new AbortController().signal;
    const turn = async (): Promise<void> => {};
    const safe = guard.tokenizer.encode(SAFE, { literal: true }).length + 1;
    expect((await guard.moderate("a", { signal, turn })).usage).toMatchObject({ completionTokens: safe, passes: 1 });
    expect((await guard.moderate("a", { maxNewTokens: 7 })).usage.completionTokens).toBe(7);
    const [given, silent] = model.prompts.map(({ options }) => options);
    expect([given.signal, given.turn]).toEqual([signal, turn]);
    expect("signal" in silent).toBe(false);
    expect((await guard.moderate("a bomb")).usage.passes).toBeLessThan(4);
  });

  test("has 128 ids at most, where nobody says another number", async () => {
    const { guard } = await scriptedGuard(() => `${SAFE}${cats(200)}`);
    expect(await guard.moderate("a")).toMatchObject({ error: "unparsed", usage: { completionTokens: 128 } });
  });

  test("reads each position once: where an answer goes on, its first line of a kind counts", async () => {
    const twice = "Safety: Safe\nCategories: None\nRefusal: No\nCategories: Violent\nRefusal: Yes";
    const { guard } = await scriptedGuard(() => twice);
    const verdict = await guard.moderate({ prompt: "a", response: "b" });
    expect(verdict.text).toBe(twice);
    expect(verdict.refusalScore).toBeLessThan(0.1);
    expect(verdict.categoryScores?.None).toBeGreaterThan(0.9);
    expect(verdict.scores?.Safe).toBeGreaterThan(0.9);
    expect(verdict.usage.completionTokens).toBe(guard.tokenizer.encode(twice, { literal: true }).length + 1);
  });

  test("reads the level at the answer's beginning alone", async () => {
    const { guard } = await scriptedGuard(() => `Hm. ${UNSAFE}`);
    expect(await guard.moderate("a")).toMatchObject({ error: "unparsed", scores: null, score: null });
  });
});

describe("of several windows", () => {
  const options = { window: 16, overlap: 0 };
  const textOf = (words: readonly string[]): string => words.map(word => ` ${word}${cats(15)}`).join("");

  test.each([
    [["cat", "bomb", "cat"], 1, "Unsafe"],
    [["cat", "bomb", "bomb"], 1, "Unsafe"],
    [["secret", "bomb", "cat"], 1, "Unsafe"],
    [["bomb", "secret", "cat"], 0, "Unsafe"],
    [["cat", "cat", "secret"], 2, "Controversial"],
    [["cat", "cat", "cat"], 0, "Safe"],
  ] as const)("%j: that of index %i, %s", async (words, index, safety) => {
    const { guard, model, tokenizer } = await scriptedGuard(byWord);
    const text = textOf(words);
    const windows = cutIntoWindows(text, tokenizer, 500, options) as VerdictWindow[];
    const verdict = await guard.moderate(text, options);
    expect([verdict.safety, verdict.window]).toEqual([safety, windows[index]]);
    // What all of them took.
    const prompts = windows.map(({ start, end }) => guard.encode(text.slice(start, end)).length);
    expect(model.prompts).toHaveLength(windows.length);
    const ran = model.prompts.reduce((sum, { ids }) => sum + ids.length, 0);
    const { promptTokens, cachedTokens, completionTokens, passes } = verdict.usage;
    expect(promptTokens).toBe(prompts.reduce((a, b) => a + b));
    expect(promptTokens - cachedTokens).toBe(ran);
    expect(cachedTokens).toBeGreaterThan(0);
    const answerTo = { cat: SAFE, secret: CONTROVERSIAL, bomb: UNSAFE };
    const answers = words.map(word => tokenizer.encode(answerTo[word], { literal: true }).length + 1);
    expect(completionTokens).toBe(answers.reduce((a, b) => a + b));
    expect(passes).toBeGreaterThanOrEqual(words.length);
    expect(passes).toBeLessThanOrEqual(3 * words.length);
  });

  test("the context stays, and only the last message is cut", async () => {
    const prompts: string[] = [];
    const { guard } = await scriptedGuard(prompt => {
      prompts.push(prompt);
      return `${SAFE}\nRefusal: No`;
    });
    await guard.moderate({ prompt: "the question", response: ` flowers${cats(14)} tea${cats(14)}` }, options);
    expect(
      prompts.map(prompt => [prompt.includes("the question"), prompt.includes(" flowers"), prompt.includes(" tea")]),
    ).toEqual([
      [true, true, false],
      [true, false, true],
    ]);
  });

  test("a window that one asks for and that holds all is no window", async () => {
    const { guard } = await scriptedGuard(byWord);
    expect("window" in (await guard.moderate("a cat", options))).toBe(false);
  });
});

describe("the room in the context", () => {
  const CONTEXT = 500;
  const inputs = {
    "a text": (count: number): ModerationInput => `cat${cats(count)}`,
    "a response": (count: number): ModerationInput => ({ prompt: "What?", response: `cat${cats(count)}` }),
  };

  test.each(Object.entries(inputs))("%s that just leaves room for the answer is judged whole", async (kind, input) => {
    const { guard, model } = await scriptedGuard(byWord, CONTEXT);
    const { user, assistant } = tasksOf(guard);
    const { longest } = (kind === "a text" ? user : assistant).draft;
    const most = CONTEXT - longest - guard.encode(input(0)).length;
    expect((await guard.moderate(input(most))).window).toBeUndefined();
    expect(model.prompts).toHaveLength(1);
    expect((await guard.moderate(input(most + 1))).window?.count).toBe(2);
  });

  test("a prompt of the context's length is too long", async () => {
    const { guard } = await scriptedGuard(byWord, CONTEXT);
    const most = CONTEXT - 1 - guard.encode("cat").length;
    expect(guard.encode(`cat${cats(most)}`)).toHaveLength(CONTEXT - 1);
    expect(() => guard.encode(`cat${cats(most + 1)}`)).toThrow(
      `conversation too long: expected fewer than ${CONTEXT} tokens with the guard's prompt, got ${CONTEXT}`,
    );
    expect(() => guard.encode(`cat${cats(most + 9)}`)).toThrow(`got ${CONTEXT + 8}`);
  });

  test("a text far beyond it is refused by its length, before it is encoded: with the least it can be", async () => {
    const { guard, tokenizer } = await scriptedGuard(byWord, CONTEXT);
    const encode = vi.spyOn(tokenizer, "encodeChat");
    onTestFinished(() => encode.mockRestore());
    const units = 100_000;
    const refused = `conversation too long: expected fewer than ${CONTEXT} tokens with the guard's prompt, got at least ${tokenizer.leastIds(units)}`;
    expect(() => guard.encode("x".repeat(units))).toThrow(refused);
    const both = [
      { role: "user", content: "x".repeat(units / 2) },
      { role: "user", content: "x".repeat(units / 2) },
    ];
    expect(() => guard.encode(both)).toThrow(refused);
    const before = [
      { role: "user", content: "x".repeat(units) },
      { role: "user", content: "Hi" },
    ];
    await expect(guard.moderate(before)).rejects.toThrow(`${refused} before the message to judge`);
    expect(encode).not.toHaveBeenCalled();
  });

  test("what comes before the message is counted, the message itself is not", async () => {
    const { guard } = await scriptedGuard(byWord, CONTEXT);
    const { window } = await guard.moderate([
      { role: "user", content: "What?" },
      { role: "assistant", content: `cat${cats(1200)}` },
    ]);
    expect(window?.count).toBeGreaterThan(5);
    const before = { prompt: `cat${cats(165)}`, response: cats(900) };
    const room = CONTEXT - guard.encode({ ...before, response: "" }).length - tasksOf(guard).assistant.draft.longest;
    await expect(guard.moderate(before)).rejects.toThrow(/expected room for 32 tokens .*, got /);
    await expect(guard.moderate(before)).rejects.toThrow(`got ${room}`);
  });

  test("of a message that cannot fit by its length only windows are encoded", async () => {
    const { guard, tokenizer } = await scriptedGuard(byWord, CONTEXT);
    const text = cats(12_000);
    expect(tokenizer.leastIds(text.length)).toBeGreaterThanOrEqual(CONTEXT);
    const encode = vi.spyOn(tokenizer, "encodeChat");
    onTestFinished(() => encode.mockRestore());
    expect((await guard.moderate(text, { window: 180 })).window?.count).toBeGreaterThan(50);
    expect(Math.max(...encode.mock.calls.map(([[{ content }]]) => content.length))).toBeLessThan(1000);
    encode.mockClear();
    await expect(guard.moderate(text.repeat(4))).rejects.toThrow("expected at most 64 windows");
    expect(Math.max(...encode.mock.calls.map(([[{ content }]]) => content.length))).toBe(0);
  });

  test("the largest window that options may name is the largest that any input leaves room for", async () => {
    const { guard } = await scriptedGuard(byWord, CONTEXT);
    const roomOf = (empty: ModerationInput, task: Task): number =>
      CONTEXT - guard.encode(empty).length - task.draft.longest - 16;
    const { user, assistant } = tasksOf(guard);
    const most = Math.max(roomOf("", user), roomOf({ prompt: "", response: "" }, assistant));
    expect(guard.checkOptions({ window: most })).toBeUndefined();
    expect(() => guard.checkOptions({ window: most + 1 })).toThrow(
      `window: expected an integer from 16 to ${most}, the room in the context, got ${most + 1}`,
    );
    expect(guard.checkOptions({})).toBeUndefined();
    expect(() => guard.checkOptions({ window: 15 })).toThrow("window: expected");
    expect(() => guard.checkOptions({ mode: "lax" as "loose" })).toThrow("mode: expected");
  });

  test("an answer that is being written may grow until there is no room for the verdict", async () => {
    const { guard } = await scriptedGuard(byWord, CONTEXT);
    const { assistant } = tasksOf(guard);
    const length = (count: number): number => guard.encode({ prompt: "What?", response: `cat${cats(count)}` }).length;
    const most = CONTEXT - assistant.draft.longest - length(0);
    const end = async (count: number) => {
      const stream = guard.stream({ prompt: "What?" }, { every: 1000 });
      await stream.push(`cat${cats(count)}`);
      return stream.end();
    };
    expect((await end(most)).verdicts).toHaveLength(1);
    await expect(end(most + 1)).rejects.toThrow(
      `conversation too long: expected fewer than ${CONTEXT} tokens with the guard's prompt, got ${length(most + 1)} and no room for the verdict`,
    );
  });
});

describe("what was judged before", () => {
  const cached = ({ usage }: Verdict): number => usage.cachedTokens;

  test("is found by the next, however it was asked for, and all but the last id of it is", async () => {
    const uses: Record<string, (guard: Guard) => Promise<unknown>> = {
      moderate: guard => guard.moderate("a cat"),
      explain: guard => guard.explain("a cat"),
      answer: async guard => {
        for await (const step of guard.answer("a cat")) void step;
      },
      "an answer that is left": async guard => {
        for await (const step of guard.answer("a cat")) {
          void step;
          break;
        }
      },
    };
    for (const [name, use] of Object.entries(uses)) {
      const { guard, model } = await scriptedGuard(byWord);
      await use(guard);
      const prompt = guard.encode("a cat");
      const second = cached(await guard.moderate("a cat"));
      expect([name, model.sessions.length, second > 100]).toEqual([name, 1, true]);
      if (name !== "explain") expect([name, second]).toEqual([name, prompt.length - 1]);
    }
  });

  test("of a stream is given back when it is closed, and a stream that judged nothing has nothing", async () => {
    const { guard, model } = await scriptedGuard(byWord);
    const stream = guard.stream({ prompt: "What?" }, { every: 2 });
    await stream.push(cats(9));
    await stream.push(cats(9));
    expect(model.sessions).toHaveLength(1); // one for all its verdicts
    await stream.end();
    await Promise.resolve();
    expect(cached(await guard.moderate({ prompt: "What?", response: cats(18) }))).toBe(
      guard.encode({ prompt: "What?", response: cats(18) }).length - 1,
    );
    expect(model.sessions).toHaveLength(1);
    const unused = guard.stream({ prompt: "What?" });
    unused.close();
    expect(model.sessions).toHaveLength(1);
  });

  test("is given up where there is no memory, and the text judged once more; where nothing is left to give up, it is an error", async () => {
    const { guard, model } = await scriptedGuard(byWord);
    let failures = 0;
    model.beforePass = () => {
      if (failures > 0) throw new MemoryError(`memory: expected room ${failures--}`);
    };
    await guard.moderate("a cat");
    failures = 1;
    const idle = model.sessions[0];
    // A response has another policy, so that the session of the text stays idle.
    expect((await guard.moderate({ prompt: "a", response: "b" })).safety).toBe("Safe");
    expect(idle.isClosed).toBe(true);
    expect(failures).toBe(0);
    const lonely = await scriptedGuard(byWord);
    let calls = 0;
    lonely.model.beforePass = () => {
      calls++;
      throw new MemoryError("memory: expected room");
    };
    await expect(lonely.guard.moderate("a cat")).rejects.toThrow("memory: expected room");
    expect(calls).toBe(1);
  });

  test("is not given up for an error of another kind", async () => {
    const { guard, model } = await scriptedGuard(byWord);
    await guard.moderate({ prompt: "a", response: "b" });
    const [idle] = model.sessions;
    let calls = 0;
    model.beforePass = () => {
      calls++;
      throw new RangeError("no");
    };
    await expect(guard.moderate("a cat")).rejects.toThrow("no");
    expect([idle.isClosed, calls]).toEqual([false, 1]);
  });
});

describe("an explanation", () => {
  test("has each word in its place, P(Safe) without it, and what that changes", async () => {
    const { guard } = await scriptedGuard(byWord);
    const safe = async (text: string): Promise<number> => (await guard.moderate(text)).scores?.Safe as number;
    const explanation = await guard.explain("a small bomb!");
    expect(explanation.safe).toBeCloseTo(await safe("a small bomb!"), 9);
    expect(explanation.words.map(({ text, start, end }) => [text, start, end])).toEqual([
      ["a", 0, 1],
      ["small", 2, 7],
      ["bomb", 8, 12],
    ]);
    for (const word of explanation.words) expect(word.change).toBe(word.safe - explanation.safe);
    expect(explanation.words.map(({ change }) => change > 0.5)).toEqual([false, false, true]);
  });

  test("takes a signal, and no other option", async () => {
    const { guard } = await scriptedGuard(byWord);
    const reason = new Error("enough");
    await expect(guard.explain("a", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await expect(guard.explain("a", { mode: "loose" } as object)).rejects.toThrow(
      'explain: expected options among signal, got "mode"',
    );
  });
});

describe("an answer that is being written", () => {
  test("has the verdict on its question, with the options of the stream", async () => {
    const { guard } = await scriptedGuard(byWord);
    const question = await guard.stream({ prompt: "a secret" }, { mode: "loose" }).query();
    expect(question).toMatchObject({
      risk: "Controversial",
      category: "PII",
      verdict: { flagged: false, mode: "loose" },
    });
    const { verdicts, violation } = await (async () => {
      const stream = guard.stream({ prompt: "a" }, { threshold: 0.5, every: 1000 });
      await stream.push("a bomb");
      return stream.end();
    })();
    expect(verdicts[0].verdict).toMatchObject({ safety: "Unsafe", threshold: 0.5, flagged: true });
    expect(violation).toMatchObject({ risk: "Unsafe", category: "Violent", at: 0 });
  });
});

describe("a batch", () => {
  test("goes on after an input's error, and ends with any other", async () => {
    const { guard, model } = await scriptedGuard(byWord);
    const results: BatchResult[] = [];
    for await (const result of guard.moderateMany(["a bomb", 7 as never, [], "a cat"])) results.push(result);
    expect(results.map(({ index, verdict, error }) => [index, verdict?.safety ?? null, error?.name ?? null])).toEqual([
      [0, "Unsafe", null],
      [1, null, "TypeError"],
      [2, null, "ConversationError"],
      [3, "Safe", null],
    ]);
    for (const error of [new Error("engine"), new MemoryError("memory")]) {
      model.beforePass = () => {
        throw error;
      };
      await expect(guard.moderateMany(["a"]).next()).rejects.toBe(error);
    }
  });

  test("knows an input's error by its class", () => {
    expect([new TypeError(), new RangeError(), new MemoryError(), new Error(), "text"].map(isInputError)).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  test("is over with its signal, before the next input is judged", async () => {
    const { guard, model } = await scriptedGuard(byWord);
    const reason = new Error("enough");
    await expect(guard.moderateMany(["a"], { signal: AbortSignal.abort(reason) }).next()).rejects.toBe(reason);
    await expect(guard.moderateMany(["a"], { threshold: 2 }).next()).rejects.toThrow("threshold: expected");
    expect(model.prompts).toEqual([]);
  });
});

describe("the answer id by id", () => {
  test("to a conversation is guessed; to ids of one's own it is not", async () => {
    const { guard, tokenizer } = await scriptedGuard(byWord);
    const run = async (input: string | Int32Array) => {
      const steps = [];
      for await (const step of guard.answer(input)) steps.push(step);
      const [{ promptTokens, cachedTokens }] = steps;
      const ids = steps.map(({ id }) => id);
      return { ids, passes: steps.at(-1)?.pass, promptTokens, cachedTokens };
    };
    const prompt = guard.encode("a cat");
    const first = await run("a cat");
    expect(tokenizer.decode(first.ids, { skipSpecialTokens: true })).toBe(SAFE);
    expect(first).toMatchObject({ promptTokens: prompt.length, cachedTokens: 0 });
    expect(first.passes).toBeLessThan(3);
    expect(await run(prompt)).toEqual({ ...first, cachedTokens: prompt.length - 1, passes: first.ids.length });
  });

  test("takes the options of a generation", async () => {
    const { guard, tokenizer } = await scriptedGuard(byWord);
    const drawn = async (seed: number): Promise<number[]> => {
      const ids = [];
      for await (const { id } of guard.answer("a cat", { temperature: 50, seed, maxNewTokens: 20 })) ids.push(id);
      return ids;
    };
    expect(await drawn(3)).toEqual(await drawn(3));
    expect(await drawn(3)).not.toEqual(await drawn(4));
    expect(await drawn(3)).not.toEqual(Array.from(tokenizer.encode(SAFE, { literal: true })));
  });

  test("ends with the reason", async () => {
    const { guard } = await scriptedGuard(byWord);
    const answer = guard.answer("a bomb", { maxNewTokens: 1 });
    expect((await answer.next()).done).toBe(false);
    expect(await answer.next()).toEqual({ done: true, value: "length" });
    const whole = guard.answer("a bomb");
    let last = await whole.next();
    while (!last.done) last = await whole.next();
    expect(last.value).toBe("stop");
  });
});
