/**
 * The proxy under load: 1,000 streamed answers, 64 at once, each cut where the guard alone would cut it, and no growth
 * of memory.
 */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { StreamGuard } from "../../src/guard/stream-guard.ts";
import { loadGuard, STREAM } from "../checkpoints.ts";
import { relayMany } from "../server/proxy/many.ts";

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

/**
 * Measured after a garbage collection. Resident memory also includes what WebAssembly holds, and what the system has
 * not taken back.
 */
async function memoryMB(): Promise<{ heap: number; resident: number }> {
  for (let i = 0; i < 5; i++) {
    collectGarbage();
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  const { heapUsed, rss } = process.memoryUsage();
  return { heap: heapUsed / 2 ** 20, resident: rss / 2 ** 20 };
}

test("a Stream guard over 1,000 answers, 64 at once; memory is as after the first 200", async () => {
  const guard = await StreamGuard.load(STREAM);
  await relayMany(guard, 200, 64);
  const before = await memoryMB();
  const cuts = await relayMany(guard, 1000, 64);
  const after = await memoryMB();
  console.log(
    `${cuts} of 1000 cut; MB before and after: heap ${before.heap.toFixed(1)}, ${after.heap.toFixed(1)}; resident ${before.resident.toFixed(0)}, ${after.resident.toFixed(0)}`,
  );
  expect(cuts).toBeGreaterThan(200);
  expect(cuts).toBeLessThan(900);
  expect(after.heap - before.heap).toBeLessThan(10);
  expect(after.resident - before.resident).toBeLessThan(100);
  guard.close();
});

test("a Gen guard over 200 answers, 64 at once, some characters held back", async () => {
  const cuts = await relayMany(await loadGuard(), 200, 64, 5);
  console.log(`${cuts} of 200 cut`);
  expect(cuts).toBeGreaterThan(40);
  expect(cuts).toBeLessThan(190);
});
