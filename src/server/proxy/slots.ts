/**
 * Places for what is moderated at once. Each holds the keys and values of a sequence, so there are few; who finds none
 * waits in a bounded line, first come, first served.
 */

import { unavailable } from "../api-error.ts";

/** Of a held place's time, in the running mean. */
const RECENCY = 0.1;
const MAX_RETRY_AFTER = 60;

interface Waiting {
  readonly count: number;
  readonly admit: () => void;
}

export class Slots {
  readonly count: number;
  readonly #maxWaiting: number;
  readonly #line: Waiting[] = [];
  #taken = 0;
  /** How long a place is held, lately. */
  #heldSeconds = 0;

  constructor(count: number, maxWaiting: number) {
    this.count = count;
    this.#maxWaiting = maxWaiting;
  }

  get taken(): number {
    return this.#taken;
  }

  get waiting(): number {
    return this.#line.length;
  }

  /**
   * Takes `count` places, of which there must be so many, and resolves to what gives them back. Rejects with 503 where
   * the line is full, and with the signal's reason when that comes first.
   */
  async take(count: number, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#line.length > 0 || this.#taken + count > this.count) await this.#wait(count, signal);
    else this.#taken += count;
    const started = performance.now();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#heldSeconds += ((performance.now() - started) / 1000 - this.#heldSeconds) * RECENCY;
      this.#taken -= count;
      this.#admitNext();
    };
  }

  #wait(count: number, signal: AbortSignal): Promise<void> {
    if (this.#line.length >= this.#maxWaiting) {
      const seconds = Math.ceil((this.#line.length * this.#heldSeconds) / this.count);
      throw unavailable(
        `the queue is full (${this.#line.length} waiting)`,
        Math.min(MAX_RETRY_AFTER, Math.max(1, seconds)),
        "queue_full",
      );
    }
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#line.splice(this.#line.indexOf(waiting), 1);
        reject(signal.reason);
        this.#admitNext(); // it may have stood before smaller ones
      };
      const waiting: Waiting = {
        count,
        admit: () => {
          signal.removeEventListener("abort", leave);
          resolve();
        },
      };
      signal.addEventListener("abort", leave);
      this.#line.push(waiting);
    });
  }

  #admitNext(): void {
    while (this.#line.length > 0 && this.#taken + this.#line[0].count <= this.count) {
      const next = this.#line.shift()!;
      this.#taken += next.count;
      next.admit();
    }
  }
}
