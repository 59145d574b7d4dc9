/**
 * The progress of work on many things of a kind.
 *
 *     1,234 lines, 98 a second, 2:14 left
 */

import { StatusLine } from "./status-line.ts";
import type { Terminal } from "./terminal.ts";

const INTERVAL_MS = 200;

export class Progress {
  readonly #line: StatusLine;
  readonly #unit: string;
  readonly #started: number = performance.now();
  #last = 0;

  constructor(terminal: Terminal, unit: string, quiet: boolean | undefined) {
    this.#line = new StatusLine(quiet, terminal);
    this.#unit = unit;
  }

  /**
   * `count` things are done since the start; `share` (0 to 1) is the part of the whole that they are, if it is known.
   */
  update(count: number, share?: number): void {
    const now = performance.now();
    if (!this.#line.isShown || now - this.#last < INTERVAL_MS) return;
    this.#last = now;
    const seconds = (now - this.#started) / 1000;
    const left = share ? `, ${clock((seconds / share) * (1 - share))} left` : "";
    const rate = count / seconds;
    this.#line.show(
      `${count.toLocaleString("en-US")} ${this.#unit}, ${rate.toFixed(rate < 10 ? 1 : 0)} a second${left}`,
    );
  }

  /** Takes the line away. */
  end(): void {
    this.#line.clear();
  }
}

/** 0:07, 12:34 or 1:02:03. */
export function clock(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (n: number): string => String(n).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${hours > 0 ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}`;
}
