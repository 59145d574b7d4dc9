import { expect, test } from "vitest";
import { InFlight } from "../../src/server/in-flight.ts";

test("a shutdown waits for the last request, however often it is called, and not at all if there is none", async () => {
  const inFlight = new InFlight();
  inFlight.begin();
  inFlight.begin();
  let drained = 0;
  const both = [inFlight.drain(), inFlight.drain()].map(promise => promise.then(() => drained++));
  expect(inFlight.isDraining).toBe(true);
  inFlight.end();
  await Promise.resolve();
  expect(drained).toBe(0);
  inFlight.end();
  await Promise.all(both);
  expect(drained).toBe(2);
  await inFlight.drain();
});
