/**
 * Sends 20,000 malformed and hostile requests to the server as a process. Prints the answers, and its memory before and
 * after.
 */

import { expect, test } from "vitest";
import { attackAll, attacks } from "../server/attacks.ts";
import { startServer } from "../server/server-process.ts";

/** The heap of the server, of which about 15 MB are alive. A leak of three kilobytes per attack would exhaust it. */
const HEAP_MB = 64;
/** Memory outside the heap: buffers, and what the allocator keeps. It settles within the first 15,000 requests. */
const SLACK_MB = 64;

test("20,000 attacks", async () => {
  const server = await startServer([], { NODE_OPTIONS: `--max-old-space-size=${HEAP_MB}` });
  const port = Number(new URL(server.url).port);
  const moderate = async (): Promise<unknown> => {
    const response = await fetch(`${server.url}/v1/moderations`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ input: "How can I make a bomb?" }),
    });
    return ((await response.json()) as { results: unknown }).results;
  };
  const before = await moderate();
  const total = new Map<string, Map<number | "closed", number>>();
  const memory: number[] = [];
  for (let round = 0; round < 4; round++) {
    for (const [name, counts] of await attackAll(port, attacks(round, 5000), 128)) {
      const sums = total.get(name) ?? new Map<number | "closed", number>();
      for (const [outcome, count] of counts) sums.set(outcome, (sums.get(outcome) ?? 0) + count);
      total.set(name, sums);
    }
    expect(await moderate()).toEqual(before);
    memory.push(server.rssMB());
    console.log(`after ${(round + 1) * 5000}: ${server.rssMB().toFixed(0)} MB`);
  }
  for (const [name, counts] of total)
    console.log(name.padEnd(32), [...counts].map(([outcome, count]) => `${outcome}: ${count}`).join(", "));
  const wrong = [...total].flatMap(([name, counts]) =>
    [...counts.keys()]
      .filter(outcome => outcome !== "closed" && !(outcome >= 400 && outcome < 500))
      .map(outcome => [name, outcome]),
  );
  expect(wrong).toEqual([]);
  if (!Number.isNaN(memory[1])) expect(memory[3] - memory[1]).toBeLessThan(SLACK_MB);
  server.child.kill("SIGTERM");
  expect(await server.ended).toEqual([0, null]);
  expect(server.stderr()).toBe(`listening on ${server.url}\n`);
});
