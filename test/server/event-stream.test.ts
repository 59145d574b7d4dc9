/** Event streams whose job never waits for the reader. */

import { expect, test } from "vitest";
import { eventStream } from "../../src/server/event-stream.ts";

const errorOf = (error: unknown): unknown => ({ error: (error as Error).message });
const noAbort = (reason: Error): void => expect.fail(reason.message);

test("a reader that is too far behind counts as gone, and the job is told once", async () => {
  const reasons: string[] = [];
  const { response, ended } = eventStream(
    async send => {
      for (let i = 0; i < 100; i++) send("x".repeat(100_000));
    },
    errorOf,
    reason => reasons.push(reason.message),
  );
  await ended;
  expect(reasons).toEqual(["the client reads too slowly"]);
  // Not an end: what was sent must not look complete.
  await expect((await response).text()).rejects.toThrow("the client reads too slowly");
});

test("so does one that cancels; what the job still sends goes nowhere", async () => {
  const reasons: string[] = [];
  let goOn: () => void = () => {};
  const { response, ended } = eventStream(
    async send => {
      send(1);
      await new Promise<void>(resolve => {
        goOn = resolve;
      });
      send(2);
    },
    errorOf,
    reason => reasons.push(reason.message),
  );
  await (await response).body?.cancel();
  goOn();
  await ended;
  expect(reasons).toEqual(["the client went away"]);
});

test("a job that fails before its first event is a failure; after it, an event", async () => {
  const early = eventStream(() => Promise.reject(new Error("early")), errorOf, noAbort);
  await expect(early.response).rejects.toThrow("early");
  await early.ended;
  const late = eventStream(
    async send => {
      send(1);
      throw new Error("late");
    },
    errorOf,
    noAbort,
  );
  expect(await (await late.response).text()).toBe('data: 1\n\ndata: {"error":"late"}\n\n');
  await late.ended;
});
