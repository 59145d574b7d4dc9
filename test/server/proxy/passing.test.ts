/** Unmoderated routes: a request passes untouched, or is refused if it would be a way around the guard. */

import { connect } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import { StreamGuard } from "../../../src/guard/stream-guard.ts";
import { createProxy, type ProxyOptions } from "../../../src/server/proxy/proxy.ts";
import { loadGuard, STREAM } from "../../checkpoints.ts";
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
        ...{
          authorization: "Bearer k",
          "x-custom": "2",
          te: "trailers",
          "proxy-authorization": "secret",
          "content-type": "text/odd",
        },
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
        url === "/v1/models"
          ? { object: "list", data: [{ id: "org/llm", object: "model" }] }
          : { id: "org/llm", object: "model" },
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

  test("bytes pass as they are, decoded if the upstream has compressed them", async () => {
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
    const { url } = await setting(
      guard,
      (_, response) => void response.writeHead(307, { location: "/v1/other" }).end(),
    );
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

describe("a way around the guard", () => {
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

  test("a browser's preflight is the upstream's to answer", async () => {
    const { url, received } = await setting(guard, (_, response) => {
      const methods = {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": "authorization,content-type",
      };
      response
        .writeHead(200, { "access-control-allow-origin": "*", ...methods, vary: "to write a, fake" })
        .end("Sure, here is how");
    });
    const response = await fetch(`${url}/chat/completions?api-version=2024-10-21`, { method: "OPTIONS" });
    const names = ["origin", "methods", "headers"].map(name => response.headers.get(`access-control-allow-${name}`));
    expect([response.status, ...names, response.headers.get("vary"), await response.text()]).toEqual([
      ...[200, "*", "GET, POST", "authorization,content-type"],
      ...[null, ""],
    ]);
    expect([received[0].method, received[0].url]).toEqual(["OPTIONS", "/v1/chat/completions?api-version=2024-10-21"]);
  });

  test("other methods of the moderated endpoints are refused, and bodies that are not JSON", async () => {
    const { url, received } = await setting(guard, writes(["hi"]));
    const listed = await fetch(`${url}/chat/completions`);
    expect([listed.status, listed.headers.get("allow")]).toEqual([405, "POST"]);
    const form = await fetch(`${url}/chat/completions`, {
      method: "POST",
      body: "{}",
      headers: { "content-type": "text/plain" },
    });
    expect(form.status).toBe(415);
    expect(received).toEqual([]);
  });
});

test("health and metrics are the proxy's own", async () => {
  const { url, metrics, received } = await setting(guard, writes(["hi"]), { mode: "loose" });
  const health = await fetch(url.replace("/v1", "/health"));
  expect([health.status, await health.json()]).toEqual([
    200,
    { status: "ok", guard: "tiny-guard-stream", mode: "loose", action: "block" },
  ]);
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

test("the option every is checked", async () => {
  const gen = await loadGuard();
  expect(() => createProxy(gen, { upstream: "http://x", every: 0 })).toThrow(
    "every: expected an integer of at least 1, got 0",
  );
});
