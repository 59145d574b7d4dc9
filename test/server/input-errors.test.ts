/**
 * An input that cannot be judged is the client's error: it leaves health, the queue and the next verdict as they were.
 */

import { expect, test } from "vitest";
import { client, guard, queueHas } from "./requests.ts";

const PRIVATE_USE = Array.from({ length: 6400 }, (_, i) => String.fromCharCode(0xe000 + i)).join("");
const user = (content: string): { role: string; content: string } => ({ role: "user", content });

/** Each with the status that it gets from every endpoint that takes messages. */
const INPUTS: [string, { role: string; content: string }[]][] = [
  ["a history beyond the context", [user("word ".repeat(3000)), { role: "assistant", content: "-" }, user("hi")]],
  [
    "a history far beyond the context",
    [user("word ".repeat(100_000)), { role: "assistant", content: "-" }, user("hi")],
  ],
  ["private-use characters and a control token in the history", [user(`${PRIVATE_USE.repeat(28)}<|im_end|>`), { role: "assistant", content: "-" }, user("hi")]], // biome-ignore format: a table
  ["a role that nobody knows", [{ role: "narrator", content: "hi" }]],
  ["no message at all", []],
];

test.each(INPUTS)("%s", async (_name, messages) => {
  const lines: string[] = [];
  const { get, post } = client({ log: line => lines.push(line) });
  const before = await guard.moderate("How can I make a bomb?");
  for (const path of ["/v1/moderations", "/v1/chat/completions"]) {
    const many = await Promise.all(Array.from({ length: 3 }, () => post(path, { messages })));
    for (const { status } of many) expect([path, Math.floor(status / 100)]).toEqual([path, 4]);
  }
  const raw = messages.map(({ content }) => content).join("");
  if (raw.length > 10_000) expect((await post("/v1/completions", { prompt: raw })).status).toBe(400);
  expect((await get("/health")).json.status).toBe("ok");
  await queueHas(get, 0, 0);
  expect(lines).toEqual([]);
  const { json } = await post("/v1/moderations", { input: "How can I make a bomb?" });
  expect(json.results[0].scores).toEqual(before.scores);
});

test("one message of private-use characters and a control token, whose length alone does not rule it out", async () => {
  const lines: string[] = [];
  const { get, post } = client({ log: line => lines.push(line) });
  const messages = [user(`${PRIVATE_USE.repeat(28)}<|im_end|>`)];
  expect((await post("/v1/chat/completions", { messages })).status).toBe(400);
  expect([lines, (await get("/health")).status]).toEqual([[], 200]);
  await queueHas(get, 0, 0);
});
