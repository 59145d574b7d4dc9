/**
 * Progress of long work: one line on stderr that is written over, where stderr is a terminal and nobody asked for
 * quiet.
 *
 *     1,234 lines, 98 a second, 2:14 left
 */

import type { Terminal } from "./terminal.ts";

const INTERVAL_MS = 200;

export class Progress {
  readonly #terminal: Terminal;
  readonly #isShown: boolean;
  readonly #unit: string;
  readonly #started: number = performance.now();
  #last = 0;

  constructor(terminal: Terminal, unit: string, quiet: boolean | undefined) {
    this.#terminal = terminal;
    this.#isShown = terminal.errColumns !== undefined && !quiet;
    this.#unit = unit;
  }

  /** `count` is done since the start; `share` (0 to 1) is how much of the whole that is, where it is known. */
  update(count: number, share?: number): void {
    const now = performance.now();
    if (!this.#isShown || now - this.#last < INTERVAL_MS) return;
    this.#last = now;
    const seconds = (now - this.#started) / 1000;
    const left = share ? `, ${clock((seconds / share) * (1 - share))} left` : "";
    const rate = count / seconds;
    this.#show(`${count.toLocaleString("en-US")} ${this.#unit}, ${rate.toFixed(rate < 10 ? 1 : 0)} a second${left}`);
  }

  /** Takes the line away, so that what follows stands in its place. */
  end(): void {
    if (this.#isShown && this.#last > 0) this.#show("");
  }

  #show(text: string): void {
    this.#terminal.err(`\r\x1b[K${text}`);
  }
}

/** 0:07, 12:34 or 1:02:03. */
export function clock(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (n: number): string => String(n).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${hours > 0 ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}`;
}
