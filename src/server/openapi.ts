/** The description at `/openapi.json`: OpenAPI 3.1, written by hand. A test compares it with the route table. */

type Json = Readonly<Record<string, unknown>>;

const ref = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });
const object = (properties: Json, required: readonly string[] = []): Json => ({ type: "object", properties, required });
const array = (items: Json): Json => ({ type: "array", items });
const string: Json = { type: "string" };
const number: Json = { type: "number" };
const integer: Json = { type: "integer" };
const boolean: Json = { type: "boolean" };
const orNull = (schema: Json): Json => ({ anyOf: [schema, { type: "null" }] });
const scores: Json = { type: "object", additionalProperties: number };

const json = (schema: Json, description: string): Json => ({
  description,
  content: { "application/json": { schema } },
});
const failures = (...statuses: readonly number[]): Json =>
  Object.fromEntries(statuses.map(status => [status, json(ref("Error"), FAILURES[status])]));
const FAILURES: Readonly<Record<number, string>> = {
  400: "A field has the wrong type or value, or is unknown",
  401: "The key is missing or wrong",
  404: "There is no such model",
  413: "The body is larger than the limit",
  415: "The body is not application/json in UTF-8",
  422: "A field cannot be honoured",
  503: "The queue is full, or the server is shutting down: Retry-After says when to come back",
  504: "The time limit was reached",
};
const WORK_FAILURES = failures(400, 401, 404, 413, 415, 422, 503, 504);

const post = (summary: string, request: string, answer: Json): Json => ({
  post: {
    summary,
    requestBody: { required: true, content: { "application/json": { schema: ref(request) } } },
    responses: { 200: answer, ...WORK_FAILURES },
  },
});
const get = (summary: string, responses: Json, more: Json = {}): Json => ({ get: { summary, responses, ...more } });

const textPart = object({ type: { enum: ["text"] }, text: string }, ["type", "text"]);
const content: Json = { anyOf: [string, array(textPart)] };
const sampling: Json = {
  model: string,
  temperature: { ...number, minimum: 0, maximum: 2, default: 0, description: "0: greedy" },
  top_p: { ...number, minimum: 0, maximum: 1, default: 1 },
  top_k: { ...integer, minimum: -1, description: "0 or -1: all" },
  seed: { ...integer, description: "Random by default" },
  stop: { anyOf: [string, { ...array(string), maxItems: 16 }] },
  stream: { ...boolean, default: false },
  stream_options: object({ include_usage: boolean }),
  n: { const: 1 },
};
const completion: Json = { id: string, object: string, created: integer, model: string, usage: ref("Usage") };
const finishReason: Json = { enum: ["stop", "length"] };

const SCHEMAS: Json = {
  Error: object({ error: object({ message: string, type: string, param: orNull(string), code: orNull(string) }) }),
  Message: object({ role: { enum: ["system", "user", "assistant"] }, content }, ["role", "content"]),
  ChatRequest: object(
    {
      messages: array(ref("Message")),
      max_completion_tokens: { ...integer, minimum: 1, default: 128 },
      max_tokens: { ...integer, minimum: 1, default: 128 },
      logprobs: boolean,
      top_logprobs: { ...integer, minimum: 0, maximum: 20 },
      ...sampling,
    },
    ["messages"],
  ),
  ChatAnswer: object({
    ...completion,
    choices: array(
      object({
        index: integer,
        message: object({ role: string, content: string, refusal: { type: "null" } }),
        logprobs: orNull(object({ content: array({ type: "object" }) })),
        finish_reason: finishReason,
      }),
    ),
  }),
  CompletionRequest: object(
    {
      prompt: { anyOf: [string, array(integer)], description: "Control tokens in it are recognised" },
      max_tokens: { ...integer, minimum: 1, default: 16 },
      logprobs: { ...integer, minimum: 0, maximum: 20 },
      ...sampling,
    },
    ["prompt"],
  ),
  CompletionAnswer: object({
    ...completion,
    choices: array(
      object({ index: integer, text: string, logprobs: orNull({ type: "object" }), finish_reason: finishReason }),
    ),
  }),
  ModerationRequest: object({
    model: string,
    input: {
      anyOf: [string, { ...array(string), maxItems: 1024 }, array(textPart)],
      description: "A text, several texts, or one text in parts",
    },
    messages: { ...array(ref("Message")), description: "Instead of input: the last message is judged" },
    mode: { enum: ["strict", "loose"], default: "strict" },
    threshold: { ...number, minimum: 0, maximum: 1, description: "Instead of mode: flagged from this score on" },
  }),
  ModerationAnswer: object({
    id: string,
    model: string,
    results: array(
      object({
        flagged: boolean,
        categories: { type: "object", additionalProperties: boolean },
        category_scores: { type: "object", additionalProperties: orNull(number) },
        category_applied_input_types: { type: "object", additionalProperties: array(string) },
        safety: orNull({ enum: ["Safe", "Unsafe", "Controversial"] }),
        refusal: orNull({ enum: ["Yes", "No"] }),
        score: orNull({ ...number, description: "1 - P(Safe)" }),
        scores: orNull(scores),
        refusal_score: orNull(number),
        mode: string,
        threshold: number,
        text: { ...string, description: "The model's answer, word for word" },
        window: object({ index: integer, count: integer, start: integer, end: integer }),
        error: { enum: ["unparsed"] },
      }),
    ),
    usage: ref("Usage"),
  }),
  Usage: object({
    prompt_tokens: integer,
    completion_tokens: integer,
    total_tokens: integer,
    prompt_tokens_details: object({ cached_tokens: integer }),
  }),
  Model: object({ id: string, object: { const: "model" }, created: integer, owned_by: string }),
};

export function openApi(model: string): Json {
  return {
    openapi: "3.1.0",
    info: {
      title: "qwen3guard",
      version: "1",
      description: `OpenAI's endpoints for the guard model ${model}`,
      license: { name: "Apache-2.0" },
    },
    security: [{}, { key: [] }],
    paths: {
      "/v1/moderations": post(
        "Verdicts on texts or on a conversation",
        "ModerationRequest",
        json(ref("ModerationAnswer"), "One result for each text"),
      ),
      "/v1/chat/completions": post("The guard's answer to a conversation", "ChatRequest", {
        description: "The answer; with stream, events that end with [DONE]",
        content: { "application/json": { schema: ref("ChatAnswer") }, "text/event-stream": { schema: string } },
      }),
      "/v1/completions": post("What the model writes after a raw prompt", "CompletionRequest", {
        description: "The text; with stream, events that end with [DONE]",
        content: { "application/json": { schema: ref("CompletionAnswer") }, "text/event-stream": { schema: string } },
      }),
      "/v1/models": get("The names of the model", {
        200: json(object({ object: string, data: array(ref("Model")) }), "The names that requests may use"),
        ...failures(401),
      }),
      "/v1/models/{id}": get(
        "The model",
        { 200: json(ref("Model"), "The model"), ...failures(401, 404) },
        { parameters: [{ name: "id", in: "path", required: true, schema: string }] },
      ),
      "/health": get("Whether the server takes requests", {
        200: json(object({ status: string, model: string }), "It takes requests"),
        503: json(object({ status: string, model: string }), "It is shutting down, or its engine has ended"),
      }),
      "/metrics": get("Prometheus metrics", {
        200: { description: "Text format 0.0.4", content: { "text/plain": { schema: string } } },
        ...failures(401),
      }),
      "/openapi.json": get("This description", { 200: json({ type: "object" }, "OpenAPI 3.1") }),
      "/": get("A page to try it", { 200: { description: "HTML", content: { "text/html": { schema: string } } } }),
    },
    components: { schemas: SCHEMAS, securitySchemes: { key: { type: "http", scheme: "bearer" } } },
  };
}
