/**
 * What clients see where the upstream, the guard or they themselves fail: always an error, never an answer that looks
 * complete.
 */

import type { ServerResponse } from "node:http";
import { connect } from "node:net";
import { Worker } from "node:worker_threads";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import type { Guard } from "../../../src/guard/guard.ts";
import { StreamGuard } from "../../../src/guard/stream-guard.ts";
import { loadGuard, STREAM } from "../../checkpoints.ts";
import { events } from "../requests.ts";
import { answerChunks, beginEvents, chunk, HEAD, metricsSay, type Script, type Setting, sendEvents, sendJson, setting, writes } from "./stand-in.ts"; // biome-ignore format: one line

const asks = (content: string) => ({ model: "llm", messages: [{ role: "user" as const, content }] });
const QUESTION = asks("What is the capital of France?");
const GOOD = ["Paris is the ", "capital of ", "France."];

let guard: StreamGuard;
beforeAll(async () => {
  guard = await StreamGuard.load(STREAM);
});
afterEach(() => vi.restoreAllMocks());

function post({ url }: Setting, body: object, signal?: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return fetch(`${url}/chat/completions`, {
    method: "POST",
    headers,
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });
}

/** How a streamed answer ended: its text and its last event, or the status and the error in place of it. */
async function streamed(
  s: Setting,
  body: object = {},
  // biome-ignore lint/suspicious/noExplicitAny: tests look into events of every shape
): Promise<{ status: number; text: string; last: any; all: string }> {
  const response = await post(s, { ...QUESTION, stream: true, ...body });
  const all = await response.text();
  if (!response.ok) return { status: response.status, text: "", last: JSON.parse(all), all };
  const got = events(all);
  return {
    status: 200,
    text: got.map(event => event.choices?.[0]?.delta.content ?? "").join(""),
    last: got.at(-1),
    all,
  };
}

const begins = (response: ServerResponse): void => {
  beginEvents(response);
  for (const event of answerChunks(GOOD).slice(0, -1)) response.write(`data: ${JSON.stringify(event)}\n\n`);
};

describe("the upstream", () => {
  test("refuses: its status, headers and error pass", async () => {
    const s = await setting(guard, (_, response) => {
      response.writeHead(429, {
        "content-type": "application/json",
        "retry-after": "7",
        connection: "x-private",
        "x-private": "1",
      });
      response.end('{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}');
    });
    for (const stream of [true, false]) {
      const response = await post(s, { ...QUESTION, stream });
      expect([
        response.status,
        await response.text(),
        response.headers.get("retry-after"),
        response.headers.has("x-private"),
      ]).toEqual([429, '{"error":{"message":"slow down","code":"rate_limit_exceeded"}}', "7", false]);
      await expect(s.openai.chat.completions.create({ ...QUESTION, stream })).rejects.toMatchObject({
        status: 429,
        code: "rate_limit_exceeded",
      });
    }
  });

  test("cannot be reached: 502", async () => {
    const s = await setting(guard, writes(GOOD), { upstream: "http://127.0.0.1:9" });
    expect((await streamed(s)).last.error).toMatchObject({
      code: "upstream_failed",
      message: expect.stringMatching(/^upstream: expected an answer, got /),
    });
  });

  test("fails in the middle: its error is the last event", async () => {
    const error = { message: "out of memory", type: "server_error" };
    const s = await setting(guard, (_, response) =>
      sendEvents(response, [...answerChunks(GOOD).slice(0, -1), { error }]),
    );
    const { text, last, all } = await streamed(s);
    expect([GOOD.join("").startsWith(text), last, all.includes("[DONE]")]).toEqual([true, { error }, false]);
    const reading = (async () => {
      for await (const _ of await s.openai.chat.completions.create({ ...QUESTION, stream: true }));
    })();
    await expect(reading).rejects.toThrow("out of memory");
  });

  test.each([true, false])("does not answer: 504 (stream: %s)", async stream => {
    const s = await setting(guard, () => {}, { timeoutMs: 50 });
    const response = await post(s, { ...QUESTION, stream });
    expect([response.status, response.headers.get("x-should-retry"), (await response.json()).error.message]).toEqual([
      504,
      "false",
      "upstream: expected data within 50 ms, got none",
    ]);
  });

  test("stalls in the middle: an error is the last event, the upstream's work ends, and the place is free", async () => {
    let closed: () => void = () => {};
    const ended = new Promise<void>(resolve => {
      closed = resolve;
    });
    const s = await setting(guard, (_, response) => {
      response.on("close", closed);
      begins(response);
    }, { timeoutMs: 100, maxStreams: 1 }); // biome-ignore format: a script
    const { text, last, all } = await streamed(s);
    expect([GOOD.join("").startsWith(text), last.error.code, all.includes("[DONE]")]).toEqual([
      true,
      "upstream_timeout",
      false,
    ]);
    await ended;
    await metricsSay(s, "qwen3guard_proxy_streams 0");
  });

  test.each(["end", "destroy"] as const)("ends too early (%s): an error is the last event", async how => {
    const s = await setting(guard, async (_, response) => {
      begins(response);
      await new Promise(resolve => setTimeout(resolve, 20));
      response[how]();
    });
    const { last, all } = await streamed(s);
    expect([["upstream_invalid", "upstream_failed"].includes(last.error.code), all.includes("[DONE]")]).toEqual([
      true,
      false,
    ]);
  });

  const garbage: [string, string | Uint8Array, string][] = [
    ["no JSON", "data: Paris is\n\n", "expected JSON in an event, got text that is not"],
    ["JSON that is cut off", `data: ${JSON.stringify(chunk({ content: "Paris" })).slice(0, -3)}`, "expected JSON in an event, got text that is not"],
    ["no object", "data: [1]\n\n", "expected an event to be an object, got something else"],
    ["no choices", "data: {}\n\n", "expected choices to be an array, got something else"],
    ["a choice that is none", 'data: {"choices": [5]}\n\n', "expected a choice to be an object, got something else"],
    ["a content that is no text", `data: ${JSON.stringify(chunk({ content: [{ text: "Paris" }] }))}\n\n`, "expected content to be a text, got something else"],
    ["a choice that was not asked for", `data: ${JSON.stringify(chunk({ content: "Paris" }, null, 1))}\n\n`, "expected choices 0 to 0, which were asked for, got another"],
    ["bytes that are not UTF-8", Uint8Array.of(0x64, 0x61, 0x74, 0x61, 0x3a, 0xff, 0x0a, 0x0a), "expected UTF-8 text, got bytes that are not"],
    ["nothing", "", "expected an answer to its end, got a stream that ended before it"],
    ["an end alone", "data: [DONE]\n\n", "expected an answer, got a stream without any"],
    ["a page", "<html><body>hello</body></html>\n", "expected an answer to its end, got a stream that ended before it"],
  ]; // biome-ignore format: a table
  test.each(garbage)("sends %s: 502", async (_, bytes, message) => {
    const s = await setting(guard, (_, response) => {
      beginEvents(response);
      response.end(bytes);
    });
    const { status, last } = await streamed(s);
    expect([status, last.error]).toEqual([
      502,
      { message: `upstream: ${message}`, type: "server_error", param: null, code: "upstream_invalid" },
    ]);
  });

  test.each(["data: ", ""])(
    "sends a line without end (%j): 502, and no more of it is read than an event may have",
    async start => {
      let sent = 0;
      const s = await setting(guard, async (_, response) => {
        beginEvents(response);
        response.write(start);
        let isOpen = true;
        response.on("close", () => {
          isOpen = false;
        });
        for (; isOpen; sent += 2 ** 16) {
          response.write("x".repeat(2 ** 16));
          await new Promise(resolve => setTimeout(resolve));
        }
      });
      expect((await streamed(s)).last.error.message).toBe(
        "upstream: expected an event of at most 1048576 characters, got a longer one",
      );
      expect(sent).toBeLessThan(2 ** 24);
    },
  );

  test("does not answer in the form that was asked for: 502", async () => {
    const s = await setting(guard, ({ json }, response) => {
      if (!json.stream) return sendEvents(response, answerChunks(GOOD));
      sendJson(response, { ...HEAD, choices: [] });
    });
    expect((await streamed(s)).last.error.message).toBe(
      "upstream: expected text/event-stream, as was asked for, got another type",
    );
    expect((await streamed(s, { stream: false })).last.error.message).toBe(
      "upstream: expected application/json, as was asked for, got another type",
    );
  });

  test.each<[string, string | Uint8Array, string]>([
    ["no JSON", "Paris", "upstream: expected JSON in an answer, got text that is not"],
    [
      "bytes that are not UTF-8",
      Uint8Array.of(0x22, 0xff, 0x22),
      "upstream: expected UTF-8 text, got bytes that are not",
    ],
    ["no choices", "{}", "upstream: expected choices to be an array, got something else"],
    [
      "an answer that is too long",
      `"${"x".repeat(2 ** 24)}"`,
      "upstream: expected an answer of at most 16777216 bytes, got a longer one",
    ],
    ["an error under the status of an answer", '{"error":{"message":"no"}}', "no"],
  ])("sends %s as a whole answer: 502", async (_, bytes, message) => {
    const s = await setting(guard, (_, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(bytes);
    });
    const { status, last } = await streamed(s, { stream: false });
    expect([status, last.error.message]).toEqual([502, message]);
  });
});

describe("the client", () => {
  const whenOpen: Script = (_, response) => begins(response);

  test.each(["a streamed answer", "a whole answer"])(
    "leaves during %s: the upstream's work ends and the place is free",
    async kind => {
      let closed: () => void = () => {};
      const ended = new Promise<void>(resolve => {
        closed = resolve;
      });
      const isStream = kind === "a streamed answer";
      const s = await setting(guard, (request, response) => {
      response.on("close", closed);
      if (isStream) whenOpen(request, response);
    }, { maxStreams: 1 }); // biome-ignore format: a script
      const gone = new AbortController();
      const answer = post(s, { ...QUESTION, stream: isStream }, gone.signal);
      answer.catch(() => {});
      if (isStream) await (await answer).body?.getReader().read();
      else while (s.received.length === 0) await new Promise(resolve => setTimeout(resolve, 5));
      gone.abort();
      await ended;
      await metricsSay(s, "qwen3guard_proxy_streams 0");
      await metricsSay(s, 'qwen3guard_requests_total{route="/v1/chat/completions",status="499"} 1');
    },
  );

  test("leaves the line: its place is free", async () => {
    const s = await setting(guard, whenOpen, { maxStreams: 1, maxQueue: 1 });
    const gone = new AbortController();
    const first = await post(s, { ...QUESTION, stream: true }, gone.signal);
    const second = post(s, { ...QUESTION, stream: true }, gone.signal);
    second.catch(() => {});
    await metricsSay(s, "qwen3guard_proxy_waiting 1");
    const refused = await post(s, { ...QUESTION, stream: true });
    expect([refused.status, (await refused.json()).error.code]).toEqual([503, "queue_full"]);
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    gone.abort();
    await expect(first.text()).rejects.toThrow();
    await metricsSay(s, "qwen3guard_proxy_waiting 0");
    await metricsSay(s, "qwen3guard_proxy_streams 0");
    expect(s.received.length).toBe(1);
  });

  test("waits in the line until another's answer has ended", async () => {
    const s = await setting(guard, writes(GOOD), { maxStreams: 1 });
    const texts = await Promise.all(Array.from({ length: 6 }, async () => (await streamed(s)).text));
    expect(texts).toEqual(Array(6).fill(GOOD.join("")));
  });
});

describe("the guard", () => {
  const health = async ({ url }: Setting): Promise<[number, string]> => {
    const response = await fetch(url.replace("/v1", "/health"));
    return [response.status, (await response.json()).status];
  };

  /** Its worker is ended in the middle of an answer. */
  async function withDyingWorker(options: {
    failOpen?: boolean;
    action?: "flag";
  }): Promise<{ s: Setting; answer: Awaited<ReturnType<typeof streamed>> }> {
    const once = vi.spyOn(Worker.prototype, "once");
    const dying = await StreamGuard.load(STREAM, { threads: 2 });
    await dying.model.engine.ready();
    const workers = [...new Set(once.mock.contexts as Worker[])];
    expect(workers.length).toBe(1);
    const s = await setting(dying, async (_, response) => {
      const chunks = answerChunks(GOOD);
      beginEvents(response);
      for (const event of chunks.slice(0, 3)) response.write(`data: ${JSON.stringify(event)}\n\n`);
      await metricsSay(s, "qwen3guard_queue_waiting 0");
      await workers[0].terminate();
      for (const event of chunks.slice(3)) response.write(`data: ${JSON.stringify(event)}\n\n`);
      response.end("data: [DONE]\n\n");
    }, options); // biome-ignore format: a script
    return { s, answer: await streamed(s) };
  }

  test("loses a worker: the answer ends with an error, the rest is withheld, and health tells", async () => {
    const { s, answer } = await withDyingWorker({});
    expect(GOOD.join("").startsWith(answer.text)).toBe(true);
    expect([answer.text.includes("France"), answer.all.includes("[DONE]"), answer.last.error]).toEqual([
      false,
      false,
      { message: "the guard failed; the proxy's log says more", type: "server_error", param: null, code: "guard_failed" },
    ]); // biome-ignore format: what is withheld, and why
    expect(s.log[0]).toMatch(/^qwen3guard: the guard failed: the threads have stopped: a worker ended/);
    expect(await health(s)).toEqual([503, "failing"]);
    const next = await streamed(s);
    expect([next.status, next.last.error.code, s.received.length]).toEqual([500, "guard_failed", 1]);
    await metricsSay(s, "qwen3guard_proxy_streams 0");
  });

  test("loses a worker, and the proxy fails open: the rest passes, and a field tells", async () => {
    const { s, answer } = await withDyingWorker({ failOpen: true });
    expect([answer.text, answer.last]).toEqual([GOOD.join(""), "[DONE]"]);
    expect(answer.all).toContain('"qwen3guard":{"action":"pass","guard":"tiny-guard-stream","error":"guard_failed"}');
    const next = await post(s, { ...QUESTION, stream: true });
    expect([next.status, next.headers.get("x-qwen3guard-question")]).toEqual([200, "unjudged; guard_failed"]);
    expect((await next.text()).endsWith("data: [DONE]\n\n")).toBe(true);
  });

  test("loses a worker while nothing is blocked: everything passes", async () => {
    expect((await withDyingWorker({ action: "flag" })).answer.text).toBe(GOOD.join(""));
  });

  test("has no room for the answer: it is cut, and health stays", async () => {
    const said = "Paris is the capital of France, as I have said a hundred times before. ".repeat(6);
    const s = await setting(guard, writes(Array(40).fill(said)));
    const { text, all } = await streamed(s);
    const why = { risk: null, category: null, field: "content", error: "guard_context_exceeded" };
    const cut = {
      finish_reason: "content_filter",
      qwen3guard: { action: "block", guard: "tiny-guard-stream", ...why },
    };
    expect(said.repeat(40).startsWith(text) && text.length > said.length).toBe(true);
    expect(events(all).at(-2).choices[0]).toMatchObject({ ...cut, qwen3guard: { ...cut.qwen3guard, at: text.length } });
    const [choice] = (await s.openai.chat.completions.create(QUESTION)).choices;
    expect(choice).toMatchObject({ ...cut, message: { content: "" } });
    expect(await health(s)).toEqual([200, "ok"]);
    expect(await s.metrics()).toContain('qwen3guard_proxy_answers_total{outcome="failed"} 2\n');
  });

  test("has no room for the question: 400", async () => {
    const s = await setting(guard, writes(GOOD));
    const { status, last } = await streamed(s, asks("word ".repeat(3000)));
    expect([status, last.error.code, s.received]).toEqual([400, "context_length_exceeded", []]);
  });

  /** Whose verdicts on answers cannot be read. */
  async function unreadable(): Promise<Guard> {
    const gen = await loadGuard();
    return Object.create(gen, {
      name: { value: gen.name },
      stream: {
        value: (...[input, options]: Parameters<Guard["stream"]>) => {
          const stream = gen.stream(input, options);
          const bad = { verdicts: [], clearedTo: 0, violation: { risk: null, category: null, at: 0 } };
          return {
            query: () => stream.query(),
            push: async () => bad,
            end: async () => bad,
            close: () => stream.close(),
          };
        },
      },
      moderate: { value: async () => ({ safety: null, categories: [], flagged: true }) },
    });
  }

  test.each([false, true])("cannot be understood: that counts as the worst (fail open: %s)", async failOpen => {
    const s = await setting(await unreadable(), writes(GOOD), { failOpen });
    const { text, all } = await streamed(s);
    expect(text).toBe("");
    expect(all).toContain(
      '"finish_reason":"content_filter","qwen3guard":{"action":"block","guard":"tiny-guard-gen","risk":null,"category":null,',
    );
    expect((await s.openai.chat.completions.create(QUESTION)).choices[0].finish_reason).toBe("content_filter");
  });
});

test("draining finishes what was accepted and refuses the rest", async () => {
  let finish: () => void = () => {};
  const s = await setting(guard, (_, response) => {
    begins(response);
    finish = () => response.end(`data: ${JSON.stringify(chunk({}, "stop"))}\n\ndata: [DONE]\n\n`);
  });
  const accepted = await post(s, { ...QUESTION, stream: true });
  let isDrained = false;
  const drained = s.handler.drain().then(() => {
    isDrained = true;
  });
  const refused = await post(s, QUESTION);
  expect([refused.status, (await refused.json()).error.code, isDrained]).toEqual([503, "shutting_down", false]);
  finish();
  expect(await accepted.text()).toContain("[DONE]");
  await drained;
});

test("a request that breaks off before its body has arrived changes nothing else", async () => {
  const s = await setting(guard, writes(GOOD));
  const { port, hostname } = new URL(s.url);
  const socket = connect(Number(port), hostname);
  socket.write(
    "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
  );
  await new Promise(resolve => setTimeout(resolve, 20));
  socket.destroy();
  await metricsSay(s, 'qwen3guard_requests_total{route="/v1/chat/completions",status="499"} 1');
  expect((await streamed(s)).text).toBe(GOOD.join(""));
});
