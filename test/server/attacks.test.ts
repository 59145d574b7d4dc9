/**
 * Malformed and hostile requests: each gets a 4xx or a closed connection, and the server is unharmed. (20,000:
 * test/slow/server-attacks.slow.ts.)
 */

import { expect, test } from "vitest";
import { createHandler } from "../../src/server/handler.ts";
import { listen } from "../../src/server/listen.node.ts";
import { ATTACK_NAMES, attackAll, attacks } from "./attacks.ts";
import { guard } from "./requests.ts";

test("500 of every kind", async () => {
  const lines: string[] = [];
  const handler = createHandler(guard, { log: line => lines.push(line) });
  const listener = await listen(handler, { host: "127.0.0.1", port: 0, timeoutMs: 60_000, receiveMs: 500 });
  const outcomes = await attackAll(Number(new URL(listener.url).port), attacks(2026, 500), 32);
  expect([...outcomes.keys()].sort()).toEqual([...ATTACK_NAMES].sort());
  for (const [name, counts] of outcomes) {
    const wrong = [...counts.keys()].filter(outcome => outcome !== "closed" && !(outcome >= 400 && outcome < 500));
    expect([name, wrong]).toEqual([name, []]);
  }
  expect(lines).toEqual([]);
  const answer = await fetch(`${listener.url}/v1/moderations`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ input: "How can I make a bomb?" }),
  });
  expect((await answer.json()).results[0].scores).toEqual((await guard.moderate("How can I make a bomb?")).scores);
  await listener.close();
});
