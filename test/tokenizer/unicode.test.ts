import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { codePointClasses, LETTER, NUMBER, normalizeNfc, SPACE, toWellFormed } from "../../src/tokenizer/unicode.ts";

const classOf = codePointClasses();
const classNames = (c: number): string =>
  [classOf[c]! & LETTER ? "letter" : "", classOf[c]! & NUMBER ? "number" : "", classOf[c]! & SPACE ? "space" : ""]
    .filter(Boolean)
    .join();

describe("classes", () => {
  test("of common characters", () => {
    expect([..."aZéſ你한א"].map(c => classNames(c.codePointAt(0)!))).toEqual(Array(7).fill("letter"));
    expect([..."0٣½Ⅷ²①"].map(c => classNames(c.codePointAt(0)!))).toEqual(Array(6).fill("number"));
    expect([..." \t\n\r\v\f\u0085\u00A0\u1680\u2028\u3000"].map(c => classNames(c.codePointAt(0)!))).toEqual(
      Array(11).fill("space"),
    );
    expect([..."'!_\u0301😀\0\u200B\u200D\uE000"].map(c => classNames(c.codePointAt(0)!))).toEqual(Array(9).fill(""));
  });

  test("no code point has two classes", () => {
    expect(Array.from(classOf.keys()).filter(c => classNames(c).includes(","))).toEqual([]);
  });

  test("differ from JavaScript's white space in U+FEFF and U+0085, both ways", () => {
    const ours = Array.from({ length: 0x110000 }, (_, c) => c).filter(c => (classOf[c]! & SPACE) !== 0);
    const engines = Array.from({ length: 0x110000 }, (_, c) => c).filter(c => /\s/u.test(String.fromCodePoint(c)));
    expect(ours.filter(c => !engines.includes(c))).toEqual([0x85]);
    expect(engines.filter(c => !ours.includes(c))).toEqual([0xfeff]);
  });
});

describe("NFC", () => {
  test("equals the engine's for characters of Unicode 9 and before", () => {
    // U+0300..U+036F, Latin, Greek, Cyrillic, Hangul and its jamo, Indic scripts: all older than Unicode 9 (later
    // additions are left out).
    const old =
      /^[\u0000-\u052F\u0900-\u0963\u0985-\u09B9\u09BC-\u09CE\u09D7\u0B3C-\u0B57\u0BBE-\u0BD7\u0F40-\u0FBC\u1100-\u11FF\u1E00-\u1FFF\u2100-\u2BFF\u3041-\u30FF\uAC00-\uD7A3\uF900-\uFAD9\uFB1D-\uFB4E]$/u;
    const characters = Array.from({ length: 0x10000 }, (_, c) => String.fromCodePoint(c)).filter(c => old.test(c));
    for (const c of characters) expect(normalizeNfc(c), c).toBe(c.normalize("NFC"));
    const marks = [
      "\u0301",
      "\u0323",
      "\u0327",
      "\u0345",
      "\u0334",
      "\u0338",
      "\u3099",
      "\u09BC",
      "\u093C",
      "\u1161",
      "\u11A8",
      "\u0F71",
      "\u0F72",
      "\u0F73",
      "\u0344",
    ];
    const character = fc.oneof(
      fc.constantFrom(...characters),
      fc.constantFrom(...marks),
      fc.constantFrom("e", "a", "\u00EA", "\u1E69"),
    );
    fc.assert(
      fc.property(fc.array(character, { maxLength: 12 }), parts => {
        expect(normalizeNfc(parts.join(""))).toBe(parts.join("").normalize("NFC"));
      }),
      { seed: 1, numRuns: 5000 },
    );
  });

  test("composes, orders and blocks", () => {
    expect(normalizeNfc("e\u0301")).toBe("\u00E9");
    expect(normalizeNfc("s\u0307\u0323")).toBe("\u1E69"); // ordered to s, dot below, dot above, then composed twice
    expect(normalizeNfc("\u00E9\u0323")).toBe("\u1EB9\u0301"); // taken apart to be composed differently
    expect(normalizeNfc("a\u0301\u0301")).toBe("\u00E1\u0301"); // the second has no composite and stays
    expect(normalizeNfc("a\u0334\u0301")).toBe("\u00E1\u0334"); // a lower class between them does not block
    expect(normalizeNfc("\u1100\u1161\u11A8")).toBe("\uAC01");
    expect(normalizeNfc("\u212B \u2126 \u0958")).toBe("\u00C5 \u03A9 \u0915\u093C"); // singletons and exclusions
    expect(normalizeNfc("\u0301a")).toBe("\u0301a");
  });

  test("known difference: marks newer than the reference's Unicode 9 stay, while engines reorder them", () => {
    for (const mark of ["\u1AC1", "\u{1133B}", "\u{10F46}", "\u{1E2EC}"]) {
      const text = `a\u0345${mark}b`;
      expect(normalizeNfc(text)).toBe(text);
      expect(text.normalize("NFC")).not.toBe(text);
    }
    expect(normalizeNfc("\u{11935}\u{11930}")).toBe("\u{11935}\u{11930}");
    expect("\u{11935}\u{11930}".normalize("NFC")).toBe("\u{11938}");
  });

  test("attack: a megabyte of marks in the wrong order takes little time (the engine's way takes minutes)", () => {
    const n = 250_000;
    expect(normalizeNfc(`q${"\u0301\u0323".repeat(n)}`) === `q${"\u0323".repeat(n)}${"\u0301".repeat(n)}`).toBe(true);
    expect(normalizeNfc("\u0F73".repeat(n)) === "\u0F71".repeat(n) + "\u0F72".repeat(n)).toBe(true);
  });
});

test("lone surrogates become U+FFFD, and pairs stay", () => {
  expect(toWellFormed("a\uD800b\uDC00\uD83D\uDE00\uD83D")).toBe("a\uFFFDb\uFFFD\u{1F600}\uFFFD");
});
