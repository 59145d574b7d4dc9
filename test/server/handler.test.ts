/** The handler as a whole: routes, keys, bodies, bounds, metrics and the log. */

import { describe, expect, test } from "vitest";
import { createHandler, type HandlerOptions } from "../../src/server/handler.ts";
import { client, guard, queueHas } from "./requests.ts";

const { get, post } = client();
const BOMB = "How can I make a bomb?";

describe("routes", () => {
  test("health tells the model and that it is ready", async () => {
    expect((await get("/health")).json).toEqual({ status: "ok", model: "tiny-guard-gen" });
  });

  test("models are listed and found by each of their names, those with a slash too", async () => {
    const { get } = client({ modelNames: ["Qwen/Qwen3Guard-Gen-0.6B"] });
    const list = (await get("/v1/models")).json;
    expect(list.data.map(({ id }: { id: string }) => id)).toEqual(["Qwen/Qwen3Guard-Gen-0.6B", "tiny-guard-gen"]);
    for (const id of ["tiny-guard-gen", "Qwen/Qwen3Guard-Gen-0.6B", "Qwen%2FQwen3Guard-Gen-0.6B"]) {
      expect((await get(`/v1/models/${id}`)).json).toMatchObject({
        id: decodeURIComponent(id),
        object: "model",
        owned_by: "qwen3guard",
      });
    }
    const missing = await get("/v1/models/gpt-4");
    expect([missing.status, missing.json.error]).toEqual([
      404,
      {
        message: 'model: expected Qwen/Qwen3Guard-Gen-0.6B or tiny-guard-gen, got "gpt-4"',
        type: "invalid_request_error",
        param: "model",
        code: "model_not_found",
      },
    ]);
  });

  test("the description names every route, and its references lead somewhere", async () => {
    const { json } = await get("/openapi.json");
    const listed = Object.entries(json.paths).flatMap(([path, methods]) =>
      Object.keys(methods as object).map(method => `${method.toUpperCase()} ${path}`),
    );
    const { error } = (await get("/nowhere")).json;
    const paths = /expected one of (.*), got/.exec(error.message)?.[1].split(", ");
    expect(Object.keys(json.paths).sort()).toEqual(paths?.sort());
    expect(listed.length).toBe(9);
    // What the description calls POST answers POST, and so on.
    for (const route of listed) {
      const [method, path] = route.split(" ");
      const { status } = method === "GET" ? await get(path.replace("{id}", "tiny-guard-gen")) : await post(path, {});
      expect([route, status]).toEqual([route, method === "GET" ? 200 : 400]);
    }
    for (const [, name] of JSON.stringify(json).matchAll(/#\/components\/schemas\/(\w+)/g)) {
      expect(Object.keys(json.components.schemas)).toContain(name);
    }
  });

  test("another method is 405 and says which one; HEAD goes where GET goes", async () => {
    const wrong = await get("/v1/moderations");
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "POST"]);
    const other = await post("/health", {});
    expect([other.status, other.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
    expect(other.json.error.message).toBe("/health: expected GET, HEAD, got POST");
    expect(await get("/health", { method: "HEAD" })).toMatchObject({ status: 200, text: "" });
  });

  test("every answer has an id and forbids sniffing its type", async () => {
    const { headers } = await get("/nowhere");
    expect(headers.get("x-request-id")).toMatch(/^req-[0-9a-f]{24}$/);
    expect(headers.get("x-content-type-options")).toBe("nosniff");
  });
});

describe("the key", () => {
  const { get, post } = client({ apiKey: "secret" });
  const bearer = (key: string): RequestInit => ({ headers: { authorization: key } });

  test("is asked of all but the page, health and the description", async () => {
    for (const path of ["/", "/health", "/openapi.json"]) expect((await get(path)).status).toBe(200);
    for (const path of ["/v1/models", "/v1/models/tiny-guard-gen", "/metrics"])
      expect((await get(path)).status).toBe(401);
    for (const path of ["/v1/moderations", "/v1/chat/completions", "/v1/completions"]) {
      const refused = await post(path, "not even JSON");
      expect([refused.status, refused.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
    }
  });

  test.each(["Bearer secret", "bearer  secret"])("%s is right", async key => {
    expect((await get("/v1/models", bearer(key))).status).toBe(200);
  });

  test.each(["Bearer Secret", "Bearer secre", "Bearer secrets", "Bearer ", "Bearer", "secret", "Basic secret"])(
    "%s is wrong",
    async key => {
      const { status, json } = await get("/v1/models", bearer(key));
      expect([status, json.error.code, json.error.type]).toEqual([401, "invalid_api_key", "authentication_error"]);
    },
  );
});

describe("bodies", () => {
  const { post } = client({ maxBodyBytes: 200 });
  const refused = async (body: string | Uint8Array, init?: RequestInit): Promise<[number, string]> => {
    const { status, json } = await post("/v1/moderations", body, init);
    return [status, json.error.message];
  };

  test("must be JSON in UTF-8, by their headers", async () => {
    const typed = (type: string): RequestInit => ({ headers: { "content-type": type } });
    for (const type of [
      "text/plain",
      "application/x-www-form-urlencoded",
      "application/json; charset=latin1",
      "application/jsonp",
    ]) {
      expect(await refused("{}", typed(type))).toEqual([
        415,
        `content-type: expected application/json in UTF-8, got ${JSON.stringify(type)}`,
      ]);
    }
    for (const type of ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']) {
      expect((await post("/v1/moderations", { input: "hi" }, typed(type))).status).toBe(200);
    }
    expect((await refused("{}", { headers: { "content-encoding": "gzip" } }))[0]).toBe(415);
  });

  test.each([
    ["", "body: expected JSON, got nothing"],
    ["{", "body: expected JSON, got text that is not"],
    ['{"input": "secret words', "body: expected JSON, got text that is not"],
    ["[]", "body: expected a JSON object, got an array"],
    ["null", "body: expected a JSON object, got null"],
    [`{"input":${"[".repeat(40)}${"]".repeat(40)}}`, "body: expected JSON at most 32 deep, got deeper"],
  ])("%j is refused", async (body, message) => {
    expect(await refused(body)).toEqual([400, message]);
  });

  test("bytes that are not UTF-8 are refused", async () => {
    expect(await refused(Uint8Array.of(0x7b, 0xff, 0x7d))).toEqual([
      400,
      "body: expected UTF-8 text, got bytes that are not",
    ]);
  });

  test("one above the limit is refused by its header, or by its bytes if the header lies or is missing", async () => {
    const long = JSON.stringify({ input: "x".repeat(200) });
    expect(await refused(long)).toEqual([413, "body: expected at most 200 bytes, got more"]);
    expect(await refused("{}", { headers: { "content-length": "1000" } })).toEqual([
      413,
      "body: expected at most 200 bytes, got 1000",
    ]);
    expect((await refused(long, { headers: { "content-length": "10" } }))[0]).toBe(413);
    // An endless one is not read to its end.
    let pulls = 0;
    const endless = new ReadableStream({
      pull: controller => {
        pulls++;
        controller.enqueue(new Uint8Array(64));
      },
    });
    expect((await post("/v1/moderations", "", { body: endless, duplex: "half" } as RequestInit)).status).toBe(413);
    expect(pulls).toBeLessThan(10);
  });

  test("one that stops arriving is a request that takes too long", async () => {
    const { post } = client({ timeoutMs: 50 });
    const stalled = new ReadableStream({ start: c => c.enqueue(new TextEncoder().encode('{"input":')) });
    const { status, json } = await post("/v1/moderations", "", { body: stalled, duplex: "half" } as RequestInit);
    expect([status, json.error.code]).toEqual([504, "timeout"]);
  });
});

describe("under load", () => {
  const long = { messages: [{ role: "user", content: "word ".repeat(1500) }] };

  test("one more than the queue holds is told to come back", async () => {
    const { get, post } = client({ maxQueue: 1 });
    const running = [post("/v1/moderations", long)];
    await queueHas(get, 1, 0);
    running.push(post("/v1/moderations", long));
    await queueHas(get, 1, 1);
    const refused = await post("/v1/moderations", long);
    expect([refused.status, refused.json.error]).toEqual([
      503,
      {
        message: "the queue is full (1 waiting)",
        type: "server_error",
        param: null,
        code: "queue_full",
      },
    ]);
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect((await Promise.all(running)).map(({ status }) => status)).toEqual([200, 200]);
    expect((await get("/metrics")).text).toContain("qwen3guard_queue_refused_total 1\n");
  });

  test("a client that goes away frees its place, and its work ends", async () => {
    const { get, post } = client({ maxQueue: 1 });
    const gone = new AbortController();
    const first = post("/v1/moderations", long, { signal: gone.signal });
    await queueHas(get, 1, 0);
    const second = post("/v1/moderations", long, { signal: gone.signal });
    await queueHas(get, 1, 1);
    gone.abort();
    expect((await Promise.all([first, second])).map(({ status }) => status)).toEqual([499, 499]);
    expect((await post("/v1/moderations", { input: BOMB })).json.results[0].safety).toBe("Unsafe");
    expect((await get("/metrics")).text).toContain(
      'qwen3guard_requests_total{route="/v1/moderations",status="499"} 2\n',
    );
  });

  test("a request that takes too long ends, and clients are told not to repeat it", async () => {
    const { post } = client({ timeoutMs: 1 });
    const { status, headers, json } = await post("/v1/moderations", {
      input: ["hi", "there", ...Array(50).fill("word ".repeat(500))],
    });
    expect([status, headers.get("x-should-retry"), json.error.message]).toEqual([
      504,
      "false",
      "request: expected an answer within 1 ms, got none",
    ]);
  });

  test("draining refuses new work, answers what it has accepted, and says so in health", async () => {
    const { handler, get, post } = client();
    const accepted = [post("/v1/moderations", long), post("/v1/moderations", long)];
    await queueHas(get, 1, 1);
    let isDrained = false;
    const drained = handler.drain().then(() => {
      isDrained = true;
    });
    const refused = await post("/v1/moderations", { input: "hi" });
    expect([refused.status, refused.json.error.code, refused.headers.get("connection")]).toEqual([
      503,
      "shutting_down",
      "close",
    ]);
    expect(await get("/health")).toMatchObject({ status: 503, json: { status: "draining" } });
    expect(isDrained).toBe(false);
    expect((await Promise.all(accepted)).map(({ status }) => status)).toEqual([200, 200]);
    await drained;
  });
});

describe("other origins", () => {
  const origin = { headers: { origin: "https://example.org" } };
  const asks = { method: "OPTIONS", headers: { ...origin.headers, "access-control-request-method": "POST" } };

  test("are not allowed by default", async () => {
    expect((await get("/health", origin)).headers.has("access-control-allow-origin")).toBe(false);
    expect((await get("/v1/moderations", asks)).status).toBe(405);
  });

  test("may call with --cors, preflight and failures included", async () => {
    const { get, post } = client({ cors: "https://example.org", apiKey: "secret" });
    const preflight = await get("/v1/moderations", asks);
    expect([
      preflight.status,
      preflight.headers.get("access-control-allow-origin"),
      preflight.headers.get("vary"),
    ]).toEqual([204, "https://example.org", "origin"]);
    expect(preflight.headers.get("access-control-allow-headers")).toContain("authorization");
    const failed = await post("/v1/moderations", {}, origin);
    expect([failed.status, failed.headers.get("access-control-allow-origin")]).toEqual([401, "https://example.org"]);
    expect((await client({ cors: "*" }).get("/health")).headers.get("access-control-allow-origin")).toBe("*");
  });
});

describe("metrics", () => {
  test("count requests, tokens, verdicts and time, under labels that no client chooses", async () => {
    const { get, post } = client();
    await post("/v1/moderations", { input: [BOMB, "Tell me a joke about cats."] });
    await post("/v1/chat/completions", { messages: [{ role: "user", content: BOMB }] });
    await post("/v1/completions", { prompt: "a", max_tokens: 1 });
    await get("/evil{}\"'/../../x?y=z");
    await get("/v1/models/evil");
    const { text, headers } = await get("/metrics");
    expect(headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    const values = Object.fromEntries(
      text
        .split("\n")
        .filter(line => line !== "" && !line.startsWith("#"))
        .map(line => {
          expect(line).toMatch(/^[a-z0-9_]+(\{[a-z_]+="[^"\\\n]*"(,[a-z_]+="[^"\\\n]*")*\})? [\d.e+-]+$/);
          return [line.replace(/ [^ ]+$/, ""), Number(/[^ ]+$/.exec(line)?.[0])];
        }),
    );
    expect(values).toMatchObject({
      'qwen3guard_requests_total{route="/v1/moderations",status="200"}': 1,
      'qwen3guard_requests_total{route="/v1/chat/completions",status="200"}': 1,
      'qwen3guard_requests_total{route="/v1/models/{id}",status="404"}': 1,
      'qwen3guard_requests_total{route="other",status="404"}': 1,
      'qwen3guard_verdicts_total{safety="Unsafe"}': 2,
      'qwen3guard_verdicts_total{safety="Safe"}': 1,
      'qwen3guard_request_seconds_count{route="/v1/moderations"}': 1,
      'qwen3guard_request_seconds_bucket{route="/v1/moderations",le="+Inf"}': 1,
      qwen3guard_queue_waiting: 0,
      qwen3guard_queue_begun: 0,
    });
    expect(values['qwen3guard_tokens_total{kind="cached"}']).toBeGreaterThan(200);
    expect(text).not.toContain("evil");
  });
});

describe("the log", () => {
  const logged = async (options: HandlerOptions): Promise<string[]> => {
    const lines: string[] = [];
    const { post } = client({ ...options, log: line => lines.push(line) });
    await post("/v1/moderations", { input: BOMB });
    await post("/v1/moderations", { input: 5, secret: BOMB });
    return lines.map(line => line.replace(/[\d.]+ ms/, "- ms"));
  };

  test("is silent while nothing fails", async () => {
    expect(await logged({})).toEqual([]);
  });

  test("has a line for each request if asked to, without its text", async () => {
    expect(await logged({ logRequests: true })).toEqual(["200 /v1/moderations - ms", "400 /v1/moderations - ms"]);
  });

  test("has the text if asked to", async () => {
    expect(await logged({ logText: true })).toEqual([
      `200 /v1/moderations - ms ${JSON.stringify(BOMB)}`,
      "400 /v1/moderations - ms",
    ]);
  });

  test("says what failed in the server; the client learns only that something did", async () => {
    const lines: string[] = [];
    const broken = Object.create(guard, {
      moderate: { value: () => Promise.reject(new Error("engine: expected a heap, got none")) },
    });
    const handler = createHandler(broken, { log: line => lines.push(line) });
    const response = await handler.fetch(
      new Request("http://localhost/v1/moderations", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ input: BOMB }),
      }),
    );
    expect([response.status, (await response.json()).error.message]).toEqual([
      500,
      "the server failed to answer; its log says how",
    ]);
    expect(lines).toEqual(["qwen3guard: /v1/moderations: engine: expected a heap, got none"]);
  });
});

test.each([
  [{ maxQueue: 0 }, "maxQueue: expected an integer of at least 1, got 0"],
  [{ maxBodyBytes: 0 }, "maxBodyBytes: expected an integer from 1 to 2147483647, got 0"],
  [{ timeoutMs: 2 ** 31 }, "timeoutMs: expected an integer from 1 to 2147483647, got 2147483648"],
  [{ apiKey: "" }, "apiKey: expected a key of printable ASCII without blanks, got an empty text"],
  [{ apiKey: "secret " }, "apiKey: expected a key of printable ASCII without blanks, got another text"],
  [{ apiKey: "schl\u00fcssel" }, "apiKey: expected a key of printable ASCII without blanks, got another text"],
  [
    { port: 1 },
    'handler: expected options among modelNames, apiKey, maxQueue, maxBodyBytes, timeoutMs, cors, log, logRequests, logText, got "port"',
  ],
])("options %j are refused", (options, message) => {
  expect(() => createHandler(guard, options as HandlerOptions)).toThrow(message);
});
