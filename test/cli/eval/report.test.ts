/** What an evaluation counts, and the two forms of its report. */

import { describe, expect, test } from "vitest";
import type { Example } from "../../../src/cli/eval/dataset.ts";
import { type EvaluationOptions, evaluate, type Judged } from "../../../src/cli/eval/evaluation.ts";
import { reportHtml } from "../../../src/cli/eval/report-html.ts";
import { reportText } from "../../../src/cli/eval/report-text.ts";
import type { SafetyLevel } from "../../../src/guard/policy.ts";
import { tagTree } from "./tag-tree.ts";

const OPTIONS: EvaluationOptions = { data: "data.jsonl", model: "a-guard", worst: 2 };

/**
 * One judged line: its label, what the guard said, and P(Safe); `undefined` for an answer that never came to a level.
 */
function line(
  label: Example["label"],
  safety: SafetyLevel | null,
  safe: number | undefined,
  more: Partial<Example> & { said?: readonly string[] } = {},
): Judged {
  const { said = [], ...example } = more;
  const scores = safe === undefined ? null : { Safe: safe, Unsafe: 1 - safe, Controversial: 0 };
  return {
    example: { line: 1, id: null, input: "text", label, categories: [], group: null, ...example },
    verdict: { safety, categories: said, scores },
  };
}

const JUDGED: readonly Judged[] = [
  line("unsafe", "Unsafe", 0.1, { line: 1, categories: ["V", "H"], said: ["Violent", "PII"] }),
  line("unsafe", "Controversial", 0.4, { line: 2, categories: ["V"], said: ["PII"] }),
  line("unsafe", "Safe", 0.7, { line: 3, id: "m1", input: "missed one" }),
  line("unsafe", "Safe", 0.9, { line: 4, input: [{ role: "user", content: "missed two" }] }),
  line("unsafe", "Safe", 0.95, { line: 5, input: "missed three" }),
  line("safe", "Safe", 0.99, { line: 6 }),
  line("safe", "Unsafe", 0.2, { line: 7, input: { prompt: "q", response: "alarm" } }),
  line("safe", null, undefined, { line: 8, input: "unparsed one" }),
];

describe("evaluate", () => {
  const { evaluation, columns } = evaluate(JUDGED, OPTIONS);

  test("strict flags Controversial, loose does not, and both flag what could not be parsed", () => {
    expect(evaluation.lines).toEqual({ judged: 8, safe: 3, unsafe: 5, unparsed: 1 });
    expect(evaluation.strict.confusion).toEqual({ tp: 2, fp: 2, fn: 3, tn: 1 });
    expect(evaluation.loose.confusion).toEqual({ tp: 1, fp: 2, fn: 4, tn: 1 });
    expect(evaluation.strict.recall.value).toBe(2 / 5);
    expect(evaluation.loose.falsePositiveRate.value).toBe(2 / 3);
    const { low, value, high } = evaluation.strict.precision;
    expect((low as number) < (value as number) && (value as number) < (high as number)).toBe(true);
  });

  test("scores are 1 - P(Safe), and 1 if the answer never reached a level", () => {
    expect(Array.from(columns.score)).toEqual([0.9, 0.6, 1 - 0.7, 1 - 0.9, 1 - 0.95, 1 - 0.99, 0.8, 1]);
    // Of 15 pairs: unsafe 0.9 and 0.6 pass one and none of the safe 1, 0.8 and 0.01, the others the last alone.
    expect(evaluation.rocAuc.value).toBe((2 + 1 + 3) / 15);
  });

  test("a line counts in the row of each of its categories, or of its label if it has none", () => {
    expect(evaluation.categories).toEqual({
      columns: ["Safe", "Violent", "PII", "no category", "unparsed"],
      rows: [
        { name: "safe", total: 3, counts: [1, 0, 0, 1, 1] },
        { name: "unsafe", total: 3, counts: [3, 0, 0, 0, 0] },
        { name: "V", total: 2, counts: [0, 1, 1, 0, 0] },
        { name: "H", total: 1, counts: [0, 1, 0, 0, 0] },
      ],
    });
  });

  test("the worst mistakes are those of which the guard was surest", () => {
    expect(evaluation.worst.missed.map(({ line, id, text }) => [line, id, text])).toEqual([
      [5, null, "missed three"],
      [4, null, "missed two"],
    ]);
    expect(evaluation.worst.falseAlarms).toEqual([
      { line: 8, id: null, score: 1, answer: "unparsed", text: "unparsed one" },
      { line: 7, id: null, score: 0.8, answer: "Unsafe", text: "alarm" },
    ]);
  });

  test("groups, in the order of the data", () => {
    const judged = [
      line("unsafe", "Unsafe", 0, { group: "b" }),
      line("safe", "Safe", 1, { group: "a" }),
      line("safe", "Unsafe", 0, { group: "b" }),
    ];
    expect(evaluate(judged, { ...OPTIONS, by: "k" }).evaluation.groups).toEqual({
      key: "k",
      rows: [
        {
          name: "b",
          total: 2,
          unsafe: 1,
          strict: { tp: 1, fp: 1, fn: 0, tn: 0 },
          loose: { tp: 1, fp: 1, fn: 0, tn: 0 },
        },
        {
          name: "a",
          total: 1,
          unsafe: 0,
          strict: { tp: 0, fp: 0, fn: 0, tn: 1 },
          loose: { tp: 0, fp: 0, fn: 0, tn: 1 },
        },
      ],
    });
  });

  test("NaN is refused, and so is an empty evaluation", () => {
    expect(() => evaluate([line("safe", "Safe", Number.NaN)], OPTIONS)).toThrow(
      "scores[0]: expected a number from 0 to 1, got NaN",
    );
    expect(() => evaluate([], OPTIONS)).toThrow(
      "data.jsonl: expected at least one line that fits the model's context, got none",
    );
  });
});

describe("text", () => {
  const text = (judged: readonly Judged[], options: Partial<EvaluationOptions> = {}): string =>
    reportText(evaluate(judged, { ...OPTIONS, ...options }).evaluation, { columns: 80, colors: false });

  test("figures with intervals stand in columns", () => {
    const out = text(JUDGED, { leftOut: [{ line: 9, id: null, error: "too long" }] });
    expect(out).toMatch(
      /^data\.jsonl judged by a-guard\n8 lines: 5 unsafe, 3 safe\n1 answer did not follow the format: flagged\n1 line left out/,
    );
    expect(out).toMatch(/^recall {16}0\.40 \[0\.\d\d, [01]\.\d\d\] {5}0\.20 \[0\.\d\d, 0\.\d\d\]$/m);
    expect(out).toMatch(/^unsafe, missed {8}3 {21}4$/m);
    expect(out).toMatch(/^V +2 {2}Violent 1, PII 1$/m);
    expect(out).toContain("\n0.0500  missed three\n        line 5: Safe\n");
    for (const row of out.split("\n")) expect(row.length).toBeLessThanOrEqual(80);
  });

  test("figures that need both labels are n/a with one", () => {
    const out = text([line("unsafe", "Unsafe", 0.2), line("unsafe", "Safe", 0.8)]);
    for (const name of ["false-positive rate ", "ROC AUC", "average precision", "best F1"])
      expect(out).toMatch(new RegExp(`^${name} +n/a`, "m"));
    expect(out).not.toMatch(/NaN|null|undefined|Infinity/);
  });
});

describe("page", () => {
  const page = (judged: readonly Judged[], options: Partial<EvaluationOptions> = {}): string => {
    const { evaluation, columns } = evaluate(judged, { ...OPTIONS, ...options });
    return reportHtml(evaluation, columns);
  };

  test("is well-formed, and the same bytes for the same input", () => {
    const html = page(JUDGED);
    expect(page(JUDGED)).toBe(html);
    const tags = tagTree(html);
    const named = (name: string) => tags.filter(tag => tag.name === name);
    expect(named("h1").map(({ text }) => text)).toEqual(["data.jsonl"]);
    expect(named("h2").map(({ text }) => text)).toEqual([
      "Operating points",
      "Scores",
      "What the guard says",
      "Worst mistakes",
    ]);
    // A screen reader reads the caption of every table, and the title and description of every chart.
    expect(named("table").length).toBe(3);
    expect(named("caption").length).toBe(3);
    const charts = named("svg").filter(({ attributes }) => attributes.role === "img");
    expect(charts.length).toBe(4);
    expect(named("desc").filter(({ text }) => text !== "").length).toBe(4);
    expect(named("svg").filter(({ attributes }) => attributes["aria-hidden"] === "true").length).toBe(
      named("svg").length - 4,
    );
    expect(html).not.toMatch(/NaN|undefined<|null|Infinity/);
  });

  test("refers to nothing outside itself, runs nothing, and says so to the browser", () => {
    const html = page(JUDGED);
    expect(html).toContain(
      `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>`,
    );
    expect(html).not.toMatch(/https?:|\/\/|url\(|@import|@font-face/);
    const tags = tagTree(html);
    expect(
      tags.filter(({ name }) => ["script", "link", "img", "iframe", "object", "a", "use", "image"].includes(name)),
    ).toEqual([]);
    const attributes = tags.flatMap(tag => Object.keys(tag.attributes));
    expect(attributes.filter(name => /^(on|src|href|xlink)/.test(name))).toEqual([]);
  });

  test("hostile names, categories, ids and texts stay text", () => {
    const attack = `</script></style><script>alert(1)</script>"'><img src=x onerror=alert(2)>&amp;\u202e\u001b[2J`;
    const shown = attack.replace(/[\u202e\u001b]/g, "\ufffd");
    const html = page(
      [
        line("unsafe", "Safe", 0.9, { id: attack, input: attack, categories: [attack], group: attack }),
        line("safe", "Unsafe", 0.1, { input: attack, group: attack, said: [attack] }),
      ],
      { data: attack, model: attack, by: attack },
    );
    const tags = tagTree(html);
    expect(tags.filter(({ name }) => name === "script" || name === "img")).toEqual([]);
    expect(html).not.toMatch(/[\u202e\u001b]/);
    expect(tags.filter(({ name }) => name === "h1").map(({ text }) => text)).toEqual([shown]);
    expect(tags.filter(({ name }) => name === "blockquote").map(({ text }) => text)).toEqual([shown, shown]);
    expect(tags.filter(({ name, text }) => name === "th" && text === shown).length).toBe(3); // row, column and group
  });

  test("a long text is cut", () => {
    const html = page([line("unsafe", "Safe", 0.9, { input: "word ".repeat(1000) })]);
    expect(tagTree(html).find(({ name }) => name === "blockquote")?.text).toMatch(/^(word ){60,}.*…$/);
    expect(html.length).toBeLessThan(40_000);
  });

  test("with only one label there are no curves, and the page is still whole", () => {
    for (const label of ["safe", "unsafe"] as const) {
      const tags = tagTree(
        page([line(label, "Safe", 1, { group: "g" }), line(label, "Unsafe", 0, { group: "g" })], { by: "k" }),
      );
      const titles = tags.filter(({ name }) => name === "title").map(({ text }) => text);
      expect(titles).toEqual(["data.jsonl judged by a-guard", "Histogram of scores", "Reliability diagram"]);
    }
  });

  test("the page does not grow with the data", () => {
    const many = Array.from({ length: 20_000 }, (_, i) =>
      line(i % 2 ? "safe" : "unsafe", i % 3 ? "Safe" : "Unsafe", ((i * 7919) % 20_000) / 20_000),
    );
    expect(page(many).length).toBeLessThan(400_000);
  });
});
