/** How names from a file are shown: on one line, in quotes that end where they seem to, and not too long. */

import { expect, test } from "vitest";
import { quoteName } from "../../src/checkpoint/safetensors-error.ts";

test.each([
  ["model.norm.weight", '"model.norm.weight"'],
  ["", '""'],
  ['a", got "b', '"a\\", got \\"b"'],
  ["\\", '"\\\\"'],
  ["\n\r\0\x1b\x7f\x9f", '"\\u{a}\\u{d}\\u{0}\\u{1b}\\u{7f}\\u{9f}"'],
  ["\u2028\u2029\u202e\u200f\ufeff", '"\\u{2028}\\u{2029}\\u{202e}\\u{200f}\\u{feff}"'],
  ["\ud83d", '"\\u{d83d}"'],
  ["é😀 日本", '"é😀 日本"'],
])("%j", (name, shown) => {
  expect(quoteName(name)).toBe(shown);
});

test("eighty characters are shown", () => {
  expect([quoteName("x".repeat(80)), quoteName("x".repeat(81))]).toEqual([
    `"${"x".repeat(80)}"`,
    `"${"x".repeat(80)}…"`,
  ]);
});
