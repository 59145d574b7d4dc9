/**
 * The model card's own two functions, under its names: regular expressions that search an answer anywhere.
 *
 * In: an answer's text. Out: what they find, or null and an empty list. They are here so that the card's quick start
 * can be followed line by line and its results compared. They accept anything: to them "Categories: Violent ... Safety:
 * Safe" is Safe. `Guard` uses the strict parser in answer.ts instead.
 */

const LEVEL = /Safety: (Safe|Unsafe|Controversial)/;
const RESPONSE_CATEGORIES =
  /Violent|Non-violent Illegal Acts|Sexual Content or Sexual Acts|PII|Suicide & Self-Harm|Unethical Acts|Politically Sensitive Topics|Copyright Violation|None/g;
const PROMPT_CATEGORIES = new RegExp(`${RESPONSE_CATEGORIES.source}|Jailbreak`, "g");
const REFUSAL = /Refusal: (Yes|No)/;

/** For a verdict on a prompt: the first level, and every category name anywhere, "None" included. */
export function extractLabelAndCategories(content: string): [label: string | null, categories: string[]] {
  return [LEVEL.exec(content)?.[1] ?? null, content.match(PROMPT_CATEGORIES) ?? []];
}

/** For a verdict on a response: the same without Jailbreak, and the first refusal ("Yes" or "No"). */
export function extractLabelCategoriesRefusal(
  content: string,
): [label: string | null, categories: string[], refusal: string | null] {
  return [
    LEVEL.exec(content)?.[1] ?? null,
    content.match(RESPONSE_CATEGORIES) ?? [],
    REFUSAL.exec(content)?.[1] ?? null,
  ];
}
