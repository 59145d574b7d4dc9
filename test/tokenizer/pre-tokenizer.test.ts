import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { forEachPiece, SPLIT_REGEX } from "../../src/tokenizer/pre-tokenizer.ts";

function pieces(text: string): string[] {
  const found: string[] = [];
  let expected = 0;
  forEachPiece(text, (start, end) => {
    expect(start).toBe(expected);
    expect(end).toBeGreaterThan(start);
    found.push(text.slice(start, end));
    expected = end;
  });
  expect(expected).toBe(text.length);
  return found;
}

/** The same regex run by JavaScript. Its one construct that JavaScript lacks in Node 20, `(?i:...)`, is spelled out. */
const ORACLE = new RegExp(
  SPLIT_REGEX.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?:[sS\u017FtTmMdD]|[rRvV][eE]|[lL][lL])"),
  "gu",
);

describe("the split", () => {
  test.each([
    ["Hello world", ["Hello", " world"]],
    ["I'll, it's WE'RE don't", ["I", "'ll", ",", " it", "'s", " WE", "'RE", " don", "'t"]],
    ["'\u017Fx 'x 'l 'r", ["'\u017F", "x", " '", "x", " '", "l", " '", "r"]],
    ["a  b   c ", ["a", " ", " b", "  ", " c", " "]],
    ["a \n \n b", ["a", " \n \n", " b"]],
    [" \n\n!\r\n\nx", [" \n\n", "!\r\n\n", "x"]],
    ["12 345", ["1", "2", " ", "3", "4", "5"]],
    ["(a) \t!b\tc", ["(a", ")", " ", "\t", "!b", "\tc"]],
    [" ...x ..", [" ...", "x", " .."]],
    ["\u{1D400}\u{1D401}!\u{1F600}\u{1F600}", ["\u{1D400}\u{1D401}", "!\u{1F600}\u{1F600}"]],
    ["", []],
  ])("of %j", (text, expected) => {
    expect(pieces(text)).toEqual(expected);
  });

  test("gives what the regex itself does", () => {
    const part = fc.constantFrom(..."  \n\r\t'sSlLeErRvVdDtTmMx1½éÅ你한!.,-(😀𝔄٣\u0301\u017F\u3000\u00A0\u2028");
    fc.assert(
      fc.property(fc.array(part, { maxLength: 24 }), parts => {
        const text = parts.join("");
        expect(pieces(text)).toEqual(text.match(ORACLE) ?? []);
      }),
      { seed: 2, numRuns: 20_000 },
    );
  });

  test.each(["a", " ", "'s", "\n", " \n", "!", "1", "\u{1F600}", "'"])(
    "attack: a long run of %j takes one pass",
    part => {
      const text = part.repeat(300_000);
      let covered = 0;
      forEachPiece(text, (start, end) => {
        covered += end - start;
      });
      expect(covered).toBe(text.length);
    },
  );
});
