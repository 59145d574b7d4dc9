/** The prefix cache: which session a prompt gets, and how many are kept. */

import { expect, test } from "vitest";
import type { Session } from "../../src/model/session.ts";
import { SessionPool } from "../../src/model/session-pool.ts";
import { loadModel, ODD } from "../checkpoints.ts";

const model = await loadModel(ODD);
const kind = (first: number, length: number, end: number): number[] => [1, 2, ...new Array(length).fill(first), end];

/** Runs a prompt as a user of the pool does; returns how many ids the session already held. */
function run(pool: SessionPool, prompt: readonly number[]): number {
  const session = pool.acquire(prompt);
  const cached = session.position;
  session.forward(prompt.slice(cached), { logits: 1 });
  pool.release(session);
  return cached;
}

test("two kinds of prompts that take turns keep a beginning each, though they share their first ids", () => {
  const pool = new SessionPool(() => model.newSession());
  const cached = [3, 4, 3, 4, 4, 3].map((first, i) => run(pool, kind(first, 40, 100 + i)));
  expect(cached).toEqual([0, 0, 42, 42, 42, 42]);
});

test("a third kind gets a session of its own, and the one that has been idle longest gives its memory back", () => {
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

test("a beginning of 32 ids is worth a session, one of 31 is not", () => {
  for (const [shared, cached] of [
    [32, 32],
    [31, 0],
  ]) {
    const pool = new SessionPool(() => model.newSession());
    run(pool, [...new Array(shared).fill(3), 4]);
    expect(run(pool, [...new Array(shared).fill(3), 5])).toBe(cached);
  }
});

test("the session that shares most is taken, and among equals the one that has been idle longest", () => {
  const lengths = [
    [40, 34],
    [34, 40],
    [40, 40],
    [40, 33, 36],
  ];
  for (const shared of lengths) {
    const sessions = shared.map(length => {
      const session = model.newSession();
      session.forward([...new Array(length).fill(3), 4], { logits: 0 });
      return session;
    });
    const pool = new SessionPool(() => model.newSession(), 3);
    for (const session of sessions) pool.release(session);
    const taken = pool.acquire(new Array(50).fill(3));
    expect(taken).toBe(sessions[shared.indexOf(40)]);
    expect(taken.position).toBe(40);
    // The others are still there, and this one is not.
    const others = shared.slice(1).map(() => pool.acquire(new Array(50).fill(3)));
    expect(new Set([taken, ...others])).toEqual(new Set(sessions));
  }
});

test("a session that is in use is not given to a second prompt", () => {
  const pool = new SessionPool(() => model.newSession());
  const prompt = kind(3, 40, 9);
  run(pool, prompt);
  const first = pool.acquire(prompt);
  expect([first.position, pool.acquire(prompt).position]).toEqual([prompt.length - 1, 0]);
});

test("an empty session is closed rather than kept", () => {
  const pool = new SessionPool(() => model.newSession(), 1);
  const prompt = kind(3, 40, 9);
  run(pool, prompt);
  const empty = model.newSession();
  pool.release(empty);
  expect(isClosed(empty)).toBe(true);
  expect(run(pool, prompt)).toBe(prompt.length - 1);
});

test("idle sessions give their memory back when they are told to", () => {
  const made: Session[] = [];
  const pool = new SessionPool(() => {
    made.push(model.newSession());
    return made[made.length - 1];
  });
  expect(pool.closeIdle()).toBe(false);
  run(pool, kind(3, 40, 9));
  run(pool, kind(4, 40, 9));
  expect(made.map(isClosed)).toEqual([false, false]);
  expect(pool.closeIdle()).toBe(true);
  expect(made.map(isClosed)).toEqual([true, true]);
  expect(pool.closeIdle()).toBe(false);
  expect(run(pool, kind(3, 40, 9))).toBe(0);
});

function isClosed(session: Session): boolean {
  try {
    session.truncate(session.position);
    return false;
  } catch {
    return true;
  }
}
