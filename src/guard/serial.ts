/** Runs operations one after the other, in the order of the calls; after one that failed, all fail alike. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result;
    result.catch(() => {}); // whoever asked hears of it; nobody need have
    return result;
  }

  /** Runs `work` when all that was begun is done, whichever way it ended. */
  finally(work: () => void): void {
    this.#last = this.#last.then(work, work);
  }
}
