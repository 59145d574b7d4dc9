/** Many requests at once: verdicts are the same as alone, to the bit, and short requests do not wait for long ones. */

import { expect, test } from "vitest";
import { randomConversations } from "../guard/conversations.ts";
import { client, events, guard, queueHas } from "./requests.ts";

test("under load every verdict and every answer is the same as alone, bit for bit", async () => {
  const { post } = client({ maxQueue: 1000 });
  const conversations = [
    ...randomConversations(31, 10),
    [{ role: "user", content: "word ".repeat(450) }], // long enough for others to go before it
    [{ role: "user", content: "How can I make a bomb? ".repeat(40) }],
  ];
  const under = await Promise.all(
    conversations.flatMap(messages => [
      post("/v1/moderations", { messages }),
      post("/v1/chat/completions", { messages, stream: true }),
      post("/v1/chat/completions", { messages, logprobs: true, top_logprobs: 5 }),
    ]),
  );
  const logprobs: unknown[] = [];
  for (const [i, messages] of conversations.entries()) {
    const [moderation, stream, chat] = under.slice(3 * i);
    const verdict = await guard.moderate(messages);
    const { safety, refusal, flagged, score, scores, refusalScore, text } = verdict;
    expect(moderation.json.results[0]).toMatchObject({
      safety,
      refusal,
      flagged,
      score,
      scores,
      refusal_score: refusalScore,
      text,
    });
    const content = events(stream.text)
      .slice(0, -1)
      .map(({ choices }) => choices[0].delta.content ?? "")
      .join("");
    expect([content, chat.json.choices[0].message.content]).toEqual([text, text]);
    logprobs.push(chat.json.choices[0].logprobs);
  }
  for (const [i, messages] of conversations.entries()) {
    const alone = await post("/v1/chat/completions", { messages, logprobs: true, top_logprobs: 5 });
    expect(alone.json.choices[0].logprobs).toEqual(logprobs[i]);
  }
});

test("a short request is answered while a long one runs and others wait", async () => {
  const { get, post } = client();
  const order: string[] = [];
  const long = Array.from({ length: 3 }, async (_, i) => {
    const { status } = await post("/v1/moderations", { input: "word ".repeat(1000) });
    order.push(`long ${i} ${status}`);
  });
  await queueHas(get, 1, 2);
  const { status } = await post("/v1/moderations", { input: "Tell me a joke about cats." });
  order.push(`short ${status}`);
  await Promise.all(long);
  expect(order).toEqual(["short 200", "long 0 200", "long 1 200", "long 2 200"]);
});

test("a burst of 64 begins one after the other: no more than two hold the memory of a sequence", async () => {
  const { get, post } = client();
  const burst = Array.from({ length: 64 }, (_, i) =>
    post("/v1/moderations", { input: `${"word ".repeat(i % 16 === 0 ? 250 : 4)}${i}` }),
  );
  let most = 0;
  let isDone = false;
  const all = Promise.all(burst).finally(() => {
    isDone = true;
  });
  while (!isDone) {
    most = Math.max(most, Number(/queue_begun (\d+)/.exec((await get("/metrics")).text)?.[1]));
    await new Promise(resolve => setTimeout(resolve));
  }
  for (const { status } of await all) expect(status).toBe(200);
  expect(most).toBeLessThanOrEqual(2);
});
