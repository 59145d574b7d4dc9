/**
 * The stream of verdicts on tokens by itself: what is run, what is cleared, where it ends. Tokens and scores are the
 * test's own.
 */

import { describe, expect, test, vi } from "vitest";
import { AnswerStream, type AnswerStreamParts } from "../../src/guard/answer-stream.ts";
import { type CutRule, type TokenVerdict, TwoInARow } from "../../src/guard/cut-rule.ts";
import type { SafetyLevel } from "../../src/guard/policy.ts";
import { SAFETY_LEVELS } from "../../src/guard/policy.ts";
import type { Session } from "../../src/model/session.ts";
import type { ChatStream } from "../../src/tokenizer/chat-stream.ts";
import type { Encoding } from "../../src/tokenizer/offsets.ts";

const LABELS = { riskLevels: SAFETY_LEVELS, categories: ["Violent", "PII"] };
/** The template's ids: three of the question, two between it and the answer. */
const BEFORE = Int32Array.of(90, 91, 92, 93, 94);
const QUESTION_IDS = 3;
const LEVEL_OF: Readonly<Record<string, SafetyLevel>> = { s: "Safe", u: "Unsafe", c: "Controversial" };

interface Script {
  /** Where the next token can begin at the earliest, after this many units. */
  readonly openStart?: (units: number) => number;
  /** Units that wait for the next piece. */
  readonly pending?: () => number;
  readonly maxTokens?: number;
  readonly mode?: "strict" | "loose";
  readonly classify?: (ids: readonly number[], head: string) => void;
  readonly options?: Partial<Pick<AnswerStreamParts, "signal" | "turn" | "rule">>;
}

/** Each letter is a token: s Safe, u Unsafe, c Controversial. "-" is an id without text of its own. */
function newStream(script: Script = {}) {
  const { mode, maxTokens = 1000, openStart = units => units, pending = () => 0, options } = script;
  let units = 0;
  let position = 0;
  const runs: { ids: number[]; head: string; options: unknown }[] = [];
  const close = vi.fn();
  const session = {
    get position() {
      return position;
    },
    async classify(ids: Int32Array, head: string, given: unknown) {
      script.classify?.([...ids], head);
      runs.push({ ids: [...ids], head, options: given });
      position += ids.length;
      const riskLevel = Float32Array.from(
        [...ids].flatMap(id => SAFETY_LEVELS.map(level => Number(LEVEL_OF[String.fromCharCode(id)] === level) * 4)),
      );
      const category = Float32Array.from([...ids].flatMap(() => [0, 3]));
      return { riskLevel, category };
    },
    close,
  };
  const encode = (text: string): Encoding => {
    const letters = [...text];
    const ranges = letters.map(letter => {
      const start = units;
      if (letter !== "-") units++;
      return [start, units] as const;
    });
    return {
      ids: Int32Array.from(letters, letter => letter.charCodeAt(0)),
      starts: Int32Array.from(ranges, ([start]) => start),
      ends: Int32Array.from(ranges, ([, end]) => end),
    };
  };
  const chat = {
    before: BEFORE,
    get pending() {
      return pending();
    },
    get openStart() {
      return openStart(units);
    },
    push: encode,
    end: () => encode(""),
  };
  const parts: AnswerStreamParts = {
    session: session as unknown as Session,
    chat: chat as unknown as ChatStream,
    questionIds: QUESTION_IDS,
    labels: { query: LABELS, response: LABELS },
    rule: new TwoInARow(mode),
    maxTokens,
    leastIds: count => count,
    ...options,
  };
  return { stream: new AnswerStream(parts), runs, close };
}

describe("what is run", () => {
  test("the question's ids once, then what stands between, with the first of the answer, then each id once", async () => {
    const signal = new AbortController().signal;
    const turn = async (): Promise<void> => {};
    const { stream, runs } = newStream({ options: { signal, turn } });
    const query = await stream.query();
    expect(query).toMatchObject({ risk: "Safe", category: null });
    await Promise.all([stream.push("ss"), stream.query(), stream.push("s")]);
    await stream.push("");
    await stream.end();
    const options = { signal, turn };
    expect(runs).toEqual([
      { ids: [90, 91, 92], head: "query", options },
      { ids: [93, 94, 115, 115], head: "response", options },
      { ids: [115], head: "response", options },
    ]);
  });

  test("the question first, though nobody asks for its verdict, which is that at its last id", async () => {
    const { stream, runs } = newStream();
    await stream.push("s");
    expect(runs.map(({ head }) => head)).toEqual(["query", "response"]);
    const asked = newStream();
    const reading = await asked.stream.query();
    expect(await asked.stream.query()).toBe(reading);
    expect(asked.runs).toHaveLength(1);
    expect(reading.riskProbs.Safe).toBeCloseTo(1 / 3, 6); // of an id that is no letter: no level stands out
  });

  test("nothing for a piece that makes no id certain", async () => {
    const { stream, runs } = newStream();
    expect(await stream.push("")).toEqual({ verdicts: [], clearedTo: 0, violation: null });
    expect(runs.map(({ head }) => head)).toEqual(["query"]);
  });
});

describe("what is said", () => {
  test("of each token its place, id and reading; of ids without text nothing, nor of the template's", async () => {
    const { stream } = newStream();
    const { verdicts } = await stream.push("-u");
    expect(verdicts).toHaveLength(1);
    expect(verdicts[0]).toMatchObject({ position: 6, id: 117, start: 0, end: 1, risk: "Unsafe", category: "PII" });
    expect((await stream.push("s")).verdicts).toMatchObject([
      { position: 7, id: 115, start: 1, end: 2, risk: "Safe", category: null },
    ]);
  });

  test.each([
    ["strict", "ssuus", { risk: "Unsafe", at: 2 }],
    ["strict", "sccs", { risk: "Controversial", at: 1 }],
    ["loose", "sccsuu", { risk: "Unsafe", at: 4 }],
    ["strict", "usucs", null],
  ] as const)("%s, %s: the first violation, and it stays", async (mode, answer, expected) => {
    for (const pieces of [[answer], [...answer]]) {
      const { stream } = newStream({ mode });
      let last = await stream.push("");
      for (const piece of pieces) last = await stream.push(piece);
      if (expected === null) expect(last.violation).toBeNull();
      else expect(last.violation).toMatchObject(expected);
      const more = await stream.push("uuss");
      if (expected !== null) {
        expect(more.violation).toEqual(last.violation);
        expect(more.clearedTo).toBe(expected.at);
      }
    }
  });

  test("cleared is what was judged Safe, up to where the next token can begin; one that may be the first of two is not", async () => {
    const { stream } = newStream();
    const cleared: number[] = [];
    for (const letter of "ssuscs") cleared.push((await stream.push(letter)).clearedTo);
    expect(cleared).toEqual([1, 2, 2, 4, 4, 6]);
    const held = newStream({ openStart: units => units - 1 });
    expect((await held.stream.push("sss")).clearedTo).toBe(2);
    const ahead = newStream({ openStart: units => units + 5 });
    expect((await ahead.stream.push("sss")).clearedTo).toBe(3);
  });
});

describe("a rule of the caller's", () => {
  /** Cuts at the third token in a row that is Unsafe. */
  const threeInARow = (): CutRule => {
    let run: TokenVerdict[] = [];
    return {
      next: verdict => {
        run = verdict.risk === "Unsafe" ? [...run, verdict] : [];
        return run.length === 3 ? { risk: "Unsafe", category: null, at: run[0].start, tokens: run } : null;
      },
    };
  };
  const clearedBy = async (rule: CutRule, answer: string): Promise<number[]> => {
    const { stream } = newStream({ options: { rule } });
    const cleared: number[] = [];
    for (const letter of answer) cleared.push((await stream.push(letter)).clearedTo);
    return cleared;
  };

  test("cuts nothing that was cleared: without a word from it, all since the last Safe token is held back", async () => {
    expect(await clearedBy(threeInARow(), "ssuus")).toEqual([1, 2, 2, 2, 5]);
    expect(await clearedBy(threeInARow(), "sucuu")).toEqual([1, 1, 1, 1, 1]);
    expect(await clearedBy(threeInARow(), "suuus")).toEqual([1, 1, 1, 1, 1]);
  });

  test("may say from where it holds back; what is cleared stays cleared", async () => {
    let at = 0;
    const last: CutRule = {
      next: ({ start }) => {
        at = start;
        return null;
      },
      heldFrom: () => at,
    };
    expect(await clearedBy(last, "ssu")).toEqual([0, 1, 2]);
    const none: CutRule = { next: () => null, heldFrom: () => null };
    expect(await clearedBy(none, "suu")).toEqual([1, 2, 3]);
    const held = [2, 0, 0];
    expect(await clearedBy({ next: () => null, heldFrom: () => held.shift() ?? null }, "sss")).toEqual([1, 1, 1]);
  });
});

describe("the context", () => {
  test("may be filled to its last token, and not a token more", async () => {
    const full = newStream({ maxTokens: 10 });
    await full.stream.push("sssss");
    await expect(full.stream.push("s")).rejects.toThrow(
      "answer too long: expected at most 10 tokens with the conversation, got at least 11",
    );
    const atOnce = newStream({ maxTokens: 10 });
    await expect(atOnce.stream.push("ssssss")).rejects.toThrow("got at least 11");
    expect(atOnce.runs.map(({ head }) => head)).toEqual(["query"]);
    const first = newStream({ maxTokens: 10 });
    expect((await first.stream.push("sssss")).verdicts).toHaveLength(5);
  });

  test("has to hold what waits too, at its least", async () => {
    let pending = 0;
    const { stream } = newStream({ maxTokens: 10, pending: () => pending });
    await stream.push("ss");
    pending = 3;
    await expect(stream.push("s")).rejects.toThrow("got at least 11");
    const ids = newStream({ maxTokens: 10, pending: () => 4 });
    await expect(ids.stream.push("ss")).rejects.toThrow("got at least 11");
  });
});

describe("the end", () => {
  test("gives the memory back when what was begun is done, once, and takes nothing more", async () => {
    const { stream, close, runs } = newStream();
    const [pushed, ended] = [stream.push("s"), stream.end()];
    expect(close).not.toHaveBeenCalled();
    expect((await ended).clearedTo).toBe(1);
    await pushed;
    await Promise.resolve();
    expect(close).toHaveBeenCalledTimes(1);
    expect(runs).toHaveLength(2);
    const over = "the stream has ended";
    await expect(stream.push("s")).rejects.toThrow(over);
    await expect(stream.end()).rejects.toThrow(over);
    const closed = newStream();
    closed.stream.close();
    await expect(closed.stream.push("s")).rejects.toThrow(over);
    await Promise.resolve();
    expect(closed.close).toHaveBeenCalledTimes(1);
  });

  test("after a failure gives the memory back, and all that follows fails alike", async () => {
    const failure = new Error("engine");
    const { stream, close } = newStream({
      classify: (_, head) => {
        if (head === "response") throw failure;
      },
    });
    await expect(stream.push("s")).rejects.toBe(failure);
    await expect(stream.push("s")).rejects.toBe(failure);
    await expect(stream.end()).rejects.toBe(failure);
    await Promise.resolve();
    expect(close).toHaveBeenCalledTimes(1);
  });

  test.each([
    [null, "null"],
    [7, "number"],
    [undefined, "undefined"],
  ])("a piece has to be a text, not %s", async (piece, kind) => {
    await expect(newStream().stream.push(piece as never)).rejects.toThrow(`push: expected a text, got ${kind}`);
  });
});
