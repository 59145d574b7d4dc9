import { describe, expect, test } from "vitest";
import { createSampler, seededRandom } from "../../src/model/sampling.ts";
import { noise } from "../helpers.ts";

const LOGITS = Float32Array.of(0, 3, 1, 2, -1, 3);

function draw(options: Parameters<typeof createSampler>[0], count: number, logits: Float32Array = LOGITS): number[] {
  const sampler = createSampler(options);
  return Array.from({ length: count }, () => sampler(logits));
}

test("temperature 0 is greedy, the lowest id on a tie", () => {
  expect(draw({}, 3)).toEqual([1, 1, 1]);
  expect(draw({ temperature: 0, topK: 2, topP: 0.1, seed: 9 }, 2)).toEqual([1, 1]);
});

test("the same seed gives the same ids, which are pinned, and another seed gives others", () => {
  const ids = draw({ temperature: 1, seed: 42 }, 20);
  expect(draw({ temperature: 1, seed: 42 }, 20)).toEqual(ids);
  expect(draw({ temperature: 1, seed: 43 }, 20)).not.toEqual(ids);
  expect(ids).toMatchInlineSnapshot(`
    [
      5,
      1,
      1,
      3,
      1,
      1,
      1,
      1,
      3,
      1,
      1,
      5,
      2,
      2,
      5,
      3,
      5,
      5,
      5,
      1,
    ]
  `);
});

test("frequencies follow the softmax", () => {
  const counts = new Map<number, number>();
  for (const id of draw({ temperature: 2, seed: 1 }, 40_000)) counts.set(id, (counts.get(id) ?? 0) + 1);
  const weights = Array.from(LOGITS, x => Math.exp(x / 2));
  const total = weights.reduce((a, b) => a + b);
  weights.forEach((weight, id) => {
    // Four standard deviations of a binomial count of 40,000 draws are below 0.01.
    expect(Math.abs((counts.get(id) ?? 0) / 40_000 - weight / total)).toBeLessThan(0.01);
  });
});

test("top-k keeps the k likeliest, ties to the lower id; top-p the shortest run that reaches p", () => {
  const seen = (options: Parameters<typeof createSampler>[0]): number[] =>
    [...new Set(draw({ temperature: 1, ...options }, 2000))].sort();
  expect(seen({ topK: 1 })).toEqual([1]);
  expect(seen({ topK: 3 })).toEqual([1, 3, 5]);
  expect(seen({ topK: 100 })).toEqual([0, 1, 2, 3, 4, 5]);
  expect(seen({ topP: 1e-9 })).toEqual([1]);
  expect(seen({ topP: 0.7 })).toEqual([1, 5]); // 0.39 + 0.39
  expect(seen({ topP: 0.9 })).toEqual([1, 3, 5]); // and 0.14
});

test("the likeliest ids are those that sorting finds, ties to the lower id", () => {
  const close = noise(3000, 1, 1e-6);
  const wide = noise(3000, 2, 80).map((x, i) =>
    i % 7 === 0 ? Math.round(x) : i % 11 === 0 ? -0 : i % 13 === 0 ? 0 : x,
  );
  for (const logits of [
    close,
    wide,
    new Float32Array(3000),
    noise(3000, 3, 1e-44),
    Float32Array.of(-3.4e38, 3.4e38, 0, -0, 3.4e38),
  ]) {
    const sorted = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
    for (const topK of [1, 2, 17, 3000]) {
      // At this temperature all candidates are equally likely, so what is drawn is a place in the order.
      const random = seededRandom(9);
      const expected = Array.from({ length: 40 }, () => sorted[Math.floor(random() * Math.min(topK, logits.length))]);
      expect(draw({ temperature: Number.MAX_VALUE, topK, seed: 9 }, 40, logits)).toEqual(expected);
    }
  }
});

test("NaN is refused", () => {
  expect(() => createSampler({ temperature: 1 })(Float32Array.of(1, Number.NaN, 2))).toThrow(
    "logits: expected numbers, got NaN at index 1",
  );
});

test("a vocabulary's worth of logits works", () => {
  const id = draw({ temperature: 1.5, topP: 0.95, seed: 3 }, 1, noise(151_936, 1, 10))[0];
  expect(Number.isInteger(id)).toBe(true);
});

test("the generator is uniform over its range and never reaches 1", () => {
  const random = seededRandom(0);
  const buckets = new Array(16).fill(0);
  for (let i = 0; i < 160_000; i++) {
    const x = random();
    expect(x).toBeLessThan(1);
    buckets[Math.floor(x * 16)]++;
  }
  for (const count of buckets) expect(Math.abs(count - 10_000)).toBeLessThan(500);
});

describe("options out of range are refused", () => {
  test.each<[Parameters<typeof createSampler>[0], string]>([
    [{ temperature: -1 }, "temperature: expected a number of at least 0, got -1"],
    [{ temperature: Number.NaN }, "temperature: expected a number of at least 0, got NaN"],
    [{ temperature: 1, topK: 0 }, "topK: expected an integer of at least 1, got 0"],
    [{ temperature: 1, topP: 0 }, "topP: expected a number above 0 and at most 1, got 0"],
    [{ temperature: 1, topP: 1.1 }, "got 1.1"],
    [{ temperature: 1, seed: -1 }, "seed: expected an integer from 0 to 4294967295, got -1"],
    [{ temperature: 1, seed: 2 ** 32 }, "got 4294967296"],
  ])("%j", (options, message) => {
    expect(() => createSampler(options)).toThrow(message);
  });
});
