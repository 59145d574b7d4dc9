/**
 * Where an answer is decided: the few positions at which the model's choice among labels can be read as probabilities.
 *
 * In: the tokenizer and the policy. Out: for each decision, the ids that lead up to it and the first id of every label.
 * Nearly all of an answer is forced; a level, a category and a refusal are each decided by one id. The positions are
 * derived by encoding the possible answers, since another checkpoint may split words into other tokens.
 */

import { softmaxInto } from "../tensor/reference.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { writeAnswer } from "./answer.ts";
import { NO_CATEGORY, type Policy, SAFETY_LEVELS } from "./policy.ts";

/** One decision: after ids that end with `lead`, the next id is one of `ids`, which stand for `labels` in order. */
export interface Decision<Label extends string = string> {
  readonly lead: readonly number[];
  readonly labels: readonly Label[];
  readonly ids: readonly number[];
}

/**
 * The decisions of one kind of answer. The lead of `level` begins with the answer's first id; the others are recognised
 * by the ids just before them.
 */
export interface Labels {
  readonly level: Decision<(typeof SAFETY_LEVELS)[number]>;
  readonly category: Decision;
  readonly refusal: Decision<"Yes" | "No"> | null;
  /** The beginning of an unsafe answer, up to where its first category is decided. */
  readonly unsafe: readonly number[];
}

/** Throws Error if two labels of a decision begin with the same id: no single position would decide between them. */
export function deriveLabels(tokenizer: Tokenizer, policy: Policy, name: string): Labels {
  const encode = (text: string): number[] => Array.from(tokenizer.encode(text, { literal: true }));
  const refusal = policy.hasRefusal ? "No" : null;
  // Each decision is found by encoding answers that differ only in that label. `before` is cut off the lead, since what
  // precedes the line of the decision varies between answers.
  const decide = <Label extends string>(
    what: string,
    labels: readonly Label[],
    before: string,
    answer: (label: Label) => string,
  ): Decision<Label> => {
    const answers = labels.map(label => encode(answer(label)));
    let shared = 0;
    while (answers.every(ids => shared < ids.length && ids[shared] === answers[0][shared])) shared++;
    const ids = answers.map(answerIds => answerIds[shared]);
    if (new Set(ids).size !== ids.length || ids.includes(undefined as never)) {
      throw new Error(
        `${name}: expected ${what} (${labels.join(", ")}) that differ in one token, got ids ${ids.join(", ")} at position ${shared}`,
      );
    }
    const cut = encode(before);
    if (!cut.every((id, i) => id === answers[0][i]))
      throw new Error(`${name}: expected "${before}" to have the same tokens in every answer`);
    return { lead: answers[0].slice(cut.length, shared), labels, ids };
  };
  const category = decide("categories", [...policy.categories, NO_CATEGORY], "Safety: Unsafe", category =>
    writeAnswer("Unsafe", [category], refusal),
  );
  return {
    level: decide("levels", SAFETY_LEVELS, "", level => writeAnswer(level, [], refusal)),
    category,
    unsafe: [...encode("Safety: Unsafe"), ...category.lead],
    refusal: policy.hasRefusal
      ? decide("refusals", ["Yes", "No"], writeAnswer("Safe", [], null), word => writeAnswer("Safe", [], word))
      : null,
  };
}

/** Whether `ids` ends with the lead of a decision. */
export function endsWith(ids: readonly number[], lead: readonly number[]): boolean {
  return ids.length >= lead.length && lead.every((id, i) => id === ids[ids.length - lead.length + i]);
}

/** Softmax over the logits of only a decision's labels. */
export function probabilities<Label extends string>(
  logits: Float32Array,
  decision: Decision<Label>,
): Record<Label, number> {
  const chosen = Float32Array.from(decision.ids, id => logits[id]);
  softmaxInto(chosen);
  return Object.fromEntries(decision.labels.map((label, i) => [label, chosen[i]])) as Record<Label, number>;
}
