/**
 * The report for a terminal: aligned columns, intervals such as `0.87 [0.83, 0.91]`.
 *
 * In: an evaluation. Out: text, with quotations cut to the width of the terminal. Colours only set headings and notes
 * apart.
 */

import pc from "picocolors";
import { printable, type Terminal } from "../terminal.ts";
import { quote } from "../verdict-card.ts";
import type { Evaluation, ModeFigures } from "./evaluation.ts";
import { count, estimate, figure, percent, plural, score, threshold } from "./format.ts";

/** The names of the rates in all forms of the report, in order. */
export const RATE_NAMES: readonly (readonly [key: Exclude<keyof ModeFigures, "confusion">, name: string])[] = [
  ["precision", "precision"],
  ["recall", "recall"],
  ["f1", "F1"],
  ["falsePositiveRate", "false-positive rate"],
];

const BAR_WIDTH = 20;
const NAME_WIDTH = 22;
const ESTIMATE_WIDTH = 22;

export function reportText(evaluation: Evaluation, terminal: Pick<Terminal, "columns" | "colors">): string {
  const { bold, dim } = pc.createColors(terminal.colors);
  const { lines, leftOut, strict, loose, bestF1, calibration, categories, groups, worst } = evaluation;
  const out: string[] = [];
  const section = (title: string, note: string = ""): void =>
    void out.push("", `${bold(title)}${note ? dim(`  ${note}`) : ""}`);

  out.push(`${bold(printable(evaluation.data))} ${dim("judged by")} ${printable(evaluation.model)}`);
  out.push(`${plural(lines.judged, "line")}: ${count(lines.unsafe)} unsafe, ${count(lines.safe)} safe`);
  if (lines.unparsed > 0) out.push(`${plural(lines.unparsed, "answer")} did not follow the format: flagged`);
  if (leftOut.length > 0)
    out.push(`${plural(leftOut.length, "line")} left out: their context leaves no room for the message to judge`);

  out.push("", `${"".padEnd(NAME_WIDTH)}${bold("strict".padEnd(ESTIMATE_WIDTH))}${bold("loose")}`);
  for (const [key, name] of RATE_NAMES)
    out.push(`${name.padEnd(NAME_WIDTH)}${estimate(strict[key]).padEnd(ESTIMATE_WIDTH)}${estimate(loose[key])}`);
  for (const [cell, name] of [
    ["tp", "unsafe, flagged"],
    ["fn", "unsafe, missed"],
    ["fp", "safe, flagged"],
    ["tn", "safe, passed"],
  ] as const) {
    out.push(
      `${name.padEnd(NAME_WIDTH)}${count(strict.confusion[cell]).padEnd(ESTIMATE_WIDTH)}${count(loose.confusion[cell])}`,
    );
  }

  section("Scores", "1 - P(Safe), whatever the mode");
  const row = (name: string, value: string): void => void out.push(`${name.padEnd(NAME_WIDTH)}${value}`);
  row("ROC AUC", estimate(evaluation.rocAuc));
  row("average precision", estimate(evaluation.averagePrecision));
  row(
    "best F1",
    bestF1 === null
      ? "n/a"
      : `${figure(bestF1.f1)} at score ≥ ${threshold(bestF1.threshold)} ${dim("(chosen on this data: optimistic)")}`,
  );
  row("calibration error", figure(calibration.expectedCalibrationError));
  row("Brier score", figure(calibration.brierScore));

  section("Calibration", "bins of the score: how many of their texts are unsafe");
  out.push(dim(`${"score".padEnd(12)}${"lines".padStart(8)}${"mean".padStart(8)}${"unsafe".padStart(8)}`));
  for (const { from, to, count: size, meanScore, unsafeShare } of calibration.bins) {
    const cells = [count(size), figure(meanScore), figure(unsafeShare)].map(cell => cell.padStart(8)).join("");
    const bar = unsafeShare === null ? "" : `  ${"█".repeat(Math.round(unsafeShare * BAR_WIDTH))}`;
    out.push(`${`${from.toFixed(1)} – ${to.toFixed(1)}`.padEnd(12)}${cells}${bar}`);
  }

  section("What the guard says", "by the data's categories, or its label");
  const rowNames = categories.rows.map(({ name }) => quote(name, 28));
  const nameWidth = Math.max(...rowNames.map(name => name.length)) + 2;
  const totalWidth = Math.max(...categories.rows.map(({ total }) => count(total).length));
  categories.rows.forEach(({ total, counts }, i) => {
    const said = categories.columns
      .map((column, c) => ({ column, n: counts[c] }))
      .filter(({ n }) => n > 0)
      .sort((a, b) => b.n - a.n)
      .map(({ column, n }) => `${printable(column)} ${count(n)}`);
    const indent = nameWidth + totalWidth + 2;
    const wrapped = wrap(said, Math.max(30, terminal.columns - indent));
    out.push(
      `${rowNames[i].padEnd(nameWidth)}${count(total).padStart(totalWidth)}  ${wrapped.join(`\n${" ".repeat(indent)}`)}`,
    );
  });

  if (groups !== null) {
    section(`By ${printable(groups.key)}`, "strict mode");
    const names = groups.rows.map(({ name }) => quote(name, 36));
    const width = Math.max(...names.map(name => name.length)) + 2;
    out.push(
      dim(
        `${"".padEnd(width)}${"lines".padStart(6)}${"unsafe".padStart(8)}${"caught".padStart(14)}${"false alarms".padStart(16)}`,
      ),
    );
    groups.rows.forEach(({ total, unsafe, strict: { tp, fp } }, i) => {
      const caught = unsafe === 0 ? "" : `${count(tp)} (${percent(tp / unsafe)})`;
      const alarms = unsafe === total ? "" : `${count(fp)} (${percent(fp / (total - unsafe))})`;
      out.push(
        `${names[i].padEnd(width)}${count(total).padStart(6)}${count(unsafe).padStart(8)}${caught.padStart(14)}${alarms.padStart(16)}`.trimEnd(),
      );
    });
  }

  for (const [title, note, mistakes] of [
    ["Missed", "unsafe texts with the lowest scores", worst.missed],
    ["False alarms", "safe texts with the highest scores", worst.falseAlarms],
  ] as const) {
    if (mistakes.length === 0) continue;
    section(title, note);
    for (const { line, id, score: value, answer, text } of mistakes) {
      out.push(`${score(value)}  ${quote(text, terminal.columns - 9)}`);
      out.push(dim(`${"".padEnd(8)}line ${line}${id === null ? "" : ` (${quote(id, 30)})`}: ${printable(answer)}`));
    }
  }
  const { resamples, level } = evaluation.bootstrap;
  out.push("", dim(`Brackets: ${percent(level)} intervals from ${count(resamples)} bootstrap resamples of the lines.`));
  return `${out.map(line => line.trimEnd()).join("\n")}\n`;
}

/** Joins parts with commas into lines of at most `width` characters, as far as they fit. */
function wrap(parts: readonly string[], width: number): string[] {
  const lines: string[] = [];
  for (const part of parts) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 2 + part.length <= width) lines[lines.length - 1] = `${last}, ${part}`;
    else {
      if (last !== undefined) lines[lines.length - 1] = `${last},`;
      lines.push(part);
    }
  }
  return lines;
}
