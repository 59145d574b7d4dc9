/**
 * What a guard may answer, read from its prompt, and the ids at which its answers are decided. A tokenizer of whole
 * words stands in for the real one.
 */

import { describe, expect, test } from "vitest";
import { deriveLabels, endsWith, probabilities } from "../../src/guard/labels.ts";
import { type Policy, readPolicy } from "../../src/guard/policy.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";

const LEVELS = "'Safety: Safe' 'Safety: Unsafe' 'Safety: Controversial'";
const list = (categories: string): string =>
  `<BEGIN UNSAFE CONTENT CATEGORIES>\n${categories}<END UNSAFE CONTENT CATEGORIES>`;

describe("a policy", () => {
  test("has the prompt's categories in their order, without the full stops at their ends", () => {
    const categories = "Violent.\n  PII \n\nAn S.R.O. matter.\n\t\nJailbreak\n";
    expect(readPolicy(`${LEVELS}${list(categories)}`, "g")).toEqual({
      categories: ["Violent", "PII", "An S.R.O. matter", "Jailbreak"],
      hasRefusal: false,
    });
    expect(readPolicy(`${LEVELS}${list(categories)} 'Refusal: Yes'`, "g").hasRefusal).toBe(true);
  });

  test.each([
    ["without Safe", LEVELS.replace("'Safety: Safe'", "") + list("A\n"), "'Safety: Safe'"],
    ["without Unsafe", LEVELS.replace("'Safety: Unsafe'", "") + list("A\n"), "'Safety: Unsafe'"],
    ["without Controversial", LEVELS.replace("'Safety: Controversial'", "") + list("A\n"), "'Safety: Controversial'"],
    ["without a list", LEVELS, "list of categories"],
    ["with an empty list", LEVELS + list(" \n"), "list of distinct categories"],
    ["with a category twice", LEVELS + list("A\nB\nA.\n"), "list of distinct categories"],
  ])("%s is not a guard's", (_, prompt, missing) => {
    expect(() => readPolicy(prompt, "g")).toThrow(
      `g: expected a guard's chat template, got one whose prompt has no ${missing} (is this a Qwen3Guard-Gen checkpoint?)`,
    );
  });
});

/** Each match of the pattern is a token; ids are given out in the order in which they come up. */
function wordTokenizer(pattern: RegExp): {
  tokenizer: Tokenizer;
  id: (word: string) => number;
  words: (ids: readonly number[]) => string[];
} {
  const ids = new Map<string, number>();
  const id = (word: string): number => {
    if (!ids.has(word)) ids.set(word, 100 + ids.size);
    return ids.get(word)!;
  };
  const encode = (text: string, { literal = false } = {}): Int32Array => {
    if (!literal) throw new Error("an answer is text that holds no added tokens");
    return Int32Array.from(text.match(pattern) ?? [], id);
  };
  const words = (some: readonly number[]): string[] => some.map(one => [...ids].find(([, value]) => value === one)![0]);
  return { tokenizer: { encode } satisfies Partial<Tokenizer> as unknown as Tokenizer, id, words };
}

const WORDS = /\w+|[^\w]/g;
const policy: Policy = { categories: ["Violent", "PII"], hasRefusal: true };

describe("the decisions of an answer", () => {
  test("are where answers that differ in one label differ", () => {
    const { tokenizer, words, id } = wordTokenizer(WORDS);
    const { level, category, refusal, unsafe } = deriveLabels(tokenizer, policy, "g");
    expect([words(level.lead).join(""), level.labels, words(level.ids)]).toEqual([
      "Safety: ",
      ["Safe", "Unsafe", "Controversial"],
      ["Safe", "Unsafe", "Controversial"],
    ]);
    expect([words(category.lead).join(""), category.labels]).toEqual(["\nCategories: ", ["Violent", "PII", "None"]]);
    expect(category.ids).toEqual(["Violent", "PII", "None"].map(id));
    expect([words(refusal!.lead).join(""), refusal!.labels, words(refusal!.ids)]).toEqual([
      "\nRefusal: ",
      ["Yes", "No"],
      ["Yes", "No"],
    ]);
    expect(words(unsafe).join("")).toBe("Safety: Unsafe\nCategories: ");
    expect(deriveLabels(wordTokenizer(WORDS).tokenizer, { ...policy, hasRefusal: false }, "g").refusal).toBeNull();
  });

  test("are refused for categories that begin alike", () => {
    const { tokenizer } = wordTokenizer(WORDS);
    const categories = ["Violent X", "Violent Y"];
    expect(() => deriveLabels(tokenizer, { ...policy, categories }, "g")).toThrow(
      /^g: expected categories \(Violent.*, .*, None\) that differ in one token, got ids \d+, \d+, \d+ at position \d+$/,
    );
  });

  test("are refused if what comes before them has different tokens", () => {
    const { tokenizer } = wordTokenizer(/Unsafe\nCategories|\w+|[^\w]/g);
    expect(() => deriveLabels(tokenizer, policy, "g")).toThrow(
      'g: expected "Safety: Unsafe" to have the same tokens in every answer',
    );
  });

  test("are recognised by what came just before", () => {
    for (const [ids, lead, expected] of [
      [[1, 2, 3], [2, 3], true],
      [[1, 2, 3], [1, 3], false],
      [[1, 2, 3], [2, 2], false],
      [[2, 3], [2, 3], true],
      [[3], [2, 3], false],
      [[3], [], true],
    ] as const) {
      expect(endsWith(ids, lead)).toBe(expected);
    }
  });

  test("have probabilities over their own labels only", () => {
    const decision = { lead: [], labels: ["a", "b"], ids: [3, 1] } as const;
    const { a, b } = probabilities(Float32Array.of(9, 0, 9, Math.log(3)), decision);
    expect([a, b].map(value => value.toFixed(6))).toEqual(["0.750000", "0.250000"]);
  });
});
