import { expect, onTestFinished, test, vi } from "vitest";
import { Pace } from "../../src/server/pace.ts";

test("a client that finds the queue full is told to come back when it has passed, in 1 to 60 s", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const pace = new Pace();
  const wait = (waiting: number, atOnce: number): number =>
    Number(pace.queueFull(waiting, atOnce).headers["retry-after"]);
  expect(pace.queueFull(3, 1)).toMatchObject({
    status: 503,
    code: "queue_full",
    message: "the queue is full (3 waiting)",
  });
  expect(wait(64, 1)).toBe(1);
  const started = performance.now();
  vi.advanceTimersByTime(20_000);
  pace.noteSince(started); // the mean is now 2 s
  expect([wait(5, 1), wait(5, 2), wait(64, 1)]).toEqual([10, 5, 60]);
});
