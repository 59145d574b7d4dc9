/** The proxy under load: 1,000 streamed answers, 64 at once, each cut where the guard alone would cut it, and the memory as before afterwards. */

import { expect, test } from "vitest";
import { StreamGuard } from "../../src/guard/stream-guard.ts";
import { relayMany } from "../app/server/proxy/many.ts";
import { loadGuard, STREAM } from "../checkpoints.ts";

/** After everything that can be collected was: what buffers and WebAssembly hold is in it. */
async function residentMB(): Promise<number> {
  for (let i = 0; i < 5; i++) {
    globalThis.gc?.();
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return process.memoryUsage().rss / 2 ** 20;
}

test("a Stream guard over 1,000 answers, 64 at once; memory is as after the first 200", async () => {
  const guard = await StreamGuard.load(STREAM);
  await relayMany(guard, 200, 64);
  const before = await residentMB();
  const cuts = await relayMany(guard, 1000, 64);
  const after = await residentMB();
  console.log(`${cuts} of 1000 cut; ${before.toFixed(0)} MB before, ${after.toFixed(0)} MB after`);
  expect(cuts).toBeGreaterThan(200);
  expect(cuts).toBeLessThan(900);
  expect(after - before).toBeLessThan(100);
  guard.close();
});

test("a Gen guard over 200 answers, 64 at once, some characters held back", async () => {
  const cuts = await relayMany(await loadGuard(), 200, 64, 5);
  console.log(`${cuts} of 200 cut`);
  expect(cuts).toBeGreaterThan(40);
  expect(cuts).toBeLessThan(190);
});
