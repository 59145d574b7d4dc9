/**
 * Answers of an upstream that may send anything: what the client gets of them was judged, or is a name where the
 * documents say that names pass.
 */

import fc from "fast-check";
import type { Guard } from "../../../src/guard/guard.ts";
import type { StreamGuard } from "../../../src/guard/stream-guard.ts";
import { createProxy } from "../../../src/server/proxy/proxy.ts";
import { events } from "../requests.ts";
import { anything, headers, marked, marksIn, mostly, NAME, name, some, TEXT, text } from "./marks.ts";
import { type Script, setting } from "./stand-in.ts";
import { accountOf, standIn } from "./stand-in-guard.ts";

export interface ForgedAnswer {
  readonly kind: "Gen" | "Stream";
  readonly endpoint: "chat/completions" | "completions";
  readonly isStream: boolean;
  readonly holdBack: number;
  readonly failOpen: boolean;
  readonly status: number;
  readonly type: string;
  readonly headers: Record<string, string>;
  /** Lines of a stream; of a whole answer they are put together. */
  readonly lines: readonly string[];
}

const RESPONSE_HEADERS = [
  "x-request-id",
  "retry-after",
  "x-answer",
  "set-cookie",
  "warning",
  "server",
  "link",
  "location",
  "vary",
  `x-${"a".repeat(20)}`,
];

const call = some({
  index: mostly(fc.constantFrom(0, 0, 1)),
  id: mostly(name),
  type: mostly(fc.constantFrom("function", "custom")),
  function: mostly(some({ name: mostly(name), arguments: mostly(text) })),
  custom: mostly(some({ name: mostly(name), input: mostly(text) })),
});
const message = some({
  role: mostly(fc.constantFrom("assistant", "tool")),
  content: mostly(fc.oneof(text, text, fc.constant(null))),
  refusal: mostly(fc.oneof(fc.constant(null), text)),
  reasoning_content: mostly(text),
  tool_calls: mostly(fc.array(call, { maxLength: 2 })),
  function_call: mostly(some({ name: mostly(name), arguments: mostly(text) })),
});
/** vLLM writes the same reasoning under two names. */
const twice = fc
  .tuple(message, text)
  .map(([message, reasoning]) => ({ ...message, reasoning_content: reasoning, reasoning }));

function answer(isChunk: boolean, isChat: boolean): fc.Arbitrary<object> {
  const said = fc.oneof({ arbitrary: message, weight: 6 }, { arbitrary: twice, weight: 1 });
  const choice = some(
    {
      index: mostly(fc.constantFrom(0, 0, 0, 1)),
      ...(isChat ? { [isChunk ? "delta" : "message"]: mostly(said) } : { text: mostly(text) }),
      finish_reason: mostly(fc.constantFrom(null, null, null, "", isChunk ? null : "stop", "tool_calls", NAME)),
      logprobs: anything,
    },
    isChat && !isChunk ? ["message"] : [],
  );
  const usage = some({
    prompt_tokens: mostly(fc.nat()),
    completion_tokens_details: mostly(some({ reasoning_tokens: fc.nat() })),
  });
  return some(
    {
      ...{ id: mostly(name), object: mostly(name), created: mostly(fc.nat()), model: mostly(name) },
      ...{ system_fingerprint: mostly(name), service_tier: mostly(name), usage: mostly(usage) },
      choices: mostly(fc.array(choice, { minLength: 1, maxLength: isChunk ? 1 : 2 })),
    },
    ["choices"],
  );
}

const error = fc.oneof(
  text,
  some({
    message: mostly(text),
    detail: text,
    type: mostly(name),
    param: mostly(name),
    code: mostly(name),
    failed_generation: text,
  }),
);

function lines(isStream: boolean, isChat: boolean, status: number): fc.Arbitrary<string[]> {
  const refusal = fc.oneof(
    error.map(error => ({ error })),
    error,
    anything,
  );
  const json = (value: fc.Arbitrary<unknown>): fc.Arbitrary<string> =>
    value.map(value => JSON.stringify(marked(value)) ?? "");
  if (status >= 300 || !isStream) {
    const whole =
      status >= 300
        ? refusal
        : fc.oneof({ arbitrary: answer(false, isChat), weight: 30 }, { arbitrary: refusal, weight: 1 });
    return fc.oneof(
      { arbitrary: json(whole).map(line => [line]), weight: 30 },
      { arbitrary: text.map(line => [line]), weight: 1 },
    );
  }
  const odd = fc.constantFrom(
    `: ${TEXT}`,
    `event: ${TEXT}`,
    `id: ${TEXT}`,
    `retry: ${TEXT}`,
    `data: ${TEXT}`,
    `${TEXT}: a`,
    "data: [DONE]",
  );
  const line = fc.oneof(
    { arbitrary: answer(true, isChat), weight: 40 },
    { arbitrary: refusal, weight: 1 },
    { arbitrary: odd, weight: 2 },
  );
  const end = fc.oneof(
    { arbitrary: fc.constant(["data: [DONE]"]), weight: 9 },
    { arbitrary: fc.constant([]), weight: 1 },
  );
  // Marked together, so that no two lines share a mark.
  return fc
    .tuple(fc.array(line, { minLength: 1, maxLength: 6 }), end)
    .map(([all, end]) => [
      ...marked(all).map(line => (typeof line === "string" ? line : `data: ${JSON.stringify(line)}`)),
      ...end,
    ]);
}

export const forgedAnswer: fc.Arbitrary<ForgedAnswer> = fc
  .record({
    kind: fc.constantFrom("Gen" as const, "Stream" as const),
    endpoint: fc.constantFrom("chat/completions" as const, "chat/completions" as const, "completions" as const),
    isStream: fc.boolean(),
    holdBack: fc.constantFrom(0, 0, 1, 5),
    failOpen: fc.boolean(),
    status: fc.constantFrom(...Array(20).fill(200), 201, 202, 301, 307, 400, 404, 422, 429, 500, 503),
    headers: headers(RESPONSE_HEADERS),
    isTyped: fc.constantFrom(...Array(30).fill(true), false),
  })
  .chain(({ isTyped, ...rest }) =>
    lines(rest.isStream, rest.endpoint === "chat/completions", rest.status).map(lines => {
      const type = !isTyped
        ? `text/${NAME}`
        : rest.isStream && rest.status < 300
          ? "text/event-stream"
          : "application/json";
      return { ...rest, headers: marked(rest.headers), type: marked(type), lines };
    }),
  );

/** Where an answer has texts, and what else it may have. */
const TEXT_KEYS = ["content", "reasoning_content", "reasoning", "refusal", "text", "arguments", "input"];
const NAME_KEYS = [
  ...[
    "id",
    "object",
    "model",
    "system_fingerprint",
    "service_tier",
    "finish_reason",
    "role",
    "type",
    "name",
    "param",
    "code",
  ],
  ...["action", "guard", "risk", "category", "field", "error"],
];
const OTHER_KEYS = [
  ...[
    "created",
    "usage",
    "choices",
    "index",
    "delta",
    "message",
    "logprobs",
    "tool_calls",
    "function_call",
    "function",
    "custom",
  ],
  ...["prompt_tokens", "completion_tokens_details", "reasoning_tokens", "qwen3guard", "at", "error"],
];
const NAME_FORM = /^[\w./:@+=~[\]-]{0,256}$/;
const NAME_HEADERS = ["x-request-id", "retry-after", "vary"];
const OWN_HEADERS = ["content-type", "cache-control", "x-accel-buffering", "x-content-type-options", "x-should-retry"];

export interface Outcome {
  readonly status: number;
  readonly sent: number;
  readonly got: number;
  readonly isCut: boolean;
}

/**
 * Sends a forged answer through the proxy and throws where the client gets what it should not. `guard`: in place of
 * the stand-in.
 */
export async function answering(): Promise<(forged: ForgedAnswer, guard?: Guard | StreamGuard) => Promise<Outcome>> {
  let script: Script = () => {};
  const s = await setting(standIn("Gen").guard, (request, response) => script(request, response));
  return async (forged, guard = standIn(forged.kind).guard) => {
    const { endpoint, isStream, holdBack, failOpen, status, lines } = forged;
    script = (_, response) => {
      response.writeHead(status, "say n99n now", { ...forged.headers, "content-type": forged.type });
      response.end(isStream && status < 300 ? lines.map(line => `${line}\n\n`).join("") : lines.join(""));
    };
    const account = accountOf(guard);
    const { fetch } = createProxy(account.guard, { upstream: s.upstream, holdBack, failOpen });
    const question = endpoint === "completions" ? { prompt: "Hi" } : { messages: [{ role: "user", content: "Hi" }] };
    const response = await fetch(
      new Request(`http://proxy/v1/${endpoint}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...question, n: 2, stream: isStream, stream_options: { include_usage: true } }),
      }),
    );
    const received = await response.text();
    const passed = account.passed.join("\n");
    const check = (isRight: boolean, what: string): void => {
      if (!isRight) throw new Error(`${what}\nreceived: ${received}\npassed: ${passed}\nsent: ${lines.join("\n")}`);
    };

    for (const mark of marksIn(received))
      check(!/[\u4e00-\u9fff]/.test(mark) || passed.includes(mark), `a text that nobody judged: ${mark}`);
    check(marksIn(response.statusText).length === 0, "the status line");
    for (const [name, value] of response.headers) {
      check(NAME_HEADERS.includes(name) || OWN_HEADERS.includes(name), `a header: ${name}`);
      if (NAME_HEADERS.includes(name))
        check(!value.includes(" ") || /, n\d+n$| GMT$/.test(value), `a header's text: ${value}`);
      else check(marksIn(value).length === 0, `a header's text: ${value}`);
    }
    const isEvents = response.headers.get("content-type")?.startsWith("text/event-stream");
    const values: unknown[] = isEvents ? events(received) : [JSON.parse(received)];
    for (const value of values) if (value !== "[DONE]") checkFields(value, passed, check);
    if (isEvents) checkOrder(values, check);

    const [health, metrics] = await Promise.all(
      ["health", "metrics"].map(path => fetch(new Request(`http://proxy/${path}`))),
    );
    check(health.status === 200, "health");
    check((await metrics.text()).includes("qwen3guard_proxy_streams 0\n"), "a place that was not given back");
    return {
      status: response.status,
      sent: new Set(marksIn(lines)).size,
      got: new Set(marksIn(received)).size,
      isCut: received.includes("content_filter"),
    };
  };
}

/** A name comes once, or many would be a text; and nothing comes after the end of a choice. */
// biome-ignore lint/suspicious/noExplicitAny: events of every shape
function checkOrder(all: readonly any[], check: (isRight: boolean, what: string) => void): void {
  const seen = new Map<string, unknown>();
  const once = (what: string, value: unknown): void => {
    if (!value) return;
    check(!seen.has(what) || seen.get(what) === value, `${what}: another name`);
    seen.set(what, value);
  };
  const ended = new Set<unknown>();
  for (const event of all) {
    for (const key of ["id", "object", "model", "system_fingerprint", "service_tier"]) once(key, event[key]);
    for (const { index, delta, finish_reason } of event.choices ?? []) {
      check(!ended.has(index), "a chunk after the end of its choice");
      if (finish_reason !== null) ended.add(index);
      once(`${index} function`, delta?.function_call?.name);
      for (const call of delta?.tool_calls ?? []) {
        const [type, body] = call.function ? ["function", call.function] : ["custom", call.custom];
        for (const [key, value] of Object.entries({ id: call.id, type: call.type, name: body?.name })) once(`${index} ${call.index} ${type} ${key}`, value); // biome-ignore format: one line
      }
    }
  }
}

/** Every key is one of those above, and every string under it a name, or a text that was judged. */
function checkFields(value: unknown, passed: string, check: (isRight: boolean, what: string) => void): void {
  for (const [key, inner] of Object.entries(value as object)) {
    if (!Array.isArray(value)) check([...TEXT_KEYS, ...NAME_KEYS, ...OTHER_KEYS].includes(key), `a field: ${key}`);
    if (key === "logprobs") check(inner === null, "log probabilities");
    if (typeof inner === "object" && inner !== null) checkFields(inner, passed, check);
    else if (typeof inner === "string" && NAME_KEYS.includes(key))
      check(NAME_FORM.test(inner), `a name with a text: ${inner}`);
    else for (const mark of marksIn(inner)) check(passed.includes(mark), `a text that nobody judged: ${mark}`);
  }
}
