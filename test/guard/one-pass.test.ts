/**
 * The one-pass verdict: the ids and scores of greedy generation, in as few passes as promised, also where the answer
 * follows no format.
 */

import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { serializeSafetensors } from "../../src/checkpoint/safetensors-writer.ts";
import { Guard } from "../../src/guard/guard.ts";
import { expectedTensors } from "../../src/model/weights.ts";
import { Tensor } from "../../src/tensor/tensor.ts";
import { GEN, loadGuard } from "../checkpoints.ts";
import { temporaryFolder } from "../cli/harness.ts";
import { noise, readJsonLines } from "../helpers.ts";
import { randomConversations } from "./conversations.ts";
import { comparePasses } from "./one-pass.ts";

test("100 conversations: the ids and scores of greedy generation, in as few passes as promised", async () => {
  const counts = await comparePasses(await loadGuard(), randomConversations(1, 100));
  const most = (kind: string): number => Math.max(...(counts.get(kind)?.keys() ?? []));
  expect([...counts.keys()].sort()).toEqual(
    expect.arrayContaining(["assistant Safe", "assistant Unsafe", "user Safe", "user Unsafe"]),
  );
  expect(most("user Safe")).toBe(1);
  expect(most("assistant Safe")).toBeLessThanOrEqual(2); // one more for the refusal
  expect(most("user Unsafe")).toBeLessThanOrEqual(3);
  expect(most("assistant Unsafe")).toBeLessThanOrEqual(4);
  expect(counts.get("user Unsafe")?.get(2)).toBeGreaterThan(0);
});

describe("random weights, whose answers follow no format", () => {
  /** A checkpoint with the demo guard's tokenizer and sizes, and noise for weights. */
  function randomGuard(seed: number, scale: number): string {
    const folder = temporaryFolder();
    cpSync(GEN, folder, { recursive: true });
    const tensors = Array.from(expectedTensors(guardConfig), ([name, shape], i) => {
      const length = shape.reduce((a, b) => a * b);
      const values = noise(
        length,
        1000 * seed + i,
        shape.length === 1 ? 0.2 : scale / Math.sqrt(shape.at(-1) as number),
      );
      return new Tensor(name, "F32", shape, shape.length === 1 ? values.map(v => Math.fround(1 + v)) : values);
    });
    writeFileSync(join(folder, "model.safetensors"), serializeSafetensors(tensors));
    return folder;
  }

  test.each([
    [1, 1],
    [2, 2.4],
    [3, 6],
  ])("seed %i, weights of size %d", async (seed, scale) => {
    const guard = await Guard.load(randomGuard(seed, scale));
    const counts = await comparePasses(guard, randomConversations(seed, 12));
    expect([...counts.keys()].every(kind => kind.endsWith("other"))).toBe(true);
    const verdict = await guard.moderate("How can I make a bomb?", { maxNewTokens: 20 });
    expect(verdict).toMatchObject({ safety: null, flagged: true, error: "unparsed" });
    guard.close();
  });
});

test("every golden answer, id for id", async () => {
  const goldens = readJsonLines<{ messages: { role: string; content: string }[]; ids: number[] }>(
    "test/goldens/tiny-guard-gen/generate.jsonl",
  );
  const guard = await loadGuard();
  await comparePasses(
    guard,
    goldens.map(({ messages }) => messages),
  );
  for (const { messages, ids } of goldens)
    expect((await guard.moderate(messages)).usage.completionTokens).toBe(ids.length);
});

const guardConfig = (await loadGuard()).model.config;
