/**
 * The guard with its queue: what it is asked, with which options, and what is told about a text that it cannot judge.
 */

import { describe, expect, test, vi } from "vitest";
import type { Guard } from "../../../src/guard/guard.ts";
import type { ModerationStream, StreamUpdate } from "../../../src/guard/moderation-stream.ts";
import type { StreamGuard } from "../../../src/guard/stream-guard.ts";
import { ContextLengthError } from "../../../src/model/context-length-error.ts";
import { Judge, type JudgeOptions } from "../../../src/server/proxy/judge.ts";
import { MemoryError } from "../../../src/tensor/memory-error.ts";
import { type Account, accountOf, type Core, FAILURES, guardOf, OFFENDS, standIn } from "./stand-in-guard.ts";

const QUESTION = [{ role: "user", content: "Hi" }];
const { signal } = new AbortController();
const UPDATE: StreamUpdate = { verdicts: [], clearedTo: 0, violation: null };

function setting(
  kind: "Gen" | "Stream" | Guard | StreamGuard,
  options: Partial<JudgeOptions> = {},
): Account & { judge: Judge; log: string[] } {
  const log: string[] = [];
  const account = accountOf(typeof kind === "string" ? standIn(kind).guard : kind);
  const judge = new Judge(account.guard, { mode: "strict", maxStreams: 8, log: line => log.push(line), ...options });
  return { ...account, judge, log };
}

/** A guard that does this, and else nothing. */
function doing({ moderate, ...stream }: Partial<ModerationStream & Core>, isGen: boolean = false): Guard | StreamGuard {
  const nothing = { query: async () => ({ risk: "Safe" as const, riskProbs: null, category: null, categoryProb: null }), push: async () => UPDATE, end: async () => UPDATE, close: () => {} }; // biome-ignore format: one line
  const safe: Core["moderate"] = async () => ({ safety: "Safe", categories: [], flagged: false });
  const core = { name: "own", stream: () => ({ ...nothing, ...stream }), moderate: moderate ?? safe };
  return guardOf(stream.stream ? { ...core, stream: stream.stream } : core, isGen);
}

describe("a guard is asked", () => {
  test("with the mode, the signal and its turns, and with nothing that was not asked for", () => {
    const { judge, options, open } = setting("Gen", { mode: "loose" });
    judge.open(QUESTION, signal).close();
    expect(options.at(-1)).toStrictEqual({ mode: "loose", signal, turn: expect.any(Function) });
    expect([judge.mode, judge.name, open()]).toEqual(["loose", "stand-in-Gen", 0]);
  });

  test("every so many tokens if asked to, and only with a Gen guard", () => {
    const { judge, options } = setting("Gen", { every: 8 });
    judge.open(QUESTION, signal);
    expect(options.at(-1)).toStrictEqual({ mode: "strict", every: 8, signal, turn: expect.any(Function) });
    expect(() => setting("Stream", { every: 8 })).toThrow(
      new RangeError("every: expected a Gen guard, got a Stream guard, which judges every token"),
    );
  });

  test("at once whether its options are right", () => {
    const refusing = doing({ stream: () => { throw new RangeError("mode: expected another"); } }); // biome-ignore format: one line
    expect(() => setting(refusing)).toThrow("mode: expected another");
  });

  test("with the question, the answer's pieces, and its end", async () => {
    const { judge, calls, open } = setting("Stream");
    const stream = judge.open(QUESTION, signal);
    expect((await stream.query()).risk).toBe("Safe");
    expect((await stream.push("abcdef")).clearedTo).toBe(2);
    expect((await stream.end()).clearedTo).toBe(6);
    expect([calls, open()]).toEqual([["query Hi", "push abcdef", "end"], 1]);
    stream.close();
    expect(open()).toBe(0);
  });

  test("as one job for each, whose size is about its tokens", async () => {
    const { judge } = setting("Gen");
    const run = vi.spyOn(judge.queue, "run");
    const stream = judge.open([{ role: "system", content: "x".repeat(300) }, ...QUESTION], signal);
    await stream.query();
    await stream.push("x".repeat(30));
    await stream.end();
    await judge.judgeWhole(QUESTION, "x".repeat(298), undefined, signal);
    const sizes = run.mock.calls.map(([{ size }]) => Math.round(size));
    expect(sizes).toEqual([229, 138, 128, 228]);
    expect(run.mock.calls.every(([work]) => work.signal === signal)).toBe(true);
  });

  test("so that a short one goes before a long one that is running", async () => {
    const order: string[] = [];
    const slow = doing({
      stream: (_input, options) => ({
        ...({
          query: async () => ({ risk: "Safe", riskProbs: null, category: null, categoryProb: null }),
          end: async () => UPDATE,
        } as const),
        push: async text => {
          order.push(`begin ${text.length}`);
          if (text.length > 1)
            await new Promise(resolve => setTimeout(resolve)).then(() =>
              (options as { turn: () => Promise<void> }).turn(),
            );
          order.push(`end ${text.length}`);
          return UPDATE;
        },
        close: () => {},
      }),
    });
    const { judge } = setting(slow);
    const [long, short] = [judge.open(QUESTION, signal), judge.open(QUESTION, signal)];
    await Promise.all([long.push("x".repeat(3_000)), short.push("x")]);
    expect(order).toEqual(["begin 3000", "begin 1", "end 1", "end 3000"]);
  });
});

describe("a whole answer", () => {
  test("is one verdict of a Gen guard on the conversation with it", async () => {
    const { judge, calls, options, open } = setting("Gen", { mode: "loose" });
    expect(await judge.judgeWhole(QUESTION, "Yes.", undefined, signal)).toBeNull();
    expect(await judge.judgeWhole(QUESTION, OFFENDS, undefined, signal)).toEqual({
      risk: "Unsafe",
      category: null,
      at: 0,
    });
    expect([calls, open()]).toEqual([["moderate Hi | Yes.", `moderate Hi | ${OFFENDS}`], 0]);
    expect(options.at(-1)).toStrictEqual({ mode: "loose", signal, turn: expect.any(Function) });
  });

  test("has the first category of its verdict, and the answer's role", async () => {
    const roles: string[] = [];
    const gen = doing({
      moderate: async messages => {
        roles.push(...messages.map(({ role }) => role));
        return { safety: "Controversial", categories: ["Violent", "PII"], flagged: true };
      },
    }, true); // biome-ignore format: a guard
    expect(await setting(gen).judge.judgeWhole(QUESTION, "a", undefined, signal)).toEqual({
      risk: "Controversial",
      category: "Violent",
      at: 0,
    });
    expect(roles).toEqual(["user", "assistant"]);
  });

  test("goes through a stream of a Stream guard: a spare one, or its own, which is closed", async () => {
    const { judge, calls, open } = setting("Stream");
    expect(await judge.judgeWhole(QUESTION, "Yes.", undefined, signal)).toBeNull();
    expect(await judge.judgeWhole(QUESTION, `a ${OFFENDS}`, undefined, signal)).toEqual({
      risk: "Unsafe",
      category: null,
      at: 2,
    });
    expect([calls, open()]).toEqual([["push Yes.", "end", `push a ${OFFENDS}`], 0]);
    const spare = judge.open(QUESTION, signal);
    const opened = vi.spyOn(judge, "open");
    expect(await judge.judgeWhole(QUESTION, "Yes.", spare, signal)).toBeNull();
    expect([open(), opened.mock.calls.length]).toEqual([0, 0]);
    await expect(judge.judgeWhole(QUESTION, "FAILS_TYPE", undefined, signal)).rejects.toThrow(
      "text: expected a string",
    );
    expect(open()).toBe(0);
  });

  test("may offend only at its end", async () => {
    const violation = { risk: "Unsafe" as const, category: "PII", at: 1 };
    const { judge } = setting(doing({ end: async () => ({ ...UPDATE, violation }) }));
    expect(await judge.judgeWhole(QUESTION, "abc", undefined, signal)).toEqual(violation);
  });
});

describe("a text without a verdict", () => {
  const NO_RETRY = { "x-should-retry": "false" };
  const unknown = "the guard cannot judge this text; the proxy's log says more";
  const texts: Record<string, [code: string, isTold: boolean]> = {
    FAILS_LONG: ["guard_context_exceeded", true],
    FAILS_ANSWER: ["guard_context_exceeded", true],
    FAILS_SHADOWS: ["guard_cannot_judge", true],
    FAILS_TYPE: ["guard_cannot_judge", true],
    FAILS_TEMPLATE: ["guard_cannot_judge", false],
    FAILS_NUMBERS: ["guard_cannot_judge", true],
    FAILS_TRAP: ["guard_cannot_judge", false],
    FAILS_STACK: ["guard_cannot_judge", true],
    FAILS_ODDLY: ["guard_cannot_judge", false],
  };

  test.each(Object.entries(texts))("is the text's fault if others are judged: %s", async (word, [code, isTold]) => {
    const { judge, log, calls, open } = setting("Stream");
    const error = FAILURES[word]();
    const message = error instanceof Error ? error.message : String(error);
    const told = isTold ? `guard: ${message}` : unknown;
    expect(await judge.failureOf(error)).toMatchObject({
      fault: "text",
      status: 400,
      code,
      message: told,
      headers: NO_RETRY,
    });
    expect(log).toEqual(isTold ? [] : [`qwen3guard: the guard cannot judge a text: ${message}`]);
    expect([calls, judge.isFailing, open()]).toEqual([["query -"], false, 0]);
  });

  test("is too long by the error's class, whatever the message says", async () => {
    const codeOf = async (error: Error): Promise<unknown> => (await setting("Gen").judge.failureOf(error)).code;
    expect(await codeOf(new RangeError("prompt too long: y"))).toBe("guard_cannot_judge");
    expect(await codeOf(new ContextLengthError("x"))).toBe("guard_context_exceeded");
  });

  test("for lack of memory may be judged later", async () => {
    const { judge, log, calls } = setting("Gen");
    expect(await judge.failureOf(FAILURES.FAILS_MEMORY())).toMatchObject({
      ...{ fault: "memory", status: 503, code: "guard_out_of_memory", headers: { "retry-after": "1" } },
      message: "guard: memory: expected 1000 bytes, got 10",
    });
    expect([log, calls, judge.isFailing]).toEqual([[], [], false]);
  });

  test("is the guard's fault if it can judge nothing, until it judges again", async () => {
    let isBroken = true;
    const gen = doing({
      moderate: async () => {
        if (isBroken) throw new Error("threads: none");
        return { safety: "Safe", categories: [], flagged: false };
      },
      stream: () => ({
        ...{ query: () => Promise.reject(new Error("none")), push: async () => UPDATE, end: async () => UPDATE, close: () => {} },
      }),
    }, true); // biome-ignore format: a guard
    const { judge, log, open } = setting(gen);
    expect(judge.isFailing).toBe(false);
    expect(await judge.failureOf(new Error("threads: none"))).toMatchObject({
      ...{ fault: "guard", status: 500, code: "guard_failed", headers: NO_RETRY },
      message: "the guard failed; the proxy's log says more",
    });
    expect([log, judge.isFailing, open()]).toEqual([["qwen3guard: the guard failed: threads: none"], true, 0]);
    await expect(judge.judgeWhole(QUESTION, "a", undefined, signal)).rejects.toThrow("threads: none");
    expect(judge.isFailing).toBe(true);
    isBroken = false;
    await judge.judgeWhole(QUESTION, "a", undefined, signal);
    expect(judge.isFailing).toBe(false);
  });

  test.each<[string, unknown, string]>([
    ["has no memory for another just now", new MemoryError("memory: expected 1, got 0"), "text"],
    ["fails with another error", new RangeError("x"), "guard"],
  ])("is blamed on the text or on the guard if the guard %s", async (_, error, fault) => {
    const { judge } = setting(doing({ query: () => Promise.reject(error) }));
    expect((await judge.failureOf(new Error("x"))).fault).toBe(fault);
  });

  test("is not blamed on the guard while it is busy with others", async () => {
    const { judge } = setting("Gen", { maxStreams: 1 });
    const full = vi.spyOn(judge.queue, "isFull", "get").mockReturnValue(true);
    expect((await judge.failureOf(new Error("x"))).fault).toBe("text");
    full.mockRestore();
  });
});
