import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BytePairEncoder, MergeTable, mergeByHeap, mergeByScan, NO_MERGE } from "../../src/tokenizer/bpe.ts";
import { BYTE_CHARACTERS, tokenBytes, utf8Into } from "../../src/tokenizer/byte-level.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { readTokenizerJson } from "../../src/tokenizer/tokenizer-json.ts";
import { QWEN3_PATH, readJson, TINY_PATH } from "./checkpoints.ts";

test("the merge table finds every merge that was added, and the later of two equal pairs", () => {
  const merges = new MergeTable(1000);
  for (let i = 0; i < 999; i++) merges.add(i % 37, i, 5000 + i);
  merges.add(3, 3, 88);
  for (let i = 0; i < 999; i++) {
    const rank = merges.rankOf(i % 37, i);
    expect([rank, merges.mergedAt(rank)]).toEqual(i === 3 ? [999, 88] : [i, 5000 + i]);
    expect(merges.rankOf(i, 2000)).toBe(NO_MERGE);
  }
});

describe("scan and heap", () => {
  const both = (symbols: readonly number[], merges: MergeTable): [number[], number[]] => {
    const scanned = Int32Array.from(symbols);
    const heaped = Int32Array.from(symbols);
    return [
      [...scanned.subarray(0, mergeByScan(scanned, symbols.length, merges))],
      [...heaped.subarray(0, mergeByHeap(heaped, symbols.length, merges))],
    ];
  };

  test("agree on random merges, including chains of equal symbols", () => {
    // Ids 0..3 are bytes; merge k joins two earlier ids into id 4 + k, in a random order of ranks.
    const merge = fc.tuple(fc.nat(), fc.nat(), fc.nat());
    fc.assert(
      fc.property(
        fc.array(merge, { maxLength: 25 }),
        fc.array(fc.nat({ max: 3 }), { maxLength: 120 }),
        (list, symbols) => {
          const merges = new MergeTable(list.length);
          const ranks = list.map((_, k) => k).sort((a, b) => list[a]![2] - list[b]![2]);
          const strings = ["0", "1", "2", "3"];
          const inOrder: [number, number, number][] = [];
          list.forEach(([left, right], k) => {
            const l = left % (4 + k);
            const r = right % (4 + k);
            strings.push(strings[l]! + strings[r]!);
            // As in a vocabulary, one string has one id.
            inOrder[ranks.indexOf(k)] = [l, r, strings.indexOf(strings[4 + k]!)];
          });
          for (const [left, right, merged] of inOrder) merges.add(left, right, merged);
          const [scanned, heaped] = both(symbols, merges);
          expect(heaped).toEqual(scanned);
        },
      ),
      { seed: 3, numRuns: 3000 },
    );
  });

  test("agree on the real merges", () => {
    const { merges, byteIds } = readTokenizerJson(readJson(QWEN3_PATH), "tokenizer.json");
    for (const text of [
      "a".repeat(999),
      " ".repeat(1000),
      "!".repeat(777),
      "你好".repeat(300),
      "\u{1F600}".repeat(200),
      "antidisestablishmentarianism".repeat(30),
    ]) {
      const [scanned, heaped] = both(
        Array.from(new TextEncoder().encode(text), byte => byteIds[byte]!),
        merges,
      );
      expect(heaped).toEqual(scanned);
      expect(scanned.length).toBeLessThan(text.length);
    }
  });
});

test("a cached piece has the same ids the first time, the next time, and after others took its slot", () => {
  const { merges, byteIds } = readTokenizerJson(readJson(QWEN3_PATH), "tokenizer.json");
  const encoder = new BytePairEncoder(byteIds, merges);
  const cached = (text: string): number[] => {
    const ids: number[] = [];
    encoder.encodeInto(`<${text}>`, 1, 1 + text.length, ids);
    return ids;
  };
  const plain = (text: string): number[] => {
    const symbols = Int32Array.from(new TextEncoder().encode(text), byte => byteIds[byte]!);
    return [...symbols.subarray(0, mergeByScan(symbols, symbols.length, merges))];
  };
  // More than the cache has slots; equal up to one unit; of one id and of very many; shorter and longer than what is
  // kept.
  const numbered = Array.from({ length: 40_000 }, (_, i) => `w${i}`);
  const lengths = Array.from({ length: 50 }, (_, n) => [
    " ".repeat(n),
    "\u4F60".repeat(n),
    "\u{1D400}".repeat(n),
    `${"x".repeat(n)}y`,
  ]).flat();
  const pieces = [...lengths, " evaluate", " evaluatf", ...numbered, " evaluate", ...lengths];
  for (const piece of pieces) {
    const ids = plain(piece);
    for (const found of [cached(piece), cached(piece)])
      if (found.join() !== ids.join()) expect(found, JSON.stringify(piece)).toEqual(ids);
  }
});

describe.each([
  { name: "tiny", path: TINY_PATH },
  { name: "qwen3", path: QWEN3_PATH },
])("attack: long inputs without a break, $name vocabulary", ({ path }) => {
  const tokenizer = Tokenizer.fromJson(readJson(path));
  test.each(["a", " ", "'s", "\n", "!", "\u{1F600}", "\u4F60\u597D\u4E16\u754C", "<|im_", "<|im_end|>"])("%j", part => {
    const text = part.repeat(Math.ceil(200_000 / part.length));
    expect(tokenizer.decode(tokenizer.encode(text)) === text).toBe(true);
  });
});

describe("the byte alphabet", () => {
  test("has a distinct character for each byte, and tokenBytes reads it back", () => {
    expect(new Set(BYTE_CHARACTERS).size).toBe(256);
    expect(BYTE_CHARACTERS[0x20]).toBe("Ġ");
    expect(BYTE_CHARACTERS[0x0a]).toBe("Ċ");
    expect([...tokenBytes(BYTE_CHARACTERS.join(""))]).toEqual(Array.from({ length: 256 }, (_, byte) => byte));
  });

  test("a token with any other character stands for its own UTF-8", () => {
    expect([...tokenBytes("Ġ你")]).toEqual([...new TextEncoder().encode("Ġ你")]);
    expect([...tokenBytes("a b")]).toEqual([0x61, 0x20, 0x62]);
  });

  test("utf8Into writes what TextEncoder does", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), text => {
        const out = new Uint8Array(3 * text.length + 2);
        expect([...out.subarray(0, utf8Into(`<${text}>`, 1, 1 + text.length, out))]).toEqual([
          ...new TextEncoder().encode(text),
        ]);
      }),
      { seed: 4, numRuns: 2000 },
    );
  });
});
