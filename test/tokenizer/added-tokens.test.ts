import fc from "fast-check";
import { expect, test } from "vitest";
import { AddedTokenMatcher } from "../../src/tokenizer/added-tokens.ts";

const matcherOf = (...contents: string[]): AddedTokenMatcher =>
  new AddedTokenMatcher(contents.map((content, id) => ({ id, content, special: true })));

test("leftmost first, longest at one place", () => {
  const matcher = matcherOf("ab", "abcd", "bc", "d");
  expect(matcher.findAll("abcabcdd")).toEqual([
    { id: 0, start: 0, end: 2 },
    { id: 1, start: 3, end: 7 },
    { id: 3, start: 7, end: 8 },
  ]);
  expect(matcher.findAll("")).toEqual([]);
  expect(matcherOf().findAll("ab")).toEqual([]);
});

test("is a search that tries the longest token first at each place", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", "<", "\u{1F600}", "\u{1F601}"), maxLength: 30 });
  const tokens = fc.uniqueArray(
    fc.string({ unit: fc.constantFrom("a", "b", "<", "\u{1F600}"), minLength: 1, maxLength: 4 }),
    {
      maxLength: 6,
    },
  );
  fc.assert(
    fc.property(text, tokens, (text, tokens) => {
      const expected: string[] = [];
      const longestFirst = [...tokens].sort((a, b) => b.length - a.length);
      for (let i = 0; i < text.length; ) {
        const token = longestFirst.find(token => text.startsWith(token, i));
        if (token !== undefined) expected.push(token);
        i += token?.length ?? 1;
      }
      const found = matcherOf(...tokens).findAll(text);
      expect(found.map(({ start, end }) => text.slice(start, end))).toEqual(expected);
      expect(found.map(({ id }) => tokens[id])).toEqual(expected);
    }),
    { seed: 9, numRuns: 2000 },
  );
});
