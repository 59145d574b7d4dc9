/** What is not moderated: it passes untouched, or is refused where it would be a way around the guard. */

import { connect } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import { createProxy, type ProxyOptions } from "../../../../src/app/server/proxy/proxy.ts";
import { Routes } from "../../../../src/app/server/proxy/routes.ts";
import { StreamGuard } from "../../../../src/guard/stream-guard.ts";
import { loadGuard, STREAM } from "../../../checkpoints.ts";
import { type Script, sendJson, setting, writes } from "./stand-in.ts";

let guard: StreamGuard;
beforeAll(async () => {
  guard = await StreamGuard.load(STREAM);
});

/** With these some servers read another method or path out of a request. */
const OVERRIDES = ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

const echo: Script = ({ method, url, headers, text }, response) => {
  response.setHeader("x-request-id", "mine-1");
  response.setHeader("content-disposition", "attachment; filename=a");
  response.setHeader("x-mine", "1");
  response.setHeader("connection", "x-hop");
  response.setHeader("x-hop", "1");
  sendJson(response, { method, url, headers, text }, 201);
};

describe("what is under /v1 and writes no text", () => {
  test("passes both ways: method, query, body, status, headers, the client's key", async () => {
    const { url } = await setting(guard, echo);
    const response = await fetch(`${url}/embeddings?a=1&b=%2F`, {
      method: "POST",
      headers: {
        ...{ authorization: "Bearer k", "x-custom": "2", te: "trailers", "proxy-authorization": "secret", "content-type": "text/odd" },
        ...Object.fromEntries(OVERRIDES.map(name => [name, "/v1/responses"])),
      },
      body: "any body",
    });
    const got = await response.json();
    const names = ["x-request-id", "content-disposition", "x-mine", "x-hop"];
    expect([response.status, ...names.map(name => response.headers.get(name))]).toEqual([
      201,
      "mine-1",
      "attachment; filename=a",
      null,
      null,
    ]);
    expect([got.method, got.url, got.text]).toEqual(["POST", "/v1/embeddings?a=1&b=%2F", "any body"]);
    expect(got.headers).toMatchObject({ authorization: "Bearer k", "x-custom": "2", "content-type": "text/odd" });
    for (const name of ["te", "proxy-authorization", ...OVERRIDES]) expect(got.headers).not.toHaveProperty(name);
  });

  test("models, listed and by name; HEAD and answers without a body", async () => {
    const { url, openai, received } = await setting(guard, ({ method, url }, response) => {
      if (method === "DELETE") return void response.writeHead(204).end();
      sendJson(
        response,
        url === "/v1/models" ? { object: "list", data: [{ id: "org/llm", object: "model" }] } : { id: "org/llm", object: "model" },
      );
    });
    expect((await openai.models.list()).data[0].id).toBe("org/llm");
    expect((await openai.models.retrieve("org/llm")).id).toBe("org/llm");
    expect((await fetch(`${url}/models`, { method: "HEAD" })).status).toBe(200);
    expect((await fetch(`${url}/files/1`, { method: "DELETE" })).status).toBe(204);
    expect(received.map(({ method, url }) => `${method} ${url}`)).toEqual([
      "GET /v1/models",
      "GET /v1/models/org%2Fllm",
      "HEAD /v1/models",
      "DELETE /v1/files/1",
    ]);
  });

  test("bytes pass as they are, decoded where the upstream has packed them", async () => {
    const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => i % 251);
    const { gzipSync } = await import("node:zlib");
    const { url } = await setting(guard, (_, response) => {
      response.writeHead(200, { "content-type": "audio/mpeg", "content-encoding": "gzip" });
      response.end(gzipSync(bytes));
    });
    const response = await fetch(`${url}/audio/speech`, { method: "POST", body: "{}" });
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(bytes);
  });

  test("a redirection is the client's to follow", async () => {
    const { url } = await setting(guard, (_, response) => void response.writeHead(307, { location: "/v1/other" }).end());
    const response = await fetch(`${url}/files`, { redirect: "manual" });
    expect([response.status, response.headers.get("location")]).toEqual([307, "/v1/other"]);
  });
});

test("what passes counts as running until its end: a drain waits for it", async () => {
  let finish = (): void => {};
  const s = await setting(guard, ({ url }, response) => {
    response.writeHead(200, { "content-type": "audio/mpeg" });
    response.write("begin");
    finish = () => void (url.endsWith("cut") ? response.destroy() : response.end(" end"));
  });
  const whole = await fetch(`${s.url}/files/whole`);
  let isDrained = false;
  const finishWhole = finish;
  const cut = await fetch(`${s.url}/files/cut`);
  const drained = s.handler.drain().then(() => {
    isDrained = true;
  });
  finish();
  await expect(cut.text()).rejects.toThrow();
  expect(isDrained).toBe(false);
  finishWhole();
  expect(await whole.text()).toBe("begin end");
  await drained;
});

test("HTTP/1.0 need not name a host", async () => {
  const { url } = await setting(guard, writes(["hi"]));
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port) });
  socket.end("GET /health HTTP/1.0\r\n\r\n");
  const parts: Buffer[] = [];
  for await (const part of socket) parts.push(part as Buffer);
  expect(Buffer.concat(parts).toString()).toMatch(/^HTTP\/1.1 200 OK\r\n/);
});

const routes = new Routes([]);
const find = (method: string, path: string): string => routes.find(method, new URL(`http://x${path}`).pathname);

describe("what may pass unjudged is a list", () => {
  test.each([
    "GET /v1/models",
    "HEAD /v1/models",
    "OPTIONS /v1/models",
    "GET /v1/models/llama3:8b",
    "GET /v1/models/org/name@main",
    "GET /v1/models/org%2Fname%40main",
    "POST /v1/embeddings",
    "OPTIONS /v1/embeddings",
    "POST /v1/moderations",
    "POST /v1/rerank",
    "POST /v1/score",
    "POST /v1/files",
    "GET /v1/files/file-1/content",
    "DELETE /v1/files/file-1",
    "POST /v1/images/edits",
    "POST /v1/audio/transcriptions",
  ])("%s", route => {
    const [method, path] = route.split(" ");
    expect(find(method, path)).toBe("/v1/*");
  });

  test("what is more is refused, or asked for", () => {
    const more = new Routes(["POST /v1/tokenize", "GET /v1/batches/*", "POST /v1/tools/**"]);
    expect(more.find("POST", "/v1/tokenize")).toBe("/v1/*");
    expect(more.find("GET", "/v1/batches/b-1")).toBe("/v1/*");
    expect(more.find("POST", "/v1/tools/a/b")).toBe("/v1/*");
    const others = ["GET /v1/tokenize", "GET /v1/batches", "GET /v1/batches/b/x", "POST /v1/tools", "POST /v1/tools/a/../b", "POST /v1/tools//a", "POST /v1/tools/%2e%2e/a", "POST /v1/tools/completions", "POST /v1/tools/x/%43ompletions"]; // biome-ignore format: one line
    for (const route of others) {
      const [method, path] = route.split(" ");
      expect(() => more.find(method, path), route).toThrow(/^path: expected /);
    }
  });

  test.each([
    "/v1/tokenize",
    "POST tokenize",
    "POST /v2/tokenize",
    "POST /v1/",
    "POST /v1/**",
    "post /v1/tokenize",
    "POST /v1/a/**/b",
    "POST /v1/../x",
    "POST /v1/%61",
    "POST /v1/chat/completions",
    "POST /v1/Completions.",
    "TRACE /v1/x",
    "POST /v1/a b",
    "",
  ])("%j cannot be allowed", route => {
    expect(() => new Routes([route])).toThrow(/^allowRoutes: expected GET or POST or PUT or PATCH or DELETE and a path/);
  });
});

describe("a way around the guard", () => {
  test.each([
    "/v1/responses",
    "/v1/messages",
    "/v1/responses/resp_1",
    "/v1/threads/t/runs",
    "/v1/batches",
    "/v1/chat/completions/",
    "/v1//chat/completions",
    "/v1/chat%2Fcompletions",
    "/v1/%63hat/completions",
    "/v1/%2563hat/completions",
    "/v1/%252563hat/completions",
    "/v1/Chat/Completions",
    "/v1/completions;x=1",
    "/v1/completions%20",
    "/v1/chat/completions/batch",
    "/v1/chat/completions/id/messages",
    "/v1/models/..%2fchat/completions",
    "/v1/models/gemini:generateContent",
    "/v1/engines/e/completions",
    "/v1/x\\chat\\completions",
    "/v1/responses%3Fx",
    "/v1/responses%23x",
    "/v1/respon%09ses",
    "/v1/responses%00",
    "/v1/responses.",
    "/v1/re%C5%BFponses",
    "/v1/internal/logits",
    "/v1/projects/p/publishers/google/models/x:generateContent",
    "/v1/evals/x",
    "/v1/%ff",
    "/v1",
    "/v2/chat/completions",
    "/chat/completions",
    "/",
    // Names that servers have given to what writes text, of which the next one is not known yet.
    "/v1/sonar",
    "/v1/agent",
    "/v1/sessions",
    "/v1/flexible/infers",
    "/v1/infer",
    "/v1/predictions",
    "/v1/rag/query",
    "/v1/tokenize",
    "/v1/embeddings/",
    "/v1/Embeddings",
    "/v1/%65mbeddings",
    "/v1/embeddings.",
    "/v1/embeddings;x",
    "/v1//embeddings",
    "/v1/images/generations/x",
    "/v1/files/..%2fchat%2fcompletions",
    "/v1/files/%252e%252e",
    "/v1/models",
    "/v1/models/llm",
  ])("POST %s is not there", async path => {
    expect(() => find("POST", path)).toThrow(/^path: expected /);
  });

  const verbs = ["PUT", "PATCH", "POST", "DELETE"].map(method => `${method} /v1/models/x:generateContent`);
  test.each([
    ...verbs,
    "GET /v1/models/..%2fresponses",
    "GET /v1/models/%2e%2e%2fresponses",
    "GET /v1/models//responses",
    "GET /v1/models/",
    "PUT /v1/embeddings",
    "GET /v1/embeddings",
    "PATCH /v1/files/1",
    "POST /v1/files/1",
    "GET /v1/files/a%2Fb",
    "OPTIONS /v1/responses",
    "HEAD /v1/responses",
    "LINK /v1/models",
  ])("%s is not there", route => {
    const [method, path] = route.split(" ");
    expect(() => find(method, path)).toThrow(/^path: expected /);
  });

  test("is refused with a reason that tells it, and nothing is forwarded", async () => {
    const { openai, received } = await setting(guard, writes(["hi"]));
    await expect(openai.responses.create({ model: "llm", input: "hi" })).rejects.toMatchObject({
      status: 404,
      code: "not_moderated",
      message:
        "404 path: expected /v1/chat/completions, /v1/completions or a route that may pass unjudged, got another; --allow-route lets one pass",
    });
    expect(received).toEqual([]);
  });

  test("a browser's question before it posts is the upstream's to answer", async () => {
    const { url, received } = await setting(guard, (_, response) => {
      const methods = { "access-control-allow-methods": "GET, POST", "access-control-allow-headers": "authorization,content-type" };
      response.writeHead(200, { "access-control-allow-origin": "*", ...methods, vary: "to write a, fake" }).end("Sure, here is how");
    });
    const response = await fetch(`${url}/chat/completions?api-version=2024-10-21`, { method: "OPTIONS" });
    const names = ["origin", "methods", "headers"].map(name => response.headers.get(`access-control-allow-${name}`));
    expect([response.status, ...names, response.headers.get("vary"), await response.text()]).toEqual([
      ...[200, "*", "GET, POST", "authorization,content-type"],
      ...[null, ""],
    ]);
    expect([received[0].method, received[0].url]).toEqual(["OPTIONS", "/v1/chat/completions?api-version=2024-10-21"]);
  });

  test("other methods of the moderated endpoints are refused, and bodies that are no JSON", async () => {
    const { url, received } = await setting(guard, writes(["hi"]));
    const listed = await fetch(`${url}/chat/completions`);
    expect([listed.status, listed.headers.get("allow")]).toEqual([405, "POST"]);
    const form = await fetch(`${url}/chat/completions`, { method: "POST", body: "{}", headers: { "content-type": "text/plain" } });
    expect(form.status).toBe(415);
    expect(received).toEqual([]);
  });
});

test("health and metrics are the proxy's own", async () => {
  const { url, metrics, received } = await setting(guard, writes(["hi"]), { mode: "loose" });
  const health = await fetch(url.replace("/v1", "/health"));
  expect([health.status, await health.json()]).toEqual([200, { status: "ok", guard: "tiny-guard-stream", mode: "loose", action: "block" }]);
  expect(await metrics()).toContain('qwen3guard_proxy_answers_total{outcome="flagged"} 0\n');
  expect(received).toEqual([]);
});

describe("the upstream's address", () => {
  test.each(["", "/", "/v1", "/v1/", "/openai", "/openai/v1/"])("may end with %j", async path => {
    const { url } = await setting(guard, echo);
    const { upstream } = { upstream: JSON.parse(await (await fetch(`${url}/files`)).text()).headers.host as string };
    const handler = createProxy(guard, { upstream: `http://${upstream}${path}` });
    const got = await (await handler.fetch(new Request("http://proxy/v1/files"))).json();
    expect(got.url).toBe(path.startsWith("/openai") ? "/openai/v1/files" : "/v1/files");
  });
});

test.each<[object, string]>([
  [
    { upstream: "ftp://x" },
    "upstream: expected an http or https URL without user, query and fragment, as in http://localhost:8000/v1, got another text",
  ],
  [{ upstream: "http://user:key@x" }, "upstream: expected an http or https URL without user"],
  [{ holdBack: -1 }, "holdBack: expected an integer from 0 to 2147483647, got -1"],
  [{ maxStreams: 0 }, "maxStreams: expected an integer from 1 to 2147483647, got 0"],
  [{ timeoutMs: 300_001 }, "timeoutMs: expected an integer from 1 to 300000, got 300001"],
  [{ action: "drop" }, 'action: expected block or flag or log, got "drop"'],
  [{ mode: "lax" }, 'mode: expected "strict" or "loose", got "lax"'],
  [{ every: 8 }, "every: expected a Gen guard, got a Stream guard, which judges every token"],
  [
    { port: 1 },
    'proxy: expected options among upstream, mode, every, action, holdBack, maxStreams, maxQueue, maxBodyBytes, timeoutMs, failOpen, allowRoutes, log, logRequests, logText, got "port"',
  ],
])("options %j are refused", (options, message) => {
  // biome-ignore format: a table
  expect(() => createProxy(guard, { upstream: "http://x", ...options } as ProxyOptions)).toThrow(message);
});

test("a Gen guard's stretch is checked", async () => {
  const gen = await loadGuard();
  expect(() => createProxy(gen, { upstream: "http://x", every: 0 })).toThrow("every: expected an integer of at least 1, got 0");
});
