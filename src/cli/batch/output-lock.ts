/**
 * One writer of an output at a time: a second run on it fails instead of mixing its lines with those of the first.
 *
 * The lock is a file beside the output that only one process can create. It names its owner, who touches it while at
 * work. Node has no lock that the system releases when a process dies. So a lock counts as abandoned when its process
 * is gone from this machine, or when nobody has touched it for half a minute: the process may be on another machine or
 * in a container, where it cannot be looked up, or another process may have its number by now. The second run therefore
 * watches the lock: one touch shows that it is in use. An owner that was suspended for that long finds that its output
 * has grown (output.ts).
 */

import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { open, readFile, rm, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout } from "node:timers/promises";
import { fileError } from "../file-error.ts";
import { linkTarget } from "../writing.ts";
import { shortHash } from "./judge-hash.ts";

export interface LockTiming {
  readonly touchMs: number;
  /** A lock that nobody has touched for this long is abandoned. */
  readonly abandonedMs: number;
}

const TIMING: LockTiming = { touchMs: 2_000, abandonedMs: 30_000 };

export interface OutputLock {
  release(): Promise<void>;
}

/**
 * Throws Error if another run has the output. `onTaken` is called with the lock's file before any signal can be
 * handled, so that a signal that ends the process can remove it. `onWait` is called once, if it takes a while to find
 * out whether another run has the lock.
 */
export async function lockOutput(
  output: string,
  { onTaken, onWait }: { readonly onTaken?: (file: string) => void; readonly onWait?: () => void } = {},
  { touchMs, abandonedMs }: LockTiming = TIMING,
): Promise<OutputLock> {
  const file = `${await linkTarget(output)}.lock`;
  const mine = JSON.stringify({ pid: process.pid, host: hostname(), id: randomUUID() });
  let first: Held | undefined;
  let hasWaited = false;
  while (!create(file, mine, output)) {
    const held = await look(file);
    if (held === undefined) continue; // released, or removed
    first ??= held;
    if (held.owner !== first.owner || held.touched !== first.touched) {
      throw new Error(`${output}: another run is writing to it${ownerOf(held.owner)}; ${file} is its lock`);
    }
    const age = performance.now() - first.since;
    if (age > 2 * abandonedMs)
      throw new Error(`${output}: its lock could not be taken over; remove ${file} and what begins with its name`);
    if (isGone(held.owner) || age > abandonedMs) await takeAway(file, held.owner);
    else if (!hasWaited && age > 2 * touchMs) {
      hasWaited = true;
      onWait?.();
    }
    await setTimeout(Math.min(100, touchMs / 4));
  }
  onTaken?.(file);
  const touching = setInterval(() => utimes(file, new Date(), new Date()).catch(() => {}), touchMs);
  return {
    async release() {
      clearInterval(touching);
      if ((await readFile(file, "utf8").catch(() => "")) === mine) await rm(file, { force: true });
    },
  };
}

interface Held {
  readonly owner: string;
  readonly touched: number;
  /** When we looked at it, by our own clock. */
  readonly since: number;
}

/** Synchronous, so that a signal is handled before it or after it. */
function create(file: string, owner: string, output: string): boolean {
  try {
    writeFileSync(file, owner, { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw fileError(output, error as NodeJS.ErrnoException, "a file to write");
  }
}

/** Opens the file each time, because that is when a network file system fetches the changes of others. */
async function look(file: string): Promise<Held | undefined> {
  const handle = await open(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw fileError(file, error);
  });
  if (handle === undefined) return undefined;
  try {
    return { owner: await handle.readFile("utf8"), touched: (await handle.stat()).mtimeMs, since: performance.now() };
  } finally {
    await handle.close();
  }
}

function parseOwner(owner: string): { pid: string; host: string } | undefined {
  const [, pid, host] = /^\{"pid":(\d+),"host":"([^"]*)"/.exec(owner) ?? [];
  return pid === undefined ? undefined : { pid, host };
}

function ownerOf(owner: string): string {
  const found = parseOwner(owner);
  return found ? ` (process ${found.pid} on ${found.host})` : "";
}

function isGone(owner: string): boolean {
  const found = parseOwner(owner);
  if (found?.host !== hostname()) return false;
  try {
    process.kill(Number(found.pid), 0); // only asks
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}

/**
 * If several runs find a lock abandoned, the one that creates the claim on this owner's lock removes it. It reads the
 * lock again first, since there may be a new one by now. An abandoned lock cannot change owners after that, since
 * nobody else may remove it.
 */
async function takeAway(file: string, owner: string): Promise<void> {
  const claim = `${file}.${shortHash(owner)}`;
  if (!create(claim, "", file)) return;
  try {
    if ((await readFile(file, "utf8").catch(() => undefined)) === owner) await rm(file, { force: true });
  } finally {
    await rm(claim, { force: true });
  }
}
