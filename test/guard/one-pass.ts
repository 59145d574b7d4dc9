/**
 * The drafted answer beside plain greedy generation, on any guard: ids and scores must be the same, and the passes are
 * counted.
 */

import { expect } from "vitest";
import { readAnswer } from "../../src/guard/answer-reading.ts";
import type { Guard } from "../../src/guard/guard.ts";
import { endsWith, probabilities } from "../../src/guard/labels.ts";
import { readTasks } from "../../src/guard/task.ts";
import { SessionPool } from "../../src/model/session-pool.ts";
import type { ChatMessage } from "../../src/tokenizer/chat-template.ts";

/** How often an answer of this kind ("user Safe", "assistant Unsafe", ...) took so many passes. */
export type PassCounts = Map<string, Map<number, number>>;

/** Judges each conversation both ways, with a draft that learns from one to the next. */
export async function comparePasses(
  guard: Guard,
  conversations: Iterable<ChatMessage[]>,
  maxNewTokens: number = 40,
): Promise<PassCounts> {
  const { model, tokenizer } = guard;
  const tasks = readTasks(model.config, tokenizer, "test");
  const pool = new SessionPool(() => model.newSession());
  const counts: PassCounts = new Map();
  for (const messages of conversations) {
    const prompt = guard.encode(messages);
    const role = messages.at(-1)?.role as "user" | "assistant";
    const { level } = tasks[role].labels;

    const session = pool.acquire(prompt);
    const reading = await readAnswer(session, tokenizer, prompt, tasks[role], { maxNewTokens });
    const { passes } = reading.usage;

    // Greedy, id by id, after the prompt that the session holds but for its last id.
    session.truncate(prompt.length - 1);
    const greedy: number[] = [];
    let scores: unknown = null;
    for await (const { id, logits } of model.generateSteps(
      prompt.subarray(prompt.length - 1),
      { maxNewTokens },
      session,
    )) {
      if (greedy.length === level.lead.length && endsWith(greedy, level.lead)) scores = probabilities(logits, level);
      greedy.push(id);
    }
    pool.release(session);
    expect(reading.ids).toEqual(greedy);
    expect(reading.scores).toEqual(scores);

    const kind = `${role} ${/^Safety: (Safe|Unsafe|Controversial)\nCategories: [^,\n]+(\nRefusal: \w+)?$/.exec(reading.text)?.[1] ?? "other"}`;
    const times = counts.get(kind) ?? new Map<number, number>();
    times.set(passes, (times.get(passes) ?? 0) + 1);
    counts.set(kind, times);
  }
  return counts;
}

export function averagePasses(counts: PassCounts): number {
  const all = [...counts.values()].flatMap(passes => [...passes]);
  return all.reduce((sum, [passes, times]) => sum + passes * times, 0) / all.reduce((sum, [, times]) => sum + times, 0);
}
