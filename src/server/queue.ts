/**
 * Which job has the engine: a bounded queue, and turns between the few jobs that have begun.
 *
 * The engine does one pass after the other, so two requests at once only wait for each other, and each one that has
 * begun holds the memory of its sequence. Jobs are therefore run one after the other, oldest first, with one exception:
 * when the running job ends a chunk, a waiting job of at most a quarter of its size goes first and runs to its end. So
 *
 * - a short request waits for one chunk of a long one, not for all of it;
 * - the jobs that have begun are a stack, each at most a quarter of the one below: together their sequences take less
 *   than 4/3 of the largest;
 * - no job starves: it gets a chunk between any two that go before it, and the oldest is always at the bottom of the
 *   stack.
 *
 * A job starts only after the event loop has had the turns in which it hears that a client left. A client that left
 * costs no computation.
 *
 * The queue uses only web standards, and knows nothing about guards or HTTP.
 */

import { nextTurn } from "../model/session.ts";
import { hearConnections } from "./turns.ts";

/** Ends a chunk of the running job. Resolves when it is the job's turn again; rejects with the signal's reason. */
export type Turn = () => Promise<void>;

export interface Work<T> {
  /** The approximate size, in tokens. */
  readonly size: number;
  /** Takes the job out of the queue. A job that has begun must listen to it itself. */
  readonly signal: AbortSignal;
  readonly run: (turn: Turn) => Promise<T>;
}

/** The queue has no room for one more job. */
export class QueueFullError extends Error {}

/** A job goes before one that is at least this many times its size. */
const SHORTER = 4;
/** The event loop, which hears of new requests and clients that leave, gets a turn at most this often. */
const TURN_MS = 20;

interface Job {
  readonly size: number;
  readonly start: () => Promise<void>;
  /** Ends its wait for a turn. */
  resume: (() => void) | undefined;
}

export class Queue {
  readonly #maxWaiting: number;
  /** Oldest first. */
  readonly #waiting: Job[] = [];
  /** The running job last. */
  readonly #begun: Job[] = [];
  #turnStarted = performance.now();
  #isStarting = false;

  /** `maxWaiting` is how many jobs may wait besides those that have begun. */
  constructor(maxWaiting: number) {
    if (!Number.isInteger(maxWaiting) || maxWaiting < 1)
      throw new RangeError(`maxQueue: expected an integer of at least 1, got ${maxWaiting}`);
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
   * Resolves to the result of `work.run`. Rejects with QueueFullError if there is no room, and with the signal's reason
   * if it is aborted before the job begins.
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

  /** Begins the oldest waiting job whose client has not left. */
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

  /** Runs a waiting job. */
  async #begin(job: Job): Promise<void> {
    this.#waiting.splice(this.#waiting.indexOf(job), 1);
    this.#begun.push(job);
    await job.start();
    const wasAtWork = this.#begun[this.#begun.length - 1] === job;
    this.#begun.splice(this.#begun.indexOf(job), 1);
    if (!wasAtWork) return; // it was aborted during another job's turn
    const below = this.#begun[this.#begun.length - 1];
    if (below) below.resume?.();
    else if (this.#waiting.length > 0) await this.#startNext();
  }

  /** Ends a chunk of `job`, the running one. */
  async #turn(job: Job, signal: AbortSignal): Promise<void> {
    await this.#breathe();
    const shorter = this.#waiting.find(({ size }) => size * SHORTER <= job.size);
    // Only one candidate is tried: a client that keeps sending requests and leaving must not hold up this job.
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

  /** Lets the event loop hear which clients have left. A job that is still waiting after this has its client. */
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
