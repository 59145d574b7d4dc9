/**
 * A worker on a queue: messages are judged one after the other; each is acknowledged only with its verdict in hand, so
 * that one that was at work when the process died comes again.
 *
 *     await work(queue, await Guard.load("Qwen/Qwen3Guard-Gen-0.6B"));
 */

import type { Guard } from "qwen3guard";

export interface Queue {
  /** Waits for the next one; ends when the queue is closed. */
  messages(): AsyncIterable<{ id: string; text: string }>;
  acknowledge(id: string, verdict: { flagged: boolean; safety: string | null; score: number | null }): Promise<void>;
  /** To a person: what no machine could judge. */
  setAside(id: string, reason: string): Promise<void>;
}

export async function work(queue: Queue, guard: Guard): Promise<void> {
  const ids: string[] = [];
  async function* texts(): AsyncGenerator<string> {
    for await (const { id, text } of queue.messages()) {
      ids.push(id);
      yield text;
    }
  }
  for await (const { verdict, error } of guard.moderateMany(texts())) {
    const id = ids.shift() as string;
    if (verdict) await queue.acknowledge(id, verdict);
    else await queue.setAside(id, error.message);
  }
}
