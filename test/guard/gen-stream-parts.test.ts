/**
 * The stretches of an answer by themselves: when the answer so far is judged, and what the update says. Tokens and
 * verdicts are made up by the test.
 */

import { describe, expect, test, vi } from "vitest";
import { GenStream, type GenStreamUpdate } from "../../src/guard/gen-stream.ts";
import type { Verdict } from "../../src/guard/verdict.ts";
import type { EncodeStream } from "../../src/tokenizer/encode-stream.ts";
import type { Encoding } from "../../src/tokenizer/offsets.ts";

const safe = {
  flagged: false,
  safety: "Safe",
  categories: [],
  scores: { Safe: 1, Unsafe: 0, Controversial: 0 },
  categoryScores: null,
};
const unsafe = {
  ...safe,
  flagged: true,
  safety: "Unsafe",
  categories: ["Violent", "PII"],
  categoryScores: { Violent: 0.75, PII: 0.2 },
};
const unparsed = { ...safe, flagged: true, safety: null, scores: null };

const encoding = (ranges: readonly (readonly [number, number])[]): Encoding => ({
  ids: Int32Array.from(ranges, () => 1),
  starts: Int32Array.from(ranges, ([start]) => start),
  ends: Int32Array.from(ranges, ([, end]) => end),
});

/** Every character is a token, certain at once; two tokens an emoji. */
function characterEncoder(): EncodeStream {
  let at = 0;
  const push = (text: string): Encoding =>
    encoding(
      Array.from(text).flatMap(character => {
        const range = [at, at + character.length] as const;
        at += character.length;
        return character.length === 2 ? [range, range] : [range];
      }),
    );
  return { push, end: () => encoding([]) } satisfies Partial<EncodeStream> as unknown as EncodeStream;
}

function newStream(
  every: number,
  judge: (answer: string) => object = () => safe,
  encoder: EncodeStream = characterEncoder(),
) {
  const judged: string[] = [];
  const judgeQuestion = vi.fn(async () => unsafe as unknown as Verdict);
  const close = vi.fn();
  const stream = new GenStream({
    every,
    encoder,
    judgeQuestion,
    judgeAnswer: async answer => {
      judged.push(answer);
      return judge(answer) as Verdict;
    },
    close,
  });
  return { stream, judged, judgeQuestion, close };
}

const stretches = (updates: readonly GenStreamUpdate[]): (readonly [number, number])[][] =>
  updates.map(({ verdicts }) => verdicts.map(({ start, end }) => [start, end] as const));

describe("the answer so far is judged", () => {
  test("when a token comes after a full stretch, and as a whole at the end", async () => {
    const { stream, judged } = newStream(3);
    const updates = [];
    for (const part of ["ab", "c", "d", "efg", "hijk"]) updates.push(await stream.push(part));
    expect(stretches(updates)).toEqual([[], [], [[0, 3]], [[3, 6]], [[6, 9]]]);
    expect(updates.map(({ clearedTo }) => clearedTo)).toEqual([0, 0, 3, 6, 9]);
    const last = await stream.end();
    expect([stretches([last]), last.clearedTo, last.violation]).toEqual([[[[9, 11]]], 11, null]);
    expect(judged).toEqual(["abc", "abcdef", "abcdefghi", "abcdefghijk"]);
  });

  test.each([
    ["", [""]],
    ["a", ["a"]],
    ["abc", ["abc"]],
    ["abcd", ["abc", "abcd"]],
    ["ab\u{1F600}c", ["ab\u{1F600}", "ab\u{1F600}c"]], // its second token is beyond the stretch, its character is not
    ["\u{1F600}\u{1F600}c", ["\u{1F600}\u{1F600}", "\u{1F600}\u{1F600}c"]],
  ])("at the end once more: %j", async (answer, expected) => {
    for (const parts of [[answer], [...answer]]) {
      const { stream, judged } = newStream(3);
      for (const part of parts) await stream.push(part);
      await stream.end();
      expect(judged).toEqual(expected);
    }
  });

  test("once if the last stretch ends with it", async () => {
    const ends = encoding([[3, 3]]);
    const encoder = { ...characterEncoder(), end: () => ends } as EncodeStream;
    const { stream, judged } = newStream(3, undefined, encoder);
    await stream.push("abc");
    await stream.end();
    expect(judged).toEqual(["abc"]);
  });

  test("at every token, if asked to", async () => {
    const { stream, judged } = newStream(1);
    await stream.push("abc");
    await stream.end();
    expect(judged).toEqual(["a", "ab", "abc"]);
  });
});

describe("what is said", () => {
  test("the first flagged stretch stays the violation; nothing after it is cleared", async () => {
    const { stream } = newStream(2, answer => (answer.length < 4 ? safe : answer.length < 6 ? unsafe : unparsed));
    const violation = { risk: "Unsafe", category: "Violent", at: 2 };
    expect(await stream.push("abc")).toMatchObject({ clearedTo: 2, violation: null });
    expect(await stream.push("de")).toMatchObject({ clearedTo: 2, violation });
    expect(await stream.push("fgh")).toMatchObject({
      clearedTo: 2,
      violation,
      verdicts: [{ risk: null, start: 4, end: 6 }],
    });
    expect(await stream.end()).toMatchObject({ clearedTo: 2, violation });
  });

  test("the first category and its probability, if there is one", async () => {
    const readings = [];
    for (const verdict of [
      safe,
      unsafe,
      unparsed,
      { ...unsafe, categoryScores: null },
      { ...unsafe, categories: ["Other"] },
    ]) {
      const { stream } = newStream(2, () => verdict);
      const { verdicts } = await stream.end();
      expect(verdicts).toHaveLength(1);
      const { category, categoryProb, risk, riskProbs } = verdicts[0];
      expect([risk, riskProbs, verdicts[0].verdict]).toEqual([verdict.safety, verdict.scores, verdict]);
      readings.push([category, categoryProb]);
    }
    expect(readings).toEqual([
      [null, null],
      ["Violent", 0.75],
      [null, null],
      ["Violent", null],
      ["Other", null],
    ]);
  });

  test("a violation by an unreadable answer names no category", async () => {
    const { stream } = newStream(2, () => unparsed);
    expect((await stream.end()).violation).toEqual({ risk: null, category: null, at: 0 });
  });

  test("the question's verdict, computed once", async () => {
    const { stream, judgeQuestion, judged } = newStream(2);
    expect(await stream.query()).toMatchObject({ risk: "Unsafe", category: "Violent", categoryProb: 0.75 });
    await stream.query();
    expect(judgeQuestion).toHaveBeenCalledTimes(1);
    expect(judged).toEqual([]);
  });
});

describe("the end", () => {
  test("frees the memory once, after the operations that have begun, and takes no more text", async () => {
    const { stream, judged, close } = newStream(1);
    const pushed = stream.push("ab");
    const ended = stream.end();
    expect(close).not.toHaveBeenCalled();
    stream.close();
    await Promise.all([pushed, ended]);
    await Promise.resolve();
    expect(judged).toEqual(["a", "ab"]);
    await vi.waitFor(() => expect(close).toHaveBeenCalled());
    stream.close();
    await Promise.resolve();
    expect(close).toHaveBeenCalledTimes(1);
    const over = "the stream has ended";
    await expect(stream.push("c")).rejects.toThrow(over);
    await expect(stream.end()).rejects.toThrow(over);
  });

  test("comes after a failure too, and later operations fail with the same error", async () => {
    const { stream, close } = newStream(1, () => {
      throw new Error("no verdict");
    });
    const calls = [stream.push("ab"), stream.push("c"), stream.end()];
    for (const call of calls) await expect(call).rejects.toThrow("no verdict");
    await vi.waitFor(() => expect(close).toHaveBeenCalledTimes(1));
  });

  test.each([
    [null, "push: expected a text, got null"],
    [7, "push: expected a text, got number"],
    [undefined, "push: expected a text, got undefined"],
  ])("%s is not a text", async (text, message) => {
    const { stream, judged } = newStream(1);
    await expect(stream.push(text as unknown as string)).rejects.toThrow(message);
    await stream.end();
    expect(judged).toEqual([""]);
  });
});
