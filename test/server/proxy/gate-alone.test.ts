/** The gate by itself: what comes out of it and when, and what the guard is asked. */

import { describe, expect, test } from "vitest";
import type { Guard } from "../../../src/guard/guard.ts";
import type { StreamUpdate } from "../../../src/guard/moderation-stream.ts";
import type { StreamGuard } from "../../../src/guard/stream-guard.ts";
import { ApiError } from "../../../src/server/api-error.ts";
import { Gate, type GateOptions } from "../../../src/server/proxy/gate.ts";
import { Judge } from "../../../src/server/proxy/judge.ts";
import { type Account, accountOf, guardOf, OFFENDS, standIn, UNREADABLE } from "./stand-in-guard.ts";

interface Setting extends Pick<Account, "calls" | "open"> {
  readonly gate: Gate;
  readonly push: (text: string, kind?: string, names?: object) => Promise<object[]>;
}

interface Options extends Partial<GateOptions> {
  readonly guard?: Guard | StreamGuard;
  readonly lag?: number;
  readonly question?: string;
  readonly hasSpare?: boolean;
}

function setting(options: Options = {}): Setting {
  const {
    holdBack = 0,
    passes = () => false,
    signal = new AbortController().signal,
    lag = 4,
    question = "Hi",
    hasSpare = false,
  } = options;
  const { guard, calls, open } = accountOf(options.guard ?? standIn("Stream", lag).guard);
  const judge = new Judge(guard, { mode: "strict", maxStreams: 8, log: () => {} });
  const messages = [{ role: "user", content: question }];
  const gate = new Gate(judge, messages, hasSpare ? judge.open(messages, signal) : undefined, {
    holdBack,
    passes,
    signal,
  });
  const wrapNames = (names: object): object => ({ names });
  const push = (text: string, kind: string = "content", names?: object): Promise<object[]> => {
    const frame = names ? { names: { ...names }, wrap: wrapNames as (names: object) => Record<string, unknown> } : null;
    return gate.push({ kind, text, frame, wrap: text => ({ [kind]: text }) });
  };
  return { gate, push, calls, open };
}

describe("a text", () => {
  test("comes out as far as it was cleared, and the rest at its end, without empty pieces", async () => {
    const { gate, push, calls, open } = setting();
    expect(await push("ab")).toEqual([]);
    expect(await push("cdef")).toEqual([{ content: "ab" }]);
    expect(await push("g")).toEqual([{ content: "c" }]);
    expect([await push(""), gate.textOf("content"), gate.textOf("other"), open()]).toEqual([[], "abcdefg", "", 1]);
    expect([await gate.end(), await gate.end(), open()]).toEqual([[{ content: "defg" }], [], 0]);
    expect(calls).toEqual(["push ab", "push cdef", "push g", "end"]);
    expect([gate.finding, gate.failure]).toEqual([null, null]);
  });

  test("is held back further if asked to", async () => {
    const { gate, push } = setting({ holdBack: 2 });
    expect(await push("abcdefg")).toEqual([{ content: "a" }]);
    expect(await gate.end()).toEqual([{ content: "bcde" }, { content: "fg" }]);
  });

  test.each([0, 2])("that offends ends before it, for good (%i held back)", async holdBack => {
    const { gate, push, calls, open } = setting({ holdBack });
    expect(await push(`ab ${OFFENDS} cd`)).toEqual([{ content: holdBack === 0 ? "ab " : "a" }]);
    expect(gate.finding).toEqual({ risk: "Unsafe", category: null, kind: "content", at: 3 });
    expect([await push("more"), await push("more", "refusal", { name: "f" }), await gate.end(), open()]).toEqual([
      [],
      [],
      [],
      0,
    ]);
    expect(calls.length).toBe(1);
  });

  const ending = (end: () => Promise<StreamUpdate>): Guard | StreamGuard => {
    const push = async (): Promise<StreamUpdate> => ({ verdicts: [], clearedTo: 2, violation: null });
    const core = {
      name: "own",
      stream: () => ({ query: push as never, push, end, close: () => {} }),
      moderate: push as never,
    };
    return guardOf(core, false);
  };

  test("that offends only at its end is cut there", async () => {
    const violation = { risk: "Unsafe" as const, category: "PII", at: 3 };
    const { gate, push, open } = setting({ guard: ending(async () => ({ verdicts: [], clearedTo: 3, violation })) });
    expect(await push("abcdef")).toEqual([{ content: "ab" }]);
    expect([await push("x", "refusal"), gate.finding, open()]).toEqual([
      [{ content: "c" }],
      { ...violation, kind: "content" },
      0,
    ]);
  });

  test.each([false, true])(
    "that has no verdict only at its end is cut where it was cleared, or passes (%s)",
    async passes => {
      const { gate, push, open } = setting({
        guard: ending(() => Promise.reject(new Error("no"))),
        passes: () => passes,
      });
      expect(await push("abcdef")).toEqual([{ content: "ab" }]);
      expect(await gate.end()).toEqual(passes ? [{ content: "cdef" }] : []);
      expect([gate.finding?.at, gate.failure?.code, open()]).toEqual(
        passes ? [undefined, "guard_cannot_judge", 0] : [2, undefined, 0],
      );
    },
  );
});

describe("texts of several kinds", () => {
  test("come out in order: one ends before the next begins, and is judged from its beginning when it comes again", async () => {
    const { gate, push, calls, open } = setting();
    expect(await push("abcdef", "reasoning")).toEqual([{ reasoning: "ab" }]);
    expect(await push("123456")).toEqual([{ reasoning: "cdef" }, { content: "12" }]);
    expect(open()).toBe(1);
    expect(await push("g", "reasoning")).toEqual([{ content: "3456" }]);
    expect(await gate.end()).toEqual([{ reasoning: "g" }]);
    expect(calls).toEqual(["push abcdef", "end", "push 123456", "end", "push abcdef", "push g", "end"]);
    expect(open()).toBe(0);
  });

  test("are cut where one that came again offends, but not before what is already out", async () => {
    const { gate, push } = setting({ lag: 0 });
    expect(await push("OFF")).toEqual([{ content: "OFF" }]);
    await push("x", "reasoning");
    expect(await push("ENDS now")).toEqual([]);
    expect(gate.finding).toEqual({ risk: "Unsafe", category: null, kind: "content", at: 3 });
  });

  test("end if the one before offends at its end", async () => {
    const { gate, push, calls } = setting({ lag: 0 });
    await push(`ab ${UNREADABLE}`, "reasoning");
    expect(gate.finding).toMatchObject({ risk: null, kind: "reasoning", at: 3 });
    expect(await push("more")).toEqual([]);
    expect(calls).toEqual([`push ab ${UNREADABLE}`]);
  });

  test("may take 128 turns, and not one more", async () => {
    const { push, open, gate } = setting();
    for (let i = 0; i < 128; i++) await push("x", `kind ${i}`);
    await expect(push("x", "kind 0")).rejects.toMatchObject({
      ...{ code: "upstream_invalid", message: "upstream: expected an answer of at most 128 texts in turns, got more" },
    });
    gate.close();
    expect(open()).toBe(0);
  });

  test("take the stream that was opened for the question, once", async () => {
    const { gate, push, open } = setting({ hasSpare: true });
    expect(open()).toBe(1);
    await push("a");
    expect(open()).toBe(1);
    await push("b", "refusal");
    expect(open()).toBe(1);
    await gate.end();
    expect(open()).toBe(0);
  });

  test("need no stream: then it is closed at the end", async () => {
    const { gate, open } = setting({ hasSpare: true });
    expect([await gate.end(), open()]).toEqual([[], 0]);
  });
});

describe("names", () => {
  test("come out once each, before their text; without a text the guard is not asked", async () => {
    const { gate, push, calls } = setting();
    expect(await push("", "call", { id: "1" })).toEqual([{ names: { id: "1" } }]);
    expect(await push("", "call", { id: "1" })).toEqual([]);
    expect(await push("abcdef", "call", { id: "2", name: "f" })).toEqual([{ names: { name: "f" } }, { call: "ab" }]);
    expect(await push("", "call", { id: "3", name: "g", type: "t" })).toEqual([{ names: { type: "t" } }]);
    expect(await push("", "call", { id: "3", name: "g", type: "u" })).toEqual([]);
    expect(await push("", "other", { id: "4" })).toEqual([{ call: "cdef" }, { names: { id: "4" } }]);
    expect(await gate.end()).toEqual([]);
    expect(calls).toEqual(["push abcdef", "end"]);
  });
});

describe("a text without a verdict", () => {
  test("is cut where it was last cleared", async () => {
    const { gate, push, open } = setting();
    expect(await push("abcdef")).toEqual([{ content: "ab" }]);
    expect(await push("FAILS_TYPE")).toEqual([]);
    const failure = expect.objectContaining({ fault: "text", code: "guard_cannot_judge" });
    expect(gate.finding).toEqual({ risk: null, category: null, kind: "content", at: 2, failure });
    expect([gate.failure, open(), await push("more"), await gate.end()]).toEqual([null, 0, [], []]);
  });

  test("passes with all that was held back, if it may, and what follows passes at once", async () => {
    const asked: unknown[] = [];
    const { gate, push, calls, open } = setting({ passes: ({ fault }) => asked.push(fault) > 0 });
    expect(await push("abcdef")).toEqual([{ content: "ab" }]);
    expect(await push("FAILS_TYPE")).toEqual([{ content: "cdefFAILS_TYPE" }]);
    expect([gate.finding, gate.failure, open(), asked]).toEqual([
      null,
      expect.objectContaining({ fault: "text" }),
      0,
      ["text"],
    ]);
    const count = calls.length;
    expect(await push(`${OFFENDS} more`)).toEqual([{ content: `${OFFENDS} more` }]);
    expect(await push("x", "call", { id: "1" })).toEqual([{ names: { id: "1" } }, { call: "x" }]);
    expect([await gate.end(), calls.length, open()]).toEqual([[], count, 0]);
  });

  test("ends the answer if it is not the text's fault", async () => {
    const { gate, push, open } = setting();
    await expect(push("FAILS_MEMORY")).rejects.toMatchObject({ fault: "memory", status: 503 });
    expect([gate.finding, open()]).toEqual([null, 0]);
  });

  test.each([false, true])("may be the question: nothing can be opened for it (passes: %s)", async passes => {
    const { gate, push, open } = setting({ question: "FAILS_LONG", passes: () => passes });
    expect(await push("abcdef")).toEqual(passes ? [{ content: "abcdef" }] : []);
    const failure = expect.objectContaining({ code: "guard_context_exceeded" });
    expect(gate.failure).toEqual(passes ? failure : null);
    expect(gate.finding).toEqual(passes ? null : { risk: null, category: null, kind: "content", at: 0, failure });
    expect(open()).toBe(0);
  });

  test("is not a failure if the client has gone: the guard is asked nothing else", async () => {
    const client = new AbortController();
    const { gate, push, calls } = setting({ signal: client.signal });
    await push("ab");
    const reason = new Error("left");
    client.abort(reason);
    await expect(push("FAILS_TYPE")).rejects.toBe(reason);
    expect([gate.finding, gate.failure, calls]).toEqual([null, null, ["push ab"]]);
  });
});

test("what cannot be read lets the rest pass, for the first reason", async () => {
  const { gate, push, open } = setting();
  await push("ab");
  const [first, second] = [new ApiError(502, "first"), new ApiError(502, "second")];
  gate.giveUp(first);
  gate.giveUp(second);
  expect([gate.failure, open(), await push("cd"), await gate.end()]).toEqual([first, 0, [{ content: "cd" }], []]);
});

describe("half a character never comes out", () => {
  test.each(["\u{1F600}", "\u{10000}", "\u{10FFFD}"])("%s, wherever it is held back", async face => {
    const [high, low] = face.split("");
    const { gate, push } = setting({ lag: 0, holdBack: 1 });
    expect(await push(`a${high}`)).toEqual([]);
    expect(await push(low)).toEqual([{ content: "a" }]);
    expect(await push("b")).toEqual([{ content: face }]);
    expect(await gate.end()).toEqual([{ content: "b" }]);
  });

  test.each(["\u{10000}", "\u{10FFFF}", "\uffff", "\ue000", "\ud7ff", "a"])(
    "and whole ones are not kept: %j before what offends",
    async char => {
      const { push } = setting();
      expect(await push(`${char}${OFFENDS}`)).toEqual([{ content: char }]);
    },
  );

  test("but one that the upstream has written", async () => {
    const { gate, push } = setting();
    await push("a\ud83d");
    expect(await gate.end()).toEqual([{ content: "a" }, { content: "\ud83d" }]);
  });
});
