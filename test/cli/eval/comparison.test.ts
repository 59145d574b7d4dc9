/** Forms of weights compared: the figures by hand, and the command on the embedded guard. */

import { expect, test } from "vitest";
import { compareForms, divergence } from "../../../src/cli/eval/comparison.ts";
import type { SafetyLevel } from "../../../src/guard/policy.ts";
import type { Verdict } from "../../../src/guard/verdict.ts";
import { projectPath } from "../../helpers.ts";
import { cli } from "../harness.ts";

const verdict = (safety: SafetyLevel | null, safe: number | null): Verdict =>
  ({ safety, scores: safe === null ? null : { Safe: safe, Unsafe: 1 - safe, Controversial: 0 } }) as Verdict;

test("levels, flags, differences and divergence of texts that both judged", () => {
  const first = [
    verdict("Safe", 0.75),
    verdict("Unsafe", 0.25),
    verdict("Controversial", 0.5),
    verdict(null, null),
    null,
  ];
  const other = [
    verdict("Safe", 0.5),
    verdict("Controversial", 0.25),
    verdict("Safe", 0.75),
    verdict(null, 0.1),
    verdict("Safe", 1),
  ];
  const comparison = compareForms("int8", first, other);
  expect(comparison).toMatchObject({
    weights: "int8",
    texts: 4,
    sameLevel: 2,
    sameStrict: 3,
    sameLoose: 3,
    largestDifference: 0.25,
  });
  expect(comparison.meanDifference).toBeCloseTo(0.5 / 3, 12);
  const kl =
    0.75 * Math.log(0.75 / 0.5) + 0.25 * Math.log(0.25 / 0.5) + 0.5 * Math.log(0.5 / 0.75) + 0.5 * Math.log(0.5 / 0.25);
  expect(comparison.meanDivergence).toBeCloseTo(kl / 3, 12);
});

test("a form does not differ from itself, and a divergence stays finite", () => {
  const some = [verdict("Safe", 0.9), verdict(null, null)];
  expect(compareForms("x", some, some)).toEqual({
    ...{ weights: "x", texts: 2, sameLevel: 2, sameStrict: 2, sameLoose: 2 },
    ...{ meanDifference: 0, largestDifference: 0, meanDivergence: 0 },
  });
  const sure = { Safe: 1, Unsafe: 0, Controversial: 0 };
  expect(divergence(sure, { Safe: 0, Unsafe: 1, Controversial: 0 })).toBeCloseTo(Math.log(1e10), 6);
});

test("the command compares int8 and int4 with the weights as stored", async () => {
  const args = [
    "eval",
    projectPath("bench/data/xstest.jsonl"),
    "--limit",
    "40",
    "--quiet",
    "--compare",
    "bf16,int8,int4",
  ];
  const { status, out } = await cli([...args, "--json"]);
  const { data, model, forms } = JSON.parse(out);
  expect([status, data, model]).toEqual([0, "xstest.jsonl", "tiny-guard-gen"]);
  expect(forms.map((form: { weights: string }) => form.weights)).toEqual(["bf16", "int8", "int4"]);
  expect(forms[0]).toMatchObject({ texts: 40, sameLevel: 40, largestDifference: 0 });
  expect(forms[1].largestDifference).toBeGreaterThan(0);
  expect(forms[1].meanDifference).toBeLessThan(forms[2].meanDifference);
  expect((await cli(args)).out).toMatch(
    /^xstest\.jsonl, 40 texts judged by tiny-guard-gen: each form of weights against bf16\n\n.*same level/,
  );
});

test.each<[string[], string]>([
  [["--compare", "bf16"], "--compare: expected two forms at least, as in bf16,int8, got bf16"],
  [["--compare", "bf16,int7"], '--compare: expected forms of weights (bf16, checkpoint, int8, int4), got "int7"'],
  [["--compare", "bf16,int8", "--html", "x"], "eval: expected --compare or --html, got both"],
  [["--compare", "bf16,int8", "--weights", "int8"], "eval: expected --compare or --weights, got both"],
])("%j is wrong usage", async (args, message) => {
  expect(await cli(["eval", "-", ...args], { stdin: "" })).toEqual({
    status: 2,
    out: "",
    err: `qwen3guard: ${message}\n`,
  });
});
