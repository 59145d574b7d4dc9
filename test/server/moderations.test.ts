/** /v1/moderations: the guard's verdict in OpenAI's form. */

import { describe, expect, test } from "vitest";
import type { Verdict } from "../../src/guard/verdict.ts";
import { client, guard } from "./requests.ts";

const { post } = client({ modelNames: ["my-guard"] });
const BOMB = "How can I make a bomb?";
const CATS = "Tell me a joke about cats.";

function expectVerdict(result: Record<string, unknown>, verdict: Verdict): void {
  const { safety, refusal, flagged, score, scores, refusalScore, text } = verdict;
  expect(result).toMatchObject({ safety, refusal, flagged, score, scores, refusal_score: refusalScore, text });
  const named = Object.entries(result.categories as Record<string, boolean>).flatMap(([name, is]) =>
    is ? [name] : [],
  );
  expect(named).toEqual(verdict.categories);
  for (const [name, score] of Object.entries(result.category_scores as Record<string, number | null>)) {
    expect(score).toBe(verdict.categoryScores?.[name] ?? null);
  }
}

test("a text has one result, whose numbers are the library's to the bit", async () => {
  const { status, json } = await post("/v1/moderations", { input: BOMB, model: "my-guard" });
  expect(status).toBe(200);
  expect(json).toMatchObject({
    id: expect.stringMatching(/^modr-[0-9a-f]{24}$/),
    model: "my-guard",
    results: [{ mode: "strict" }],
  });
  const verdict = await guard.moderate(BOMB);
  expectVerdict(json.results[0], verdict);
  expect(json.results[0].category_applied_input_types.Violent).toEqual(["text"]);
  expect(json.usage).toMatchObject({
    prompt_tokens: verdict.usage.promptTokens,
    completion_tokens: 8,
    total_tokens: 276,
  });
});

test("an array has one result for each text, in order; parts are one text", async () => {
  const { json } = await post("/v1/moderations", { input: [BOMB, CATS, ""] });
  expect(json.results).toHaveLength(3);
  for (const [i, text] of [BOMB, CATS, ""].entries()) expectVerdict(json.results[i], await guard.moderate(text));
  const parts = await post("/v1/moderations", {
    input: [
      { type: "text", text: "How can I" },
      { type: "text", text: "make a bomb?" },
    ],
  });
  expect(parts.json.results).toHaveLength(1);
  expectVerdict(parts.json.results[0], await guard.moderate("How can I\nmake a bomb?"));
});

test("a conversation is judged by its last message, with a response's categories", async () => {
  const messages = [
    { role: "user", content: BOMB },
    { role: "assistant", content: [{ type: "text", text: "I cannot help with that." }] },
  ];
  const { json } = await post("/v1/moderations", { messages });
  expectVerdict(json.results[0], await guard.moderate({ prompt: BOMB, response: "I cannot help with that." }));
  expect(json.results[0].refusal).toBe("Yes");
  expect(Object.keys(json.results[0].categories)).not.toContain("Jailbreak");
});

test("mode and threshold decide what is flagged", async () => {
  const text = "Is it okay to lie to my parents about my grades?";
  for (const options of [{ mode: "loose" }, { mode: "strict" }, { threshold: 0 }, { threshold: 1 }] as const) {
    const { json } = await post("/v1/moderations", { input: text, ...options });
    expect(json.results[0].flagged).toBe((await guard.moderate(text, options)).flagged);
    expect(json.results[0]).toMatchObject(options);
  }
});

test("a text beyond the context is judged in windows, as the library does", async () => {
  const text = `${"word ".repeat(1850)} ${BOMB}`;
  const { json } = await post("/v1/moderations", { input: text });
  const verdict = await guard.moderate(text);
  expectVerdict(json.results[0], verdict);
  expect(json.results[0].window).toEqual(verdict.window);
});

describe("refused, by name", () => {
  test.each([
    [{}, 400, "input", "input: expected a string, an array of strings or an array of text parts, got nothing"],
    [
      { input: null },
      400,
      "input",
      "input: expected a string, an array of strings or an array of text parts, got nothing",
    ],
    [{ input: 5 }, 400, "input", "input: expected an array, got 5"],
    [{ input: [] }, 400, "input", "input: expected at least one entry, got none"],
    [{ input: ["a", 5] }, 400, "input[1]", "input[1]: expected a string, got 5"],
    [{ input: [5] }, 400, "input[0]", "input[0]: expected a string, got 5"],
    [{ input: Array(1025).fill("a") }, 400, "input", "input: expected at most 1024 entries, got 1025"],
    [{ input: [{ type: "text" }] }, 400, "input[0].text", "input[0].text: expected a string, got nothing"],
    [{ input: [{}] }, 400, "input[0].type", 'input[0].type: expected "text", got nothing'],
    [
      { input: [{ type: "image_url", image_url: { url: "data:" } }] },
      422,
      "input[0].type",
      'input[0].type: not supported (a guard reads only text, got "image_url")',
    ],
    [{ input: "a", model: "gpt-4" }, 404, "model", 'model: expected my-guard or tiny-guard-gen, got "gpt-4"'],
    [{ input: "a", model: 5 }, 400, "model", "model: expected a string, got 5"],
    [{ input: "a", mode: "lax" }, 400, "mode", 'mode: expected strict or loose, got "lax"'],
    [{ input: "a", threshold: 2 }, 400, "threshold", "threshold: expected a number from 0 to 1, got 2"],
    [
      { input: "a", mode: "loose", threshold: 0.5 },
      400,
      "threshold",
      "threshold: expected mode or threshold, got both",
    ],
    [{ input: "a", inputs: "b" }, 400, "inputs", '"inputs": expected a known field, got none of that name'],
    [{ input: "a", messages: [] }, 400, "messages", "messages: expected input or messages, got both"],
    [{ messages: [] }, 400, "messages", "messages: expected at least one entry, got none"],
    [{ messages: "a" }, 400, "messages", 'messages: expected an array, got "a"'],
    [{ messages: [5] }, 400, "messages[0]", "messages[0]: expected an object, got 5"],
    [{ messages: [{ content: "a" }] }, 400, "messages[0].role", "messages[0].role: expected a string, got nothing"],
    [
      { messages: [{ role: "system", content: "a" }] },
      400,
      "messages",
      'conversation: expected the last message, the one to judge, to be of role "user" or "assistant", got "system"',
    ],
    [
      { messages: [{ role: "x", content: "a" }] },
      400,
      "messages",
      'messages[0].role: expected system, user, assistant, tool, got "x"',
    ],
  ])("%j", async (body, status, param, message) => {
    const answer = await post("/v1/moderations", body);
    expect([answer.status, answer.json.error.param, answer.json.error.message]).toEqual([status, param, message]);
  });

  test("a conversation that leaves no room for its last message, with both numbers", async () => {
    const messages = [
      { role: "user", content: "word ".repeat(2500) },
      { role: "assistant", content: "Yes." },
    ];
    const { status, json } = await post("/v1/moderations", { messages });
    expect([status, json.error.code, json.error.param]).toEqual([400, "context_length_exceeded", "messages"]);
  });
});
