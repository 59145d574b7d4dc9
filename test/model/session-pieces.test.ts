/**
 * A prompt in pieces: how long they are, when others get a turn, and that nothing comes in between.
 *
 * The clock is the test's: each reading moves it on by a fixed number of milliseconds, so a piece takes one step and
 * each round of the loop two.
 */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { Qwen3 } from "../../src/model/qwen3.ts";
import { nextTurn, type Session } from "../../src/model/session.ts";
import { GEN, loadModel, ODD, STREAM } from "../checkpoints.ts";
import { expectSameBits } from "../helpers.ts";

/** Threads look at the clock while they wait. */
const engine = { threads: 1 };
const gen = await loadModel(GEN, engine);
const odd = await loadModel(ODD, engine);
const stream = await loadModel(STREAM, engine);
const prompt = (length: number): number[] => Array.from({ length }, (_, i) => (i * 53 + 7) % 331);

function stepClock(stepMs: number): { stepMs: number } {
  const clock = { stepMs };
  let now = 0;
  const mocked = vi.spyOn(performance, "now").mockImplementation(() => {
    now += clock.stepMs;
    return now;
  });
  onTestFinished(() => mocked.mockRestore());
  return clock;
}

/** The positions at which others got a turn while a prompt was run, and the position at its end. */
async function positions(session: Session, run: (turn: () => Promise<void>) => Promise<unknown>): Promise<number[]> {
  const seen: number[] = [];
  await run(async () => void seen.push(session.position));
  return [...seen, session.position];
}

/** Sessions whose caches count the calls to them, and have room for this many positions. */
function watchCaches(model: Qwen3, room: number = Number.POSITIVE_INFINITY): { freed: number } {
  const watched = { freed: 0 };
  const newCache = model.engine.newCache.bind(model.engine);
  const mocked = vi.spyOn(model.engine, "newCache").mockImplementation(shape => {
    const cache = newCache(shape);
    const [reserve, free] = [cache.reserve.bind(cache), cache.free.bind(cache)];
    cache.reserve = count => {
      if (count > room) throw new RangeError(`room for ${room}, not for ${count}`);
      reserve(count);
    };
    cache.free = () => {
      watched.freed++;
      free();
    };
    return cache;
  });
  onTestFinished(() => mocked.mockRestore());
  return watched;
}

describe("pieces", () => {
  test.each([
    ["of 250 ms each as near as can be", 100, 700, [64, 224, 624, 700]],
    ["never below 64 rows", 1_000, 200, [64, 128, 192, 200]],
    ["four times as long at most, and never above 512 rows", 15, 1_400, [64, 320, 832, 1_344, 1_400]],
    ["one where it fits, of which the last id's logits are wanted", 1_000, 64, [64]],
    ["two where one id is too many", 1_000, 65, [64, 65]],
    ["with a turn only after more than 20 ms", 10, 900, [320, 900]],
  ])("%s", async (_, stepMs, length, expected) => {
    stepClock(stepMs);
    const session = gen.newSession();
    expect(await positions(session, turn => session.prefill(prompt(length), { turn }))).toEqual(expected);
  });

  test("the last of which holds all ids whose logits are wanted", async () => {
    stepClock(1_000);
    for (const [logits, expected] of [
      [1, [64, 128, 130]],
      [2, [64, 128, 130]],
      [3, [64, 130]],
      [66, [64, 130]],
      [67, [130]],
      [130, [130]],
    ] as const) {
      const session = odd.newSession();
      expect(await positions(session, turn => session.prefill(prompt(130), { turn, logits }))).toEqual(expected);
    }
  });

  test("are as long as the time of the last long one allows; a short one does not count", async () => {
    const clock = stepClock(100);
    const session = gen.newSession();
    await session.prefill(prompt(64));
    clock.stepMs = 1_000;
    await session.prefill(prompt(10));
    expect(await positions(session, turn => session.prefill(prompt(400), { turn }))).toEqual([
      64 + 10 + 160,
      64 + 10 + 160 + 64,
      362,
      426,
      474,
    ]);
  });

  test("give the bits of one piece, for logits and for the heads of a Stream guard", async () => {
    stepClock(1_000);
    const ids = prompt(150);
    expectSameBits(await odd.newSession().prefill(ids, { logits: 3 }), odd.newSession().forward(ids, { logits: 3 }));
    const taps = new Map<string, Float32Array>();
    stream.newSession().forward(ids, { logits: 0, tap: (name, data) => taps.set(name, data.slice()) });
    // A new model, whose rotary table is still empty.
    const session = (await Qwen3.load(STREAM, engine)).newSession();
    const scores: Float32Array[] = [];
    const seen = await positions(session, async turn => {
      const { riskLevel, category } = await session.classify(ids, "query", { turn });
      scores.push(riskLevel, category);
    });
    expectSameBits(scores[0], taps.get("query_risk_level")!);
    expectSameBits(scores[1], taps.get("query_category")!);
    expect(seen).toEqual([64, 128, 150]);
    expect(session.commonPrefix(ids)).toBe(150);
  });

  test("for the heads end with the last id, however many there are", async () => {
    stepClock(1_000);
    for (const length of [64, 65, 128]) {
      const session = stream.newSession();
      const { riskLevel } = await session.classify(prompt(length), "response");
      expect(riskLevel).toHaveLength(length * 3);
      expect(session.position).toBe(length);
    }
  });
});

describe("between pieces", () => {
  test("timers run, so an abort is heard, and the session continues from there", async () => {
    stepClock(100);
    for (const run of ["prefill", "classify"] as const) {
      const session = stream.newSession();
      const reason = new Error("enough");
      const controller = new AbortController();
      setTimeout(() => controller.abort(reason), 0);
      const { signal } = controller;
      const running =
        run === "prefill"
          ? session.prefill(prompt(2_000), { signal })
          : session.classify(prompt(2_000), "query", { signal });
      await expect(running).rejects.toBe(reason);
      expect(session.position).toBeGreaterThan(0);
      expect(session.position).toBeLessThan(2_000);
      session.forward([1]);
    }
  });

  test("a signal that is already aborted stops it before any work", async () => {
    const session = odd.newSession();
    await expect(session.prefill([1], { signal: AbortSignal.abort(new Error("no")) })).rejects.toThrow("no");
    expect(session.position).toBe(0);
  });

  test("every other operation is refused, and none is once it has ended or failed", async () => {
    stepClock(100);
    const session = stream.newSession();
    const busy = "the session is busy: a prompt is being run";
    const turn = async (): Promise<void> => {
      for (const call of [() => session.forward([1]), () => session.truncate(0), () => session.close()])
        expect(call).toThrow(busy);
      await expect(session.prefill([1])).rejects.toThrow(busy);
      await expect(session.classify([1], "query")).rejects.toThrow(busy);
    };
    const refused = vi.fn(turn);
    await session.prefill(prompt(70), { turn: refused });
    expect(refused).toHaveBeenCalledTimes(1);
    const fails = session.prefill(prompt(400), { turn: () => Promise.reject(new Error("no turn")) });
    await expect(fails).rejects.toThrow("no turn");
    session.truncate(1);
    session.close();
  });

  test("the next turn is one of the event loop", async () => {
    const order: string[] = [];
    setTimeout(() => order.push("timer"), 0);
    await nextTurn();
    expect(order).toEqual(["timer"]);
  });
});

describe("before any work", () => {
  test.each([101, -1, 0.5, Number.NaN])("logits of %s of a hundred ids are refused", async logits => {
    stepClock(1_000);
    const session = odd.newSession();
    const message = `logits: expected "all" or an integer from 0 to 100, got ${logits}`;
    await expect(session.prefill(prompt(100), { logits })).rejects.toThrow(message);
    expect(session.position).toBe(0);
  });

  test("too small a memory for all of it is an error", async () => {
    stepClock(1_000);
    watchCaches(odd, 100);
    const session = odd.newSession();
    await session.prefill(prompt(30));
    await expect(session.prefill(prompt(71))).rejects.toThrow("room for 100, not for 101");
    expect(session.position).toBe(30);
    await session.prefill(prompt(70));
  });

  test("a sequence beyond the context is refused, one that just fits is not", async () => {
    const small = new Qwen3(odd.engine, { ...odd.config, maxPositionEmbeddings: 6 }, odd.weights);
    const session = small.newSession();
    expect(() => session.forward(prompt(7))).toThrow("prompt too long: expected at most 6 tokens, got 7");
    session.forward(prompt(4));
    expect(() => session.forward(prompt(3))).toThrow("prompt too long: expected at most 6 tokens, got 7");
    session.forward(prompt(2));
    expect(session.position).toBe(6);
  });

  test.each([
    ["prefill", { logit: 1 }, 'prefill: expected options among logits, signal, turn, got "logit"'],
    ["classify", { logits: 1 }, 'classify: expected options among signal, turn, got "logits"'],
  ] as const)("%s refuses options that nobody reads", async (name, options, message) => {
    const session = stream.newSession();
    await expect(
      name === "prefill" ? session.prefill([1], options as object) : session.classify([1], "query", options as object),
    ).rejects.toThrow(message);
  });

  test("a checkpoint without heads classifies nothing", async () => {
    await expect(odd.newSession().classify([1], "query")).rejects.toThrow(
      "classify: expected a Stream guard's checkpoint, got one without guard heads",
    );
  });
});

test.each(["riskLevel", "category"] as const)(
  "scores of the %s head that are not numbers are an error that names it",
  async name => {
    const { engine, config, weights } = stream;
    const heads = weights.guardHeads!;
    const matrix = await engine.loadMatrix({
      name,
      dtype: "F32",
      shape: heads.query[name].shape,
      readInto: async target => void target.fill(0xff), // NaN
    });
    const guardHeads = { ...heads, query: { ...heads.query, [name]: matrix } };
    const session = new Qwen3(engine, config, { ...weights, guardHeads }).newSession();
    const what = { riskLevel: "risk_level", category: "category" }[name];
    await expect(session.classify([1], "query")).rejects.toThrow(`${what}: expected finite numbers, got NaN`);
    expect(session.position).toBe(0);
  },
);

test("the first and the last id of a vocabulary are accepted", () => {
  const session = odd.newSession();
  expect(session.forward([0, 330])).toHaveLength(331);
});

test("a common beginning ends at the first id that differs", () => {
  const session = odd.newSession();
  expect(session.commonPrefix([1])).toBe(0);
  session.forward([5, 6, 7]);
  for (const [ids, expected] of [
    [[], 0],
    [[4, 6, 7], 0],
    [[5], 1],
    [[5, 6, 8], 2],
    [[5, 6, 7], 3],
    [[5, 6, 7, 8], 3],
    [new Array(5), 0],
  ] as const) {
    expect(session.commonPrefix(ids)).toBe(expected);
  }
  session.truncate(2);
  expect(session.commonPrefix([5, 6, 7])).toBe(2);
});

describe("memory", () => {
  test("goes back when a session is closed, once", () => {
    const caches = watchCaches(odd);
    const session = odd.newSession();
    session.forward([1]);
    session.close();
    session.close();
    expect(caches.freed).toBe(1);
  });

  test("goes back when a session is garbage-collected", async () => {
    const caches = watchCaches(odd);
    (() => odd.newSession().forward([1]))();
    setFlagsFromString("--expose-gc");
    const collect: () => void = runInNewContext("gc");
    for (let i = 0; i < 1_000 && caches.freed === 0; i++) {
      collect();
      await nextTurn();
    }
    expect(caches.freed).toBe(1);
  });
});
