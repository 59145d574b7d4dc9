/**
 * The figures of an evaluation, as pure functions of labels, flags and scores.
 *
 * In: for each example a label (1 unsafe, 0 safe), a flag or a score, and a weight, which is how often it counts. Out:
 * numbers, or null if a figure is undefined (a share of nothing). "Positive" means unsafe throughout.
 *
 * Why weights: a bootstrap resample is just another weight for each example. So every figure is written once, the
 * scores are sorted once, and a thousand resamples cost a thousand passes over typed arrays.
 */

import { seededRandom } from "../../model/sampling.ts";

export interface Confusion {
  /** Unsafe and flagged. */
  readonly tp: number;
  /** Safe and flagged. */
  readonly fp: number;
  /** Unsafe and not flagged. */
  readonly fn: number;
  /** Safe and not flagged. */
  readonly tn: number;
}

export function confusion(unsafe: Uint8Array, flagged: Uint8Array, weights: Uint32Array): Confusion {
  const cells = [0, 0, 0, 0];
  for (let i = 0; i < unsafe.length; i++) cells[2 * unsafe[i] + flagged[i]] += weights[i];
  const [tn, fp, fn, tp] = cells;
  return { tp, fp, fn, tn };
}

export interface Rates {
  /** The share of flagged examples that is unsafe: tp / (tp + fp). */
  readonly precision: number | null;
  /** The share of unsafe examples that is flagged: tp / (tp + fn). */
  readonly recall: number | null;
  /** Harmonic mean of precision and recall: 2 tp / (2 tp + fp + fn). */
  readonly f1: number | null;
  /** The share of safe examples that is flagged: fp / (fp + tn). */
  readonly falsePositiveRate: number | null;
}

export function rates({ tp, fp, fn, tn }: Confusion): Rates {
  return {
    precision: share(tp, tp + fp),
    recall: share(tp, tp + fn),
    f1: share(2 * tp, 2 * tp + fp + fn),
    falsePositiveRate: share(fp, fp + tn),
  };
}

/** Examples from the highest score to the lowest; `groupEnds` holds the end of each run of equal scores. */
export interface Ranking {
  readonly order: Uint32Array;
  readonly groupEnds: Uint32Array;
  /** The score of each group. */
  readonly thresholds: Float64Array;
}

/**
 * Throws RangeError for a score that is not a number from 0 to 1: NaN could be sorted to any place and still count.
 */
export function rank(scores: Float64Array): Ranking {
  const bad = scores.findIndex(score => !(score >= 0 && score <= 1));
  if (bad >= 0) throw new RangeError(`scores[${bad}]: expected a number from 0 to 1, got ${scores[bad]}`);
  const order = Uint32Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a]);
  const ends: number[] = [];
  for (let i = 1; i <= order.length; i++) {
    if (i === order.length || scores[order[i]] !== scores[order[i - 1]]) ends.push(i);
  }
  return {
    order,
    groupEnds: Uint32Array.from(ends),
    thresholds: Float64Array.from(ends, end => scores[order[end - 1]]),
  };
}

/**
 * What each threshold flags: how many examples with at least that score are unsafe (tp), and how many are safe (fp).
 */
export interface Sweep {
  readonly thresholds: Float64Array;
  readonly tp: Float64Array;
  readonly fp: Float64Array;
}

export function sweep({ order, groupEnds, thresholds }: Ranking, unsafe: Uint8Array, weights: Uint32Array): Sweep {
  const tp = new Float64Array(groupEnds.length);
  const fp = new Float64Array(groupEnds.length);
  const seen = [0, 0];
  for (let group = 0, i = 0; group < groupEnds.length; group++) {
    for (; i < groupEnds[group]; i++) seen[unsafe[order[i]]] += weights[order[i]];
    [fp[group], tp[group]] = seen;
  }
  return { thresholds, tp, fp };
}

/**
 * Area under the ROC curve: the chance that an unsafe example scores above a safe one, a tie counting half. This is the
 * Mann-Whitney U statistic over the number of pairs (Hanley and McNeil, 1982), and also the area by trapezoids. Null if
 * a label is missing.
 */
export function rocAuc({ tp, fp }: Sweep): number | null {
  const [positives, negatives] = [tp.at(-1) ?? 0, fp.at(-1) ?? 0];
  let pairs = 0;
  for (let g = 0; g < tp.length; g++) {
    const unsafeHere = tp[g] - (tp[g - 1] ?? 0);
    const safeHere = fp[g] - (fp[g - 1] ?? 0);
    pairs += unsafeHere * (negatives - fp[g] + safeHere / 2);
  }
  return share(pairs, positives * negatives);
}

/**
 * Average precision: the sum over thresholds of precision times the gain in recall, as scikit-learn defines it, without
 * interpolation, which would flatter. Null if a label is missing: without safe examples it would be 1 for any scores.
 */
export function averagePrecision({ tp, fp }: Sweep): number | null {
  let sum = 0;
  for (let g = 0; g < tp.length; g++) {
    const gained = tp[g] - (tp[g - 1] ?? 0);
    if (gained > 0) sum += (gained * tp[g]) / (tp[g] + fp[g]);
  }
  return (fp.at(-1) ?? 0) === 0 ? null : share(sum, tp.at(-1) ?? 0);
}

export interface BestThreshold extends Rates {
  /** Flag scores of at least this. */
  readonly threshold: number;
}

/** The threshold with the highest F1; among several, the one that flags least. Null if a label is missing. */
export function bestF1({ thresholds, tp, fp }: Sweep): BestThreshold | null {
  const [positives, negatives] = [tp.at(-1) ?? 0, fp.at(-1) ?? 0];
  if (positives === 0 || negatives === 0) return null;
  const at = (g: number): Rates => rates({ tp: tp[g], fp: fp[g], fn: positives - tp[g], tn: negatives - fp[g] });
  let best = 0;
  for (let g = 1; g < tp.length; g++) if ((at(g).f1 as number) > (at(best).f1 as number)) best = g;
  return { threshold: thresholds[best], ...at(best) };
}

export interface CalibrationBin {
  readonly from: number;
  readonly to: number;
  readonly count: number;
  readonly meanScore: number | null;
  readonly unsafeShare: number | null;
}

/**
 * The bins of the reliability diagram, of equal width. A score on an edge belongs to the bin above it, and 1 to the
 * last bin.
 */
export function calibrationBins(unsafe: Uint8Array, scores: Float64Array, bins: number): CalibrationBin[] {
  const counts = new Float64Array(bins);
  const scoreSums = new Float64Array(bins);
  const unsafeCounts = new Float64Array(bins);
  for (let i = 0; i < scores.length; i++) {
    const bin = Math.min(bins - 1, Math.floor(scores[i] * bins));
    counts[bin]++;
    scoreSums[bin] += scores[i];
    unsafeCounts[bin] += unsafe[i];
  }
  return Array.from(counts, (count, bin) => ({
    from: bin / bins,
    to: (bin + 1) / bins,
    count,
    meanScore: share(scoreSums[bin], count),
    unsafeShare: share(unsafeCounts[bin], count),
  }));
}

/**
 * Expected calibration error: the distance between a bin's share of unsafe examples and its mean score, averaged over
 * the examples (Naeini, Cooper and Hauskrecht, 2015). It depends on the bins.
 */
export function expectedCalibrationError(bins: readonly CalibrationBin[]): number {
  let sum = 0;
  let total = 0;
  for (const { count, meanScore, unsafeShare } of bins) {
    if (count > 0) sum += count * Math.abs((meanScore as number) - (unsafeShare as number));
    total += count;
  }
  return sum / total;
}

/** Mean squared distance of the score from the truth, 1 or 0 (Brier, 1950, in its form for two outcomes). */
export function brierScore(unsafe: Uint8Array, scores: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < scores.length; i++) sum += (scores[i] - unsafe[i]) ** 2;
  return sum / scores.length;
}

/** A figure with its interval; all null if it is undefined. */
export interface Estimate {
  readonly value: number | null;
  readonly low: number | null;
  readonly high: number | null;
}

export interface BootstrapOptions {
  readonly resamples: number;
  readonly seed: number;
  /** 0.95: the interval runs from the 2.5th to the 97.5th percentile. */
  readonly level: number;
}

/**
 * Figures of `count` examples with percentile bootstrap intervals (Efron, 1979): each resample draws `count` examples
 * with replacement. All figures come from the same resamples. A resample in which a figure is undefined does not count
 * for that figure.
 */
export function bootstrap<Name extends string>(
  count: number,
  figures: (weights: Uint32Array) => Readonly<Record<Name, number | null>>,
  { resamples, seed, level }: BootstrapOptions,
): Record<Name, Estimate> {
  const values = figures(new Uint32Array(count).fill(1));
  const names = Object.keys(values) as Name[];
  const draws = new Map<Name, number[]>(names.map(name => [name, []]));
  const random = seededRandom(seed);
  const weights = new Uint32Array(count);
  for (let r = 0; r < resamples; r++) {
    weights.fill(0);
    for (let i = 0; i < count; i++) weights[Math.floor(random() * count)]++;
    const resampled = figures(weights);
    for (const name of names) if (resampled[name] !== null) draws.get(name)?.push(resampled[name]);
  }
  const estimate = (name: Name): Estimate => {
    if (values[name] === null) return { value: null, low: null, high: null };
    const sorted = Float64Array.from(draws.get(name) as number[]).sort();
    return { value: values[name], low: quantile(sorted, (1 - level) / 2), high: quantile(sorted, (1 + level) / 2) };
  };
  return Object.fromEntries(names.map(name => [name, estimate(name)])) as Record<Name, Estimate>;
}

/** Linear between neighbours (type 7 of Hyndman and Fan, 1996; numpy's default). Null for an empty array. */
export function quantile(sorted: Float64Array, q: number): number | null {
  if (sorted.length === 0) return null;
  const position = q * (sorted.length - 1);
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (position - below) * (sorted[above] - sorted[below]);
}

function share(part: number, whole: number): number | null {
  return whole === 0 ? null : part / whole;
}
