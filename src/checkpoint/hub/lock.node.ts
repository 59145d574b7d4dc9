/**
 * One download of a model at a time, so that processes that start together fetch it once. Node only.
 *
 * The lock is a file that only one process can create. It names that process. Node has no lock that the system releases
 * when a process dies, as flock does for huggingface_hub. So a lock also ends when its process is gone, or when nobody
 * has touched it for half a minute (its process may run on another machine or in a container, where we cannot look it
 * up). In theory two processes can then hold it for a moment. The lock only saves work; correctness does not depend on
 * it (blob.node.ts).
 */

import { randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";

const ABANDONED_MS = 30_000;
const TOUCH_MS = 5_000;
const LOOK_MS = 100;

/**
 * Runs `work` while no other process runs its own under the lock at `path`. `onWait` is called once if another process
 * holds it.
 */
export async function withLock<T>(path: string, onWait: () => void, work: () => Promise<T>): Promise<T> {
  const mine = JSON.stringify({ pid: process.pid, host: hostname(), id: randomUUID() });
  await mkdir(dirname(path), { recursive: true });
  let watched: Held | undefined;
  while (!(await create(path, mine))) {
    const held = await look(path, watched);
    if (held && isAbandoned(held)) await takeAway(path, held);
    else {
      if (!watched) onWait();
      watched = held ?? watched;
      await setTimeout(LOOK_MS);
    }
  }
  const touching = setInterval(() => utimes(path, new Date(), new Date()).catch(() => {}), TOUCH_MS);
  try {
    return await work();
  } finally {
    clearInterval(touching);
    if ((await readFile(path, "utf8").catch(() => "")) === mine) await rm(path, { force: true });
  }
}

/** A lock that another process holds, and since when, by our own clock, it has not changed. */
interface Held {
  readonly owner: string;
  readonly touched: number;
  readonly since: number;
}

async function create(path: string, owner: string): Promise<boolean> {
  try {
    await writeFile(path, owner, { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** Undefined where the lock has just been released. */
async function look(path: string, before: Held | undefined): Promise<Held | undefined> {
  try {
    const [owner, { mtimeMs: touched }] = await Promise.all([readFile(path, "utf8"), stat(path)]);
    const isUnchanged = before !== undefined && before.owner === owner && before.touched === touched;
    return { owner, touched, since: isUnchanged ? before.since : performance.now() };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function isAbandoned({ owner, since }: Held): boolean {
  if (performance.now() - since > ABANDONED_MS) return true;
  const [, pid, host] = /^\{"pid":(\d+),"host":"([^"]*)"/.exec(owner) ?? [];
  if (pid === undefined || host !== hostname()) return false;
  try {
    process.kill(Number(pid), 0); // signal 0 only asks whether the process exists
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}

/**
 * Renamed first, so that only one of several processes that find the lock abandoned removes it. Looked at again before
 * that, so that it is not a new one.
 */
async function takeAway(path: string, { owner }: Held): Promise<void> {
  if ((await readFile(path, "utf8").catch(() => "")) !== owner) return;
  const aside = `${path}.${randomUUID()}`;
  await rename(path, aside).catch(() => {});
  await rm(aside, { force: true });
}
