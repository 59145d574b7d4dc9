/** Counts the requests that are being answered, so that a shutdown can wait for them. */

export class InFlight {
  #count = 0;
  #drained: (() => void)[] = [];
  /** Whether new work is refused. */
  isDraining = false;

  begin(): void {
    this.#count++;
  }

  end(): void {
    this.#count--;
    if (this.#count === 0) for (const resolve of this.#drained.splice(0)) resolve();
  }

  /** Resolves when all accepted requests have been answered. It may be called more than once. */
  drain(): Promise<void> {
    this.isDraining = true;
    return new Promise(resolve => {
      if (this.#count === 0) resolve();
      else this.#drained.push(resolve);
    });
  }
}
