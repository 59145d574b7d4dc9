/**
 * The slots for answers that are moderated at once. Each holds the keys and values of a sequence, so there are few. A
 * request that finds too few free waits in a bounded line, first come, first served.
 */

import { Pace } from "../pace.ts";

interface Waiting {
  readonly count: number;
  readonly admit: () => void;
}

export class Slots {
  readonly count: number;
  readonly #maxWaiting: number;
  readonly #line: Waiting[] = [];
  #taken = 0;
  readonly #pace = new Pace();

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
   * Takes `count` slots, at most as many as there are, and resolves to a function that frees them. Rejects with 503 if
   * the line is full, and with the signal's reason if it is aborted first.
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
      this.#pace.noteSince(started);
      this.#taken -= count;
      this.#admitNext();
    };
  }

  #wait(count: number, signal: AbortSignal): Promise<void> {
    if (this.#line.length >= this.#maxWaiting) throw this.#pace.queueFull(this.#line.length, this.count);
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#line.splice(this.#line.indexOf(waiting), 1);
        reject(signal.reason);
        this.#admitNext(); // smaller requests may have been waiting after it
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
    for (let next = this.#line[0]; next && this.#taken + next.count <= this.count; next = this.#line[0]) {
      this.#line.shift();
      this.#taken += next.count;
      next.admit();
    }
  }
}
