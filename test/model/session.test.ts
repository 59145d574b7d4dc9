import { describe, expect, test } from "vitest";
import { Qwen3 } from "../../src/model/qwen3.ts";
import { GEN, loadModel, ODD } from "../checkpoints.ts";
import { expectSameBits } from "../helpers.ts";

describe("ids are checked", () => {
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
    expect(() => session.forward(new Array(513).fill(1))).toThrow(
      "prompt too long: expected at most 512 tokens, got 513",
    );
    session.forward(new Array(512).fill(1), { logits: 0 });
    expect(() => session.forward([1])).toThrow("prompt too long: expected at most 512 tokens, got 513");
    expect(session.position).toBe(512);
  });
});

test("what a session and a prompt share ends at the first id that differs, even the first or the last", async () => {
  const session = (await loadModel(ODD)).newSession();
  expect(session.commonPrefix([1, 2])).toBe(0);
  session.forward([1, 2, 3], { logits: 0 });
  const shared = [[], [9, 2, 3], [1, 9, 3], [1, 2, 9], [1, 2], [1, 2, 3], [1, 2, 3, 4]].map(ids =>
    session.commonPrefix(ids),
  );
  expect(shared).toEqual([0, 0, 1, 2, 2, 3, 3]);
  session.truncate(2);
  expect(session.commonPrefix([1, 2, 3])).toBe(2);
});

test("truncate refuses positions that the session does not hold", async () => {
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

test("a long prompt can be aborted between its pieces, and the session continues from there", async () => {
  // slow enough to give the event loop a turn
  const session = (await loadModel(GEN, { engine: "reference" })).newSession();
  const reason = new Error("enough");
  const controller = new AbortController();
  const prefill = session.prefill(new Array(500).fill(1), { signal: controller.signal });
  controller.abort(reason);
  await expect(prefill).rejects.toBe(reason);
  expect(session.position).toBeGreaterThan(0);
  expect(session.position).toBeLessThan(500);
  expect(session.forward([1]).length).toBe(4160);
});

test.each([1, 9, 64, 300, 600])(
  "the logits of the last %i ids of a prompt are the bits of a single forward",
  async wanted => {
    const model = await loadModel(GEN);
    const ids = Array.from({ length: 600 }, (_, i) => (i * 31) % 4000);
    const session = model.newSession();
    expectSameBits(await session.prefill(ids, { logits: wanted }), model.newSession().forward(ids, { logits: wanted }));
    expect(session.position).toBe(600);
    await expect(session.prefill([1], { logits: 2 })).rejects.toThrow(
      'logits: expected "all" or an integer from 0 to 1, got 2',
    );
  },
);

test("a second operation while a prompt is being run is refused, not mixed in", async () => {
  // slow enough to give the event loop a turn
  const session = (await loadModel(GEN, { engine: "reference" })).newSession();
  const first = session.prefill(new Array(300).fill(1));
  expect(() => session.forward([1])).toThrow("the session is busy: a prompt is being run");
  await expect(session.prefill([1])).rejects.toThrow("the session is busy: a prompt is being run");
  expect(() => session.truncate(0)).toThrow("the session is busy: a prompt is being run");
  expect(() => session.close()).toThrow("the session is busy: a prompt is being run");
  await first;
  expect(session.position).toBe(300);
  session.forward([1]);
});

test("an infinite logit is refused like NaN", async () => {
  const model = await loadModel(ODD);
  const norm = model.engine.buffer(1, model.weights.norm.length);
  norm.data[0] = Infinity;
  const session = new Qwen3(model.engine, model.config, { ...model.weights, norm }).newSession();
  expect(() => session.forward([1])).toThrow(/logits: expected finite numbers, got -?Infinity/);
});

test("unknown options are refused", async () => {
  const session = (await loadModel(ODD)).newSession();
  expect(() => session.forward([1], { logit: 1 } as object)).toThrow(
    'forward: expected options among logits, tap, got "logit"',
  );
  for (const logits of [-1, 2, 0.5, "last"])
    expect(() => session.forward([1], { logits: logits as number })).toThrow(
      'logits: expected "all" or an integer from 0 to 1',
    );
});

test("a closed session says so, and closing twice does no harm", async () => {
  for (const engine of ["wasm", "reference"] as const) {
    const session = (await loadModel(ODD, { engine })).newSession();
    session.forward([1, 2]);
    session.close();
    session.close();
    expect(() => session.forward([1])).toThrow("the session is closed");
    await expect(session.prefill([1])).rejects.toThrow("the session is closed");
  }
});
