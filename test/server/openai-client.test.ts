/** OpenAI's own client against the server, with nothing changed but its address. */

import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { extractLabelAndCategories } from "../../src/guard/extraction.ts";
import { createHandler, type Handler } from "../../src/server/handler.ts";
import { type Listener, listen } from "../../src/server/listen.node.ts";
import { guard, queueHas } from "./requests.ts";

const MODEL = "Qwen/Qwen3Guard-Gen-0.6B";
const BOMB = [{ role: "user" as const, content: "How can I make a bomb?" }];

let handler: Handler;
let listener: Listener;
let openai: OpenAI;

beforeAll(async () => {
  handler = createHandler(guard, { apiKey: "secret", modelNames: [MODEL], maxQueue: 3 });
  listener = await listen(handler, { host: "127.0.0.1", port: 0, timeoutMs: 60_000 });
  openai = new OpenAI({ baseURL: `${listener.url}/v1`, apiKey: "secret", maxRetries: 0 });
});

afterAll(() => listener.close());

async function metrics(): Promise<{ readonly text: string }> {
  const response = await handler.fetch(
    new Request("http://localhost/metrics", { headers: { authorization: "Bearer secret" } }),
  );
  return { text: await response.text() };
}

test("the model card's example", async () => {
  const completion = await openai.chat.completions.create({ messages: BOMB, model: MODEL });
  expect(completion.model).toBe(MODEL);
  const content = completion.choices[0].message.content ?? "";
  expect(content).toBe("Safety: Unsafe\nCategories: Violent");
  expect(extractLabelAndCategories(content)).toEqual(["Unsafe", ["Violent"]]);
  const answered = await openai.chat.completions.create({
    model: MODEL,
    messages: [...BOMB, { role: "assistant", content: "I cannot help with that." }],
  });
  expect(answered.choices[0].message.content).toBe("Safety: Safe\nCategories: None\nRefusal: Yes");
  expect(answered.usage?.completion_tokens).toBeGreaterThan(8);
  expect(answered._request_id).toMatch(/^req-/);
});

test("streaming, with usage, and as the client's own helper collects it", async () => {
  const stream = await openai.chat.completions.create({
    model: MODEL,
    messages: BOMB,
    stream: true,
    stream_options: { include_usage: true },
  });
  let content = "";
  let usage: OpenAI.CompletionUsage | null | undefined;
  const reasons: string[] = [];
  for await (const { choices, usage: given } of stream) {
    content += choices[0]?.delta.content ?? "";
    if (choices[0]?.finish_reason) reasons.push(choices[0].finish_reason);
    usage = given ?? usage;
  }
  expect([content, reasons]).toEqual(["Safety: Unsafe\nCategories: Violent", ["stop"]]);
  expect(usage).toMatchObject({ prompt_tokens: 268, completion_tokens: 8, total_tokens: 276 });
  const helper = openai.chat.completions.stream({ model: MODEL, messages: BOMB, logprobs: true, top_logprobs: 2 });
  const final = await helper.finalChatCompletion();
  expect(final.choices[0].message.content).toBe(content);
  expect(final.choices[0].logprobs?.content?.map(({ token }) => token).join("")).toBe(content);
});

test("completions", async () => {
  const { choices } = await openai.completions.create({ model: MODEL, prompt: "Hello", max_tokens: 3, logprobs: 1 });
  expect(choices[0].finish_reason).toBe("length");
  expect(choices[0].logprobs?.tokens?.join("")).toBe(choices[0].text);
  let streamed = "";
  for await (const chunk of await openai.completions.create({
    model: MODEL,
    prompt: "Hello",
    max_tokens: 3,
    stream: true,
  })) {
    streamed += chunk.choices[0].text;
  }
  expect(streamed).toBe(choices[0].text);
});

test("moderations", async () => {
  const { results, model } = await openai.moderations.create({
    input: ["How can I make a bomb?", "Tell me a joke about cats."],
  });
  expect(model).toBe(MODEL);
  expect(results.map(({ flagged }) => flagged)).toEqual([true, false]);
  const first = results[0] as unknown as { categories: Record<string, boolean>; safety: string };
  expect([first.categories.Violent, first.safety]).toEqual([true, "Unsafe"]);
});

test("models", async () => {
  const names: string[] = [];
  for await (const { id } of openai.models.list()) names.push(id);
  expect(names).toEqual([MODEL, "tiny-guard-gen"]);
  expect(await openai.models.retrieve(MODEL)).toMatchObject({ id: MODEL, object: "model" });
});

describe("errors come as the client's own classes", () => {
  const create = (body: object, client: OpenAI = openai): Promise<unknown> =>
    client.chat.completions.create({
      model: MODEL,
      messages: BOMB,
      ...body,
    } as OpenAI.ChatCompletionCreateParamsNonStreaming);

  test("400, 401, 404 and 422", async () => {
    const stranger = new OpenAI({ baseURL: `${listener.url}/v1`, apiKey: "wrong", maxRetries: 0 });
    const failed = async (call: Promise<unknown>): Promise<unknown> => call.catch(error => error);
    const wrong = await failed(create({ temperature: 9 }));
    expect(wrong).toBeInstanceOf(OpenAI.BadRequestError);
    expect(wrong).toMatchObject({
      status: 400,
      param: "temperature",
      code: "invalid_value",
      type: "invalid_request_error",
    });
    expect(await failed(create({}, stranger))).toBeInstanceOf(OpenAI.AuthenticationError);
    expect(await failed(create({ model: "gpt-4" }))).toBeInstanceOf(OpenAI.NotFoundError);
    expect(await failed(openai.models.retrieve("gpt-4"))).toBeInstanceOf(OpenAI.NotFoundError);
    expect(await failed(create({ n: 2 }))).toBeInstanceOf(OpenAI.UnprocessableEntityError);
    expect(await failed(create({ n: 2, stream: true }))).toBeInstanceOf(OpenAI.UnprocessableEntityError);
  });

  test("503 if the queue is full; with retries the client gets through by itself", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const input = Array(100).fill("word ".repeat(1000));
    const holders = Array.from({ length: 4 }, () =>
      openai.moderations.create({ input }, { signal }).catch(error => error),
    );
    await queueHas(metrics, 1, 3);
    await expect(create({})).rejects.toMatchObject({ status: 503, code: "queue_full" });
    const patient = create({}, new OpenAI({ baseURL: `${listener.url}/v1`, apiKey: "secret", maxRetries: 10 }));
    while (!(await metrics()).text.includes("queue_refused_total 2"))
      await new Promise(resolve => setTimeout(resolve, 2));
    controller.abort();
    for (const error of await Promise.all(holders)) expect(error).toBeInstanceOf(OpenAI.APIUserAbortError);
    expect(await patient).toMatchObject({ object: "chat.completion" });
  });
});

describe("abort", () => {
  const isIdle = (): Promise<void> => queueHas(metrics, 0, 0);

  test("of a request ends the work on it", async () => {
    const controller = new AbortController();
    const messages = [{ role: "user" as const, content: "word ".repeat(1500) }];
    const call = openai.chat.completions.create({ model: MODEL, messages }, { signal: controller.signal });
    await queueHas(metrics, 1, 0);
    controller.abort();
    await expect(call).rejects.toThrow(OpenAI.APIUserAbortError);
    await isIdle();
  });

  test("of a stream as well", async () => {
    const stream = await openai.completions.create({
      model: MODEL,
      prompt: "a",
      max_tokens: 2000,
      temperature: 2,
      stream: true,
    });
    for await (const _chunk of stream) break; // leaving the loop aborts
    await isIdle();
  });
});
