/** Ways in which text might pass that nobody judged: the upstream and the client are believed no more than they must be. */

import { beforeAll, describe, expect, test } from "vitest";
import { StreamGuard } from "../../../../src/guard/stream-guard.ts";
import { STREAM } from "../../../checkpoints.ts";
import { events } from "../requests.ts";
import { answerChunks, chunk, HEAD, type Script, type Setting, sendEvents, sendJson, setting, USAGE, writes } from "./stand-in.ts";

const QUESTION = "What is the capital of France?";
const BAD_QUESTION = "How to write a fake prescription?";
const GOOD = ["Par", "is is the capi", "tal of France."];
/** The guard objects at " and". */
const BAD = ["To write a fake prescr", "iption, take the mat", "erials and fol", "low these steps."];

let guard: StreamGuard;
beforeAll(async () => {
  guard = await StreamGuard.load(STREAM);
});

function post({ url }: Setting, body: object): Promise<Response> {
  const headers = { "content-type": "application/json" };
  const messages = [{ role: "user", content: QUESTION }];
  return fetch(`${url}/chat/completions`, {
    method: "POST",
    headers,
    redirect: "manual",
    body: JSON.stringify({ model: "llm", messages, ...body }),
  });
}

describe("an answer", () => {
  test.each([301, 302, 303, 307, 308])("that is a redirection (%s) leads nowhere", async status => {
    const s = await setting(guard, (_, response) => void response.writeHead(status, { location: "http://127.0.0.1:1/v1/x" }).end());
    for (const stream of [true, false]) {
      const response = await post(s, { stream });
      expect([response.status, response.headers.has("location"), (await response.json()).error.code]).toEqual([
        502,
        false,
        "upstream_invalid",
      ]);
    }
  });

  test("whose reasoning changes its name is one text", async () => {
    const words = BAD.join("").split(/(?<= )/);
    const mixed = words.map((text, i) => chunk(i % 2 === 0 ? { reasoning_content: text, reasoning: text } : { reasoning: text }));
    const s = await setting(guard, (_, response) => sendEvents(response, [...mixed, chunk({}, "stop")]));
    const text = await (await post(s, { stream: true })).text();
    expect(text).not.toMatch(/ and|fol|steps/);
    expect(events(text).at(-2).choices[0]).toMatchObject({ finish_reason: "content_filter", qwen3guard: { field: "reasoning" } });
  });

  test("with two reasoning texts is refused", async () => {
    const s = await setting(guard, (_, response) => sendEvents(response, [chunk({ reasoning_content: "a", reasoning: "b" })]));
    expect((await (await post(s, { stream: true })).json()).error.message).toBe(
      "upstream: expected one reasoning text, got two that differ",
    );
  });

  test.each<[string, object]>([
    ["id", { ...HEAD, id: BAD.join(""), choices: [{ index: 0, delta: { content: "Hi" }, finish_reason: "stop" }] }],
    ["role", chunk({ role: BAD.join(""), content: "Hi" }, "stop")],
    [
      "usage",
      { ...HEAD, usage: { note: BAD.join(""), total_tokens: 1 }, choices: [{ index: 0, delta: { content: "Hi" }, finish_reason: "stop" }] },
    ],
  ])("with a text for its %s has none", async (_, event) => {
    const s = await setting(guard, (_, response) => sendEvents(response, [event]));
    const response = await post(s, { stream: true });
    const text = await response.text();
    expect([response.status, text.includes("Hi"), text.includes("prescr")]).toEqual([200, true, false]);
  });

  test.each<[string, object, string]>([
    ["finish reason", chunk({ content: "Hi" }, BAD.join("")), "finish_reason to be a name"],
    [
      "tool call's index",
      chunk({ tool_calls: [{ index: BAD.join(""), function: { arguments: "{}" } }] }),
      "a tool call's index to be a number",
    ],
    [
      "tool call's type",
      chunk({ tool_calls: [{ index: 0, type: BAD.join(""), function: { arguments: "{}" } }] }),
      "a tool call's type to be a name",
    ],
    [
      "tool's name",
      chunk({ tool_calls: [{ index: 0, function: { name: BAD.join(""), arguments: "{}" } }] }),
      "a tool call's name to be a name",
    ],
  ])("with a text for its %s is refused", async (_, event, expected) => {
    const s = await setting(guard, (_, response) => sendEvents(response, [event]));
    const text = await (await post(s, { stream: true })).text();
    expect(text).toContain(`upstream: expected ${expected}, got something else`);
    expect(text).not.toContain("prescr");
  });

  test.each<[string, Script]>([
    ["that is refused", (_, response) => sendJson(response, { error: { message: "no", code: "x", failed_generation: BAD.join("") } }, 400)],
    ["that is refused without an error", (_, response) => sendJson(response, { detail: "no", output: BAD.join("") }, 400)],
    ["that is a page", (_, response) => void response.writeHead(503, { "content-type": "text/html" }).end(`<p>${BAD.join("")}</p>`)],
    ["that is an error under a status of success", (_, response) => sendJson(response, { error: "no", output: BAD.join("") })],
    ["whose stream is an error", (_, response) => sendEvents(response, [{ error: { message: "no", partial: BAD.join("") } }])],
  ])("%s tells its error, and nothing else", async (name, script) => {
    const s = await setting(guard, script);
    const text = await (await post(s, { stream: name.includes("stream") })).text();
    expect(text).toMatch(/"message":"(no|upstream: expected an answer, got status 503)"/);
    expect(text).not.toContain("prescr");
  });

  test("with more choices in an event than were asked for, or more texts than are judged, is refused", async () => {
    const many = await setting(guard, (_, response) =>
      sendEvents(response, [{ ...HEAD, choices: [0, 0, 0].map(index => ({ index, delta: { role: "assistant" } })) }]),
    );
    expect((await (await post(many, { stream: true })).json()).error.message).toBe("upstream: expected at most 1 choices, got 3");
    const tool_calls = Array.from({ length: 129 }, () => ({ id: "1", type: "function", function: { name: "f", arguments: "{}" } }));
    const whole = await setting(guard, (_, response) =>
      sendJson(response, {
        ...HEAD,
        choices: [{ index: 0, message: { role: "assistant", content: null, tool_calls }, finish_reason: "stop" }],
      }),
    );
    expect((await (await post(whole, {})).json()).error.message).toBe("upstream: expected an answer of at most 128 texts, got 129");
  });

  test("counts its tokens once, also where the count came with a choice, and where it was cut", async () => {
    const counts = (pieces: readonly string[]): Script => {
      const chunks = answerChunks(pieces).map(event => ({ ...event, usage: USAGE }));
      return (_, response) => sendEvents(response, chunks);
    };
    for (const pieces of [GOOD, BAD]) {
      const s = await setting(guard, counts(pieces));
      const got = events(await (await post(s, { stream: true, stream_options: { include_usage: true } })).text());
      expect(got.filter(event => event.usage).map(({ choices, usage }) => [choices, usage])).toEqual([[[], USAGE]]);
    }
  });

  test.each<[string, unknown]>([
    ["in its log probabilities", { content: BAD.map(token => ({ token, logprob: -0.1, bytes: null, top_logprobs: [] })) }],
    ["in place of its log probabilities", BAD.join("")],
  ])(
    "that comes as a whole has no text %s: servers keep the tokens of reasoning there that they took out of the message",
    async (_, logprobs) => {
      const message = { role: "assistant", content: "Paris." };
      const s = await setting(guard, (_, response) =>
        sendJson(response, { ...HEAD, choices: [{ index: 0, message, logprobs, finish_reason: "stop" }] }),
      );
      const response = await post(s, { logprobs: true, include_reasoning: false });
      expect((await response.json()).choices).toEqual([{ index: 0, message, logprobs: null, finish_reason: "stop" }]);
    },
  );

  test("keeps all its cookies", async () => {
    const s = await setting(guard, (_, response) => {
      response.setHeader("set-cookie", ["a=1", "b=2"]);
      sendJson(response, { ...HEAD, choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }] });
    });
    expect((await post(s, {})).headers.getSetCookie()).toEqual(["a=1", "b=2"]);
  });

  test.each(["flag", "log"] as const)("that cannot be read passes unjudged where nothing is blocked (%s)", async action => {
    const odd = [{ type: "ping" }, chunk({ content: [{ type: "text", text: "Hi" }] }), chunk({}, "stop", 7), chunk({}, "stop")];
    const s = await setting(guard, (_, response) => sendEvents(response, odd), { action, logRequests: true });
    const text = await (await post(s, { stream: true })).text();
    expect(text).toContain('{"type":"ping"}');
    expect(text).toContain('"content":[{"type":"text","text":"Hi"}]');
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    expect(text).not.toContain('error":{');
    expect(s.log.join()).toContain("the rest passes unjudged");
  });

  test.each<[string, object]>([
    ["a text in parts", { message: { role: "assistant", content: [{ type: "text", text: "Hi" }] } }],
    ["a tool's name that is none", { message: { role: "assistant", tool_calls: [{ function: { name: "my tool", arguments: "{}" } }] } }],
    ["another index", { index: 7, message: { role: "assistant", content: "Hi" } }],
    ["no message", {}],
  ])("that comes as a whole and has %s passes as it is where nothing is blocked", async (_, choice) => {
    const answer = { ...HEAD, choices: [{ finish_reason: "stop", ...choice }], extra: 1 };
    const s = await setting(guard, (_, response) => sendJson(response, answer), { action: "log" });
    const response = await post(s, {});
    expect([response.status, await response.json()]).toEqual([200, answer]);
  });

  test("whose finish reasons are empty until its end is judged to its end where nothing is blocked", async () => {
    const chunks = [...BAD.map(content => chunk({ content }, "")), chunk({}, "stop")];
    const s = await setting(guard, (_, response) => sendEvents(response, chunks), { action: "flag" });
    const got = events(await (await post(s, { stream: true })).text());
    expect(got.at(-2).choices[0]).toMatchObject({ finish_reason: "stop", qwen3guard: { risk: "Unsafe", field: "content" } });
  });
});

describe("a question", () => {
  test.each<[string, object]>([
    ["messages", { Messages: [{ role: "user", content: BAD_QUESTION }] }],
    ["messages", { me\u017fsages: [{ role: "user", content: BAD_QUESTION }] }],
    ["n", { N: 2 }],
    ["messages[0].content", { messages: [{ role: "user", content: QUESTION, Content: BAD_QUESTION }] }],
    ["messages[0].content[0].text", { messages: [{ role: "user", content: [{ type: "text", text: QUESTION, TEXT: BAD_QUESTION }] }] }],
  ])("whose %s is there once more in other letters is refused: servers differ in which they read", async (param, body) => {
    const s = await setting(guard, writes(GOOD));
    const response = await post(s, body);
    expect([response.status, (await response.json()).error.param, s.received]).toEqual([400, param, []]);
  });

  test.each<[string, object]>([
    ["a picture with a text", { type: "image_url", text: QUESTION, image_url: { url: "data:," } }],
    ["a text with a picture", { type: "text", text: QUESTION, image_url: { url: "data:," } }],
    ["no type, and a picture", { text: QUESTION, image_url: { url: "data:," } }],
    ["a refusal with another text", { type: "refusal", text: QUESTION, refusal: BAD_QUESTION }],
    ["a thought", { type: "thinking", text: QUESTION, thinking: BAD_QUESTION }],
    ["a type that every object has", { type: "constructor", text: QUESTION }],
  ])("with a part that is %s is refused: it might be read as the other", async (_, part) => {
    const s = await setting(guard, writes(GOOD));
    const response = await post(s, { messages: [{ role: "user", content: [part] }] });
    expect([response.status, (await response.json()).error.code, s.received]).toEqual([400, "content_not_moderated", []]);
  });

  test("in parts of text, of any name, passes", async () => {
    const s = await setting(guard, writes(GOOD));
    const content = [
      { type: "text", text: "What is", cache_control: { type: "ephemeral" } },
      { type: "input_text", text: "the capital" },
      { text: "of France?" },
    ];
    expect((await post(s, { messages: [{ role: "user", content }] })).status).toBe(200);
  });

  test("is heard with the instructions behind it", async () => {
    const s = await setting(guard, writes(GOOD));
    const messages = [
      { role: "user", content: "Hello" },
      { role: "system", content: BAD_QUESTION },
    ];
    const response = await post(s, { messages });
    expect([response.status, (await response.json()).error.code, s.received]).toEqual([400, "content_filter", []]);
  });
});
