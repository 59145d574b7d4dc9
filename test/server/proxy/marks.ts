/**
 * Marks: each text of a forged answer or request carries one of its own, so that whoever gets a text can be asked
 * where it came from.
 *
 * TEXT stands for a character that no name has, and NAME for a word that might pass as a name, until `marked` gives
 * each its own. A forged value is any JSON at all in one place of a few; the others are as servers and clients write
 * them, or nothing would come far enough to leak.
 */

import fc from "fast-check";
import { FAILURES, OFFENDS, UNREADABLE } from "./stand-in-guard.ts";

export const TEXT = "\u0001";
export const NAME = "\u0002";

const FIRST_MARK = 0x4e00;
const MARKS = /[\u4e00-\u9fff]|n\d+n/g;

/** A copy in which each mark is another. */
export function marked<T>(value: T): T {
  let next = 0;
  const fill = (text: string): string =>
    text.replaceAll(TEXT, () => String.fromCodePoint(FIRST_MARK + next++)).replaceAll(NAME, () => `n${next++}n`);
  const copy = (value: unknown): unknown => {
    if (typeof value === "string") return fill(value);
    if (Array.isArray(value)) return value.map(copy);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [fill(key), copy(inner)]));
  };
  return copy(value) as T;
}

/** The marks in a text, or in any JSON. */
export function marksIn(value: unknown): string[] {
  return (typeof value === "string" ? value : (JSON.stringify(value) ?? "")).match(MARKS) ?? [];
}

const harmless = fc.constantFrom(TEXT, ` ${TEXT} `, NAME, "so ", "\u{1F600}", "e\u0301", '{"a": ', "\n");
const harmful = fc.constantFrom(OFFENDS, UNREADABLE, ...Object.keys(FAILURES));

/** A text of a model's or a user's. */
export const text: fc.Arbitrary<string> = fc
  .array(fc.oneof({ arbitrary: harmless, weight: 60 }, { arbitrary: harmful, weight: 1 }), { maxLength: 6 })
  .map(parts => parts.join(""));

export const name: fc.Arbitrary<string> = fc.oneof(
  { arbitrary: fc.constantFrom("llm-1", "call_1", `org/${NAME}`, NAME, ""), weight: 9 },
  { arbitrary: fc.constantFrom(`two ${NAME}`, TEXT, "x".repeat(300)), weight: 1 },
);

/** Names that some server or client has for a field, and others. */
const key = fc.constantFrom(
  ...[
    "id",
    "model",
    "usage",
    "role",
    "content",
    "Content",
    "text",
    "index",
    "name",
    "arguments",
    "logprobs",
    "error",
    "message",
  ],
  ...[
    "annotations",
    "audio",
    "images",
    "reasoning_details",
    "failed_generation",
    "token_ids",
    "prompt",
    "suffix",
    "messages",
    "Messages",
  ],
  ...["tools", "documents", "chat_template", "metadata", "qwen3guard", "__proto__", "constructor", NAME, `a ${TEXT}`],
);

/** Any JSON. */
export const anything: fc.Arbitrary<unknown> = fc.letrec<{ value: unknown }>(tie => ({
  value: fc.oneof(
    { maxDepth: 3 },
    text,
    name,
    fc.constantFrom(null, true, false, 0, 1, -1, 1e300, 0.5),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(key, tie("value"), { maxKeys: 3 }),
  ),
})).value;

/** What is expected in this place, and now and then anything. */
export function mostly<T>(expected: fc.Arbitrary<T>): fc.Arbitrary<unknown> {
  return fc.oneof({ arbitrary: expected, weight: 40 }, { arbitrary: anything, weight: 1 });
}

/** An object with some of these fields, and now and then others. */
export function some(
  fields: Record<string, fc.Arbitrary<unknown>>,
  required: readonly string[] = [],
): fc.Arbitrary<object> {
  const others = fc.oneof(
    { arbitrary: fc.constant({}), weight: 4 },
    { arbitrary: fc.dictionary(key, anything, { maxKeys: 2 }), weight: 1 },
  );
  return fc
    .tuple(others, fc.record(fields, { requiredKeys: [...required] }))
    .map(([more, known]) => ({ ...more, ...known }));
}

/** Headers with a text in each. */
export function headers(names: readonly string[]): fc.Arbitrary<Record<string, string>> {
  const value = fc.constantFrom(NAME, `say ${NAME} now`, `${NAME}, ${NAME}`, "1", "Wed, 21 Oct 2026 07:28:00 GMT");
  return fc
    .dictionary(fc.constantFrom(...names), value, { maxKeys: 4 })
    .map(all => Object.fromEntries(Object.entries(all)));
}
