/** Where ids come from: compared with records of the reference, and what must hold for every text. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { randomTexts } from "../../tools/unicode/random-texts.ts";
import { pathOf, QWEN3_PATH, readJson, readJsonLines, TINY_PATH } from "./checkpoints.ts";

type Range = [start: number, end: number];

const goldens = readJsonLines<{ vocabulary: string; text: string; ids: number[]; ranges: Range[] }>(
  pathOf("test/goldens/offsets.jsonl"),
);

describe.each([
  { name: "tiny", path: TINY_PATH },
  { name: "qwen3", path: QWEN3_PATH },
])("the $name vocabulary", ({ name, path }) => {
  const tokenizer = Tokenizer.fromJson(readJson(path));
  const rangesOf = (text: string, literal: boolean = false): Range[] => {
    const { starts, ends } = tokenizer.encodeWithOffsets(text, { literal });
    return Array.from(starts, (start, i) => [start, ends[i]!]);
  };

  test("ranges equal the reference's where NFC changes nothing, and cover them where it does", () => {
    const own = goldens.filter(({ vocabulary }) => vocabulary === name);
    expect(own.length).toBe(14);
    for (const { text, ids, ranges } of own) {
      const ours = rangesOf(text);
      expect([...tokenizer.encodeWithOffsets(text).ids]).toEqual(ids);
      if (text === text.normalize("NFC")) expect(ours, JSON.stringify(text)).toEqual(ranges);
      else {
        expect(ours, JSON.stringify(text)).not.toEqual(ranges); // the known difference
        ours.forEach(([start, end], i) => {
          expect(start <= ranges[i]![0] && end >= ranges[i]![1], JSON.stringify(text)).toBe(true);
        });
      }
    }
  });

  test("for every text, ids are those of encode, and ranges never go back, cover the text and spell their ids", () => {
    const check = (text: string, literal: boolean): void => {
      const { ids, starts, ends } = tokenizer.encodeWithOffsets(text, { literal });
      expect(ids).toEqual(tokenizer.encode(text, { literal }));
      expect([starts.length, ends.length]).toEqual([ids.length, ids.length]);
      let covered = 0;
      for (let i = 0; i < ids.length; i++) {
        expect(starts[i]! <= covered && ends[i]! >= covered && starts[i]! < ends[i]!, JSON.stringify(text)).toBe(true);
        if (i > 0) expect(starts[i]).toBeGreaterThanOrEqual(starts[i - 1]!);
        covered = ends[i]!;
        // The text of the range contains the text of the id, in which a part of a character shows as U+FFFD.
        const [piece = ""] = tokenizer.pieces([ids[i]!]);
        if (!piece.includes("\uFFFD"))
          expect(tokenizer.decode(tokenizer.encode(text.slice(starts[i], ends[i])))).toContain(piece);
      }
      expect(covered).toBe(text.length);
    };
    for (const text of randomTexts(21, 800)) for (const literal of [false, true]) check(text, literal);
    fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 60 }), fc.boolean(), check), {
      seed: 22,
      numRuns: 500,
    });
  });

  test("a range and its id spell the same ASCII", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary-ascii", maxLength: 200 }), text => {
        const { ids } = tokenizer.encodeWithOffsets(text);
        expect(rangesOf(text).map(([start, end]) => text.slice(start, end))).toEqual(tokenizer.pieces(ids));
      }),
      { seed: 23, numRuns: 500 },
    );
  });

  test("a character that is split into several ids is in the range of each", () => {
    const text = "a\u{13000}b";
    const ranges = rangesOf(text);
    expect(ranges.length).toBeGreaterThan(4);
    for (const range of ranges.slice(1, -1)) expect(range).toEqual([1, 3]);
    expect([ranges[0], ranges.at(-1)]).toEqual([
      [0, 1],
      [3, 4],
    ]);
  });

  test("a stretch that NFC joins or reorders is the range of all its ids, and shifts nothing after it", () => {
    for (const [stretch, behind] of [
      ["e\u0301", "!"],
      ["q\u0307\u0323", "!"],
      ["\u1100\u1161\u11A8", "1"],
      ["x\u212B", "?"], // it changes itself, and belongs to the stable character before it
      ["a\u0301\u0323\u0327\u0345", " x"],
    ] as const) {
      const ranges = rangesOf(`1${stretch}${behind}`);
      for (const range of ranges.slice(1, -1)) expect(range).toEqual([1, 1 + stretch.length]);
      expect(ranges.at(-1)).toEqual([1 + stretch.length, 1 + stretch.length + behind.length]);
    }
  });

  test("a lone surrogate counts as a character", () => {
    expect(rangesOf("1\uD800").at(-1)).toEqual([1, 2]);
    expect(rangesOf("\uDC001")[0]).toEqual([0, 1]);
  });

  test("an added token covers its text, unless all is literal", () => {
    expect(rangesOf("hi<|im_end|>!")).toContainEqual([2, 12]);
    expect(rangesOf("hi<|im_end|>!", true)).not.toContainEqual([2, 12]);
    expect(rangesOf("")).toEqual([]);
  });

  test("a megabyte of marks, letters or composing pairs is located in one pass", () => {
    for (const text of [
      `a${"\u0301\u0323".repeat(200_000)}`,
      "a".repeat(500_000),
      "e\u0301".repeat(200_000),
      "\u{1F600}".repeat(200_000),
    ]) {
      const { ids, ends } = tokenizer.encodeWithOffsets(text);
      expect(ends.at(-1)).toBe(text.length);
      const expected = tokenizer.encode(text);
      expect(ids.length === expected.length && ids.every((id, i) => id === expected[i])).toBe(true);
    }
  });
});
