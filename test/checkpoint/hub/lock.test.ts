/** One at a time: who waits for whom, when a lock is over, and whose lock is removed. */

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { withLock } from "../../../src/checkpoint/hub/lock.node.ts";
import { temporaryFolder } from "../../cli/harness.ts";

const lockPath = (): string => join(temporaryFolder(), "locks/model/pull.lock");
const never = (): void => expect.fail("expected nobody to wait for");

/** A lock as another process made it. */
function putLock(path: string, owner: unknown): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, typeof owner === "string" ? owner : JSON.stringify(owner));
}

const gone = (): number =>
  Number(spawnSync(process.execPath, ["-e", "console.log(process.pid)"], { encoding: "utf8" }).stdout);

/** A clock that a test sets. `looks` counts how often it was read. */
function stubClock(): { ms: number; looks: number } {
  const clock = { ms: 1e6, looks: 0 };
  const spy = vi.spyOn(performance, "now").mockImplementation(() => {
    clock.looks++;
    return clock.ms;
  });
  onTestFinished(() => spy.mockRestore());
  return clock;
}

describe("work", () => {
  test("is done while the lock exists, and its result or error comes through", async () => {
    const path = lockPath();
    const result = await withLock(path, never, async () => {
      expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ pid: process.pid, host: hostname() });
      return 7;
    });
    expect(result).toBe(7);
    expect(readdirSync(dirname(path))).toEqual([]);
    const failing = withLock(path, never, () => Promise.reject(new Error("oh")));
    await expect(failing).rejects.toThrow("oh");
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test("of several processes never overlaps, and each is told once that it waits", async () => {
    const path = lockPath();
    let [running, most] = [0, 0];
    const waits = [0, 0, 0];
    const work = async (): Promise<void> => {
      most = Math.max(most, ++running);
      await new Promise(resolve => setTimeout(resolve, 250));
      running--;
    };
    await Promise.all(waits.map((_, i) => withLock(path, () => void waits[i]++, work)));
    expect(most).toBe(1);
    expect(waits.sort()).toEqual([0, 1, 1]);
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test("touches its lock every five seconds until it is done", async () => {
    const path = lockPath();
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    onTestFinished(() => void vi.useRealTimers());
    await withLock(path, never, async () => {
      utimesSync(path, 1, 1);
      vi.advanceTimersByTime(4_999);
      expect(statSync(path).mtimeMs).toBe(1000);
      vi.advanceTimersByTime(1);
      await vi.waitFor(() => expect(statSync(path).mtimeMs).toBeGreaterThan(1e12));
      rmSync(path);
      vi.advanceTimersByTime(5_000); // there is nothing to touch, and nobody to tell
    });
    expect(vi.getTimerCount()).toBe(0);
  });

  test("removes no lock that another process has made in the meantime", async () => {
    const path = lockPath();
    await withLock(path, never, async () => putLock(path, "another's"));
    expect(readFileSync(path, "utf8")).toBe("another's");
  });
});

describe("a lock of another process", () => {
  test.each<[string, () => unknown]>([
    ["of a process that runs", () => ({ pid: process.pid, host: hostname(), id: "x" })],
    ["of another machine", () => ({ pid: gone(), host: `${hostname()}x`, id: "x" })],
    ["in other words", () => `x{"pid":${gone()},"host":"${hostname()}"`],
    ["of nobody yet", () => ""],
  ])("%s is waited for until it is released", async (_, owner) => {
    const path = lockPath();
    putLock(path, owner());
    let waits = 0;
    let isFree = false;
    const onWait = (): void => {
      waits++;
      setTimeout(() => {
        isFree = true;
        rmSync(path);
      }, 150);
    };
    await withLock(path, onWait, async () => expect(isFree).toBe(true));
    expect(waits).toBe(1);
  });

  test("whose process is gone is taken over at once", async () => {
    const path = lockPath();
    putLock(path, { pid: gone(), host: hostname(), id: "x" });
    await withLock(path, never, async () => expect(readFileSync(path, "utf8")).toContain(`"pid":${process.pid},`));
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test("is taken over half a minute after somebody last touched it, and not before", async () => {
    const path = lockPath();
    putLock(path, "another machine's");
    const clock = stubClock();
    const nextLook = async (): Promise<void> => {
      const { looks } = clock;
      await vi.waitFor(() => expect(clock.looks).toBeGreaterThan(looks + 1), { timeout: 5_000 });
    };
    let isHeld = false;
    const working = withLock(
      path,
      () => {},
      async () => {
        isHeld = true;
      },
    );
    await nextLook();
    for (const touch of [
      () => utimesSync(path, 5, 5),
      () => putLock(path, "a third machine's"),
      () => utimesSync(path, 6, 6),
    ]) {
      clock.ms += 29_000;
      touch();
      await nextLook();
    }
    clock.ms += 30_000;
    await nextLook();
    expect(isHeld).toBe(false);
    clock.ms += 1;
    await working;
    expect(isHeld).toBe(true);
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test("that cannot be made or read throws the system's error", async () => {
    const path = lockPath();
    await expect(withLock(join(dirname(path), "n".repeat(300)), never, async () => {})).rejects.toMatchObject({
      code: "ENAMETOOLONG",
    });
    mkdirSync(path);
    await expect(withLock(path, never, async () => {})).rejects.toMatchObject({ code: "EISDIR" });
  });
});
