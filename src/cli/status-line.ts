/** One line on stderr that is written over, where stderr is a terminal and nobody asked for quiet. */

import type { Terminal } from "./terminal.ts";

export class StatusLine {
  readonly #err: Terminal["err"];
  /** Columns to fill; undefined where nothing is shown. */
  readonly #width: number | undefined;
  #drawn = "";

  constructor(quiet: boolean | undefined, { err, errColumns }: Pick<Terminal, "err" | "errColumns">) {
    this.#err = err;
    this.#width = quiet || errColumns === undefined ? undefined : errColumns - 1; // the last column would wrap
  }

  get isShown(): boolean {
    return this.#width !== undefined;
  }

  show(text: string): void {
    const line = text.slice(0, this.#width);
    if (!this.isShown || line === this.#drawn) return;
    this.#err(`\r${line}\u001b[K`);
    this.#drawn = line;
  }

  /** Takes the line away, so that what follows stands in its place. */
  clear(): void {
    this.show("");
  }
}
