/**
 * Who has the engine: a bounded queue of jobs, and turns between the few that have begun.
 *
 * The engine does one pass after the other, so two requests at once gain nothing but waiting for each other, and each
 * that has begun holds the memory of its sequence. Jobs are therefore run one after the other, oldest first, with one
 * exception: where the job at work comes to the end of a chunk, a waiting one of at most a quarter of its size goes
 * before it and is run to its end. So
 *
 * - a short request waits for one chunk of a long one, and not for the whole of it;
 * - what has begun is a stack of jobs each at most a quarter of the one below: together their sequences take less than
 *   4/3 of the largest;
 * - nobody starves: between two that went before it, a job gets a chunk, and what is at the bottom of the stack is
 *   always the oldest.
 *
 * A job starts only after the event loop had the turns in which a client's leaving is heard: one that left costs
 * nothing.
 *
 * Web-standard, and it knows nothing of guards or HTTP.
 */

import { nextTurn } from "../model/session.ts";
import { hearConnections } from "./turns.ts";

/**
 * Ends a chunk of the job at work; resolves when it is its turn again. Rejects with the signal's reason when that is
 * aborted meanwhile.
 */
export type Turn = () => Promise<void>;

export interface Work<T> {
  /** About how much it is, in tokens. */
  readonly size: number;
  /** Gives up the place in the queue; a job that has begun must hear it itself. */
  readonly signal: AbortSignal;
  readonly run: (turn: Turn) => Promise<T>;
}

/** The queue has no room for one more job. */
export class QueueFullError extends Error {}

/** A job goes before one that is so many times its size. */
const SHORTER = 4;
/** The event loop gets a turn after so long without one: it is there that requests arrive and clients leave. */
const TURN_MS = 20;

interface Job {
  readonly size: number;
  readonly start: () => Promise<void>;
  /** Ends the wait for its turn. */
  resume: (() => void) | undefined;
}

export class Queue {
  readonly #maxWaiting: number;
  /** The oldest first. */
  readonly #waiting: Job[] = [];
  /** The one at work last. */
  readonly #begun: Job[] = [];
  #turnStarted = performance.now();
  #isStarting = false;

  /** `maxWaiting`: how many may wait besides those that have begun. */
  constructor(maxWaiting: number) {
    if (!Number.isInteger(maxWaiting) || maxWaiting < 1)
      throw new RangeError(`queue: expected room for at least 1, got ${maxWaiting}`);
    this.#maxWaiting = maxWaiting;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get begun(): number {
    return this.#begun.length;
  }

  get isFull(): boolean {
    return this.#waiting.length >= this.#maxWaiting + (this.#begun.length === 0 ? 1 : 0); // one is about to begin
  }

  /**
   * What `work.run` gives. Rejects with QueueFullError where there is no room, and with the signal's reason where that
   * comes before its turn.
   */
  run<T>({ size, signal, run }: Work<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      signal.throwIfAborted();
      if (this.isFull) throw new QueueFullError(`the queue is full (${this.#maxWaiting} waiting)`);
      const leave = (): void => {
        const at = this.#waiting.indexOf(job);
        if (at < 0) return;
        this.#waiting.splice(at, 1);
        reject(signal.reason);
      };
      const job: Job = {
        size,
        resume: undefined,
        start: async () => {
          signal.removeEventListener("abort", leave);
          try {
            resolve(await run(() => this.#turn(job, signal)));
          } catch (error) {
            reject(error);
          }
        },
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.push(job);
      if (this.#begun.length === 0) void this.#startNext();
    });
  }

  /** Begins the oldest of those that wait and are still there. */
  async #startNext(): Promise<void> {
    if (this.#isStarting) return;
    this.#isStarting = true;
    let oldest: Job | undefined;
    do {
      oldest = this.#waiting[0];
      await this.#hearLeaving();
    } while (oldest !== this.#waiting[0]);
    this.#isStarting = false;
    if (oldest) void this.#begin(oldest);
  }

  /** `job` is waiting. */
  async #begin(job: Job): Promise<void> {
    this.#waiting.splice(this.#waiting.indexOf(job), 1);
    this.#begun.push(job);
    await job.start();
    const wasAtWork = this.#begun[this.#begun.length - 1] === job;
    this.#begun.splice(this.#begun.indexOf(job), 1);
    if (!wasAtWork) return; // it was aborted while another had its turn
    const below = this.#begun[this.#begun.length - 1];
    if (below) below.resume?.();
    else if (this.#waiting.length > 0) await this.#startNext();
  }

  /** The end of a chunk of `job`, which is at work. */
  async #turn(job: Job, signal: AbortSignal): Promise<void> {
    await this.#breathe();
    const shorter = this.#waiting.find(({ size }) => size * SHORTER <= job.size);
    // One alone is asked: who sends requests and leaves, again and again, must not hold up this job.
    if (shorter) await this.#hearLeaving();
    signal.throwIfAborted();
    if (shorter && this.#waiting.includes(shorter)) {
      await new Promise<void>(resolve => {
        const resume = (): void => {
          signal.removeEventListener("abort", resume);
          job.resume = undefined;
          resolve();
        };
        job.resume = resume;
        signal.addEventListener("abort", resume);
        void this.#begin(shorter);
      });
    }
    signal.throwIfAborted();
  }

  /** Gives those who have left the time to say so: what had been waiting before, and still is, is somebody's. */
  async #hearLeaving(): Promise<void> {
    await hearConnections();
    this.#turnStarted = performance.now();
  }

  async #breathe(): Promise<void> {
    if (performance.now() - this.#turnStarted < TURN_MS) return;
    await nextTurn();
    this.#turnStarted = performance.now();
  }
}
