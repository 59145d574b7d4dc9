/**
 * Finds the strings that end an answer in text that arrives in pieces. Text that may begin such a string is held back.
 */

export class StopStrings {
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** The text that is certain now. If `isStopped`, it ends where the first stop string began. */
  push(piece: string): { readonly text: string; readonly isStopped: boolean } {
    this.#held += piece;
    const found = this.#stops.map(stop => this.#held.indexOf(stop)).filter(at => at >= 0);
    if (found.length > 0) return { text: this.#take(Math.min(...found)), isStopped: true };
    const most = Math.max(0, ...this.#stops.map(stop => stop.length - 1));
    let start = Math.max(0, this.#held.length - most);
    while (start < this.#held.length && !this.#stops.some(stop => stop.startsWith(this.#held.slice(start)))) start++;
    return { text: this.#take(start), isStopped: false };
  }

  /** The text that was held back, when no more comes. */
  end(): string {
    return this.#take(this.#held.length);
  }

  #take(length: number): string {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return text;
  }
}
