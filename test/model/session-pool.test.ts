/** The prefix cache: which session a prompt gets, and how many are kept. */

import { expect, test } from "vitest";
import type { Session } from "../../src/model/session.ts";
import { SessionPool } from "../../src/model/session-pool.ts";
import { loadModel, ODD } from "../checkpoints.ts";

const model = await loadModel(ODD);
const kind = (first: number, length: number, end: number): number[] => [1, 2, ...new Array(length).fill(first), end];

/** Runs a prompt as a user of the pool does; returns how many ids were there. */
function run(pool: SessionPool, prompt: readonly number[]): number {
  const session = pool.acquire(prompt);
  const cached = session.position;
  session.forward(prompt.slice(cached), { logits: 1 });
  pool.release(session);
  return cached;
}

test("two kinds of prompts in turns keep a beginning each, though they share their first ids", () => {
  const pool = new SessionPool(() => model.newSession());
  const cached = [3, 4, 3, 4, 4, 3].map((first, i) => run(pool, kind(first, 40, 100 + i)));
  expect(cached).toEqual([0, 0, 42, 42, 42, 42]);
});

test("a third kind gets one of its own, and no more are kept than said: those that were not used for longest give their memory back", () => {
  const made: Session[] = [];
  const pool = new SessionPool(() => {
    made.push(model.newSession());
    return made[made.length - 1];
  });
  for (const first of [3, 4, 5, 6]) run(pool, kind(first, 40, 9));
  expect(made.map(isClosed)).toEqual([true, true, false, false]);
  const some = [3, 4, 5].map(first => pool.acquire(kind(first, 40, 9)));
  expect(new Set(some).size).toBe(3);
  for (const session of some) pool.release(session);
  expect(made.filter(isClosed)).toHaveLength(made.length - 2);
});

test("a prompt that is held whole leaves its last id to run", () => {
  const pool = new SessionPool(() => model.newSession());
  const prompt = kind(3, 40, 9);
  expect([run(pool, prompt), run(pool, prompt)]).toEqual([0, prompt.length - 1]);
});

function isClosed(session: Session): boolean {
  try {
    session.truncate(session.position);
    return false;
  } catch {
    return true;
  }
}
