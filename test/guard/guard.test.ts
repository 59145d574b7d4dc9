/** The guard end to end with the embedded checkpoint: goldens' verdicts, scores, and what it refuses. */

import { describe, expect, test } from "vitest";
import { Guard, isFlagged } from "../../src/guard/guard.ts";
import type { SafetyLevel } from "../../src/guard/policy.ts";
import { Qwen3 } from "../../src/model/qwen3.ts";
import type { ChatMessage } from "../../src/tokenizer/chat-template.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { GEN, loadGuard, loadModel, ODD, STREAM } from "../checkpoints.ts";
import { expectAtMost, readJsonLines } from "../helpers.ts";

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

// The first 16 are the hand-picked ones: empty text, control tokens typed by a user, other languages, responses, a system message.
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
      passes: golden.ids.length,
    });

    for (const [level, probability] of Object.entries(golden.levels)) {
      expectAtMost(Math.abs((verdict.scores as Record<string, number>)[level] - probability), 1e-5, level);
    }
    for (const scores of [verdict.scores, verdict.categoryScores]) {
      expectAtMost(Math.abs(Object.values(scores as Record<string, number>).reduce((a, b) => a + b) - 1), 1e-6, "sum of scores");
    }
    const likeliest = Object.entries(verdict.categoryScores as Record<string, number>).sort((a, b) => b[1] - a[1])[0][0];
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

  test("strict flags Controversial and loose does not; Unsafe and unparsed are flagged in both", () => {
    expect(
      (["Safe", "Controversial", "Unsafe", null] as const).map(level => [isFlagged(level, "strict"), isFlagged(level, "loose")]),
    ).toEqual([
      [false, false],
      [true, false],
      [true, true],
      [true, true],
    ]);
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
    expect(await guard.moderate("hi", { maxNewTokens: 1 })).toMatchObject({ safety: null, flagged: true, error: "unparsed", scores: null });
  });

  test("a verdict can be awaited no longer", async () => {
    const reason = new Error("enough");
    await expect((await loadGuard()).moderate("hi", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test("an unknown mode is refused", async () => {
    const guard = await loadGuard();
    await expect(guard.moderate("hi", { mode: "lax" as "loose" })).rejects.toThrow('mode: expected "strict" or "loose", got "lax"');
    await expect(guard.moderate("hi", { maxNewTokens: 0 })).rejects.toThrow("maxNewTokens: expected an integer of at least 1, got 0");
  });

  test("a conversation too long for the context is refused with both numbers, before any work", async () => {
    const guard = await loadGuard();
    await expect(guard.moderate("word ".repeat(3000))).rejects.toThrow(
      /^conversation too long: expected fewer than 2048 tokens with the guard's prompt, got \d{4,}$/,
    );
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
    // From the second of its kind on, a prompt begins with the whole policy; a repeated one leaves only its last id to run.
    expect(Math.min(...cached.slice(1, 13))).toBeGreaterThan(140);
    warm.close();
  });

  test("judging many at once disturbs none", async () => {
    const guard = await loadGuard();
    const some = goldens.slice(0, 12);
    const verdicts = await Promise.all(some.map(({ messages }) => guard.moderate(messages)));
    expect(verdicts.map(({ text }) => text)).toEqual(some.map(({ text }) => text));
  });
});

describe("checkpoints that are no Gen guard are refused", () => {
  test("Stream, by its architecture", async () => {
    await expect(Guard.load(STREAM)).rejects.toThrow("tiny-guard-stream: expected a Gen guard (Qwen3ForCausalLM), got Qwen3ForGuardModel");
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
    expect(() => new Guard(odd, tokenizer, "mixed")).toThrow("mixed: tokenizer: expected at most 331 ids, the model's vocabulary, got");
  });
});

const gen = await loadModel(GEN);
