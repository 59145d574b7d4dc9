/** How the report writes numbers: the same way in the terminal and on the page, and in every locale. */

import type { Estimate } from "./metrics.ts";

/** `1,234`. */
export function count(n: number): string {
  return String(n).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `1 line`, `2 lines`. */
export function plural(n: number, noun: string): string {
  return `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
}

/** Two decimals, or `n/a`. */
export function figure(value: number | null): string {
  return value === null ? "n/a" : value.toFixed(2);
}

/** `0.87 [0.83, 0.91]`. */
export function estimate({ value, low, high }: Estimate): string {
  return value === null
    ? "n/a"
    : low === null || high === null
      ? figure(value)
      : `${figure(value)} [${figure(low)}, ${figure(high)}]`;
}

/** A score with four decimals, since guards are sure of themselves, and mistakes lie near 0 and 1. */
export function score(value: number): string {
  return value.toFixed(4);
}

/** `95 %`. */
export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** A threshold that people can use: three significant digits, however small it is. */
export function threshold(value: number): string {
  return String(Number(value.toPrecision(3)));
}
