/** Windows over long texts: they cover everything, stay within their size, and cut no character. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { cutIntoWindows } from "../../src/guard/windows.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { randomTexts } from "../../tools/unicode/random-texts.ts";
import { GEN } from "../checkpoints.ts";

const tokenizer = await Tokenizer.load(GEN);

const isInsideCharacter = (text: string, at: number): boolean =>
  /^[\ud800-\udbff]$/.test(text[at - 1] ?? "") && /^[\udc00-\udfff]/.test(text.slice(at));

test("any text, window and overlap", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 1e6 }),
      fc.integer({ min: 16, max: 60 }),
      fc.integer({ min: 0, max: 50 }),
      (seed, window, percent) => {
        const text = `${[...randomTexts(seed, 12)].join("")}${"😀".repeat(seed % 40)}`;
        const overlap = Math.floor((window * percent) / 100);
        const windows = cutIntoWindows(text, tokenizer, 500, { window, overlap });
        if (windows === undefined) {
          expect(tokenizer.encode(text, { literal: true }).length).toBeLessThanOrEqual(window);
          return;
        }
        expect(windows[0].start).toBe(0);
        expect(windows.at(-1)?.end).toBe(text.length);
        for (const [i, { index, count, start, end }] of windows.entries()) {
          expect([index, count]).toEqual([i, windows.length]);
          expect(end).toBeGreaterThan(start);
          if (i > 0) {
            expect(start).toBeGreaterThan(windows[i - 1].start);
            expect(start).toBeLessThanOrEqual(windows[i - 1].end); // no gap
            expect(end).toBeGreaterThan(windows[i - 1].end);
          }
          expect([isInsideCharacter(text, start), isInsideCharacter(text, end)]).toEqual([false, false]);
          // A few tokens more than within the text, where an edge cuts what was one token.
          expect(tokenizer.encode(text.slice(start, end), { literal: true }).length).toBeLessThanOrEqual(window + 16);
        }
      },
    ),
    { numRuns: 150 },
  );
});

test("a text of exactly one window is not cut; one with a token more is", () => {
  const text = "one two three four five six seven eight nine ten ".repeat(4).trimEnd();
  const count = tokenizer.encode(text, { literal: true }).length;
  expect(cutIntoWindows(text, tokenizer, 500, { window: count })).toBeUndefined();
  expect(cutIntoWindows(text, tokenizer, 500, { window: count - 1, overlap: 0 })).toHaveLength(2);
  // Without a size of one's own the same: the room, less what the edges may add.
  expect(cutIntoWindows(text, tokenizer, count + 16, {})).toBeUndefined();
  expect(cutIntoWindows(text, tokenizer, count + 15, {})).toHaveLength(2);
});

test("windows overlap as they say, and an ordinary text is cut between words", () => {
  const text = "one two three four five six seven eight nine ten ".repeat(10);
  const windows = cutIntoWindows(text, tokenizer, 500, { window: 20, overlap: 5 }) ?? [];
  for (const [i, { start }] of windows.entries()) {
    if (i === 0) continue;
    const repeated = text.slice(start, windows[i - 1].end);
    expect(tokenizer.encode(repeated, { literal: true }).length).toBe(5);
  }
});

test("a megabyte is cut in linear time, letters without a space too", () => {
  for (const text of ["word ".repeat(200_000), "x".repeat(300_000), "é".normalize("NFD").repeat(200_000)]) {
    const windows = cutIntoWindows(text, tokenizer, 3000, { window: 1000 }) ?? [];
    expect(windows.length).toBeGreaterThan(5);
    expect(windows.at(-1)?.end).toBe(text.length);
  }
});

test("a character with more combining marks than a window has tokens is taken whole; one beyond the room is refused", () => {
  const text = `start a${"\u0301\u0323".repeat(40)} end`;
  const windows = cutIntoWindows(text, tokenizer, 500, { window: 16 }) ?? [];
  expect(windows.some(({ start, end }) => text.slice(start, end).includes("\u0301\u0323".repeat(40)))).toBe(true);
  expect(() => cutIntoWindows(`a${"\u0301".repeat(3000)}`, tokenizer, 500, {})).toThrow(
    "conversation too long: expected characters of at most 484 tokens, got a longer one",
  );
});
