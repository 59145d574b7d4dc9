/** An answer that comes as a whole: what passes, what is withheld, and what the client is told. */

import { describe, expect, test } from "vitest";
import type { Call } from "../../../src/server/proxy/call.ts";
import { moderateWhole } from "../../../src/server/proxy/whole.ts";
import { inProcess, json, whole } from "./in-process.ts";
import { HEAD, USAGE } from "./stand-in.ts";
import { guardOf, OFFENDS, standIn } from "./stand-in-guard.ts";

const KINDS = ["Gen", "Stream"] as const;
const WITHHELD = {
  message: { role: "assistant", content: "", refusal: null },
  logprobs: null,
  finish_reason: "content_filter",
};

describe.each(KINDS)("an answer before a %s guard", kind => {
  test("that is safe passes with its names and counts", async () => {
    const { post, open, metric, calls } = inProcess(kind, () => json(whole("Yes.")));
    const { status, json: got } = await post();
    expect([status, got]).toEqual([200, whole("Yes.")]);
    expect([open(), await metric('qwen3guard_proxy_answers_total{outcome="passed"}')]).toEqual([0, "1"]);
    expect(calls).toEqual(kind === "Gen" ? ["query Hi", "moderate Hi | Yes."] : ["query Hi", "push Yes.", "end"]);
  });

  test("that offends is withheld, and the others pass", async () => {
    const { post, open, metric } = inProcess(kind, () => json(whole("Yes.", OFFENDS, "No.")));
    const { json: got } = await post({ n: 3 });
    const qwen3guard = {
      action: "block",
      guard: `stand-in-${kind}`,
      risk: "Unsafe",
      category: null,
      field: "content",
      at: 0,
    };
    const [first, , third] = whole("Yes.", "", "No.").choices;
    expect(got).toEqual({ ...whole(), choices: [first, { index: 1, ...WITHHELD, qwen3guard }, third] });
    expect([open(), await metric('qwen3guard_proxy_answers_total{outcome="flagged"}')]).toEqual([0, "1"]);
  });

  test("of several texts is judged text by text, until one offends; names alone are no text", async () => {
    const call = (args: string): object => ({ id: "1", type: "function", function: { name: "f", arguments: args } });
    const message = {
      role: "assistant",
      reasoning: "a",
      content: "b",
      tool_calls: [call(""), call(`x ${OFFENDS}`), call("never")],
    };
    const { post, calls, open } = inProcess(kind, () => json(whole(message)));
    const { json: got } = await post();
    const field = "tool_calls[1].function.arguments";
    expect(got.choices).toEqual([
      { index: 0, ...WITHHELD, qwen3guard: expect.objectContaining({ field, at: kind === "Gen" ? 0 : 2 }) },
    ]);
    const heard = calls
      .filter(call => /^(push|moderate)/.test(call))
      .map(call => call.replace(/^push |^moderate Hi \| /, ""));
    expect([heard, open()]).toEqual([["a", "b", `x ${OFFENDS}`], 0]);
  });

  test("without a text passes, and nothing stays open", async () => {
    const { post, calls, open } = inProcess(kind, () => json(whole({ role: "assistant", content: null })));
    expect((await post()).json).toEqual(whole({ role: "assistant", content: null }));
    expect([calls, open()]).toEqual([["query Hi"], 0]);
  });

  test("without a verdict is withheld", async () => {
    const { post, open, metric, log } = inProcess(kind, () => json(whole("a FAILS_TRAP")), { logText: true });
    const { status, json: got } = await post();
    const qwen3guard = { action: "block", guard: `stand-in-${kind}`, risk: null, category: null, field: "content", at: 0, error: "guard_cannot_judge" }; // biome-ignore format: one line
    expect([status, got.choices]).toEqual([200, [{ index: 0, ...WITHHELD, qwen3guard }]]);
    expect([open(), await metric('qwen3guard_proxy_answers_total{outcome="failed"}')]).toEqual([0, "1"]);
    const told = "the guard cannot judge this text; the proxy's log says more";
    expect(log.slice(0, 2)).toEqual([
      "qwen3guard: the guard cannot judge a text: memory access out of bounds",
      `qwen3guard: answer 0: cannot be judged (${told}) from character 0 of content: "a FAILS_TRAP"`,
    ]);
  });

  test("for which there is no memory is an error", async () => {
    const { post, open } = inProcess(kind, () => json(whole("a FAILS_MEMORY")));
    const { status, json: got } = await post();
    expect([status, got.error.code, open()]).toEqual([503, "guard_out_of_memory", 0]);
  });

  test.each(["flag", "log"] as const)(
    "passes as it is if nothing is blocked, and the verdict is told (%s)",
    async action => {
      const odd = { index: 7, message: { content: OFFENDS } };
      const answer = { ...whole("Yes.", OFFENDS, "FAILS_TYPE", { role: "tool", content: 5 }), more: 1 };
      answer.choices.push(odd, 5 as never);
      const { post, open, metric, log } = inProcess(kind, () => json(answer), { action, logText: true });
      const { json: got } = await post({ n: 5 });
      const guard = `stand-in-${kind}`;
      const told = [
        undefined,
        { action, guard, risk: "Unsafe", category: null, field: "content", at: 0 },
        { action: "pass", guard, error: "guard_cannot_judge" },
        { action: "pass", guard, error: "upstream_invalid" },
      ];
      const choices = answer.choices.map((choice, i) =>
        action === "flag" && told[i] ? { ...choice, qwen3guard: told[i] } : choice,
      );
      expect(got).toEqual({ ...answer, choices });
      const counts = ["passed", "flagged", "failed"].map(outcome =>
        metric(`qwen3guard_proxy_answers_total{outcome="${outcome}"}`),
      );
      expect([open(), await Promise.all(counts)]).toEqual([0, ["1", "1", "2"]]);
      expect(log.slice(0, 3)).toEqual([
        'qwen3guard: answer 1: Unsafe from character 0 of content: "OFFENDS"',
        'qwen3guard: answer 2: the rest passes unjudged: guard: text: expected a string, got null: ""',
        'qwen3guard: answer 3: the rest passes unjudged: upstream: expected content to be a text, got something else: ""',
      ]);
    },
  );
});

describe("an answer", () => {
  test("whose choices have no index keeps their order", async () => {
    const answer = { choices: [{ message: { content: "a" } }, { message: { content: OFFENDS } }] };
    for (const action of ["block", "flag"] as const) {
      const { post } = inProcess("Gen", () => json(answer), { action });
      const { choices, ...head } = (await post({ n: 2 })).json;
      expect([head, choices.map(({ qwen3guard }: { qwen3guard?: object }) => qwen3guard !== undefined)]).toEqual([
        {},
        [false, true],
      ]);
      if (action === "block")
        expect(choices[0]).toEqual({ index: 0, message: { content: "a" }, logprobs: null, finish_reason: null });
    }
  });

  test("may have fewer choices than were asked for, or none", async () => {
    const { post } = inProcess("Gen", () => json({ ...HEAD, usage: USAGE, choices: [] }));
    expect((await post({ n: 2 })).json).toEqual({ ...HEAD, usage: USAGE, choices: [] });
  });

  test.each<[unknown, string]>([
    [[], "an answer to be an object, got something else"],
    [5, "an answer to be an object, got something else"],
    [{}, "choices to be an array, got something else"],
    [{ error: null, choices: {} }, "choices to be an array, got something else"],
    [{ choices: [{}, {}, {}] }, "at most 2 choices, got 3"],
    [{ choices: [5] }, "a choice to be an object, got something else"],
    [{ choices: [{ index: 2 }] }, "choices 0 to 1, which were asked for, got another"],
    [{ choices: [{ index: -1 }] }, "choices 0 to 1, which were asked for, got another"],
    [{ choices: [{ index: 0.5 }] }, "choices 0 to 1, which were asked for, got another"],
    [{ choices: [{ index: "0" }] }, "choices 0 to 1, which were asked for, got another"],
    [{ choices: [{ index: 0 }] }, "message to be an object, got something else"],
    [{ choices: [{ message: {}, finish_reason: "some words" }] }, "finish_reason to be a name, got something else"],
  ])("%j is refused, and passes if nothing is blocked", async (answer, expected) => {
    const { post, open, metric } = inProcess("Stream", () => json(answer));
    const { status, json: got } = await post({ n: 2 });
    const error = {
      message: `upstream: expected ${expected}`,
      type: "server_error",
      param: null,
      code: "upstream_invalid",
    };
    expect([status, got, open(), await metric("qwen3guard_proxy_streams")]).toEqual([502, { error }, 0, "0"]);
    if (expected.startsWith("an answer")) return;
    const open2 = inProcess("Stream", () => json(answer), { action: "log" });
    expect([(await open2.post({ n: 2 })).json, open2.open()]).toEqual([answer, 0]);
  });

  test("has at most 128 texts", async () => {
    const tool_calls = Array.from({ length: 128 }, () => ({
      id: "1",
      type: "function",
      function: { name: "f", arguments: "{}" },
    }));
    const { post } = inProcess("Gen", () => json(whole({ tool_calls })));
    expect((await post()).json.choices[0].message.tool_calls.length).toBe(128);
    const more = inProcess("Gen", () => json(whole({ tool_calls, content: "a" })));
    expect((await more.post()).json.error.message).toBe("upstream: expected an answer of at most 128 texts, got 129");
  });

  test("with an error under the status of an answer is told as an error, unless it has choices", async () => {
    const error = { message: "no", code: "x", more: "words" };
    const { post } = inProcess("Gen", () => json({ error }));
    const { status, json: got } = await post();
    expect([status, got]).toEqual([502, { error: { message: "no", code: "x" } }]);
    const both = inProcess("Gen", () => json({ ...whole("Yes."), error }));
    expect((await both.post()).json).toEqual(whole("Yes."));
    const flagging = inProcess("Gen", () => json({ error }), { action: "flag" });
    const passed = await flagging.post();
    expect([passed.status, passed.json]).toEqual([502, { error }]);
    for (const answer of [{ error: null }, {}]) {
      const odd = inProcess("Gen", () => json(answer), { action: "flag" });
      const { status, json: got } = await odd.post();
      expect([status, got]).toEqual([200, answer]);
    }
  });

  test.each(KINDS)("is not a failure of a %s guard if the client leaves while it is judged", async kind => {
    const client = new AbortController();
    const leaving = (): never => {
      client.abort();
      throw new Error("aborted");
    };
    const { query } = (standIn("Gen").guard as unknown as { stream: (input: object, options: object) => { query: () => never } }).stream({ messages: [{ role: "user", content: "Hi" }] }, {}); // biome-ignore format: one line
    const guard = guardOf({ name: "own", stream: () => ({ query, push: leaving, end: leaving, close: () => {} }), moderate: leaving }, kind === "Gen"); // biome-ignore format: one line
    const { post, metric, log } = inProcess(guard, () => json(whole("Yes.")), { failOpen: true });
    const { status } = await post({}, undefined, { signal: client.signal });
    expect([status, await metric('qwen3guard_proxy_answers_total{outcome="failed"}'), log]).toEqual([499, "0", []]);
  });
});

describe("its bytes", () => {
  async function read(...parts: readonly (string | Uint8Array)[]): Promise<unknown> {
    async function* bytes(): AsyncGenerator<Uint8Array> {
      for (const part of parts) yield typeof part === "string" ? new TextEncoder().encode(part) : part;
    }
    // As where nothing is blocked: what cannot be read as an answer passes as it is.
    const call = { service: { action: "log" } } as unknown as Call;
    return (await moderateWhole(call, bytes())).json();
  }

  test("may be cut anywhere, even inside a character", async () => {
    const bytes = new TextEncoder().encode('{"a":"\u{1F600}\u00e9"}');
    for (let at = 0; at <= bytes.length; at++)
      expect(await read(bytes.subarray(0, at), bytes.subarray(at))).toEqual({ a: "\u{1F600}\u00e9" });
  });

  test("are UTF-8, to their end", async () => {
    const expected = "upstream: expected UTF-8 text, got bytes that are not";
    for (const bytes of [[0x22, 0xff, 0x22], [0x22, 0xf0, 0x9f]]) // biome-ignore format: one line
      await expect(read(Uint8Array.from(bytes))).rejects.toMatchObject({ status: 502, message: expected });
    await expect(read("{} {}")).rejects.toThrow("upstream: expected JSON in an answer, got text that is not");
  });

  test("are at most 16 MiB", async () => {
    const half = new Uint8Array(2 ** 23).fill(0x20);
    half[0] = 0x7b;
    half[1] = 0x7d;
    expect(await read(half, half.subarray(2), "  ")).toEqual({});
    await expect(read(half, half.subarray(2), "   ")).rejects.toThrow(
      "upstream: expected an answer of at most 16777216 bytes, got a longer one",
    );
  });
});
