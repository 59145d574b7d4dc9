/**
 * The charts of the page, as SVG text: ROC and precision-recall curves, reliability diagram, histogram of scores.
 *
 * In: figures and columns of an evaluation. Out: `<svg>` elements, each with a title and a description for readers who
 * cannot see it. Colours come from custom properties of the page, so that light and dark are the same bytes. Text from
 * outside never gets here.
 */

import { count, figure } from "./format.ts";
import type { CalibrationBin, Estimate, Sweep } from "./metrics.ts";

/** In units of the view box, which the page scales. The plot is a square, from 0 to 1 on both axes. */
const WIDTH = 400;
const HEIGHT = 418;
const LEFT = 40;
const TOP = 34;
const SIDE = 346;
const QUARTERS = [0, 0.25, 0.5, 0.75, 1];

/** Where the answers of a mode lie in the plane of a curve. */
export interface OperatingPoint {
  readonly name: "strict" | "loose";
  readonly x: number;
  readonly y: number;
}

/** Straight lines between points, one point for each distinct score: the area below is the AUC, ties included. */
export function rocChart({ tp, fp }: Sweep, auc: Estimate, points: readonly OperatingPoint[]): string {
  const [positives, negatives] = [tp[tp.length - 1], fp[fp.length - 1]];
  const curve: Point[] = [[0, 0], ...Array.from(tp, (hits, g): Point => [fp[g] / negatives, hits / positives])];
  return svg(
    "ROC curve",
    `Area ${figure(auc.value)}. ${describe(points, "of the safe texts flagged", "of the unsafe")}`,
    [
      frame("share of the safe texts flagged", "share of the unsafe texts flagged (recall)"),
      `<path class="guide" d="${path([
        [0, 0],
        [1, 1],
      ])}"/>`,
      `<path class="curve" d="${path(curve)}"/>`,
      markers(points, "rising"),
    ].join(""),
  );
}

/** Steps, as average precision sums them: the recall gained at a score counts with the precision at that score. */
export function precisionRecallChart({ tp, fp }: Sweep, average: Estimate, points: readonly OperatingPoint[]): string {
  const positives = tp[tp.length - 1];
  const baseRate = positives / (positives + fp[fp.length - 1]);
  const curve: Point[] = [];
  for (let g = 0; g < tp.length; g++) {
    const precision = tp[g] / (tp[g] + fp[g]);
    curve.push([(tp[g - 1] ?? 0) / positives, precision], [tp[g] / positives, precision]);
  }
  return svg(
    "Precision-recall curve",
    `Average precision ${figure(average.value)}; ${figure(baseRate)} of all texts are unsafe. ${describe(points, "recall", "precision")}`,
    [
      frame("share of the unsafe texts flagged (recall)", "share of what is flagged that is unsafe (precision)"),
      `<path class="guide" d="${path([
        [0, baseRate],
        [1, baseRate],
      ])}"/>`,
      `<path class="curve" d="${path(curve)}"/>`,
      markers(points, "falling"),
    ].join(""),
  );
}

/**
 * How often a text is unsafe against how unsafe the guard says it is. Bars show how many texts each point stands for.
 */
export function reliabilityChart(bins: readonly CalibrationBin[]): string {
  const height = 256;
  const strip = { top: TOP + height + 26, height: SIDE - height - 26 };
  const used = bins.filter(({ count }) => count > 0);
  const largest = Math.max(...bins.map(({ count }) => count));
  const width = SIDE / bins.length;
  const points = used.map((bin): Point => [bin.meanScore as number, bin.unsafeShare as number]);
  const bars = bins.map(({ from, count: size }) => {
    const barHeight = size === 0 ? 0 : Math.max(1, (size / largest) * (strip.height - 1));
    const x = LEFT + from * SIDE;
    const y = strip.top + strip.height - barHeight;
    return (
      `<rect class="bar" x="${px(x + 2)}" y="${px(y)}" width="${px(width - 4)}" height="${px(barHeight)}"/>` +
      `<text class="small" x="${px(x + width / 2)}" y="${px(y - 4)}" text-anchor="middle">${count(size)}</text>`
    );
  });
  const rows = used.map(
    bin => `score ${figure(bin.meanScore)}: ${figure(bin.unsafeShare)} unsafe of ${count(bin.count)}`,
  );
  return svg(
    "Reliability diagram",
    `By bins of the score. ${rows.join("; ")}.`,
    [
      frame("score", "share of the bin's texts that are unsafe", height),
      `<path class="guide" d="${path(
        [
          [0, 0],
          [1, 1],
        ],
        height,
      )}"/>`,
      `<path class="curve" d="${path(points, height)}"/>`,
      ...points.map(point => {
        const [x, y] = place(point, height);
        return `<circle class="dot" cx="${px(x)}" cy="${px(y)}" r="3.5"/>`;
      }),
      ...bars,
    ].join(""),
  );
}

/** Unsafe texts go upwards and safe ones downwards, on one scale. */
export function histogramChart(unsafe: Uint8Array, scores: Float64Array): string {
  const bins = 20;
  const counts = [new Float64Array(bins), new Float64Array(bins)];
  for (let i = 0; i < scores.length; i++) counts[unsafe[i]][Math.min(bins - 1, Math.floor(scores[i] * bins))]++;
  const [safeMax, unsafeMax] = counts.map(values => Math.max(...values));
  const step = niceStep((safeMax + unsafeMax) / 6);
  const [up, down] = [unsafeMax, safeMax].map(max => Math.max(1, Math.ceil(max / step)) * step);
  const scale = SIDE / (up + down);
  const zero = TOP + up * scale;
  const width = SIDE / bins;
  const bars = counts.flatMap((values, label) =>
    Array.from(values, (value, bin) => {
      if (value === 0) return "";
      const height = Math.max(1.5, value * scale);
      const y = label === 1 ? zero - height : zero;
      return `<rect class="${label === 1 ? "unsafe" : "safe"}" x="${px(LEFT + bin * width + 0.75)}" y="${px(y)}" width="${px(width - 1.5)}" height="${px(height)}"/>`;
    }),
  );
  const grid: string[] = [];
  for (let tick = -down; tick <= up; tick += step) {
    const y = zero - tick * scale;
    grid.push(
      `<path class="${tick === 0 ? "axis" : "grid"}" d="M${LEFT} ${px(y)}H${LEFT + SIDE}"/>` +
        `<text x="${LEFT - 7}" y="${px(y + 4)}" text-anchor="end">${count(Math.abs(tick))}</text>`,
    );
  }
  const middle = LEFT + SIDE / 2;
  const totals = counts.map(values => values.reduce((sum, value) => sum + value, 0));
  const atEnds = (label: number): string =>
    `${count(counts[label][0])} below 0.05 and ${count(counts[label][bins - 1])} from 0.95 of ${count(totals[label])}`;
  return svg(
    "Histogram of scores",
    `Unsafe texts: ${atEnds(1)}. Safe texts: ${atEnds(0)}.`,
    [
      ...grid,
      ...bars,
      ...QUARTERS.map(tick => xTick(tick)),
      `<text class="title" x="0" y="12">texts</text>`,
      `<text class="title" x="${LEFT + SIDE}" y="${HEIGHT - 4}" text-anchor="end">score</text>`,
      `<text class="name unsafe" x="${px(middle)}" y="${px(TOP + 16)}" text-anchor="middle">unsafe texts</text>`,
      `<text class="name safe" x="${px(middle)}" y="${px(TOP + SIDE - 8)}" text-anchor="middle">safe texts</text>`,
    ].join(""),
  );
}

/** A figure and its interval on a line from 0 to 1. Hidden from screen readers, since the numbers are beside it. */
export function whisker(
  estimates: readonly { readonly name: "strict" | "loose"; readonly estimate: Estimate }[],
): string {
  const [width, height] = [180, 26];
  const at = (value: number): string => px(6 + value * (width - 12));
  const marks = estimates.map(({ name, estimate: { value, low, high } }, i) => {
    if (value === null || low === null || high === null) return "";
    const y = 8 + 10 * i;
    return `<path class="axis" d="M${at(low)} ${y}H${at(high)}"/><circle class="${name}" cx="${at(value)}" cy="${y}" r="3.5"/>`;
  });
  return (
    `<svg class="whisker" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" aria-hidden="true">` +
    `<path class="grid" d="M6 2V24M${width / 2} 2V24M${width - 6} 2V24"/>${marks.join("")}</svg>`
  );
}

type Point = readonly [x: number, y: number];

function svg(title: string, description: string, content: string): string {
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img"><title>${title}</title><desc>${description}</desc>${content}</svg>`;
}

/**
 * Axes from 0 to 1 with their titles. The title of the vertical axis stands above it, to be read without turning the
 * head.
 */
function frame(xTitle: string, yTitle: string, height: number = SIDE): string {
  const lines = QUARTERS.map(tick => {
    const [x, y] = place([tick, tick], height);
    return (
      `<path class="grid" d="M${LEFT} ${px(y)}H${LEFT + SIDE}M${px(x)} ${TOP}V${TOP + height}"/>` +
      `<text x="${LEFT - 7}" y="${px(y + 4)}" text-anchor="end">${tick}</text>${xTick(tick)}`
    );
  });
  return (
    lines.join("") +
    `<text class="title" x="0" y="12">${yTitle}</text>` +
    `<text class="title" x="${LEFT + SIDE}" y="${HEIGHT - 4}" text-anchor="end">${xTitle}</text>`
  );
}

function xTick(tick: number): string {
  return `<text x="${px(LEFT + tick * SIDE)}" y="${TOP + SIDE + 15}" text-anchor="middle">${tick}</text>`;
}

function place([x, y]: Point, height: number = SIDE): Point {
  return [LEFT + x * SIDE, TOP + (1 - y) * height];
}

/** Points that coincide when drawn are drawn once, so that the page does not grow with the data. */
function path(points: readonly Point[], height: number = SIDE): string {
  const drawn = points.map(point => place(point, height).map(px).join(" "));
  return drawn
    .filter((at, i) => at !== drawn[i - 1])
    .map((at, i) => `${i === 0 ? "M" : "L"}${at}`)
    .join("");
}

/**
 * Strict flags everything that loose flags, so its point lies to the right. The names keep clear of the curve and of
 * each other: on a rising curve the name of strict goes left and up and that of loose right and down; on a falling
 * curve strict's goes right and loose's left.
 */
function markers(points: readonly OperatingPoint[], curve: "rising" | "falling"): string {
  return points
    .toReversed()
    .map(({ name, x, y }) => {
      const [cx, cy] = place([x, y]);
      const wantsLeft = (name === "strict") === (curve === "rising");
      const isLeft = wantsLeft ? cx > LEFT + 56 : cx > LEFT + SIDE - 56;
      const labelY = Math.max(TOP + 12, Math.min(TOP + SIDE - 6, cy + (name === "strict" ? -8 : 18)));
      return (
        `<circle class="${name}" cx="${px(cx)}" cy="${px(cy)}" r="5.5"/>` +
        `<text class="name" x="${px(cx + (isLeft ? -8 : 8))}" y="${px(labelY)}" text-anchor="${isLeft ? "end" : "start"}">${name}</text>`
      );
    })
    .join("");
}

function describe(points: readonly OperatingPoint[], x: string, y: string): string {
  return points.map(point => `${point.name}: ${figure(point.x)} ${x}, ${figure(point.y)} ${y}`).join("; ");
}

/** 1, 2 or 5 times a power of ten, at least 1 and at least `least`. */
function niceStep(least: number): number {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(least)));
  return Math.max(1, ([1, 2, 5, 10].find(factor => factor * power >= least) as number) * power);
}

function px(value: number): string {
  return String(Math.round(value * 10) / 10);
}
