/** What the server and the proxy do alike around a request: failures, the signal, counts, the log, the shutdown. */

import { describe, expect, onTestFinished, test, vi } from "vitest";
import { invalid } from "../../src/server/api-error.ts";
import { type Exchange, Exchanges } from "../../src/server/exchange.ts";
import { Metrics } from "../../src/server/metrics.ts";

const URL_OF_ANY = "http://localhost/any";

function setting(options: { timeoutMs?: number; logRequests?: boolean; logText?: boolean } = {}): {
  readonly exchanges: Exchanges;
  readonly log: string[];
  /** The count of requests by route and status. */
  readonly counts: () => Promise<string[]>;
} {
  const log: string[] = [];
  const metrics = new Metrics();
  const defaults = { maxBodyBytes: 100, logRequests: false, logText: false };
  return {
    exchanges: new Exchanges(metrics, { ...defaults, log: line => log.push(line), ...options }),
    log,
    counts: async () =>
      (await metrics.response().text()).split("\n").filter(line => line.startsWith("qwen3guard_requests_total")),
  };
}

/** Waits until the signal is aborted, and fails with its reason. */
const wait = ({ signal }: Exchange): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

describe("a failure", () => {
  test("that is the client's is told as it is and not logged", async () => {
    const { exchanges, log, counts } = setting();
    const response = await exchanges.run(new Request(URL_OF_ANY), async exchange => {
      exchange.route = "/v1/any";
      throw invalid("n", "one", "two");
    });
    expect([response.status, (await response.json()).error.message]).toEqual([400, "n: expected one, got two"]);
    expect([log, await counts()]).toEqual([[], ['qwen3guard_requests_total{route="/v1/any",status="400"} 1']]);
  });

  test("that is unexpected is logged and not told", async () => {
    const { exchanges, log } = setting();
    const response = await exchanges.run(new Request(URL_OF_ANY), () => Promise.reject(new Error("a secret")));
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain("secret");
    expect(log).toEqual(["qwen3guard: other: a secret"]);
  });

  test("after the first event of a stream is an event, and is logged if it is unexpected", async () => {
    const { exchanges, log } = setting();
    const response = await exchanges.run(new Request(URL_OF_ANY), exchange =>
      exchange.stream(async send => {
        send({ first: true });
        throw new Error("a secret");
      }),
    );
    const text = await response.text();
    expect([response.status, text.split("\n\n")[0]]).toEqual([200, 'data: {"first":true}']);
    expect(text).toContain('"code":"internal_error"');
    expect([text.includes("secret"), log]).toEqual([false, ["qwen3guard: other: a secret"]]);
  });
});

describe("the work ends", () => {
  test.each([true, false])("when the client leaves (before it begins: %s), with a status that it never sees", async isBefore => {
    const { exchanges, counts } = setting();
    const client = new AbortController();
    if (isBefore) client.abort();
    const running = exchanges.run(new Request(URL_OF_ANY, { signal: client.signal }), async exchange => {
      exchange.signal.throwIfAborted();
      return wait(exchange);
    });
    client.abort();
    expect((await running).status).toBe(499);
    expect(await counts()).toEqual(['qwen3guard_requests_total{route="other",status="499"} 1']);
  }); // biome-ignore format: one test

  test("when nobody reads the answer, which is counted as a client that left", async () => {
    const { exchanges, counts } = setting();
    const response = await exchanges.run(new Request(URL_OF_ANY), exchange =>
      exchange.stream(async send => {
        send({});
        await wait(exchange);
      }),
    );
    await response.body?.cancel();
    await vi.waitFor(async () =>
      expect(await counts()).toEqual(['qwen3guard_requests_total{route="other",status="499"} 1']),
    );
  });

  test("at the time limit, which is told, and clients are told not to try again", async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const { exchanges } = setting({ timeoutMs: 50 });
    const running = exchanges.run(new Request(URL_OF_ANY), wait);
    vi.advanceTimersByTime(50);
    const response = await running;
    expect([response.status, response.headers.get("x-should-retry")]).toEqual([504, "false"]);
    expect((await response.json()).error.message).toBe("request: expected an answer within 50 ms, got none");
  });

  test("never by itself without a limit, and no clock runs on after the answer", async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    await setting().exchanges.run(new Request(URL_OF_ANY), async () => {
      expect(vi.getTimerCount()).toBe(0);
      return new Response();
    });
    await setting({ timeoutMs: 50 }).exchanges.run(new Request(URL_OF_ANY), async () => {
      expect(vi.getTimerCount()).toBe(1);
      return new Response();
    });
    expect(vi.getTimerCount()).toBe(0);
  });
});

test("a response gets an id unless it brings one", async () => {
  const { exchanges } = setting();
  const idOf = async (headers: Record<string, string>): Promise<string | null> =>
    (await exchanges.run(new Request(URL_OF_ANY), async () => new Response(null, { headers }))).headers.get(
      "x-request-id",
    );
  expect(await idOf({})).toMatch(/^req-[0-9a-f]{24}$/);
  expect(await idOf({ "x-request-id": "theirs" })).toBe("theirs");
});

test.each([
  [{}, []],
  [{ logRequests: true }, ["200 other - ms"]],
  [{ logText: true }, ['200 other - ms "a\\nb"']],
])("%j logs %j for a request", async (options, lines) => {
  const { exchanges, log } = setting(options);
  await exchanges.run(new Request(URL_OF_ANY), async exchange => {
    exchange.texts = ["a\nb"];
    return new Response();
  });
  expect(log.map(line => line.replace(/[\d.]+ ms/, "- ms"))).toEqual(lines);
});

test("a body is read up to the limit", async () => {
  const { exchanges } = setting();
  const read = async (body: string): Promise<number> => {
    const headers = { "content-type": "application/json" };
    const request = new Request(URL_OF_ANY, { method: "POST", headers, body });
    return (await exchanges.run(request, async exchange => Response.json(await exchange.readBody()))).status;
  };
  expect([await read('{"a":1}'), await read(`{"a":"${"x".repeat(100)}"}`)]).toEqual([200, 413]);
});

test("a shutdown refuses new work, and waits for a stream until its last event", async () => {
  const { exchanges } = setting();
  let end = (): void => {};
  const ended = new Promise<void>(resolve => {
    end = resolve;
  });
  const response = await exchanges.run(new Request(URL_OF_ANY), exchange =>
    exchange.stream(async send => {
      send({});
      await ended;
    }),
  );
  exchanges.checkOpen();
  let isDrained = false;
  const drained = exchanges.drain().then(() => {
    isDrained = true;
  });
  expect(exchanges.isDraining).toBe(true);
  expect(() => exchanges.checkOpen()).toThrow("the server is shutting down");
  await new Promise(resolve => setTimeout(resolve));
  expect(isDrained).toBe(false);
  end();
  await drained;
  expect(await response.text()).toBe("data: {}\n\ndata: [DONE]\n\n");
});
