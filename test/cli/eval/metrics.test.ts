/** The figures: by hand, by their definitions, against scikit-learn, and where they are undefined. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  averagePrecision,
  bestF1,
  bootstrap,
  brierScore,
  calibrationBins,
  confusion,
  expectedCalibrationError,
  quantile,
  rank,
  rates,
  rocAuc,
  type Sweep,
  sweep,
} from "../../../src/cli/eval/metrics.ts";
import { readJsonLines } from "../../helpers.ts";

interface Case {
  readonly labels: readonly number[];
  readonly scores: readonly number[];
}

const once = (count: number): Uint32Array => new Uint32Array(count).fill(1);

function sweepOf({ labels, scores }: Case, weights: Uint32Array = once(labels.length)): Sweep {
  return sweep(rank(Float64Array.from(scores)), Uint8Array.from(labels), weights);
}

/** Scores of few distinct values, so that most are tied. */
const cases = fc
  .array(
    fc.record({
      label: fc.integer({ min: 0, max: 1 }),
      score: fc.integer({ min: 0, max: 6 }),
      weight: fc.integer({ min: 0, max: 3 }),
    }),
    {
      minLength: 1,
      maxLength: 24,
    },
  )
  .map(rows => ({
    labels: rows.map(({ label }) => label),
    scores: rows.map(({ score }) => score / 6),
    weights: Uint32Array.from(rows, ({ weight }) => weight),
  }));

/** An example of weight 3 is the same as three examples. */
function repeated({ labels, scores }: Case, weights: Uint32Array): Case {
  const indices = Array.from(weights).flatMap((weight, i) => Array.from({ length: weight }, () => i));
  return { labels: indices.map(i => labels[i]), scores: indices.map(i => scores[i]) };
}

describe("by hand", () => {
  // Unsafe 0.9, 0.8 and 0.3; safe 0.8, 0.3 and 0.1.
  const small: Case = { labels: [1, 1, 0, 1, 0, 0], scores: [0.9, 0.8, 0.8, 0.3, 0.3, 0.1] };

  test("a confusion and its rates, and weights", () => {
    const [unsafe, flagged] = [Uint8Array.of(1, 1, 1, 0, 0), Uint8Array.of(1, 1, 0, 1, 0)];
    expect(confusion(unsafe, flagged, once(5))).toEqual({ tp: 2, fp: 1, fn: 1, tn: 1 });
    expect(rates({ tp: 2, fp: 1, fn: 1, tn: 1 })).toEqual({
      precision: 2 / 3,
      recall: 2 / 3,
      f1: 2 / 3,
      falsePositiveRate: 1 / 2,
    });
    expect(confusion(unsafe, flagged, Uint32Array.of(0, 5, 1, 2, 3))).toEqual({ tp: 5, fp: 2, fn: 1, tn: 3 });
  });

  test("AUC: six of nine pairs are right and two are ties", () => {
    expect(rocAuc(sweepOf(small))).toBe((6 + 2 / 2) / 9);
  });

  test("average precision: 1 at the first, then 2 of 3, then 3 of 5", () => {
    expect(averagePrecision(sweepOf(small))).toBeCloseTo((1 + 2 / 3 + 3 / 5) / 3, 15);
  });

  test("the best threshold takes tied examples together; the higher of two equally good ones wins", () => {
    expect(bestF1(sweepOf(small))).toEqual({
      threshold: 0.3,
      precision: 3 / 5,
      recall: 1,
      f1: 6 / 8,
      falsePositiveRate: 2 / 3,
    });
    // F1 at 0.9 is 2/3, and so it is at 0.1.
    expect(bestF1(sweepOf({ labels: [1, 0, 0, 1], scores: [0.9, 0.5, 0.5, 0.1] }))?.threshold).toBe(0.9);
  });

  test("perfect, reversed and constant scores", () => {
    const labels = [1, 1, 0, 0];
    expect(
      [
        [0.9, 0.8, 0.2, 0.1],
        [0.1, 0.2, 0.8, 0.9],
        [0.5, 0.5, 0.5, 0.5],
      ].map(scores => rocAuc(sweepOf({ labels, scores }))),
    ).toEqual([1, 0, 0.5]);
    expect(averagePrecision(sweepOf({ labels, scores: [0.5, 0.5, 0.5, 0.5] }))).toBe(0.5);
  });

  test("calibration: bins, their edges, the error and the Brier score", () => {
    const [unsafe, scores] = [Uint8Array.of(1, 0, 1, 1), Float64Array.of(0, 0.5, 0.9, 1)];
    const bins = calibrationBins(unsafe, scores, 2);
    expect(bins).toEqual([
      { from: 0, to: 0.5, count: 1, meanScore: 0, unsafeShare: 1 },
      { from: 0.5, to: 1, count: 3, meanScore: 2.4 / 3, unsafeShare: 2 / 3 },
    ]);
    expect(expectedCalibrationError(bins)).toBeCloseTo((1 + 3 * (0.8 - 2 / 3)) / 4, 15);
    expect(brierScore(unsafe, scores)).toBeCloseTo((1 + 0.25 + 0.01 + 0) / 4, 15);
    expect(calibrationBins(Uint8Array.of(0), Float64Array.of(0.95), 10).map(({ meanScore }) => meanScore)).toEqual([
      ...Array(9).fill(null),
      0.95,
    ]);
  });
});

describe("by definition", () => {
  test("AUC is the share of pairs in the right order, ties counting half", () => {
    fc.assert(
      fc.property(cases, ({ labels, scores, weights }) => {
        const { labels: y, scores: s } = repeated({ labels, scores }, weights);
        let right = 0;
        let pairs = 0;
        for (let i = 0; i < y.length; i++) {
          for (let j = 0; j < y.length; j++) {
            if (y[i] !== 1 || y[j] !== 0) continue;
            pairs++;
            right += s[i] > s[j] ? 1 : s[i] === s[j] ? 0.5 : 0;
          }
        }
        expect(rocAuc(sweepOf({ labels, scores }, weights))).toBe(pairs === 0 ? null : right / pairs);
      }),
      { seed: 5 },
    );
  });

  test("AUC is the area below the curve, by trapezoids", () => {
    fc.assert(
      fc.property(cases, one => {
        const { tp, fp } = sweepOf(one);
        const [positives, negatives] = [tp[tp.length - 1], fp[fp.length - 1]];
        fc.pre(positives > 0 && negatives > 0);
        let area = 0;
        for (let g = 0; g < tp.length; g++) area += ((fp[g] - (fp[g - 1] ?? 0)) * (tp[g] + (tp[g - 1] ?? 0))) / 2;
        expect(rocAuc({ thresholds: new Float64Array(), tp, fp })).toBeCloseTo(area / (positives * negatives), 12);
      }),
      { seed: 5 },
    );
  });

  test("average precision and best F1 by flagging anew at each threshold", () => {
    fc.assert(
      fc.property(cases, ({ labels, scores, weights }) => {
        const { labels: y, scores: s } = repeated({ labels, scores }, weights);
        const at = (threshold: number) =>
          rates(
            confusion(
              Uint8Array.from(y),
              Uint8Array.from(s, score => Number(score >= threshold)),
              once(y.length),
            ),
          );
        const thresholds = [...new Set(s)].sort((a, b) => b - a);
        let [sum, recall, best] = [0, 0, 0];
        for (const threshold of thresholds) {
          const here = at(threshold);
          sum += ((here.recall ?? 0) - recall) * (here.precision ?? 0);
          recall = here.recall ?? 0;
          best = Math.max(best, here.f1 ?? 0);
        }
        const swept = sweepOf({ labels, scores }, weights);
        if (y.includes(0) && y.includes(1)) {
          expect(averagePrecision(swept)).toBeCloseTo(sum, 12);
          expect(bestF1(swept)?.f1).toBe(best);
          expect(at(bestF1(swept)?.threshold as number).f1).toBe(best);
        } else expect([averagePrecision(swept), bestF1(swept)]).toEqual([null, null]);
      }),
      { seed: 5 },
    );
  });

  test("each figure depends on the order of the scores alone, not on that of the examples", () => {
    fc.assert(
      fc.property(cases, fc.infiniteStream(fc.nat()), ({ labels, scores }, keys) => {
        const shuffled = labels
          .map((label, i) => ({ label, score: scores[i], key: keys.next().value as number }))
          .sort((a, b) => a.key - b.key);
        const other = sweepOf({
          labels: shuffled.map(({ label }) => label),
          scores: shuffled.map(({ score }) => score ** 3),
        });
        const first = sweepOf({ labels, scores });
        expect([other.tp, other.fp]).toEqual([first.tp, first.fp]);
      }),
      { seed: 5 },
    );
  });
});

test("scikit-learn and numpy say the same", () => {
  interface Recorded extends Case {
    readonly rocAuc: number;
    readonly averagePrecision: number;
    readonly brierScore: number;
    readonly bestF1: number;
    readonly quantiles: readonly number[];
    readonly atHalf: {
      readonly confusion: object;
      readonly precision: number;
      readonly recall: number;
      readonly f1: number;
    };
  }
  const recorded = readJsonLines<Recorded>("test/goldens/metrics.jsonl");
  expect(recorded.length).toBe(4);
  for (const expected of recorded) {
    const [unsafe, scores] = [Uint8Array.from(expected.labels), Float64Array.from(expected.scores)];
    const swept = sweepOf(expected);
    expect(rocAuc(swept)).toBeCloseTo(expected.rocAuc, 12);
    expect(averagePrecision(swept)).toBeCloseTo(expected.averagePrecision, 12);
    expect(bestF1(swept)?.f1).toBeCloseTo(expected.bestF1, 12);
    expect(brierScore(unsafe, scores)).toBeCloseTo(expected.brierScore, 12);
    const sorted = scores.slice().sort();
    [0.025, 0.5, 0.975].forEach((q, i) => void expect(quantile(sorted, q)).toBeCloseTo(expected.quantiles[i], 12));
    const counts = confusion(
      unsafe,
      Uint8Array.from(scores, score => Number(score >= 0.5)),
      once(unsafe.length),
    );
    expect(counts).toEqual(expected.atHalf.confusion);
    const { precision, recall, f1 } = rates(counts);
    expect(precision).toBeCloseTo(expected.atHalf.precision, 12);
    expect(recall).toBeCloseTo(expected.atHalf.recall, 12);
    expect(f1).toBeCloseTo(expected.atHalf.f1, 12);
  }
});

describe("what is undefined is null", () => {
  test("shares of nothing", () => {
    expect(rates({ tp: 0, fp: 0, fn: 3, tn: 2 })).toEqual({ precision: null, recall: 0, f1: 0, falsePositiveRate: 0 });
    expect(rates({ tp: 0, fp: 0, fn: 0, tn: 2 })).toEqual({
      precision: null,
      recall: null,
      f1: null,
      falsePositiveRate: 0,
    });
    expect(rates({ tp: 1, fp: 0, fn: 0, tn: 0 })).toEqual({ precision: 1, recall: 1, f1: 1, falsePositiveRate: null });
  });

  test.each([0, 1])("curves of one label, %i", label => {
    const swept = sweepOf({ labels: [label, label], scores: [0.2, 0.4] });
    expect([rocAuc(swept), averagePrecision(swept), bestF1(swept)]).toEqual([null, null, null]);
  });

  test("the quantile of nothing", () => {
    expect(quantile(new Float64Array(), 0.5)).toBeNull();
  });
});

test.each([Number.NaN, -0.1, 1.1, Infinity])("a score of %d is refused", score => {
  expect(() => rank(Float64Array.of(0.5, score))).toThrow(
    new RangeError(`scores[1]: expected a number from 0 to 1, got ${score}`),
  );
});

describe("bootstrap", () => {
  const options = { resamples: 400, seed: 3, level: 0.9 };
  const mean = (values: readonly number[]) => (weights: Uint32Array) => ({
    mean: values.reduce((sum, value, i) => sum + value * weights[i], 0) / values.length,
  });
  const values = Array.from({ length: 100 }, (_, i) => (i * 37) % 100);

  test("each resample draws as many examples as there are, and the same seed draws the same ones", () => {
    const drawn: number[] = [];
    const count = (weights: Uint32Array) => {
      drawn.push(weights.reduce((sum, weight) => sum + weight, 0));
      return { total: weights[0] };
    };
    const first = bootstrap(7, count, options);
    expect(drawn).toHaveLength(401);
    expect(new Set(drawn)).toEqual(new Set([7]));
    expect(bootstrap(7, count, options)).toEqual(first);
  });

  test("the interval of a mean is nearly the normal one", () => {
    const { value, low, high } = bootstrap(100, mean(values), options).mean;
    // Of 0 .. 99: mean 49.5, standard error sqrt((100^2 - 1) / 12 / 100) = 2.887; 90 % lie within 1.645 of them. 400
    // draws: to half a unit.
    expect(value).toBe(49.5);
    expect(Math.abs((low as number) - (49.5 - 1.645 * 2.887))).toBeLessThan(0.75);
    expect(Math.abs((high as number) - (49.5 + 1.645 * 2.887))).toBeLessThan(0.75);
  });

  test("an undefined figure has no interval; one undefined in some resamples gets its interval from the others", () => {
    const figures = (weights: Uint32Array) => ({ never: null, sometimes: weights[0] === 0 ? null : 1 });
    expect(bootstrap(3, figures, options)).toEqual({
      never: { value: null, low: null, high: null },
      sometimes: { value: 1, low: 1, high: 1 },
    });
  });
});
