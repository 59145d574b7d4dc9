/**
 * The operations of one stream, run one after the other in the order of the calls.
 *
 * After one that failed, all fail with the same error. What the operations work with is given back once, after the last
 * of them, whether or not it failed.
 */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();
  #isClosed = false;
  readonly #release: () => void;

  constructor(release: () => void) {
    this.#release = release;
  }

  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result;
    result.catch(() => {}); // the caller hears of it; it is not an unhandled rejection if nobody listens
    return result;
  }

  /** Throws Error after `close`. */
  checkOpen(): void {
    if (this.#isClosed) throw new Error("the stream has ended");
  }

  /** Gives back what the operations work with, after those that have begun. A second call does nothing. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#last = this.#last.then(this.#release, this.#release);
  }
}
