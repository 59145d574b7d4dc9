/**
 * The tokenizer against the reference itself, where there is a Python with the tokenizers package (QWEN3GUARD_PYTHON,
 * else python3). tools/unicode/compare.ts compares far more.
 */

import { describe, expect, test } from "vitest";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { normalizeNfc } from "../../src/tokenizer/unicode.ts";
import { askReference } from "../../tools/unicode/compare.ts";
import { randomTexts } from "../../tools/unicode/random-texts.ts";
import { QWEN3_PATH, readJson, TINY_PATH } from "./checkpoints.ts";

const hasReference = askReference(TINY_PATH, [{ text: "a" }]) !== undefined;

describe.skipIf(!hasReference).each([
  { name: "tiny", path: TINY_PATH },
  { name: "qwen3", path: QWEN3_PATH },
])("Python's tokenizers, $name vocabulary", ({ path }) => {
  test("random texts, and long ones without a break", () => {
    const tokenizer = Tokenizer.fromJson(readJson(path));
    const long = ["a", " ", "'s", "\u{1F600}", "\u4F60\u597D", "abcdefghij"].map(part =>
      part.repeat(20_000 / part.length),
    );
    const texts = [...randomTexts(14, 2000), ...long];
    const answers = askReference(path, [...texts.map(text => ({ text })), ...texts.map(nfc => ({ nfc }))])!;
    texts.forEach((text, i) => {
      const ids = [...tokenizer.encode(text)];
      expect({ ids, decoded: tokenizer.decode(ids) }).toEqual(answers[i]);
      expect(normalizeNfc(text)).toBe(answers[texts.length + i]!.nfc);
    });
  });
});
