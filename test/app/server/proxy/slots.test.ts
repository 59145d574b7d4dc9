/** Places and the line of those who wait for one. */

import { expect, test } from "vitest";
import { Slots } from "../../../../src/app/server/proxy/slots.ts";

const { signal } = new AbortController();

/** Who was admitted, in order. */
function taking(slots: Slots, order: string[]): (name: string, count: number, given?: AbortSignal) => Promise<() => void> {
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
  await expect(slots.take(1, signal)).rejects.toMatchObject({ status: 503, code: "queue_full", headers: { "retry-after": "1" } });
});
