/**
 * A worker on a queue: judges messages one after another. It acknowledges each only once it has a verdict, so a message
 * that was being judged when the process died is delivered again.
 *
 *     await work(queue, await Guard.load("Qwen/Qwen3Guard-Gen-0.6B"));
 */

import type { Guard } from "qwen3guard";

export interface Queue {
  /** Waits for the next message; ends when the queue is closed. */
  messages(): AsyncIterable<{ id: string; text: string }>;
  acknowledge(id: string, verdict: { flagged: boolean; safety: string | null; score: number | null }): Promise<void>;
  /** For a person to look at: what could not be judged. */
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
