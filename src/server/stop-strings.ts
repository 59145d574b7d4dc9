/**
 * Strings at which an answer ends, found in text that arrives in pieces. What may be the beginning of one is held back.
 */

export class StopStrings {
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** The text that is certain now; `isStopped`: it ends where the first stop string began. */
  push(piece: string): { readonly text: string; readonly isStopped: boolean } {
    this.#held += piece;
    const found = this.#stops.map(stop => this.#held.indexOf(stop)).filter(at => at >= 0);
    if (found.length > 0) return { text: this.#take(Math.min(...found)), isStopped: true };
    const most = Math.max(0, ...this.#stops.map(stop => stop.length - 1));
    let start = Math.max(0, this.#held.length - most);
    while (start < this.#held.length && !this.#stops.some(stop => stop.startsWith(this.#held.slice(start)))) start++;
    return { text: this.#take(start), isStopped: false };
  }

  /** What was held back, at the end of the text. */
  end(): string {
    return this.#take(this.#held.length);
  }

  #take(length: number): string {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return text;
  }
}
