import { describe, expect, test } from "vitest";
import { Qwen3 } from "../../src/model/qwen3.ts";
import { loadModel, ODD } from "../checkpoints.ts";

describe("ids at the door", () => {
  test.each<[string, number[], string]>([
    ["none at all", [], "ids: expected at least one id, got none"],
    ["an id past the vocabulary", [1, 331], "ids: expected integers from 0 to 330, got 331 at index 1"],
    ["a negative id", [-1], "got -1 at index 0"],
    ["a fraction", [0.5], "got 0.5 at index 0"],
    ["NaN", [Number.NaN], "got NaN at index 0"],
  ])("%s", async (_, ids, message) => {
    const session = (await loadModel(ODD)).newSession();
    expect(() => session.forward(ids)).toThrow(message);
    await expect(session.prefill(ids)).rejects.toThrow(message);
    expect(session.position).toBe(0);
  });

  test("a sequence beyond the context, with both numbers, before any work", async () => {
    const session = (await loadModel(ODD)).newSession();
    expect(() => session.forward(new Array(513).fill(1))).toThrow("prompt too long: expected at most 512 tokens, got 513");
    session.forward(new Array(512).fill(1), { logits: 0 });
    expect(() => session.forward([1])).toThrow("prompt too long: expected at most 512 tokens, got 513");
    expect(session.position).toBe(512);
  });
});

test("truncate refuses positions that are not there", async () => {
  const session = (await loadModel(ODD)).newSession();
  session.forward([1, 2, 3]);
  for (const position of [-1, 4, 1.5, Number.NaN])
    expect(() => session.truncate(position)).toThrow("truncate: expected a position from 0 to 3");
  session.truncate(0);
  expect(session.position).toBe(0);
});

test("weights that overflow are an error, never a choice, and leave the position where it was", async () => {
  const model = await loadModel(ODD);
  const norm = model.engine.buffer(1, model.weights.norm.length);
  norm.data.fill(Number.NaN);
  const session = new Qwen3(model.engine, model.config, { ...model.weights, norm }).newSession();
  expect(() => session.forward([1])).toThrow("logits: expected finite numbers, got NaN");
  expect(session.position).toBe(0);
});

test("a long prompt can be aborted between its pieces, and the session goes on from there", async () => {
  const session = (await loadModel(ODD)).newSession();
  const reason = new Error("enough");
  const controller = new AbortController();
  const prefill = session.prefill(new Array(500).fill(1), controller.signal);
  controller.abort(reason);
  await expect(prefill).rejects.toBe(reason);
  expect(session.position).toBe(256);
  expect(session.forward([1]).length).toBe(331);
});
