/** A share of test/slow/proxy.slow.ts: streamed answers, many at once, each cut where the guard alone would cut it. */

import { expect, test } from "vitest";
import { StreamGuard } from "../../../src/guard/stream-guard.ts";
import { loadGuard, STREAM } from "../../checkpoints.ts";
import { relayMany } from "./many.ts";

test("a Gen guard over 12 answers, 12 at once", async () => {
  const cuts = await relayMany(await loadGuard(), 12, 12);
  expect(cuts).toBeGreaterThan(3);
  expect(cuts).toBeLessThan(12);
});

test.each([0, 7])("a Stream guard over 24 answers, 12 at once, %i characters held back", async holdBack => {
  const guard = await StreamGuard.load(STREAM);
  const cuts = await relayMany(guard, 24, 12, holdBack);
  expect(cuts).toBeGreaterThan(5);
  expect(cuts).toBeLessThan(24);
  guard.close();
});
