/**
 * The output of a pair of Stream heads at one position, as labels and probabilities.
 *
 * In: the heads' scores and the labels of the checkpoint's config. Out: readings. There is no class "None": the heads
 * name a category at every position, which means nothing if the risk is Safe. `category` is then null; the model card's
 * own form (stream-guard.ts) gives it all the same.
 */

import type { GuardHeadsConfig } from "../model/config.ts";
import type { GuardScores } from "../model/forward.ts";
import { softmaxInto } from "../tensor/reference.ts";
import type { RiskReading } from "./moderation-stream.ts";
import { SAFETY_LEVELS, type SafetyLevel } from "./policy.ts";

export interface HeadReading extends RiskReading {
  readonly risk: SafetyLevel;
  readonly riskProbs: Readonly<Record<SafetyLevel, number>>;
  /** One for every category, whatever the risk. */
  readonly categoryProbs: Readonly<Record<string, number>>;
}

/** The labels of one pair of heads, in the order of its classes. */
export interface HeadLabels {
  readonly riskLevels: readonly SafetyLevel[];
  readonly categories: readonly string[];
}

/**
 * Throws RangeError unless the config's labels are the three levels and distinct categories. `name`, the checkpoint's,
 * begins the message.
 */
export function readLabels(
  heads: GuardHeadsConfig,
  name: string,
): { readonly query: HeadLabels; readonly response: HeadLabels } {
  const labels = (prefix: string, riskLevels: readonly string[], categories: readonly string[]): HeadLabels => {
    if ([...riskLevels].sort().join() !== [...SAFETY_LEVELS].sort().join()) {
      throw new RangeError(
        `${name}: ${prefix}_risk_level_map: expected ${SAFETY_LEVELS.join(", ")}, got ${riskLevels.join(", ")}`,
      );
    }
    if (new Set(categories).size !== categories.length) {
      throw new RangeError(`${name}: ${prefix}_category_map: expected distinct labels, got ${categories.join(", ")}`);
    }
    return { riskLevels: riskLevels as readonly SafetyLevel[], categories };
  };
  return {
    query: labels("query", heads.queryRiskLevels, heads.queryCategories),
    response: labels("response", heads.responseRiskLevels, heads.responseCategories),
  };
}

/** One reading for each position. */
export function toReadings(scores: GuardScores, { riskLevels, categories }: HeadLabels): HeadReading[] {
  return Array.from({ length: scores.riskLevel.length / riskLevels.length }, (_, row) => {
    const riskProbs = probabilities(scores.riskLevel, row, riskLevels);
    const categoryProbs = probabilities(scores.category, row, categories);
    const risk = likeliest(riskProbs);
    const category = risk === "Safe" ? null : likeliest(categoryProbs);
    return {
      risk,
      riskProbs,
      category,
      categoryProb: category === null ? null : categoryProbs[category],
      categoryProbs,
    };
  });
}

/** The label with the largest probability; of equal ones, the first. */
export function likeliest<Label extends string>(probs: Readonly<Record<Label, number>>): Label {
  const labels = Object.keys(probs) as Label[];
  return labels.reduce((best, label) => (probs[label] > probs[best] ? label : best));
}

/** Softmax over one row of scores. */
function probabilities<Label extends string>(
  scores: Float32Array,
  row: number,
  labels: readonly Label[],
): Record<Label, number> {
  const values = scores.slice(row * labels.length, (row + 1) * labels.length);
  softmaxInto(values);
  return Object.fromEntries(labels.map((label, i) => [label, values[i]])) as Record<Label, number>;
}
