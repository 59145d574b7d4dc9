/** What is flagged, and which of two verdicts is worse: an unreadable answer is never the harmless one. */

import { expect, test } from "vitest";
import type { SafetyLevel } from "../../src/guard/policy.ts";
import { compareVerdicts, isAboveThreshold, isFlagged, type Verdict } from "../../src/guard/verdict.ts";

test("strict flags Controversial and loose does not; Unsafe and unparsed are flagged in both", () => {
  expect(
    (["Safe", "Controversial", "Unsafe", null] as const).map(level => [
      isFlagged(level, "strict"),
      isFlagged(level, "loose"),
    ]),
  ).toEqual([
    [false, false],
    [true, false],
    [true, true],
    [true, true],
  ]);
});

test("a threshold flags from its value on, whatever the level; without a level or a score, everything is flagged", () => {
  for (const level of ["Safe", "Controversial", "Unsafe"] as const) {
    expect([0.49, 0.5, 0.51].map(score => isAboveThreshold(level, score, 0.5))).toEqual([false, true, true]);
    expect(isAboveThreshold(level, null, 1)).toBe(true);
    expect(isAboveThreshold(level, Number.NaN, 0.5)).toBe(true);
  }
  expect([0, 0.001, 1, null].map(score => isAboveThreshold(null, score, 1))).toEqual([true, true, true, true]);
});

test("the worse of two: flagged before not, then Unsafe, unparsed, Controversial, Safe, then the higher score", () => {
  const verdict = (flagged: boolean, safety: SafetyLevel | null, score: number | null): Verdict =>
    ({ flagged, safety, score }) satisfies Partial<Verdict> as Verdict;
  const fromBest = [
    verdict(false, "Safe", 0.1),
    verdict(false, "Safe", 0.4),
    verdict(false, "Controversial", 0.3),
    verdict(false, "Unsafe", 0.2),
    verdict(true, "Safe", 0.05),
    verdict(true, "Controversial", 0.04),
    verdict(true, "Controversial", 0.99),
    verdict(true, null, 0.001),
    verdict(true, null, 0.98),
    verdict(true, null, null),
    verdict(true, "Unsafe", 0.002),
    verdict(true, "Unsafe", 0.97),
  ];
  for (const [i, a] of fromBest.entries()) {
    for (const [j, b] of fromBest.entries())
      expect([i, j, Math.sign(compareVerdicts(a, b))]).toEqual([i, j, Math.sign(i - j)]);
  }
});
