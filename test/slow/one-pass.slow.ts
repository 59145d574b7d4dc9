/**
 * The one-pass verdict on 5,000 generated conversations gives the ids of greedy generation. Prints how many passes each
 * kind of answer took.
 */

import { expect, test } from "vitest";
import { Guard } from "../../src/guard/guard.ts";
import { randomConversations } from "../guard/conversations.ts";
import { averagePasses, comparePasses } from "../guard/one-pass.ts";

test("5,000 conversations", async () => {
  const guard = await Guard.load();
  const counts = await comparePasses(guard, randomConversations(2026, 5000));
  for (const [kind, passes] of [...counts].sort()) {
    console.log(
      kind.padEnd(24),
      [...passes]
        .sort(([a], [b]) => a - b)
        .map(([count, times]) => `${count}: ${times}`)
        .join(", "),
    );
  }
  console.log(`average ${averagePasses(counts).toFixed(2)} passes`);
  expect(Math.max(...(counts.get("user Safe")?.keys() ?? []))).toBe(1);
  guard.close();
});
