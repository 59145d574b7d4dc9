/** The proxy's own side: its bounds, what it counts and logs, and what it says about itself. */

import { getEventListeners } from "node:events";
import { describe, expect, test, vi } from "vitest";
import { createProxy, type ProxyOptions } from "../../../src/server/proxy/proxy.ts";
import { type InProcess, inProcess, json, stream, whole } from "./in-process.ts";
import { chunk } from "./stand-in.ts";
import { OFFENDS, standIn } from "./stand-in-guard.ts";

const CHAT = "/v1/chat/completions";
const good = (options: Partial<ProxyOptions> = {}): InProcess => inProcess("Gen", () => json(whole("Yes.")), options);

describe("an option", () => {
  const make = (options: object): unknown =>
    createProxy(standIn("Gen").guard, { upstream: "http://up", ...options } as ProxyOptions);

  test.each([
    ["holdBack", 0, 2 ** 31 - 1],
    ["maxStreams", 1, 2 ** 31 - 1],
    ["maxQueue", 1, 2 ** 31 - 1],
    ["maxBodyBytes", 1, 2 ** 31 - 1],
    ["timeoutMs", 1, 300_000],
  ])("%s is an integer from %i to %i", (name, min, max) => {
    for (const value of [min, max]) expect(() => make({ [name]: value })).not.toThrow();
    for (const value of [min - 1, max + 1, min + 0.5, Number.NaN, `${min}`])
      expect(() => make({ [name]: value })).toThrow(
        new RangeError(`${name}: expected an integer from ${min} to ${max}, got ${value}`),
      );
  });

  test("of another name, action or route is refused", () => {
    expect(() => make({ hold: 1 })).toThrow(/^proxy: expected options among upstream, mode, .*, got "hold"$/);
    expect(() => make({ action: "" })).toThrow(new RangeError('action: expected block or flag or log, got ""'));
    expect(() => make({ allowRoutes: ["x"] })).toThrow(/^allowRoutes: /);
    for (const action of ["block", "flag", "log"]) expect(() => make({ action })).not.toThrow();
  });
});

describe("without options", () => {
  test("it blocks, in the strict mode, and logs nothing", async () => {
    const { send, post, log } = inProcess("Gen", () => json(whole(OFFENDS)));
    const { status, json: got, headers } = await send("/health");
    expect([status, got]).toEqual([200, { status: "ok", guard: "stand-in-Gen", mode: "strict", action: "block" }]);
    expect(headers.get("content-type")).toMatch(/^application\/json/);
    expect((await post()).json.choices[0].finish_reason).toBe("content_filter");
    await post({}, "/v1/nothing");
    expect(log).toEqual([]);
  });

  test("it moderates 8 answers at once, holds nothing back, and takes 4 MiB", async () => {
    const { post } = inProcess("Stream", () => stream([chunk({ content: "abcdef" }), chunk({}, "stop")]));
    const eight = await post({ n: 8 });
    expect([eight.status, (await post({ n: 9 })).json.error.message]).toEqual([
      502,
      "n: expected at most 8 answers a request, got 9",
    ]);
    expect((await post({ stream: true })).events[0].choices[0].delta.content).toBe("ab");
    const large = await post({ user: "x".repeat(4 * 2 ** 20) });
    expect([large.status, large.json.error.message]).toEqual([413, "body: expected at most 4194304 bytes, got more"]);
    expect((await post({ user: "x".repeat(4 * 2 ** 20 - 100) })).status).toBe(502);
  });

  test("it needs no log of failures", async () => {
    const { guard, break: breakIt } = standIn("Gen");
    const { fetch } = createProxy(guard, { upstream: "http://up" });
    breakIt();
    const request = {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"messages":[{"role":"user","content":"a"}]}',
    };
    expect((await fetch(new Request(`http://proxy${CHAT}`, request))).status).toBe(500);
  });
});

describe("it says of itself", () => {
  test("what it counts", async () => {
    const { send, post, metric } = good();
    await post();
    const { text, headers } = await send("/metrics");
    expect(headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    const help = text.split("\n").filter(line => line.startsWith("# HELP")); // biome-ignore format: one line
    expect(help).toEqual([
      "# HELP qwen3guard_proxy_streams Answers that are being moderated, or may be moderated.",
      "# HELP qwen3guard_proxy_waiting Requests that wait for others to end.",
      "# HELP qwen3guard_queue_waiting Pieces of text that wait for the engine.",
      "# HELP qwen3guard_proxy_questions_total Questions by outcome; failed: the guard gave no verdict.",
      "# HELP qwen3guard_proxy_answers_total Answers by outcome; failed: the guard gave no verdict.",
      "# HELP qwen3guard_requests_total Requests by route and status; 499: the client went away.",
      "# HELP qwen3guard_request_seconds Time from a request's headers to the end of its answer.",
    ]);
    for (const kind of ["questions", "answers"])
      for (const outcome of ["passed", "flagged", "failed"])
        expect(await metric(`qwen3guard_proxy_${kind}_total{outcome="${outcome}"}`)).toBe(
          outcome === "passed" ? "1" : "0",
        );
    expect(await metric(`qwen3guard_requests_total{route="${CHAT}",status="200"}`)).toBe("1");
    expect(await metric(`qwen3guard_request_seconds_count{route="${CHAT}"}`)).toBe("1");
    for (const gauge of ["proxy_streams", "proxy_waiting", "queue_waiting"])
      expect(await metric(`qwen3guard_${gauge}`)).toBe("0");
  });

  test("how many answers it moderates, and who waits", async () => {
    let finish = (): void => {};
    const { post, metric } = inProcess("Gen", () => new Promise<Response>(resolve => { finish = () => resolve(json(whole("a", "b"))); }), { maxStreams: 2 }); // biome-ignore format: one line
    const first = post({ n: 2 });
    while ((await metric("qwen3guard_proxy_streams")) !== "2") await new Promise(resolve => setTimeout(resolve));
    const second = post();
    while ((await metric("qwen3guard_proxy_waiting")) !== "1") await new Promise(resolve => setTimeout(resolve));
    const started = finish;
    started();
    await first;
    while (finish === started) await new Promise(resolve => setTimeout(resolve));
    expect([await metric("qwen3guard_proxy_streams"), await metric("qwen3guard_proxy_waiting")]).toEqual(["1", "0"]);
    finish();
    expect((await second).status).toBe(502);
  });

  test("that it fails, or is being shut down", async () => {
    const { guard, break: breakIt } = standIn("Gen");
    const { post, send, handler } = inProcess(guard, () => json(whole("a")));
    breakIt();
    await post();
    const failing = await send("/health");
    expect([failing.status, failing.json.status]).toEqual([503, "failing"]);
    await handler.drain();
    const draining = await send("/health");
    expect([draining.status, draining.json.status]).toEqual([503, "draining"]);
    const { status, headers, json: got } = await post();
    expect([status, headers.get("connection"), headers.get("retry-after")]).toEqual([503, "close", "1"]);
    expect(got.error).toMatchObject({
      message: "the server is shutting down",
      code: "shutting_down",
    });
  });

  test.each([true, false])("each request in a line, if asked to (with texts: %s)", async logText => {
    const { post, send, log } = good(logText ? { logText } : { logRequests: true });
    await post();
    await send("/v1/nothing");
    await send("/health");
    expect(log).toEqual([
      expect.stringMatching(/^200 \/v1\/chat\/completions \d+\.\d ms$/),
      expect.stringMatching(/^404 other \d+\.\d ms$/),
    ]);
  });

  test("how long a request takes, in seconds to who counts, in milliseconds in the log", async () => {
    const now = vi.spyOn(performance, "now").mockReturnValue(1_000_000);
    const { post, metric, log } = inProcess(
      "Gen",
      () => {
        now.mockReturnValue(1_002_500);
        return json(whole("a"));
      },
      { logRequests: true },
    );
    await post();
    now.mockRestore();
    expect([await metric(`qwen3guard_request_seconds_sum{route="${CHAT}"}`), log]).toEqual([
      "2.5",
      [`200 ${CHAT} 2500.0 ms`],
    ]);
  });

  test("each request's id, the upstream's or its own, and that its type must not be guessed", async () => {
    const own = await good().post();
    expect([own.headers.get("x-request-id"), own.headers.get("x-content-type-options")]).toEqual([
      expect.stringMatching(/^req-[0-9a-f]{24}$/),
      "nosniff",
    ]);
    const other = inProcess("Gen", () => json(whole("a"), 200, { "x-request-id": "up-1" }));
    expect((await other.post()).headers.get("x-request-id")).toBe("up-1");
  });

  test.each([new Error("a secret"), "a secret"])(
    "a failure of its own in the log, and not to the client (%s)",
    async thrown => {
      const fail = (): never => {
        throw thrown;
      };
      const { post, log } = inProcess("Gen", () => Object.defineProperty({}, "status", { get: fail }) as Response);
      const { status, json: got } = await post();
      expect([status, got.error.message, got.error.code]).toEqual([
        500,
        "the server failed to answer; its log says how",
        "internal_error",
      ]);
      expect(log).toEqual([`qwen3guard: ${CHAT}: a secret`]);
    },
  );
});

describe("a request", () => {
  test("is sent on to the same endpoint, written anew as JSON, with its headers", async () => {
    for (const [path, body] of [
      [CHAT, { messages: [{ role: "user", content: "Hi" }] }],
      ["/v1/completions", { prompt: "Hi" }],
    ] as const) {
      // biome-ignore format: one line
      const { send, sent } = good();
      const headers = { "content-type": "application/json; charset=utf-8", authorization: "Bearer k" };
      await send(`${path}?api-version=1`, { method: "POST", headers, body: ` ${JSON.stringify(body)} ` });
      const { method, headers: got, body: text } = sent[0].init;
      expect([method, sent[0].url, text]).toEqual(["POST", `http://up${path}?api-version=1`, JSON.stringify(body)]);
      expect(Object.fromEntries(got)).toEqual({ "content-type": "application/json", authorization: "Bearer k" });
    }
  });

  test.each(["?prompt=a", "?api-version=a b", "?api-version=1&x", "?api-version=1&api-version=a b"])(
    "has no query except a version: %s",
    async query => {
      const { post, send, sent } = good();
      const { status, json: got } = await post({}, CHAT + query);
      const message = "query: expected nothing but an api-version, got something else";
      expect([status, got.error.param, got.error.message]).toEqual([400, "query", message]);
      expect([(await send(CHAT + query, { method: "OPTIONS" })).status, sent]).toEqual([400, []]);
      for (const action of ["flag", "log"] as const) {
        const lenient = good({ action });
        const sentTo = `http://up${CHAT}${new URL(`http://x${query}`).search}`;
        expect((await lenient.post({}, CHAT + query)).status).toBe(200);
        expect((await lenient.send(CHAT + query, { method: "OPTIONS" })).status).toBe(200);
        expect(lenient.sent.map(({ url }) => url)).toEqual([sentTo, sentTo]);
      }
    },
  );

  test("by another method is refused", async () => {
    const { send, sent } = good();
    const { status, headers, json: got } = await send(CHAT, { method: "PROPFIND-AND-MUCH-MORE" });
    const message = "/v1/chat/completions: expected POST, got PROPFIND-AND-MUCH-MO";
    expect([status, headers.get("allow"), got.error.message, sent]).toEqual([405, "POST", message, []]);
  });

  test("by OPTIONS is answered by the upstream's status and headers, and its body is not read", async () => {
    const { send, sent } = inProcess(
      "Gen",
      () => new Response("words", { status: 202, headers: { vary: "origin", etag: "1" } }),
    );
    const { status, headers, text } = await send(CHAT, { method: "OPTIONS", headers: { origin: "http://a" } });
    expect([status, headers.get("vary"), headers.get("etag"), text]).toEqual([202, "origin", null, ""]);
    const { method, body, headers: got, signal } = sent[0].init;
    expect([sent[0].url, method, body, got.get("origin"), signal.aborted]).toEqual([
      `http://up${CHAT}`,
      "OPTIONS",
      null,
      "http://a",
      true,
    ]);
  });

  test("that is not moderated goes to the same path, and so does one that is allowed", async () => {
    const { send, sent } = inProcess("Gen", () => json({ a: 1 }), { allowRoutes: ["PUT /v1/x/*"] });
    expect((await send("/v1/files/a%20b?c=d")).status).toBe(404);
    expect((await send("/v1/files/a?c=d")).json).toEqual({ a: 1 });
    expect((await send("/v1/x/y", { method: "PUT", body: "text" })).json).toEqual({ a: 1 });
    expect(sent.map(({ url, init }) => `${init.method} ${url}`)).toEqual([
      "GET http://up/v1/files/a?c=d",
      "PUT http://up/v1/x/y",
    ]);
  });

  test("asks for at most as many answers as may be moderated at once, prompts and answers together", async () => {
    const { post, metric } = good({ maxStreams: 4 });
    expect((await post({ n: 4 })).status).toBe(200);
    const { status, json: got } = await post({ prompt: ["a", "b"], n: 3 }, "/v1/completions");
    expect([status, got.error.param, got.error.message]).toEqual([
      400,
      "n",
      "n: expected at most 4 answers a request, got 6",
    ]);
    expect(await metric("qwen3guard_proxy_streams")).toBe("0");
  });

  test.each([[300, 502], [307, 502], [399, 502], [400, 400], [404, 404]])("is not led elsewhere: %i is %i to the client", async (status, told) => {
    const answer = (): Response => json({ error: { message: "no" } }, status, { location: "http://b" });
    for (const action of ["block", "flag"] as const) {
      const { post, sent, metric } = inProcess("Gen", answer, { action });
      const { status: got, json: body } = await post();
      const message = "upstream: expected an answer, got a redirection, after which nothing would be judged";
      expect([got, body.error.message]).toEqual([told, told === 502 ? message : "no"]);
      expect([sent[0].init.signal.aborted, await metric("qwen3guard_proxy_streams")]).toEqual([true, "0"]);
    }
  }); // biome-ignore format: a table

  test.each([
    [false, "text/event-stream", "application/json"],
    [true, "application/json", "text/event-stream"],
    [false, "text/plain", "application/json"],
  ])("gets the form that it asked for (stream: %s), or an error", async (isStream, type, expected) => {
    const { post, sent, metric, open } = inProcess(
      "Gen",
      () => new Response("{}", { headers: { "content-type": type } }),
    );
    const { status, json: got } = await post({ stream: isStream });
    expect([status, got.error.message]).toEqual([
      502,
      `upstream: expected ${expected}, as was asked for, got another type`,
    ]);
    expect([sent[0].init.signal.aborted, await metric("qwen3guard_proxy_streams"), open()]).toEqual([true, "0", 0]);
  });

  test("gets the upstream's headers and the guard's", async () => {
    const { guard } = standIn("Gen");
    for (const isStream of [false, true]) {
      const answer = (): Response => {
        const response = isStream ? stream([chunk({ content: "a" }, "stop")]) : json(whole("a"));
        response.headers.set("openai-version", "1");
        return response;
      };
      const { post } = inProcess(guard, answer, { action: "flag" });
      const { headers } = await post({ stream: isStream, messages: [{ role: "user", content: OFFENDS }] });
      expect([headers.get("openai-version"), headers.get("x-qwen3guard-question")]).toEqual(["1", "flagged; Unsafe"]);
    }
  });
});

describe("a client", () => {
  test("that has already left is told nothing and asks nothing", async () => {
    const { post, sent, calls, metric } = good();
    const { status } = await post({}, undefined, { signal: AbortSignal.abort() });
    expect([status, sent, calls]).toEqual([499, [], []]);
    expect(await metric(`qwen3guard_requests_total{route="${CHAT}",status="499"}`)).toBe("1");
  });

  test("that leaves ends the upstream's work and is counted as gone", async () => {
    const client = new AbortController();
    const { post, metric, open } = inProcess("Gen", ({ init }) => new Promise((_, reject) => {
      init.signal.addEventListener("abort", () => reject(init.signal.reason));
      client.abort();
    })); // biome-ignore format: a stand-in
    const { status, json: got } = await post({}, undefined, { signal: client.signal });
    expect([status, got.error.message, open()]).toEqual([499, "the client went away", 0]);
    expect(await metric(`qwen3guard_requests_total{route="${CHAT}",status="499"}`)).toBe("1");
  });

  test("is not listened to any more when its answer has ended", async () => {
    const { signal } = new AbortController();
    const { handler } = good();
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ messages: [{ role: "user", content: "a" }] });
    const request = new Request(`http://proxy${CHAT}`, { method: "POST", headers, body, signal });
    const response = await handler.fetch(request);
    await response.text();
    expect(getEventListeners(request.signal, "abort").length).toBe(0);
  });

  test("that stops reading a stream is counted as gone, and its place is freed", async () => {
    const { handler, metric, open } = inProcess("Gen", ({ init: { signal } }) => {
      const begun = new TextEncoder().encode(`data: ${JSON.stringify(chunk({ role: "assistant" }))}\n\n`);
      const start = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
        controller.enqueue(begun);
        signal.addEventListener("abort", () => controller.error(signal.reason));
      };
      return new Response(new ReadableStream({ start }), { headers: { "content-type": "text/event-stream" } });
    });
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ stream: true, messages: [{ role: "user", content: "a" }] });
    const { body: events } = await handler.fetch(new Request(`http://proxy${CHAT}`, { method: "POST", headers, body }));
    const reader = events?.getReader();
    await reader?.read();
    expect([await metric("qwen3guard_proxy_streams"), open()]).toEqual(["1", 1]);
    let isDrained = false;
    const drained = handler.drain().then(() => {
      isDrained = true;
    });
    await new Promise(resolve => setTimeout(resolve));
    expect(isDrained).toBe(false);
    await reader?.cancel();
    await drained;
    expect([await metric("qwen3guard_proxy_streams"), open()]).toEqual(["0", 0]);
    expect(await metric(`qwen3guard_requests_total{route="${CHAT}",status="499"}`)).toBe("1");
  });
});
