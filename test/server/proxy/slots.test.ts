/** Slots, and the line of requests that wait for one. */

import { expect, test, vi } from "vitest";
import { Slots } from "../../../src/server/proxy/slots.ts";

const { signal } = new AbortController();

/** Who was admitted, in order. */
function taking(
  slots: Slots,
  order: string[],
): (name: string, count: number, given?: AbortSignal) => Promise<() => void> {
  return async (name, count, given = signal) => {
    const release = await slots.take(count, given);
    order.push(name);
    return release;
  };
}

const settle = (): Promise<void> => new Promise(resolve => setTimeout(resolve));

test("are given in the order of the line: a large one is not passed by small ones", async () => {
  const slots = new Slots(3, 10);
  const order: string[] = [];
  const take = taking(slots, order);
  const first = await take("a", 2);
  const large = take("large", 3);
  const small = take("small", 1);
  await settle();
  expect([order, slots.taken, slots.waiting]).toEqual([["a"], 2, 2]);
  first();
  first(); // twice is once
  (await large)();
  (await small)();
  expect([order, slots.taken, slots.waiting]).toEqual([["a", "large", "small"], 0, 0]);
});

test("one that leaves the line lets the next go on", async () => {
  const slots = new Slots(2, 10);
  const order: string[] = [];
  const take = taking(slots, order);
  await take("a", 1);
  const gone = new AbortController();
  const large = take("large", 2, gone.signal);
  const small = take("small", 1);
  gone.abort(new Error("left"));
  await expect(large).rejects.toThrow("left");
  await small;
  expect([order, slots.taken, slots.waiting]).toEqual([["a", "small"], 2, 0]);
  await expect(take("late", 1, gone.signal)).rejects.toThrow("left");
});

test("a full line is told to come back", async () => {
  const slots = new Slots(1, 1);
  await slots.take(1, signal);
  void slots.take(1, signal);
  await expect(slots.take(1, signal)).rejects.toMatchObject({
    status: 503,
    code: "queue_full",
    headers: { "retry-after": "1" },
  });
});

test("a request that was admitted and leaves later removes nobody from the line", async () => {
  const slots = new Slots(1, 10);
  const first = await slots.take(1, signal);
  const gone = new AbortController();
  const second = slots.take(1, gone.signal);
  const third = slots.take(1, signal);
  first();
  const release = await second;
  gone.abort(new Error("left"));
  expect([slots.taken, slots.waiting]).toEqual([1, 1]);
  release();
  (await third)();
  expect([slots.taken, slots.waiting]).toEqual([0, 0]);
});

test("a request that leaves the middle of the line leaves the others in it", async () => {
  const slots = new Slots(1, 10);
  const order: string[] = [];
  const take = taking(slots, order);
  const first = await take("a", 1);
  const gone = new AbortController();
  const waiting = ["b", "c", "d"].map(name => take(name, 1, name === "c" ? gone.signal : signal));
  gone.abort(new Error("left"));
  await expect(waiting[1]).rejects.toThrow("left");
  expect([slots.taken, slots.waiting]).toEqual([1, 2]);
  first();
  (await waiting[0])();
  (await waiting[2])();
  expect(order).toEqual(["a", "b", "d"]);
});

test("all slots may be taken at once, and no more", async () => {
  const slots = new Slots(2, 10);
  const first = await slots.take(2, signal);
  const second = slots.take(2, signal);
  expect([slots.taken, slots.waiting]).toEqual([2, 1]);
  first();
  (await second)();
  expect(slots.taken).toBe(0);
});

test.each<[heldSeconds: number, waiting: number, retryAfter: string]>([
  [0, 1, "1"],
  [20, 1, "1"],
  [30, 1, "2"],
  [100, 3, "15"],
  [100, 11, "55"],
  [100, 12, "60"],
  [100, 13, "60"],
])(
  "a full line tells when to come back: places held for %i s, %i waiting: %s",
  async (heldSeconds, waiting, retryAfter) => {
    const now = vi.spyOn(performance, "now").mockReturnValue(5_000);
    const slots = new Slots(2, waiting);
    const release = await slots.take(2, signal);
    now.mockReturnValue(5_000 + heldSeconds * 1_000);
    release(); // a tenth of it is the running mean
    await slots.take(2, signal);
    now.mockRestore();
    for (let i = 0; i < waiting; i++) void slots.take(1, signal);
    await expect(slots.take(1, signal)).rejects.toMatchObject({
      message: `the queue is full (${waiting} waiting)`,
      headers: { "retry-after": retryAfter },
    });
  },
);
