/**
 * Requests of a client that may send anything: what the upstream gets of them was judged as a question, or heard as
 * its context, or stands where the documents say that it is not judged.
 */

import fc from "fast-check";
import type { Guard } from "../../../src/guard/guard.ts";
import type { StreamGuard } from "../../../src/guard/stream-guard.ts";
import { createProxy } from "../../../src/server/proxy/proxy.ts";
import { anything, headers, marked, marksIn, mostly, NAME, name, some, TEXT, text } from "./marks.ts";
import { type Received, sendJson, setting } from "./stand-in.ts";
import { accountOf, standIn } from "./stand-in-guard.ts";

export interface ForgedRequest {
  readonly kind: "Gen" | "Stream";
  readonly failOpen: boolean;
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: string;
}

const CHAT = "/v1/chat/completions";
const COMPLETIONS = "/v1/completions";
/** docs/PROXY.md: what passes unjudged, and by which method. */
const DOCUMENTED = [
  /^(GET|HEAD|OPTIONS) \/v1\/models(\/[^/?]+)*$/,
  /^(POST|OPTIONS) \/v1\/(embeddings|moderations|rerank|score)$/,
  /^(GET|HEAD|POST|OPTIONS) \/v1\/files$/,
  /^(GET|HEAD|DELETE|OPTIONS) \/v1\/files\/[^/?]+$/,
  /^(GET|HEAD|OPTIONS) \/v1\/files\/[^/?]+\/content$/,
  /^(POST|OPTIONS) \/v1\/(images\/(generations|edits|variations)|audio\/(speech|transcriptions|translations))$/,
];

const REQUEST_HEADERS = [
  "x-custom",
  "authorization",
  "cookie",
  "traceparent",
  "x-http-method-override",
  "x-original-url",
  "x-rewrite-url",
];
const NOT_FORWARDED = ["x-http-method-override", "x-original-url", "x-rewrite-url"];

const part = some({
  type: mostly(fc.constantFrom("text", "text", "text", "input_text", "output_text", "refusal", "image_url", null)),
  text: mostly(text),
  cache_control: anything,
});
const plainPart = fc.record({ type: fc.constantFrom("text", "input_text"), text });
const content = fc.oneof(
  { arbitrary: text, weight: 6 },
  { arbitrary: fc.constant(null), weight: 1 },
  { arbitrary: fc.array(plainPart, { maxLength: 3 }), weight: 3 },
  { arbitrary: fc.array(part, { maxLength: 2 }), weight: 1 },
);
const roles = [
  "user",
  "user",
  "user",
  "assistant",
  "system",
  "developer",
  "tool",
  "function",
  "human",
  "User",
  null,
  NAME,
];
const message = some({ role: mostly(fc.constantFrom(...roles)), content: mostly(content), name, tool_calls: anything });
const asked = {
  model: name,
  stream: mostly(fc.boolean()),
  n: mostly(fc.constantFrom(1, 1, 2)),
  stream_options: mostly(some({ include_usage: fc.boolean() })),
};
/** In few requests, since they are refused. */
const other = fc.oneof({ arbitrary: fc.constant(null), weight: 12 }, { arbitrary: text, weight: 1 });
const loose = {
  documents: other,
  chat_template: other,
  tools: anything,
  response_format: anything,
  user: name,
  metadata: anything,
};
const chat = some(
  { ...asked, ...loose, prompt: other, messages: mostly(fc.array(message, { minLength: 1, maxLength: 5 })) },
  ["messages"],
);
const prompt = fc.oneof(text, fc.array(text, { maxLength: 3 }), fc.constant([1, 2]), anything);
const completion = some({ ...asked, messages: other, prompt: mostly(prompt), suffix: mostly(text) });

const names = fc.constantFrom(
  ...[
    "v1",
    "v2",
    "chat",
    "completions",
    "Completions",
    "responses",
    "messages",
    "models",
    "files",
    "embeddings",
    "sonar",
    "content",
  ],
  ...[
    "..",
    ".",
    "",
    "%2e%2e",
    "%2E%2e%2f",
    "a%2Fb",
    "x:generateContent",
    "completions;x",
    "%63ompletions",
    "completions.",
    "%E2%84%AA",
    NAME,
  ],
);
const random = fc.array(names, { minLength: 1, maxLength: 5 }).map(all => `/v1/${all.join("/")}`);
const SPELLINGS: readonly ((path: string) => string)[] = [
  path => path.toUpperCase(),
  path => `${path}/`,
  path => `${path}.`,
  path => `${path};${NAME}`,
  path => `${path}%20`,
  path => `${path}%00`,
  path => `${path}%3F${NAME}`,
  path => path.replace("c", "%63"),
  path => path.replace("o", "%256f"),
  path => path.replaceAll("/", "//"),
  path => path.replaceAll("/", "\\"),
  path => path.replace("/v1/", "/v1/models/../"),
  path => path.replace("/v1/", "/v1/models/%2e%2e/"),
  path => path.replace("/v1/", "/v1/models/..%2f"),
  path => path.replace("s", "\u017f"),
];
const open = ["models", `models/${NAME}`, "models/a%2Fb", "embeddings", "files", `files/${NAME}`, "files/a/content", "images/edits", "audio/speech", "score"]; // biome-ignore format: a list
const spelt = fc
  .tuple(
    fc.constantFrom(CHAT, COMPLETIONS, "/v1/responses", ...open.map(path => `/v1/${path}`)),
    fc.constantFrom(...SPELLINGS),
  )
  .map(([path, spell]) => spell(path));
const path = fc.oneof(
  { arbitrary: fc.constant(CHAT), weight: 20 },
  { arbitrary: fc.constant(COMPLETIONS), weight: 5 },
  { arbitrary: fc.constantFrom(...open).map(path => `/v1/${path}`), weight: 3 },
  { arbitrary: spelt, weight: 3 },
  { arbitrary: random, weight: 2 },
);
const query = fc.oneof(
  { arbitrary: fc.constant(""), weight: 20 },
  { arbitrary: fc.constantFrom("?", "?api-version=2024-10-21", `?api-version=${NAME}`, `?prompt=${NAME}`, `?say%20${NAME}`, `?api-version=a%20${NAME}`, `?api-version=1;x=${NAME}`), weight: 2 }, // biome-ignore format: one line
);
const method = fc.oneof(
  { arbitrary: fc.constant("POST"), weight: 20 },
  { arbitrary: fc.constantFrom("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "LINK"), weight: 2 },
);

export const forgedRequest: fc.Arbitrary<ForgedRequest> = fc
  .record({
    kind: fc.constantFrom("Gen" as const, "Stream" as const),
    failOpen: fc.boolean(),
    method,
    path,
    query,
    headers: headers(REQUEST_HEADERS),
  })
  .chain(({ path, query, ...rest }) => {
    const body = path === COMPLETIONS ? completion : chat;
    const sent = fc.oneof({ arbitrary: body, weight: 30 }, { arbitrary: anything, weight: 1 });
    return sent.map(body => ({ ...rest, ...marked({ path: path + query, headers: rest.headers, body }) }));
  })
  .map(forged => ({ ...forged, body: JSON.stringify(forged.body) ?? TEXT }));

export interface Forwarded {
  readonly status: number;
  /** null: nothing came to the upstream. */
  readonly route: string | null;
  readonly judged: number;
}

type Json = Readonly<Record<string, unknown>>;

/**
 * The texts of a body that was forwarded which must have been judged, and those that must have been heard as context.
 */
function placesOf(route: string, body: Json): { readonly judged: unknown[]; readonly heard: unknown[] } {
  const { prompt, suffix, documents, chat_template } = body;
  const more = [documents, chat_template, body.Messages]; // by which some servers ask more than the messages
  if (route.endsWith("/v1/completions")) return { judged: [prompt, suffix, body.messages, more], heard: [] };
  const messages = body.messages as readonly Json[];
  const roleOf = ({ role }: Json): string => {
    if (role === "tool" || role === "function") return "tool";
    return role === "system" || role === "developer" ? "system" : role === "assistant" ? "assistant" : "user";
  };
  const textsOf = ({ content, Content }: Json): unknown[] =>
    Array.isArray(content) ? [...content.flatMap(({ text, refusal }) => [text, refusal]), Content] : [content, Content];
  const said = messages
    .map((message, i) => ({ role: roleOf(message), texts: textsOf(message), i }))
    .filter(({ role }) => role !== "tool");
  const last = said.findLast(({ role }) => role === "user")?.i;
  if (last === undefined) return { judged: [...said.map(({ texts }) => texts), prompt, suffix, more], heard: [] };
  const turn = said.findLast(({ role, i }) => role === "assistant" && i < last)?.i ?? -1;
  const isJudged = ({ role, i }: { role: string; i: number }): boolean =>
    (role === "user" && i > turn) || (role === "system" && i > last);
  return {
    judged: [...said.filter(isJudged).map(({ texts }) => texts), prompt, suffix, more],
    heard: said.filter(one => !isJudged(one) && one.i < last).map(({ texts }) => texts),
  };
}

/**
 * Sends a forged request through the proxy and throws where the upstream gets what it should not. `guard`: in place
 * of the stand-in.
 */
export async function asking(): Promise<(forged: ForgedRequest, guard?: Guard | StreamGuard) => Promise<Forwarded>> {
  const s = await setting(standIn("Gen").guard, (_, response) => sendJson(response, { error: { message: "no" } }, 400));
  return async (forged, guard) => {
    const { method, path, failOpen } = forged;
    const account = accountOf(guard ?? standIn(forged.kind).guard);
    const { fetch } = createProxy(account.guard, { upstream: s.upstream, failOpen });
    s.received.length = 0;
    const hasBody = method !== "GET" && method !== "HEAD";
    const headers = { "content-type": "application/json", ...forged.headers };
    const response = await fetch(
      new Request(`http://proxy${path}`, { method, headers, ...(hasBody ? { body: forged.body } : {}) }),
    );
    await response.text();
    const got: Received | undefined = s.received[0];
    const check = (isRight: boolean, what: string): void => {
      if (!isRight)
        throw new Error(
          `${what}\n${JSON.stringify(forged, null, 1)}\nforwarded: ${JSON.stringify(got)}\n${JSON.stringify(account)}`,
        );
    };
    const health = await fetch(new Request("http://proxy/health"));
    check(health.status === 200, "health");
    if (!got) return { status: response.status, route: null, judged: 0 };

    check(s.received.length === 1, "once");
    for (const name of NOT_FORWARDED) check(!(name in got.headers), `a header: ${name}`);
    const [pathname, query = ""] = got.url.split("?");
    const route = `${got.method} ${pathname}`;
    if (![CHAT, COMPLETIONS].includes(pathname)) {
      check(
        DOCUMENTED.some(pattern => pattern.test(route)) && !/%2e|%2f\.|completions/i.test(pathname),
        `a route: ${route}`,
      );
      return { status: response.status, route, judged: 0 };
    }
    check(/^$|^api-version=[\w.-]*$/.test(query), `a query: ${query}`);
    if (got.method === "OPTIONS") {
      check(got.text === "", "a body");
      return { status: response.status, route, judged: 0 };
    }
    check(got.method === "POST" && got.headers["content-type"] === "application/json", "another method or type");
    const { judged, heard } = placesOf(route, got.json);
    const passed = account.passed.join("\n");
    const context = account.heard.join("\n");
    for (const mark of marksIn(judged)) check(passed.includes(mark), `a question that nobody judged: ${mark}`);
    for (const mark of marksIn(heard)) check(context.includes(mark), `a context that nobody heard: ${mark}`);
    // Words that mean something to the stand-in alone.
    for (const word of guard ? [] : ["OFFENDS", "UNREADABLE", "FAILS_"])
      check(!JSON.stringify(judged).includes(word), `a question with ${word}`);
    return { status: response.status, route, judged: marksIn(judged).length };
  };
}
