import { describe, expect, test } from "vitest";
import { parseAnswer, writeAnswer } from "../../src/guard/answer.ts";
import { extractLabelAndCategories, extractLabelCategoriesRefusal } from "../../src/guard/extraction.ts";
import { SAFETY_LEVELS } from "../../src/guard/policy.ts";

const PROMPT = { categories: ["Violent", "Non-violent Illegal Acts", "PII", "Jailbreak"], hasRefusal: false };
const RESPONSE = { categories: ["Violent", "Non-violent Illegal Acts", "PII"], hasRefusal: true };

describe("an answer that follows the format", () => {
  test("gives its parts", () => {
    expect(parseAnswer("Safety: Safe\nCategories: None", PROMPT)).toEqual({
      safety: "Safe",
      categories: [],
      refusal: null,
    });
    expect(parseAnswer("Safety: Unsafe\nCategories: Violent, PII\n", PROMPT)).toEqual({
      safety: "Unsafe",
      categories: ["Violent", "PII"],
      refusal: null,
    });
    expect(parseAnswer("Safety: Controversial\nCategories: Non-violent Illegal Acts\nRefusal: Yes", RESPONSE)).toEqual({
      safety: "Controversial",
      categories: ["Non-violent Illegal Acts"],
      refusal: "Yes",
    });
  });

  test("is what writeAnswer writes, for every level, category and refusal", () => {
    for (const safety of SAFETY_LEVELS) {
      for (const categories of [[], ["Violent"], ["PII", "Non-violent Illegal Acts"]]) {
        expect(parseAnswer(writeAnswer(safety, categories, null), PROMPT)).toEqual({
          safety,
          categories,
          refusal: null,
        });
        for (const refusal of ["Yes", "No"] as const) {
          expect(parseAnswer(writeAnswer(safety, categories, refusal), RESPONSE)).toEqual({
            safety,
            categories,
            refusal,
          });
        }
      }
    }
  });

  test("may name a category twice, which counts once", () => {
    expect(parseAnswer("Safety: Unsafe\nCategories: PII, PII", PROMPT)?.categories).toEqual(["PII"]);
  });
});

describe("an answer that does not is undefined, never Safe", () => {
  test.each([
    "",
    "Safe",
    "Safety: Safe",
    "safety: safe\ncategories: none",
    "Safety: Safe\nCategories:",
    "Safety: Safe\nCategories: ",
    "Safety: Safe \nCategories: None",
    " Safety: Safe\nCategories: None",
    "Safety: Safe\r\nCategories: None",
    "Safety: Safer\nCategories: None",
    "Safety: Safe, Unsafe\nCategories: None",
    "Safety: Unsafe\nCategories: Violent; PII",
    "Safety: Unsafe\nCategories: Violent,PII",
    "Safety: Unsafe\nCategories: Violence",
    "Safety: Unsafe\nCategories: None, Violent",
    "Safety: Unsafe\n\nCategories: Violent",
    "Categories: None\nSafety: Safe",
    "Safety: Unsafe\nSafety: Safe\nCategories: None",
    "The text says Safety: Safe\nCategories: None",
    "Safety: Safe\nCategories: None\nRefusal: No",
    "Safety: Safe\nCategories: None\nand more",
  ])("on a prompt: %j", text => {
    expect(parseAnswer(text, PROMPT)).toBeUndefined();
  });

  test.each([
    "Safety: Safe\nCategories: None",
    "Safety: Safe\nCategories: None\nRefusal:",
    "Safety: Safe\nCategories: None\nRefusal: Maybe",
    "Safety: Unsafe\nCategories: Jailbreak\nRefusal: No",
  ])("on a response: %j", text => {
    expect(parseAnswer(text, RESPONSE)).toBeUndefined();
  });
});

describe("the model card's own extraction", () => {
  test("searches anywhere, first level, all categories, first refusal", () => {
    expect(extractLabelAndCategories("Safety: Unsafe\nCategories: Violent, Jailbreak")).toEqual([
      "Unsafe",
      ["Violent", "Jailbreak"],
    ]);
    expect(extractLabelAndCategories("None PII ... Safety: Safe ... Safety: Unsafe")).toEqual([
      "Safe",
      ["None", "PII"],
    ]);
    expect(extractLabelAndCategories("no idea")).toEqual([null, []]);
    expect(extractLabelCategoriesRefusal("Safety: Safe\nCategories: None\nRefusal: Yes")).toEqual([
      "Safe",
      ["None"],
      "Yes",
    ]);
    expect(extractLabelCategoriesRefusal("Categories: Jailbreak")).toEqual([null, [], null]);
  });
});
