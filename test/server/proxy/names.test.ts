/** What may pass without a verdict: a word that has no room for a text. */

import { expect, test } from "vitest";
import { isName } from "../../../src/server/proxy/names.ts";

test.each(["", "a", "gpt-4o", "org/name@main", "a.b:c+d=e~f[0]_", "length", "x".repeat(256)])("%j is a name", value => {
  expect(isName(value)).toBe(true);
});

test.each([
  ...["two words", " a", "a ", "a\n", "\na", "a,b", "*", '"', "é", "日", "x".repeat(257)],
  ...[undefined, null, 5, true, ["a"], {}, { length: 1 }],
])("%j is not", value => {
  expect(isName(value)).toBe(false);
});
