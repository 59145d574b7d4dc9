/**
 * Reads one answer as the model writes it: its ids, its text, and the probabilities at the few positions that decide
 * it.
 *
 * In: a session, which may already hold the beginning of the prompt. Out: an `AnswerReading`; the session then holds
 * the whole prompt.
 */

import { generateSteps } from "../model/generate.ts";
import type { Session } from "../model/session.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type Answer, parseAnswer } from "./answer.ts";
import { endsWith, probabilities } from "./labels.ts";
import type { Task } from "./task.ts";
import type { Verdict } from "./verdict.ts";

/** An answer, and the parts of a verdict that come from it. */
export interface AnswerReading extends Pick<Verdict, "scores" | "categoryScores" | "refusalScore" | "text" | "usage"> {
  /** Exactly the ids of greedy generation, with the stop id. */
  readonly ids: readonly number[];
  /** undefined if the text does not follow the format. */
  readonly answer: Answer | undefined;
  /** Only with `scores: "full"`. */
  readonly unsafeCategoryScores: Readonly<Record<string, number>> | undefined;
}

export interface ReadingOptions {
  readonly maxNewTokens?: number | undefined;
  readonly scores?: "basic" | "full" | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly turn?: (() => Promise<void>) | undefined;
}

export async function readAnswer(
  session: Session,
  tokenizer: Tokenizer,
  prompt: Int32Array,
  task: Task,
  { maxNewTokens = 128, scores: wanted, signal, turn }: ReadingOptions,
): Promise<AnswerReading> {
  const { level, category, refusal } = task.labels;
  const cachedTokens = session.position;
  const ids: number[] = [];
  let scores: AnswerReading["scores"] = null;
  let categoryScores: AnswerReading["categoryScores"] = null;
  let refusalScore: number | null = null;
  let passes = 0;
  const generation = {
    maxNewTokens,
    draft: task.draft.start(),
    ...(signal ? { signal } : {}),
    ...(turn ? { turn } : {}),
  };
  for await (const { id, logits, pass } of generateSteps(session, prompt.subarray(cachedTokens), generation)) {
    if (ids.length === level.lead.length && endsWith(ids, level.lead)) scores = probabilities(logits, level);
    if (categoryScores === null && endsWith(ids, category.lead)) categoryScores = probabilities(logits, category);
    if (refusal && refusalScore === null && endsWith(ids, refusal.lead))
      refusalScore = probabilities(logits, refusal).Yes;
    ids.push(id);
    passes = pass;
  }
  const text = tokenizer.decode(ids, { skipSpecialTokens: true });
  const answer = parseAnswer(text, task.policy);
  if (answer) task.draft.learn(ids);

  let unsafeCategoryScores: AnswerReading["unsafeCategoryScores"];
  if (wanted === "full") {
    if (answer?.safety === "Unsafe") unsafeCategoryScores = categoryScores ?? undefined;
    else {
      unsafeCategoryScores = readUnsafeCategories(session, prompt, task);
      passes++;
    }
  }
  const usage = { promptTokens: prompt.length, cachedTokens, completionTokens: ids.length, passes };
  return { ids, answer, text, scores, categoryScores, unsafeCategoryScores, refusalScore, usage };
}

/** The category scores if the answer had begun with "Safety: Unsafe": one pass of a few ids after the prompt. */
function readUnsafeCategories(session: Session, prompt: Int32Array, task: Task): Readonly<Record<string, number>> {
  session.truncate(prompt.length);
  return probabilities(session.forward(task.labels.unsafe), task.labels.category);
}

/** P(Safe) at the position of the level: one pass, whatever the answer would be. */
export async function readSafeProbability(
  session: Session,
  prompt: Int32Array,
  task: Task,
  signal?: AbortSignal,
): Promise<number> {
  const { level } = task.labels;
  const ids = Int32Array.from([...prompt.subarray(session.position), ...level.lead]);
  return probabilities(await session.prefill(ids, signal ? { signal } : {}), level).Safe;
}
