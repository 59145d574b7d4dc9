/**
 * The prefix cache: idle sessions, kept with what they hold, so that a prompt starts behind what it shares with an
 * earlier one.
 *
 * In: a prompt's ids. Out: a session that stands at the end of the longest shared beginning there is (a guard's prompts
 * share some 200 tokens of policy), or a fresh one. Results are the same bits either way: keys and values depend on the
 * ids before them and on nothing else.
 */

import type { Session } from "./session.ts";

/**
 * Fewer ids gain next to nothing, and taking them costs those who share more: the two kinds of a guard's prompts share
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

  /** Gives the memory of all idle sessions back; false where there are none. */
  closeIdle(): boolean {
    const idle = this.#idle.splice(0);
    for (const session of idle) session.close();
    return idle.length > 0;
  }

  /**
   * Keeps the session for later, and gives back the memory of the one that was not used for longest if there are too
   * many.
   */
  release(session: Session): void {
    // One that holds nothing would push out one whose beginning others share.
    if (session.position === 0) return session.close();
    this.#idle.push(session);
    if (this.#idle.length > this.#maxIdle) this.#idle.shift()!.close();
  }
}
