/** How long work has taken lately, and so when a client that found no room should come back. */

import { type ApiError, unavailable } from "./api-error.ts";

/** The weight of the latest time in the running mean. */
const RECENCY = 0.1;
const MAX_RETRY_AFTER = 60;

export class Pace {
  #meanSeconds = 0;

  /** Adds a time to the mean; `started` is what `performance.now()` gave when the work began. */
  noteSince(started: number): void {
    this.#meanSeconds += ((performance.now() - started) / 1000 - this.#meanSeconds) * RECENCY;
  }

  /** 503 for a queue of `waiting`, of which `atOnce` are served at a time: come back when it has passed. */
  queueFull(waiting: number, atOnce: number): ApiError {
    const seconds = Math.ceil((waiting * this.#meanSeconds) / atOnce);
    return unavailable(
      `the queue is full (${waiting} waiting)`,
      Math.min(MAX_RETRY_AFTER, Math.max(1, seconds)),
      "queue_full",
    );
  }
}
