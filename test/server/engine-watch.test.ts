/**
 * /health once the engine has ended: 503 from both servers, before and after anybody asked for a verdict, and one line
 * in the log.
 */

import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, test, vi } from "vitest";
import { Guard } from "../../src/guard/guard.ts";
import { createHandler, type Handler } from "../../src/server/handler.ts";
import { createProxy } from "../../src/server/proxy/proxy.ts";

afterEach(() => vi.restoreAllMocks());

type Create = (guard: Guard, log: (line: string) => void) => Handler;
const SERVERS: [string, Create, string][] = [
  ["server", (guard, log) => createHandler(guard, { log }), "engine_failed"],
  ["proxy", (guard, log) => createProxy(guard, { upstream: "http://127.0.0.1:9", log }), "failing"],
];

async function health({ fetch }: Handler): Promise<[number, string]> {
  const response = await fetch(new Request("http://localhost/health"));
  return [response.status, (await response.json()).status];
}

/** A guard on two threads, and what ends the second. */
async function loadOnTwoThreads(): Promise<{ guard: Guard; endWorker: () => Promise<unknown> }> {
  const once = vi.spyOn(Worker.prototype, "once");
  const guard = await Guard.load(undefined, { threads: 2 });
  await guard.model.engine.ready();
  const [worker] = once.mock.contexts as Worker[];
  return { guard, endWorker: () => worker.terminate() };
}

describe.each(SERVERS)("the %s", (_name, create, word) => {
  test("says ok while the engine computes, and 503 as soon as a worker has ended", async () => {
    const { guard, endWorker } = await loadOnTwoThreads();
    const log: string[] = [];
    const handler = create(guard, line => log.push(line));
    expect(await health(handler)).toEqual([200, "ok"]);
    await endWorker();
    expect([await health(handler), await health(handler)]).toEqual([[503, word], [503, word]]); // biome-ignore format: a pair
    expect(log).toEqual(["qwen3guard: the engine has ended: a worker ended: exit 1"]);
  });

  test("says 503 once its guard was closed", async () => {
    const guard = await Guard.load(undefined, { threads: 1 });
    const handler = create(guard, () => {});
    guard.close();
    expect(await health(handler)).toEqual([503, word]);
  });
});
