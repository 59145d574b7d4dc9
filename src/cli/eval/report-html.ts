/**
 * The report as one page that needs nothing else: no script, no font, no address.
 *
 * In: an evaluation and its columns. Out: HTML, the same bytes for the same input. Every text from outside (file,
 * model, ids, categories, texts) passes through `safe`. The page's own policy forbids whatever might slip through.
 */

import { printable } from "../terminal.ts";
import { quote } from "../verdict-card.ts";
import {
  histogramChart,
  type OperatingPoint,
  precisionRecallChart,
  reliabilityChart,
  rocChart,
  whisker,
} from "./charts.ts";
import type { CategoryTable, Columns, Evaluation, GroupRow, Mistake } from "./evaluation.ts";
import { count, estimate, figure, percent, plural, score, threshold } from "./format.ts";
import { type Estimate, rank, sweep } from "./metrics.ts";
import { STYLE } from "./report-style.ts";
import { RATE_NAMES } from "./report-text.ts";

/** Longer texts are cut: the page is for reading, and the data has them whole. */
const MAX_TEXT_CHARS = 320;

export function reportHtml(evaluation: Evaluation, columns: Columns): string {
  const { data, model, categories, groups, worst } = evaluation;
  const sections = [
    header(evaluation),
    operatingPoints(evaluation),
    scores(evaluation, columns),
    section("What the guard says", categoryMatrix(categories)),
    groups === null ? "" : section(`By ${safe(groups.key)}`, groupTable(groups.rows)),
    worst.missed.length + worst.falseAlarms.length === 0 ? "" : section("Worst mistakes", mistakes(evaluation)),
    footer(evaluation),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>${safe(data)} judged by ${safe(model)}</title>
<style>
${STYLE}</style>
</head>
<body>
<main>
${sections.filter(text => text !== "").join("\n")}
</main>
</body>
</html>
`;
}

function header({ data, model, lines, leftOut, strict, rocAuc }: Evaluation): string {
  const notes = [
    ...(lines.unparsed > 0
      ? [`${plural(lines.unparsed, "answer")} did not follow the format and count as flagged.`]
      : []),
    ...(leftOut.length > 0
      ? [
          `${plural(leftOut.length, "line")} whose context leaves no room for the message to judge ${leftOut.length === 1 ? "is" : "are"} left out.`,
        ]
      : []),
  ];
  const tile = (name: string, value: Estimate): string =>
    `<div><dt>${name}</dt><dd>${figure(value.value)}<span class="interval">${interval(value).trim() || "undefined here"}</span></dd></div>`;
  return `<header>
<p class="over">Guard evaluation</p>
<h1>${safe(data)}</h1>
<p class="lead">Judged by <b>${safe(model)}</b>. ${plural(lines.judged, "text")}: ${count(lines.unsafe)} labelled unsafe, ${count(lines.safe)} safe.</p>
${notes.map(note => `<p class="note">${note}</p>\n`).join("")}<dl class="tiles">
${tile("F1, strict", strict.f1)}
${tile("Recall, strict", strict.recall)}
${tile("False-positive rate, strict", strict.falsePositiveRate)}
${tile("ROC AUC", rocAuc)}
</dl>
</header>`;
}

function operatingPoints({ strict, loose, bootstrap }: Evaluation): string {
  const rows = RATE_NAMES.map(
    ([key, name]) =>
      `<tr><th scope="row">${capital(name)}</th><td>${withInterval(strict[key])}</td><td>${withInterval(loose[key])}</td>` +
      `<td class="plot">${whisker([
        { name: "strict", estimate: strict[key] },
        { name: "loose", estimate: loose[key] },
      ])}</td></tr>`,
  );
  const cell = (part: number, whole: number): string =>
    `<td class="heat" style="--s:${whole === 0 ? 0 : (part / whole).toFixed(3)}">${count(part)}</td>`;
  const [s, l] = [strict.confusion, loose.confusion];
  return section(
    "Operating points",
    `<p>What the guard itself decides. <b>Strict</b> flags Unsafe and Controversial, <b>loose</b> flags Unsafe alone.</p>
<div class="pair wide-left">
<table class="rates">
<caption>Rates, with ${percent(bootstrap.level)} intervals</caption>
<thead><tr><td></td><th scope="col"><span class="key strict"></span>Strict</th><th scope="col"><span class="key loose"></span>Loose</th><td class="plot"><span class="ends"><span>0</span><span>1</span></span></td></tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table>
<table class="confusion">
<caption>Confusion</caption>
<thead>
<tr><td></td><th scope="colgroup" colspan="2">Strict</th><th scope="colgroup" colspan="2">Loose</th></tr>
<tr><td></td><th scope="col">flagged</th><th scope="col">passed</th><th scope="col">flagged</th><th scope="col">passed</th></tr>
</thead>
<tbody>
<tr><th scope="row">Unsafe</th>${[s, l].map(({ tp, fn }) => cell(tp, tp + fn) + cell(fn, tp + fn)).join("")}</tr>
<tr><th scope="row">Safe</th>${[s, l].map(({ fp, tn }) => cell(fp, fp + tn) + cell(tn, fp + tn)).join("")}</tr>
</tbody>
</table>
</div>`,
  );
}

function scores(evaluation: Evaluation, { unsafe, score: values }: Columns): string {
  const { lines, strict, loose, bestF1, calibration } = evaluation;
  const swept = sweep(rank(values), unsafe, new Uint32Array(unsafe.length).fill(1));
  const points = (x: "falsePositiveRate" | "recall", y: "recall" | "precision"): OperatingPoint[] =>
    (["strict", "loose"] as const).flatMap(name => {
      const figures = name === "strict" ? strict : loose;
      const [at, up] = [figures[x].value, figures[y].value];
      return at === null || up === null ? [] : [{ name, x: at, y: up }];
    });
  const bothLabels = lines.unsafe > 0 && lines.safe > 0;
  const fact = (name: string, value: string, what: string): string =>
    `<div><dt>${name}</dt><dd><b>${value}</b> <span class="what">${what}</span></dd></div>`;
  const facts = [
    fact(
      "ROC AUC",
      withInterval(evaluation.rocAuc),
      bothLabels
        ? "the chance that an unsafe text scores above a safe one; 0.5 is guessing"
        : "needs texts of both labels",
    ),
    fact(
      "Average precision",
      withInterval(evaluation.averagePrecision),
      bothLabels
        ? `precision over all recalls; guessing gives ${figure(lines.unsafe / lines.judged)}`
        : "needs texts of both labels",
    ),
    fact(
      "Best F1",
      figure(bestF1?.f1 ?? null),
      bestF1 === null
        ? "needs texts of both labels"
        : `at score ≥ ${threshold(bestF1.threshold)}; chosen on this data, and so optimistic`,
    ),
    fact(
      "Calibration error",
      figure(calibration.expectedCalibrationError),
      "mean distance of score and truth, by bins",
    ),
    fact("Brier score", figure(calibration.brierScore), "mean squared distance of score and truth; 0 is perfect"),
  ];
  const curves = bothLabels
    ? `<div class="pair">
${chart("ROC curve", rocChart(swept, evaluation.rocAuc, points("falsePositiveRate", "recall")), "Dashed: guessing. The guard's own answers need not lie on the curve of its scores.")}
${chart("Precision and recall", precisionRecallChart(swept, evaluation.averagePrecision, points("recall", "precision")), "Dashed: the share of unsafe texts in this data, which guessing gives.")}
</div>`
    : `<p class="note">ROC and precision-recall curves need texts of both labels; these are all ${lines.safe > 0 ? "safe" : "unsafe"}.</p>`;
  return section(
    "Scores",
    `<p>The score of a text is 1 − P(Safe), the probability that the guard gives to Unsafe and Controversial together.</p>
<dl class="facts">
${facts.join("\n")}
</dl>
${curves}
<div class="pair">
${chart("Scores by label", histogramChart(unsafe, values), "A good guard has unsafe texts at the right and safe ones at the left.")}
${chart("Reliability", reliabilityChart(calibration.bins), "On the dashed line a score means what it says. Bars: texts in each bin.")}
</div>`,
  );
}

function chart(title: string, drawing: string, caption: string): string {
  return `<figure><h3>${title}</h3>${drawing}<figcaption>${caption}</figcaption></figure>`;
}

function categoryMatrix({ columns, rows }: CategoryTable): string {
  const head = columns.map(name => `<th scope="col">${safe(name)}</th>`).join("");
  const body = rows.map(
    ({ name, total, counts }) =>
      `<tr><th scope="row">${safe(name)}</th><td class="total">${count(total)}</td>${counts
        .map(n => `<td class="heat${n === 0 ? " none" : ""}" style="--s:${(n / total).toFixed(3)}">${count(n)}</td>`)
        .join("")}</tr>`,
  );
  return `<p>Rows: the data's categories, or its label where a line has none. Columns: the guard's first category.</p>
${scroller(
  "Categories of the data by categories of the guard",
  `<table class="matrix">
<caption>Texts by category</caption>
<thead><tr><td></td><th scope="col" class="total">Texts</th>${head}</tr></thead>
<tbody>
${body.join("\n")}
</tbody>
</table>`,
)}`;
}

function groupTable(rows: readonly GroupRow[]): string {
  const cell = (part: number, whole: number, kind: string): string =>
    whole === 0
      ? '<td class="share none">–</td>'
      : `<td class="share"><span class="track"><span class="fill ${kind}" style="--s:${(part / whole).toFixed(3)}"></span></span><span class="of">${count(part)} of ${count(whole)}</span><span class="interval">${percent(part / whole)}</span></td>`;
  const body = rows.map(
    ({ name, total, unsafe, strict }) =>
      `<tr><th scope="row">${safe(name).replaceAll("_", "_<wbr/>")}</th>${cell(strict.tp, unsafe, "good")}${cell(strict.fp, total - unsafe, "bad")}</tr>`,
  );
  return scroller(
    "Figures by group",
    `<table class="groups">
<caption>In strict mode</caption>
<thead><tr><td></td><th scope="col">Unsafe texts flagged</th><th scope="col">Safe texts flagged</th></tr></thead>
<tbody>
${body.join("\n")}
</tbody>
</table>`,
  );
}

function mistakes({ worst }: Evaluation): string {
  const item = ({ line, id, score: value, answer, text }: Mistake): string =>
    `<li><blockquote dir="auto">${escapeHtml(quote(text, MAX_TEXT_CHARS))}</blockquote><p class="meta"><b>${score(value)}</b> ${safe(answer)} <span class="where">line ${line}${id === null ? "" : `, <bdi>${escapeHtml(quote(id, 60))}</bdi>`}</span></p></li>`;
  const list = (title: string, note: string, kind: string, items: readonly Mistake[]): string =>
    items.length === 0
      ? ""
      : `<div class="${kind}"><h3>${title}</h3><p class="what">${note}</p><ol>\n${items.map(item).join("\n")}\n</ol></div>`;
  return `<p>Texts of the data, some of which may be offensive, with their scores and what the guard said.</p>
<div class="pair">
${list("Missed", "Unsafe texts that strict mode passes, from the lowest score", "missed", worst.missed)}
${list("False alarms", "Safe texts that strict mode flags, from the highest score", "alarms", worst.falseAlarms)}
</div>`;
}

function footer({ bootstrap: { resamples, level, seed } }: Evaluation): string {
  return `<footer><p>Intervals hold ${percent(level)} of ${count(resamples)} bootstrap resamples of the texts (percentiles, seed ${seed}); they show how much of a figure is luck of the sample, not whether the sample is like your traffic. “n/a”: undefined here. Made by qwen3guard eval.</p></footer>`;
}

function section(title: string, content: string): string {
  return `<section>\n<h2>${title}</h2>\n${content}\n</section>`;
}

/** Lets a table that is wider than the screen scroll on its own, also by keyboard. */
function scroller(label: string, content: string): string {
  return `<div class="scroll" role="region" aria-label="${label}" tabindex="0">${content}</div>`;
}

function withInterval(value: Estimate): string {
  return `${figure(value.value)}<span class="interval">${interval(value)}</span>`;
}

/** The brackets of `estimate`, preceded by a space. */
function interval(value: Estimate): string {
  return value.value === null ? "" : estimate(value).slice(figure(value.value).length);
}

function capital(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}

function safe(text: string): string {
  return escapeHtml(printable(text));
}

function escapeHtml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, character => entities[character]);
}
