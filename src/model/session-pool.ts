/**
 * The prefix cache: idle sessions, kept with what they hold, so that a prompt starts after what it shares with an
 * earlier one.
 *
 * In: a prompt's ids. Out: a session that holds the longest beginning that an idle one shares with it (a guard's
 * prompts share some 200 tokens of policy), or a fresh session. The bits of the results are the same either way: keys
 * and values depend on nothing but the ids before them.
 */

import type { Session } from "./session.ts";

/**
 * Sharing fewer ids gains next to nothing, and costs the prompts that share more: a guard's two kinds of prompts share
 * 12 ids, and would truncate each other's policy every time they alternate.
 */
const LEAST_SHARED = 32;

export class SessionPool {
  readonly #newSession: () => Session;
  readonly #maxIdle: number;
  /** The most recently used last. */
  readonly #idle: Session[] = [];

  /** `maxIdle`: how many sessions are kept; each holds the memory of its longest sequence. */
  constructor(newSession: () => Session, maxIdle: number = 2) {
    this.#newSession = newSession;
    this.#maxIdle = maxIdle;
  }

  /**
   * Takes a session for `prompt`. Its position says how many ids it already holds; at least the last id is always left
   * to run, since its logits are wanted. Give it back with `release`.
   */
  acquire(prompt: ArrayLike<number>): Session {
    let best: Session | undefined;
    let shared = 0;
    for (const session of this.#idle) {
      const common = Math.min(session.commonPrefix(prompt), prompt.length - 1);
      if (common >= LEAST_SHARED && common > shared) [best, shared] = [session, common];
    }
    if (!best) return this.#newSession();
    this.#idle.splice(this.#idle.indexOf(best), 1);
    best.truncate(shared);
    return best;
  }

  /** Gives the memory of all idle sessions back. Returns false where there are none. */
  closeIdle(): boolean {
    const idle = this.#idle.splice(0);
    for (const session of idle) session.close();
    return idle.length > 0;
  }

  /** Keeps the session for later. If there are then too many, closes the one that has been idle longest. */
  release(session: Session): void {
    // An empty session would push out one whose beginning others share.
    if (session.position === 0) return session.close();
    this.#idle.push(session);
    if (this.#idle.length > this.#maxIdle) this.#idle.shift()!.close();
  }
}
