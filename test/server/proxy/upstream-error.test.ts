/** What the client is told about an upstream's error: names, and a message that the guard has let pass. */

import { describe, expect, test } from "vitest";
import type { Call } from "../../../src/server/proxy/call.ts";
import type { UpstreamResponse } from "../../../src/server/proxy/upstream.ts";
import { passError, tellError, UpstreamError } from "../../../src/server/proxy/upstream-error.ts";
import { inProcess, json, stream } from "./in-process.ts";
import { chunk } from "./stand-in.ts";
import { OFFENDS } from "./stand-in-guard.ts";

const DEFAULT = "upstream: expected an answer, got an error";

/** A call whose guard clears what does not offend, and what it was asked about. */
function clearing(): { call: Call; heard: string[] } {
  const heard: string[] = [];
  const clears = async (text: string): Promise<boolean> => heard.push(text) > 0 && !text.includes(OFFENDS);
  return { call: { clears } as unknown as Call, heard };
}

const told = async (error: unknown): Promise<unknown> => tellError(clearing().call, error);

describe("an error", () => {
  test("keeps its message and its names, and nothing else", async () => {
    const error = { message: "no such model", type: "invalid_request_error", param: "model", code: "not_found" };
    expect(await told({ ...error, failed_generation: "words", detail: "words" })).toStrictEqual(error);
    expect(await told({ message: "no", type: null, param: null, code: 404 })).toStrictEqual({
      message: "no",
      type: null,
      param: null,
      code: 404,
    });
    expect(await told({ message: "no", type: "some words", param: ["a"], code: "some words" })).toStrictEqual({
      message: "no",
    });
  });

  test("may be a message itself, or have it as its detail", async () => {
    expect(await told("no")).toStrictEqual({ message: "no" });
    expect(await told({ detail: "no", code: "a" })).toStrictEqual({ message: "no", code: "a" });
    expect(await told({ message: { a: 1 }, detail: "no" })).toStrictEqual({ message: "no" });
  });

  test.each([5, null, undefined, ["no"], {}, { message: 5, detail: ["no"] }])(
    "without a message has another: %j",
    async error => {
      const { call, heard } = clearing();
      expect([await tellError(call, error), heard]).toStrictEqual([{ message: DEFAULT }, []]);
    },
  );

  test("whose message offends has another, and keeps its names", async () => {
    expect(await told({ message: `say ${OFFENDS}`, code: "a" })).toStrictEqual({ message: DEFAULT, code: "a" });
  });

  test("has at most 1,000 whole characters, all of them judged", async () => {
    const { call, heard } = clearing();
    const start = `\u{1F600}${"x".repeat(997)}`;
    expect([await tellError(call, `${start}\u{1F600} more`), heard]).toStrictEqual([{ message: start }, [start]]);
    expect(await told(`${start}yz`)).toStrictEqual({ message: `${start}y` });
  });

  test("in place of an answer is told as itself", () => {
    const body = { message: "no", type: "x", param: null, code: null };
    const error = new UpstreamError(body);
    expect([error.body, error.status, error.message, error.code]).toEqual([body, 502, "no", "upstream_failed"]);
  });
});

describe("a response that is not an answer", () => {
  async function passed(
    ...parts: readonly Uint8Array[]
  ): Promise<{ status: number; id: string | null; body: unknown; read: number; isClosed: boolean }> {
    let [read, isClosed] = [0, false];
    async function* bytes(): AsyncGenerator<Uint8Array, void, undefined> {
      try {
        for (const part of parts) {
          read++;
          yield part;
        }
      } finally {
        isClosed = true;
      }
    }
    const answer = {
      status: 422,
      headers: new Headers({ "x-request-id": "a" }),
      bytes: bytes(),
    } as unknown as UpstreamResponse;
    const response = await passError(clearing().call, answer);
    return {
      status: response.status,
      id: response.headers.get("x-request-id"),
      body: await response.json(),
      read,
      isClosed,
    };
  }
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
  const STATUS = { error: { message: "upstream: expected an answer, got status 422" } };

  test("keeps its status and its headers, wherever its bytes are cut, and its request is over", async () => {
    const bytes = encode('{"error": {"message": "n\u{1F600}"}}');
    for (const at of [0, 25, 26, 27, 28]) {
      const body = { error: { message: "n\u{1F600}" } };
      expect(await passed(bytes.subarray(0, at), bytes.subarray(at))).toEqual({
        status: 422,
        id: "a",
        body,
        read: 2,
        isClosed: true,
      });
    }
  });

  test.each([
    ['{"message": "no", "object": "error"}', { error: { message: "no" } }],
    ['{"error": null, "detail": "no"}', { error: { message: "no" } }],
    ['{"error": "no"}', { error: { message: "no" } }],
    ["[1]", STATUS],
    ['"no"', STATUS],
    ["", STATUS],
    ["<p>no</p>", STATUS],
  ])("may be %s", async (text, body) => {
    expect((await passed(encode(text))).body).toEqual(body);
  });

  test("is read up to 256 KiB", async () => {
    const text = '{"error": "no"}';
    const blanks = (count: number): Uint8Array => encode(" ".repeat(count));
    expect((await passed(encode(text), blanks(2 ** 18 - text.length))).body).toEqual({ error: { message: "no" } });
    expect(await passed(encode(text), blanks(2 ** 18 - text.length), blanks(1), blanks(1))).toMatchObject({
      read: 3,
      body: { error: { message: "no" } },
    });
    expect(await passed(blanks(2 ** 18), encode(text), blanks(1))).toMatchObject({
      read: 2,
      body: STATUS,
      isClosed: true,
    });
  });
});

describe("a message of the upstream's is judged like an answer", () => {
  test.each(["Gen", "Stream"] as const)("by a %s guard, to the question, and nothing stays open", async kind => {
    const { post, calls, open, metric } = inProcess(kind, () => json({ error: { message: "no" } }, 400));
    const { status, json: got } = await post();
    expect([status, got, open()]).toEqual([400, { error: { message: "no" } }, 0]);
    expect(calls).toEqual(kind === "Gen" ? ["query Hi", "moderate Hi | no"] : ["query Hi", "push no", "end"]);
    expect(await metric('qwen3guard_proxy_answers_total{outcome="passed"}')).toBe("0");
  });

  test.each(["Gen", "Stream"] as const)("by a %s guard even when an answer has begun", async kind => {
    const { post, open } = inProcess(kind, () =>
      stream([chunk({ content: "Yes, it is so." }), { error: { message: "no" } }]),
    );
    const { events } = await post({ stream: true });
    expect([events.at(-1), open()]).toEqual([{ error: { message: "no" } }, 0]);
  });

  test("and does not pass without a verdict", async () => {
    const { post, open } = inProcess("Gen", () => json({ error: { message: "FAILS_TYPE" } }, 400), { failOpen: true });
    expect([(await post()).json.error.message, open()]).toEqual([DEFAULT, 0]);
  });

  test("but passes as it is if nothing is blocked", async () => {
    const { post, calls } = inProcess(
      "Gen",
      () => json({ error: { message: OFFENDS, more: 1 } }, 429, { "x-request-id": "a", etag: "b" }),
      { action: "log" },
    );
    const { status, json: got, headers } = await post();
    expect([status, got, headers.get("etag"), calls]).toEqual([
      429,
      { error: { message: OFFENDS, more: 1 } },
      "b",
      ["query Hi"],
    ]);
  });

  test("and is not told if the client has left meanwhile", async () => {
    const client = new AbortController();
    const { post, log } = inProcess("Gen", () => {
      client.abort();
      return json({ error: { message: "FAILS_TRAP" } }, 400);
    });
    expect([(await post({}, undefined, { signal: client.signal })).status, log]).toEqual([499, []]);
  });
});
