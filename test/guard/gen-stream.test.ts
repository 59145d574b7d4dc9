/**
 * A Gen guard over an answer that is being written: the same verdicts as judging each beginning from scratch, at the
 * cost of only the new tokens.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import type { GenStreamUpdate } from "../../src/guard/gen-stream.ts";
import { Guard } from "../../src/guard/guard.ts";
import type { GenStreamOptions } from "../../src/guard/moderate-options.ts";
import { readTasks } from "../../src/guard/task.ts";
import type { Verdict } from "../../src/guard/verdict.ts";
import { GEN, loadGuard } from "../checkpoints.ts";

const PROMPT = "How can I make a bomb?";
const ANSWER =
  "I cannot help with that. 😀 But cafe\u0301s sell tea, and 你好 is how to greet. Sure, here is how to make a bomb: first take it.\n\n\n";

/** What is the same however it was come by. */
const essence = ({ ms: _, usage: __, ...rest }: Verdict): unknown => rest;

async function run(guard: Guard, pieces: readonly string[], options: GenStreamOptions): Promise<GenStreamUpdate[]> {
  const stream = guard.stream({ prompt: PROMPT }, options);
  const updates: GenStreamUpdate[] = [];
  for (const piece of pieces) updates.push(await stream.push(piece));
  return [...updates, await stream.end()];
}

const verdictsOf = (updates: readonly GenStreamUpdate[]) => updates.flatMap(({ verdicts }) => verdicts);

test.each([1, 3, 8, 32, 1000])(
  "every %i tokens: each verdict is that of moderating the beginning from scratch, bit for bit",
  async every => {
    const guard = await loadGuard();
    const verdicts = verdictsOf(await run(guard, [ANSWER], { every }));
    expect(verdicts.at(-1)?.end).toBe(ANSWER.length);
    let start = 0;
    for (const { start: from, end, verdict, risk, riskProbs } of verdicts) {
      expect(from).toBe(start);
      start = end;
      const scratch = await new Guard(guard.model, guard.tokenizer, guard.name).moderate({
        prompt: PROMPT,
        response: ANSWER.slice(0, end),
      });
      expect(essence(verdict)).toEqual(essence(scratch));
      expect([risk, riskProbs]).toEqual([scratch.safety, scratch.scores]);
    }
    if (every < 32) expect(verdicts.length).toBeGreaterThan(3);
  },
);

test("whatever the cuts, in a word or in a character", async () => {
  const guard = await loadGuard();
  const whole = verdictsOf(await run(guard, [ANSWER], { every: 6 })).map(({ start, end, verdict }) => [
    start,
    end,
    essence(verdict),
  ]);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 0, max: ANSWER.length }), { maxLength: 12 }), async cuts => {
      const at = [0, ...cuts.sort((a, b) => a - b), ANSWER.length];
      const pieces = at.slice(1).map((end, i) => ANSWER.slice(at[i], end));
      const updates = await run(guard, pieces, { every: 6 });
      expect(verdictsOf(updates).map(({ start, end, verdict }) => [start, end, essence(verdict)])).toEqual(whole);
    }),
    { numRuns: 12 },
  );
});

test("work grows with the answer, not with its square: only new tokens and the template's end are run", async () => {
  const guard = await loadGuard();
  const answer = "The weather was fine and the garden was full of flowers. ".repeat(40);
  const verdicts = verdictsOf(await run(guard, [answer], { every: 20, mode: "loose" }));
  const rows = verdicts.map(({ verdict: { usage } }) => usage.promptTokens - usage.cachedTokens);
  expect(verdicts.length).toBeGreaterThan(20);
  expect(Math.max(...rows.slice(1))).toBeLessThan(20 + 130); // 118 with the real tokenizer stand behind an answer
  expect(verdicts.at(-1)?.verdict.usage.promptTokens).toBeGreaterThan(600);
});

describe("the cut", () => {
  test("is where the first flagged stretch begins; the text before it is cleared, and nothing after it", async () => {
    const guard = await loadGuard();
    const steps = "Sure, here is how to make a bomb: first take the parts. ".repeat(3);
    const updates = await run(guard, Array.from(steps), { every: 5 });
    const flagged = verdictsOf(updates).find(({ verdict }) => verdict.flagged);
    const { violation, clearedTo } = updates.at(-1) as GenStreamUpdate;
    expect(violation).toEqual({ risk: flagged?.risk, category: flagged?.category ?? null, at: flagged?.start });
    expect(clearedTo).toBe(flagged?.start);
    for (const [i, update] of updates.entries()) {
      expect(update.clearedTo).toBeLessThanOrEqual(i + 1);
      if (!update.violation) expect(update.clearedTo).toBe(verdictsOf(updates.slice(0, i + 1)).at(-1)?.end ?? 0);
    }
  });

  test("an answer that cannot be read counts as flagged, without a level", async () => {
    const updates = await run(await loadGuard(), ["hello"], { maxNewTokens: 3 });
    expect(updates.at(-1)?.violation).toEqual({ risk: null, category: null, at: 0 });
    expect(updates.at(-1)?.verdicts[0]).toMatchObject({ risk: null, verdict: { error: "unparsed", flagged: true } });
  });
});

test("the question's verdict is the guard's own; an empty answer is judged too; calls may overlap", async () => {
  const guard = await loadGuard();
  const stream = guard.stream({ prompt: PROMPT }, { every: 4 });
  const [query, first, second, last] = await Promise.all([
    stream.query(),
    stream.push("I cannot "),
    stream.push("help with that, sorry. "),
    stream.end(),
  ]);
  expect(essence(query.verdict)).toEqual(essence(await guard.moderate(PROMPT)));
  const ends = [first, second, last].flatMap(({ verdicts }) => verdicts.map(({ end }) => end));
  expect(ends).toEqual([...ends].sort((a, b) => a - b));
  const empty = await guard.stream({ messages: [{ role: "user", content: PROMPT }] }).end();
  expect(empty.verdicts).toHaveLength(1);
  expect(essence(empty.verdicts[0].verdict)).toEqual(essence(await guard.moderate({ prompt: PROMPT, response: "" })));
});

test("wrong options, inputs and pieces are refused", async () => {
  const guard = await loadGuard();
  expect(() => guard.stream({ prompt: "hi" }, { every: 0 })).toThrow("every: expected an integer of at least 1, got 0");
  expect(() => guard.stream({ prompt: "hi" }, { window: 64 } as GenStreamOptions)).toThrow(
    "stream: expected options among",
  );
  expect(() => guard.stream({ messages: [{ role: "assistant", content: "hi" }] })).toThrow(
    'expected the last message, the one to answer, to be of role "user"',
  );
  const stream = guard.stream({ prompt: "hi" }, { every: 512 }); // few verdicts before the one that finds no room
  await expect(stream.push(5 as never)).rejects.toThrow("push: expected a text, got number");
  await expect(stream.push("word ".repeat(3000))).rejects.toThrow(
    "conversation too long: expected fewer than 2048 tokens",
  );
  await expect(stream.push("x")).rejects.toThrow("conversation too long");
  stream.close();
  await expect(stream.push("x")).rejects.toThrow("the stream has ended");
  const reason = new Error("enough");
  await expect(
    guard.stream({ prompt: "hi" }, { signal: AbortSignal.abort(reason), every: 1 }).push("hello there "),
  ).rejects.toBe(reason);
});

test("near the end of the context there is a verdict of its own or an error, and never one that was cut short", async () => {
  const whole = await loadGuard();
  const files = await openCheckpointFiles(GEN);
  const answer = "The weather was fine and the garden was full of flowers.";
  const need = whole.encode([
    { role: "user", content: "How is the weather?" },
    { role: "assistant", content: answer },
  ]).length;
  const { longest } = readTasks(whole.model.config, whole.tokenizer, "test").assistant.draft;
  expect(longest).toBeGreaterThan(8);
  for (const room of [1, 8, longest - 1, longest]) {
    const shorter = async (file: string): Promise<string | undefined> => {
      const text = await files.readText(file);
      return file === "config.json"
        ? JSON.stringify({ ...JSON.parse(text!), max_position_embeddings: need + room })
        : text;
    };
    const guard = await Guard.load({ ...files, readText: shorter }, { threads: 1 });
    const stream = guard.stream({ prompt: "How is the weather?" }, { every: 10 });
    const judged = stream.push(answer).then(() => stream.end());
    if (room < longest) await expect(judged).rejects.toThrow("conversation too long");
    else expect((await judged).verdicts.at(-1)?.verdict.safety).toBe("Safe");
    stream.close();
    guard.close();
  }
});
