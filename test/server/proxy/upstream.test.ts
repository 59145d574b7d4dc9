/** What goes to the upstream, and what is believed of its response. `fetch` stands in for the upstream. */

import { getEventListeners } from "node:events";
import { afterEach, describe, expect, test, vi } from "vitest";
import { passOn, Upstream, type UpstreamRequest, type UpstreamResponse } from "../../../src/server/proxy/upstream.ts";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const TIMEOUT_MS = 54_321;

interface Sent {
  readonly url: string;
  readonly init: RequestInit & { readonly headers: Headers; readonly duplex?: string };
}

/** Has `fetch` answer so, and gives what it was asked. */
function answering(answer: (init: RequestInit) => Response | Promise<Response>): Sent[] {
  const sent: Sent[] = [];
  vi.stubGlobal("fetch", async (url: string | URL, init: Sent["init"]) => {
    sent.push({ url: String(url), init });
    return answer(init);
  });
  return sent;
}

const { signal } = new AbortController();

function send(
  request: Partial<UpstreamRequest> = {},
  url: string = "http://up",
  given: AbortSignal = signal,
): Promise<UpstreamResponse> {
  const all = { method: "GET", path: "/files", search: "", headers: new Headers(), body: null, ...request };
  return new Upstream(url, TIMEOUT_MS).send(all, given);
}

/** The response to a request for which the upstream says this. */
function received(headers: Record<string, string>, status: number = 200): Promise<UpstreamResponse> {
  answering(() => new Response("body", { status, headers }));
  return send();
}

async function read({ bytes }: UpstreamResponse): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const part of bytes) text += decoder.decode(part, { stream: true });
  return text;
}

describe("the address", () => {
  test.each([
    ["http://up", "http://up/v1/files?a=1"],
    ["https://up:8000/", "https://up:8000/v1/files?a=1"],
    ["http://up/v1", "http://up/v1/files?a=1"],
    ["http://up/v1//", "http://up/v1/files?a=1"],
    ["http://up/a/v1/b", "http://up/a/v1/b/v1/files?a=1"],
    ["http://up/a/v12", "http://up/a/v12/v1/files?a=1"],
  ])("of %s", async (url, expected) => {
    const sent = answering(() => new Response());
    await send({ search: "?a=1" }, url);
    expect(sent[0].url).toBe(expected);
  });

  test.each([
    ...["", "up", "ftp://up", "httpx://up", "xhttp://up", "http://"],
    ...["http://up/?key=1", "http://up/#key", "http://key@up", "http://:key@up"],
  ])("%j is refused, and not quoted", url => {
    expect(() => new Upstream(url, 1)).toThrow(
      new RangeError(
        "upstream: expected an http or https URL without user, query and fragment, as in http://localhost:8000/v1, got another text",
      ),
    );
  });
});

describe("a request", () => {
  test("goes as it is, and no redirection is followed", async () => {
    const sent = answering(() => new Response());
    await send({ method: "POST", path: "/files/a", body: "text", headers: new Headers({ authorization: "Bearer k" }) });
    const { method, body, redirect, duplex, headers } = sent[0].init;
    expect([method, body, redirect, duplex, [...headers]]).toEqual([
      "POST",
      "text",
      "manual",
      "half",
      [["authorization", "Bearer k"]],
    ]);
  });

  test("keeps no header of the client's connection, and none that names another method or path", async () => {
    const dropped = [
      ...["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"],
      ...["transfer-encoding", "upgrade", "host", "content-length", "accept-encoding", "expect", "x-http-method"],
      ...["x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url", "x-private", "x-hop"],
    ];
    const headers = new Headers(dropped.map(name => [name, "1"]));
    headers.set("connection", "X-Private,  x-hop , not a name");
    headers.set("x-custom", "2");
    const sent = answering(() => new Response());
    await send({ headers });
    expect([...sent[0].init.headers]).toEqual([["x-custom", "2"]]);
    await send({ headers: new Headers({ "x-private": "1" }) });
    expect([...sent[1].init.headers]).toEqual([["x-private", "1"]]);
  });
});

describe("a response's headers", () => {
  const kept = async (headers: Record<string, string>): Promise<object> =>
    Object.fromEntries((await received(headers)).headers);
  const names = [
    ...["x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms", "openai-version"],
    ...["access-control-allow-origin", "access-control-allow-credentials", "access-control-max-age"],
    ...[
      "x-ratelimit-limit",
      "x-ratelimit-remaining",
      "x-ratelimit-reset",
      "x-ratelimit-limit-requests",
      "x-ratelimit-remaining-tokens",
    ],
    ...["x-ratelimit-limit-input-tokens", "x-ratelimit-limit-output-tokens", "x-ratelimit-remaining-tokens-minute"],
    ...["x-ratelimit-limit-requests-day", "x-ratelimit-reset-second", "x-ratelimit-limit-hour"],
  ];
  const lists = [
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "vary",
  ];

  test("that say something about a request pass with a name, a number, a star or a date", async () => {
    for (const value of ["a-1", "120", "*", "Wed, 21 Oct 2026 07:28:00 GMT"]) {
      const headers = Object.fromEntries(names.map(name => [name, value]));
      expect(await kept(headers)).toEqual(headers);
    }
    expect(await kept(Object.fromEntries(names.map(name => [name, "some words"])))).toEqual({});
  });

  test.each([
    ...[
      "wed, 21 Oct 2026 07:28:00 GMT",
      "We, 21 Oct 2026 07:28:00 GMT",
      "Weds, 21 Oct 2026 07:28:00 GMT",
      "WED, 21 Oct 2026 07:28:00 GMT",
    ],
    ...["a Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT a", "Wed 21 Oct 2026 07:28:00 GMT"],
    ...[
      "Wed, 1 Oct 2026 07:28:00 GMT",
      "Wed, ab Oct 2026 07:28:00 GMT",
      "Wed, 21 oct 2026 07:28:00 GMT",
      "Wed, 21 Octo 2026 07:28:00 GMT",
    ],
    ...["Wed, 21 OCT 2026 07:28:00 GMT", "Wed, 21 Oct 202 07:28:00 GMT", "Wed, 21 Oct abcd 07:28:00 GMT"],
    ...[
      "Wed, 21 Oct 2026 7:28:00 GMT",
      "Wed, 21 Oct 2026 ab:28:00 GMT",
      "Wed, 21 Oct 2026 07:2:00 GMT",
      "Wed, 21 Oct 2026 07:ab:00 GMT",
    ],
    ...[
      "Wed, 21 Oct 2026 07:28:0 GMT",
      "Wed, 21 Oct 2026 07:28:ab GMT",
      "W\u00e9d, 21 Oct 2026 07:28:00 GMT",
      "Wed, 21 O\u00e9t 2026 07:28:00 GMT",
    ],
  ])("of %j do not: that is no date", async value => {
    expect(await kept({ "retry-after": value })).toEqual({});
  });

  test.each([
    ...[
      "x-answer",
      "set-cookie",
      "server",
      "link",
      "warning",
      "content-type",
      "x-ratelimit",
      "x-ratelimit-say",
      "x-ratelimit-limit-say",
    ],
    ...[
      "x-ratelimit-limit-a-tokens",
      "x-ratelimit-limit-requests-year",
      "x-ratelimit-limit-requests-a",
      "a-x-ratelimit-limit",
    ],
    ...["x-ratelimit-limit-day-a", "x-ratelimit-limit-input-requests", "x-ratelimit-limitrequests", "x-ratelimit-"],
  ])("of other names do not: %s", async name => {
    expect(await kept({ [name]: "1" })).toEqual({});
  });

  test("that are lists pass with names and stars between commas", async () => {
    for (const value of ["a-1", "a, b,c", "*", "a, *"]) {
      const headers = Object.fromEntries(lists.map(name => [name, value]));
      expect(await kept(headers)).toEqual(headers);
    }
    expect(await kept(Object.fromEntries(lists.map(name => [name, "a, some words"])))).toEqual({});
    const list = (chars: number): Record<string, string> => ({ vary: "a,".repeat(chars / 2 - 1).padEnd(chars, "b") });
    expect([await kept(list(1_024)), await kept(list(1_026))]).toEqual([list(1_024), {}]);
  });

  test("that describe a body pass only with the body as it is", async () => {
    const headers = Object.fromEntries(
      [
        ...["content-type", "content-disposition", "content-language", "content-range", "accept-ranges"],
        ...["cache-control", "etag", "last-modified", "expires", "location"],
      ].map(name => [name, `the ${name}`]),
    );
    const answer = await received({ ...headers, "content-encoding": "gzip", "x-request-id": "a" });
    expect([Object.fromEntries(answer.bodyHeaders), Object.fromEntries(answer.headers)]).toEqual([
      headers,
      { "x-request-id": "a" },
    ]);
    expect(Object.fromEntries(passOn(answer, { ended: undefined }).headers)).toEqual({
      ...headers,
      "x-request-id": "a",
    });
  });

  test("name its type in any case, with parameters or without", async () => {
    const type = async (value: string): Promise<string> => (await received({ "content-type": value })).type;
    expect([await type("application/json"), await type("Text/Event-Stream ; charset=utf-8")]).toEqual([
      "application/json",
      "text/event-stream",
    ]);
    answering(() => new Response(null));
    expect((await send()).type).toBe("");
  });
});

describe("a response", () => {
  test.each([200, 201, 299, 300, 404, 500])("of status %i", async status => {
    const answer = await received({}, status);
    expect([answer.status, answer.isOk, await read(answer)]).toEqual([status, status < 300, "body"]);
  });

  test.each([204, 205, 304])("of status %i has no body, and its request is over", async status => {
    const sent = answering(() => new Response(null, { status, headers: { "x-request-id": "a" } }));
    const exchange = { ended: undefined };
    const response = passOn(await send(), exchange);
    expect([response.status, response.body, response.headers.get("x-request-id"), exchange.ended]).toEqual([
      status,
      null,
      "a",
      undefined,
    ]);
    expect(sent[0].init.signal?.aborted).toBe(true);
  });

  test("passes with its status as it comes, and tells when it has been read", async () => {
    const exchange: { ended: Promise<void> | undefined } = { ended: undefined };
    const response = passOn(await received({}, 202), exchange);
    expect([response.status, await response.text()]).toEqual([202, "body"]);
    await exchange.ended;
  });

  test("that nobody reads any more is ended, and says so", async () => {
    const sent = answering(
      () => new Response(new ReadableStream({ pull: controller => controller.enqueue(Uint8Array.of(1)) })),
    );
    const exchange: { ended: Promise<void> | undefined } = { ended: undefined };
    const response = passOn(await send(), exchange);
    const reader = response.body?.getReader();
    await reader?.read();
    await reader?.cancel();
    await exchange.ended;
    expect(sent[0].init.signal?.aborted).toBe(true);
  });

  test("that breaks off breaks the response, and tells that it has ended", async () => {
    answering(() => new Response(new ReadableStream({ pull: controller => controller.error(new Error("broken")) })));
    const exchange: { ended: Promise<void> | undefined } = { ended: undefined };
    await expect(passOn(await send(), exchange).text()).rejects.toMatchObject({ code: "upstream_failed" });
    await exchange.ended;
  });

  test("without a body is read to its end at once", async () => {
    answering(() => new Response(null));
    expect(await read(await send())).toBe("");
  });
});

describe("the client's signal", () => {
  const reason = new Error("left");

  test("that is aborted already keeps the request from being waited for", async () => {
    answering(({ signal }) => new Promise((_, reject) => (signal?.aborted ? reject(signal.reason) : undefined)));
    await expect(send({}, undefined, AbortSignal.abort(reason))).rejects.toBe(reason);
  });

  test("ends the request with its reason", async () => {
    const client = new AbortController();
    const sent = answering(
      ({ signal }) => new Promise((_, reject) => signal?.addEventListener("abort", () => reject(new Error("other")))),
    );
    const answer = send({}, undefined, client.signal);
    client.abort(reason);
    await expect(answer).rejects.toBe(reason);
    expect(sent[0].init.signal?.reason).toBe(reason);
  });

  test.each<[string, (answer: UpstreamResponse) => unknown]>([
    ["has been read", read],
    ["is closed", ({ close }) => close()],
    ["is left", ({ bytes }) => bytes.next().then(() => bytes.return(undefined))],
  ])("is not listened to when the response %s, and the request is over", async (_, act) => {
    const client = new AbortController();
    const sent = answering(() => new Response("body"));
    const answer = await send({}, undefined, client.signal);
    expect([getEventListeners(client.signal, "abort").length, sent[0].init.signal?.aborted]).toEqual([1, false]);
    await act(answer);
    expect([getEventListeners(client.signal, "abort").length, sent[0].init.signal?.aborted]).toEqual([0, true]);
    expect(sent[0].init.signal?.reason).toEqual(new Error("nobody reads the answer any more"));
  });

  test("is not listened to when the request has failed", async () => {
    const client = new AbortController();
    answering(() => Promise.reject(new TypeError("fetch failed")));
    await expect(send({}, undefined, client.signal)).rejects.toThrow("upstream: expected an answer");
    expect(getEventListeners(client.signal, "abort").length).toBe(0);
  });
});

describe("a request that fails", () => {
  test.each<[unknown, string]>([
    [Object.assign(new Error("fetch failed"), { cause: { code: "ECONNREFUSED" } }), "ECONNREFUSED"],
    [Object.assign(new Error("fetch failed"), { cause: { code: "E_1" } }), "E_1"],
    [Object.assign(new Error("fetch failed"), { cause: { code: "E some words" } }), "a connection that failed"],
    [Object.assign(new Error("fetch failed"), { cause: { code: "some words E" } }), "a connection that failed"],
    [Object.assign(new Error("fetch failed"), { cause: { code: ["E"] } }), "a connection that failed"],
    [Object.assign(new Error("fetch failed"), { cause: {} }), "a connection that failed"],
    [new Error("some words"), "a connection that failed"],
  ])("is told only by its code: %s", async (error, got) => {
    answering(() => Promise.reject(error));
    await expect(send()).rejects.toMatchObject({
      ...{ status: 502, code: "upstream_failed", message: `upstream: expected an answer, got ${got}` },
    });
  });

  /** The clocks for how long the upstream may be silent. */
  function clocks(): { readonly strike: () => void; readonly running: () => number; readonly set: () => number } {
    const set = vi.spyOn(globalThis, "setTimeout");
    const cleared = vi.spyOn(globalThis, "clearTimeout");
    const own = (): number[] => set.mock.calls.flatMap(([, ms], i) => (ms === TIMEOUT_MS ? [i] : []));
    const running = (): number[] =>
      own().filter(i => !cleared.mock.calls.some(([timer]) => timer === set.mock.results[i].value));
    return {
      strike: () => (set.mock.calls[running()[0]][0] as () => void)(),
      running: () => running().length,
      set: () => own().length,
    };
  }

  test("by its silence ends, and must not be tried again", async () => {
    const { strike } = clocks();
    answering(
      ({ signal }) => new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason))),
    );
    const answer = send();
    strike();
    await expect(answer).rejects.toMatchObject({
      ...{ status: 504, code: "upstream_timeout", headers: { "x-should-retry": "false" } },
      message: "upstream: expected data within 54321 ms, got none",
    });
  });

  test("by its silence does so only during a wait: no clock runs between its bytes", async () => {
    const { running, set } = clocks();
    const bodies: ReadableStreamDefaultController<Uint8Array>[] = [];
    answering(() => new Response(new ReadableStream({ start: controller => void bodies.push(controller) })));
    const { bytes } = await send();
    expect([set(), running()]).toEqual([1, 0]);
    const next = bytes.next();
    expect([set(), running()]).toEqual([2, 1]);
    bodies[0].enqueue(Uint8Array.of(1));
    await next;
    expect(running()).toBe(0);
    bodies[0].error(new Error("broken"));
    await expect(bytes.next()).rejects.toThrow("upstream: expected an answer");
    expect([set(), running()]).toEqual([3, 0]);
  });
});
