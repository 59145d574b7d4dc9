/**
 * The guard's answer, parsed strictly: the format that its prompt asks for, line by line, or nothing.
 *
 * In: an answer's text and the policy of its prompt. Out: the answer's parts, or undefined. There is no "best guess":
 * an answer that does not follow the format must never be taken for Safe.
 *
 *     Safety: Unsafe
 *     Categories: Violent, PII
 *     Refusal: No               (only if the policy asks for it)
 */

import { NO_CATEGORY, type Policy, SAFETY_LEVELS, type SafetyLevel } from "./policy.ts";

export interface Answer {
  readonly safety: SafetyLevel;
  /** As the model wrote them, each once; empty for "None". */
  readonly categories: readonly string[];
  readonly refusal: "Yes" | "No" | null;
}

/** The lines as the model writes them. If `refusal` is null, there is no third line. */
export function writeAnswer(safety: SafetyLevel, categories: readonly string[], refusal: "Yes" | "No" | null): string {
  const lines = [`Safety: ${safety}`, `Categories: ${categories.length === 0 ? NO_CATEGORY : categories.join(", ")}`];
  if (refusal !== null) lines.push(`Refusal: ${refusal}`);
  return lines.join("\n");
}

/** Trailing white space is ignored; anything else that is not in the format gives undefined. */
export function parseAnswer(text: string, policy: Policy): Answer | undefined {
  const lines = text.trimEnd().split("\n");
  if (lines.length !== (policy.hasRefusal ? 3 : 2)) return undefined;

  const safety = SAFETY_LEVELS.find(level => lines[0] === `Safety: ${level}`);
  const categories = parseCategories(lines[1], policy);
  const refusal = policy.hasRefusal ? (["Yes", "No"] as const).find(word => lines[2] === `Refusal: ${word}`) : null;
  if (safety === undefined || categories === undefined || refusal === undefined) return undefined;
  return { safety, categories, refusal };
}

function parseCategories(line: string, policy: Policy): string[] | undefined {
  const label = "Categories: ";
  if (!line.startsWith(label)) return undefined;
  const names = line.slice(label.length).split(", ");
  if (names.length === 1 && names[0] === NO_CATEGORY) return [];
  return names.every(name => policy.categories.includes(name)) ? [...new Set(names)] : undefined;
}
