/**
 * One answer, read as the model gives it: its ids, and the probabilities at the few positions that decide it.
 *
 * In: a session that may already hold the beginning of the prompt. Out: a `AnswerReading`; the session then holds the whole prompt.
 */

import { generateSteps } from "../model/generate.ts";
import type { Session } from "../model/session.ts";
import { endsWith, probabilities } from "./labels.ts";
import type { SafetyLevel } from "./policy.ts";
import type { Task } from "./task.ts";

export interface AnswerReading {
  /** Exactly the ids of greedy generation, the stop id included. */
  readonly ids: readonly number[];
  readonly scores: Readonly<Record<SafetyLevel, number>> | null;
  readonly categoryScores: Readonly<Record<string, number>> | null;
  readonly refusalScore: number | null;
  readonly passes: number;
}

export async function readAnswer(
  session: Session,
  prompt: Int32Array,
  task: Task,
  options: { readonly maxNewTokens: number; readonly signal: AbortSignal | undefined; readonly turn?: (() => Promise<void>) | undefined },
): Promise<AnswerReading> {
  const { level, category, refusal } = task.labels;
  const ids: number[] = [];
  let scores: AnswerReading["scores"] = null;
  let categoryScores: AnswerReading["categoryScores"] = null;
  let refusalScore: number | null = null;
  let passes = 0;
  const { maxNewTokens, signal, turn } = options;
  const generation = { maxNewTokens, draft: task.draft.start(), ...(signal ? { signal } : {}), ...(turn ? { turn } : {}) };
  for await (const { id, logits, pass } of generateSteps(session, prompt.subarray(session.position), generation)) {
    if (ids.length === level.lead.length && endsWith(ids, level.lead)) scores = probabilities(logits, level);
    if (categoryScores === null && endsWith(ids, category.lead)) categoryScores = probabilities(logits, category);
    if (refusal && refusalScore === null && endsWith(ids, refusal.lead)) refusalScore = probabilities(logits, refusal).Yes;
    ids.push(id);
    passes = pass;
  }
  return { ids, scores, categoryScores, refusalScore, passes };
}

/** What the category would be had the answer begun with "Safety: Unsafe": one pass of a few ids behind the prompt that the session holds. */
export function readUnsafeCategories(session: Session, prompt: Int32Array, task: Task): Readonly<Record<string, number>> {
  session.truncate(prompt.length);
  return probabilities(session.forward(task.labels.unsafe), task.labels.category);
}

/** P(Safe) alone, as the level's position has it: one pass, whatever the answer. */
export async function readSafeProbability(session: Session, prompt: Int32Array, task: Task, signal?: AbortSignal): Promise<number> {
  const { level } = task.labels;
  const ids = Int32Array.from([...prompt.subarray(session.position), ...level.lead]);
  return probabilities(await session.prefill(ids, signal ? { signal } : {}), level).Safe;
}
