import { describe, expect, test } from "vitest";
import { answerRisk, type TokenVerdict, TwoInARow } from "../../src/guard/cut-rule.ts";
import type { SafetyLevel } from "../../src/guard/policy.ts";
import type { Mode } from "../../src/guard/verdict.ts";

const LEVELS: Record<string, SafetyLevel> = { S: "Safe", U: "Unsafe", C: "Controversial" };

/** A verdict for each letter; token i is the text from 3 * i to 3 * i + 3. */
function verdicts(levels: string): TokenVerdict[] {
  return Array.from(levels, (letter, i) => ({
    position: 20 + i,
    id: i,
    start: 3 * i,
    end: 3 * i + 3,
    risk: LEVELS[letter],
    riskProbs: { Safe: 0, Unsafe: 0, Controversial: 0 },
    category: letter === "S" ? null : `category ${i}`,
    categoryProb: letter === "S" ? null : 1,
    categoryProbs: {},
  }));
}

function cut(levels: string, mode?: Mode): [after: number, risk: SafetyLevel, at: number] | undefined {
  const rule = new TwoInARow(mode);
  for (const [i, verdict] of verdicts(levels).entries()) {
    const violation = rule.next(verdict);
    if (violation) {
      expect(violation.tokens.map(({ position }) => position)).toEqual([20 + i - 1, 20 + i]);
      expect(violation.category).toBe(`category ${i}`);
      return [i, violation.risk, violation.at];
    }
  }
  return undefined;
}

describe("two in a row", () => {
  test("one token alone cuts nothing, nor do two of different levels", () => {
    for (const levels of ["", "U", "SSS", "SUSUSU", "UCUC", "CSC", "SU"]) expect(cut(levels), levels).toBeUndefined();
  });

  test("two of a level cut at the first of them", () => {
    expect(cut("SSUU")).toEqual([3, "Unsafe", 6]);
    expect(cut("SUSUU")).toEqual([4, "Unsafe", 9]);
    expect(cut("SCC")).toEqual([2, "Controversial", 3]);
    expect(cut("UCCUU")).toEqual([2, "Controversial", 3]);
    expect(cut("CUU")).toEqual([2, "Unsafe", 3]);
  });

  test("loose lets Controversial pass", () => {
    expect(cut("CCCC", "loose")).toBeUndefined();
    expect(cut("CCUCUU", "loose")).toEqual([5, "Unsafe", 12]);
    expect(cut("CC", "strict")).toEqual([1, "Controversial", 0]);
  });
});

test("a whole answer: Unsafe first, then Controversial", () => {
  const risk = (levels: string): SafetyLevel => answerRisk(verdicts(levels));
  expect(risk("")).toBe("Safe");
  expect(risk("UCUCS")).toBe("Safe");
  expect(risk("SCCS")).toBe("Controversial");
  expect(risk("CCSUU")).toBe("Unsafe");
  expect(risk("CCSU")).toBe("Controversial");
});
