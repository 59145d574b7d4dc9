/** The progress of a download: how much of the model is here, how fast it comes, and how long the rest will take. */

import type { HubProgress } from "../checkpoint/hub/id.ts";
import { clock } from "./progress.ts";
import { StatusLine } from "./status-line.ts";
import type { Terminal } from "./terminal.ts";

export interface DownloadProgress {
  readonly show: (progress: HubProgress) => void;
  readonly clear: () => void;
}

/** Time between two drawings: short enough for the line to look alive. */
const DRAW_MS = 100;
/** The rate is taken over the last seconds, so that it follows the connection but does not jump. */
const RATE_WINDOW_MS = 5_000;

/** `now` is a clock in ms. */
export function downloadProgress(
  options: { readonly quiet?: boolean },
  terminal: Pick<Terminal, "err" | "errColumns">,
  now: () => number = () => performance.now(),
): DownloadProgress {
  const line = new StatusLine(options.quiet, terminal);
  let samples: { readonly at: number; readonly bytes: number }[] = [];
  let drawnAt = -Infinity;
  return {
    show: progress => {
      const at = now();
      const { state, doneBytes: bytes } = progress;
      if (!line.isShown || (at - drawnAt < DRAW_MS && state === "downloading")) return;
      // Time spent waiting or checking says nothing about the connection. Fewer bytes than before mean that a file was
      // begun anew.
      if (state !== "downloading" || bytes < (samples.at(-1)?.bytes ?? 0)) samples = [];
      if (state === "downloading") samples.push({ at, bytes });
      while (samples.length > 2 && samples[1].at <= at - RATE_WINDOW_MS) samples.shift();
      const [first] = samples;
      const rate = samples.length > 1 && at > first.at ? ((bytes - first.bytes) / (at - first.at)) * 1000 : undefined;
      line.show(describe(progress, rate));
      drawnAt = at;
    },
    clear: () => line.clear(),
  };
}

/** `rate` is in bytes a second, if known. */
function describe({ state, file, doneBytes, totalBytes }: HubProgress, rate: number | undefined): string {
  if (state === "waiting") return "waiting for another process that downloads this model";
  const percent = totalBytes > 0 ? Math.floor((doneBytes / totalBytes) * 100) : 100;
  const parts = [`${percent} % of ${size(totalBytes)}`];
  if (state === "checking") parts.push("checking");
  else if (rate) parts.push(`${size(rate)}/s`, `${clock((totalBytes - doneBytes) / rate)} left`);
  return [...parts, file].join("  ");
}

/** Decimal units, as connections and disks are sold. */
function size(bytes: number): string {
  const [unit, divisor, digits] = bytes < 1e6 ? ["kB", 1e3, 0] : bytes < 1e9 ? ["MB", 1e6, 1] : ["GB", 1e9, 2];
  return `${(bytes / (divisor as number)).toFixed(digits as number)} ${unit}`;
}
