/** An answer that streams: which chunks the client gets, in which order, and how it ends. */

import { describe, expect, test } from "vitest";
import { type InProcess, inProcess, stream } from "./in-process.ts";
import { chunk, HEAD, USAGE } from "./stand-in.ts";
import { guardOf, OFFENDS, standIn } from "./stand-in-guard.ts";

const DONE = "[DONE]";
const BLOCKED = { action: "block", guard: "stand-in-Stream", risk: "Unsafe", category: null, field: "content" };

/** The events that result, and what stays open after them. */
async function relayed(
  all: readonly unknown[],
  body: object = {},
  options: Parameters<typeof inProcess>[2] & { readonly isDone?: boolean } = {},
): Promise<InProcess & Awaited<ReturnType<InProcess["post"]>>> {
  const { isDone = true, ...rest } = options;
  const proxy = inProcess("Stream", () => stream(all, isDone), rest);
  return { ...proxy, ...(await proxy.post({ stream: true, ...body })) };
}

const end = (reason: string, index: number = 0, more: object = {}): object => {
  const [choice] = (chunk({}, reason, index) as { choices: object[] }).choices;
  return { ...HEAD, choices: [{ ...choice, ...more }] };
};

describe("a stream", () => {
  test("comes as it was cleared, with its role and its end, and its token count in a chunk of its own", async () => {
    const { events, open, metric } = await relayed(
      [chunk({ role: "assistant", content: "" }), chunk({ content: "abcdef" }), chunk({ content: "g" }), chunk({}, "stop"), { ...HEAD, choices: [], usage: USAGE }],
      { stream_options: { include_usage: true } },
    ); // biome-ignore format: a table
    expect(events).toEqual([
      ...[
        chunk({ role: "assistant", content: "" }),
        chunk({ content: "ab" }),
        chunk({ content: "c" }),
        chunk({ content: "defg" }),
      ],
      ...[chunk({}, "stop"), { ...HEAD, choices: [], usage: USAGE }, DONE],
    ]);
    expect([open(), await metric("qwen3guard_proxy_streams")]).toEqual([0, "0"]);
    expect(await metric('qwen3guard_proxy_answers_total{outcome="passed"}')).toBe("1");
  });

  test("may begin with a chunk without choices and without a count", async () => {
    const { events } = await relayed([
      { ...HEAD, choices: [], prompt_filter_results: [] },
      chunk({ content: "a" }, "stop"),
    ]);
    expect(events).toEqual([{ ...HEAD, choices: [] }, chunk({ content: "a" }), chunk({}, "stop"), DONE]);
  });

  test("keeps its first valid id, whatever follows", async () => {
    const named = (id: string, content: string): object => ({
      ...chunk({ content: `${content}....` }),
      id,
      model: `m-${id}`,
    });
    const { events } = await relayed([
      { ...named("", "a"), model: "" },
      named("1", "b"),
      named("2", "c"),
      chunk({}, "stop"),
    ]);
    const ids = events.slice(0, -1).map(({ id, model }) => `${id} ${model}`);
    expect(ids).toEqual([" ", "1 m-1", "1 m-1", "1 m-1", "1 m-1"]);
    expect(events[0].created).toBe(HEAD.created);
  });

  test("has the last count that came with a choice, once, at its end; a count in its own chunk goes before it", async () => {
    const counted = (content: string, usage: unknown): object => ({ ...chunk({ content }), usage });
    const [one, two] = [1, 2].map(total_tokens => ({ total_tokens }));
    const usages = (events: readonly { usage?: object }[]): object[] =>
      events.flatMap(({ usage }) => (usage ? [usage] : []));
    expect(
      usages((await relayed([counted("a", one), counted("b", two), counted("c", null), chunk({}, "stop")])).events),
    ).toEqual([two]);
    const last = [counted("a", one), chunk({}, "stop"), { ...HEAD, choices: [], usage: two }];
    expect(usages((await relayed(last)).events)).toEqual([two]);
    const none = await relayed([counted("a", null), chunk({}, "stop")]);
    expect(none.events.at(-2)).toEqual(chunk({}, "stop"));
    const { events } = await relayed([counted("a", one), chunk({}, "stop")]);
    expect(events.slice(-2)).toEqual([{ ...HEAD, choices: [], usage: one }, DONE]);
  });

  test("leaves out unknown names", async () => {
    const { events } = await relayed([{ ...chunk({ content: "a", words: "b" }, "stop"), words: "b" }]);
    expect(events).toEqual([chunk({ content: "a" }), chunk({}, "stop"), DONE]);
  });

  test.each<[string, unknown[], boolean, string]>([
    ["without an end", [chunk({ content: "a" })], false, "an answer to its end, got a stream that ended before it"],
    [
      "with an end of one of two choices",
      [chunk({ content: "a" }, "stop")],
      false,
      "an answer to its end, got a stream that ended before it",
    ],
    ["with too many choices", [{ choices: [{}, {}, {}] }], true, "at most 2 choices, got 3"],
    ["with no list of choices", [{ choices: {} }], true, "choices to be an array, got something else"],
    ["with a choice that is none", [{ choices: [null] }], true, "a choice to be an object, got something else"],
    [
      "with a choice that was not asked for",
      [chunk({}, null, 2)],
      true,
      "choices 0 to 1, which were asked for, got another",
    ],
    ["with a choice between two", [chunk({}, null, 0.5)], true, "choices 0 to 1, which were asked for, got another"],
    [
      "with a finish reason of words",
      [chunk({}, "some words")],
      true,
      "finish_reason to be a name, got something else",
    ],
    ["with an event that is none", [5], true, "an event to be an object, got something else"],
    ["without an event", [], true, "an answer, got a stream without any"],
  ])("%s is an error at its end", async (_, all, isDone, expected) => {
    const { events, json, open, metric } = await relayed(all, { n: 2 }, { isDone });
    const error = {
      message: `upstream: expected ${expected}`,
      type: "server_error",
      param: null,
      code: "upstream_invalid",
    };
    expect(json ?? events.at(-1)).toEqual({ error });
    expect([open(), await metric("qwen3guard_proxy_streams"), events.includes(DONE)]).toEqual([0, "0", false]);
  });

  test("may end without its mark if all choices have ended, or with it before they have", async () => {
    const both = await relayed(
      [chunk({ content: "a" }, "stop"), chunk({ content: "b" }, "length", 1)],
      { n: 2 },
      { isDone: false },
    );
    expect(both.events).toEqual([
      chunk({ content: "a" }),
      end("stop"),
      chunk({ content: "b" }, null, 1),
      end("length", 1),
      DONE,
    ]);
    const none = await relayed([chunk({ content: "abcdef" }), chunk({ content: "ghijkl" }, null, 1)], { n: 2 });
    expect(none.events.slice(-3)).toEqual([chunk({ content: "cdef" }), chunk({ content: "ijkl" }, null, 1), DONE]);
    expect([none.open(), await none.metric('qwen3guard_proxy_answers_total{outcome="passed"}')]).toEqual([0, "2"]);
  });

  test.each([null, undefined])("may have an error field that is not an error: %s", async error => {
    const { events } = await relayed([{ ...chunk({ content: "a" }, "stop"), error }]);
    expect(events).toEqual([chunk({ content: "a" }), chunk({}, "stop"), DONE]);
  });

  test("is over at its mark: what comes after it is not read", async () => {
    const raw = `data: ${JSON.stringify(chunk({ content: "a" }, "stop"))}\n\ndata: [DONE]\n\ndata: no JSON\n\n`;
    const { post } = inProcess("Stream", () => new Response(raw, { headers: { "content-type": "text/event-stream" } }));
    expect((await post({ stream: true })).events).toEqual([chunk({ content: "a" }), chunk({}, "stop"), DONE]);
  });
});

describe("a choice that offends", () => {
  const bad = chunk({ content: `ab ${OFFENDS}` });
  const cut = end("content_filter", 0, { qwen3guard: { ...BLOCKED, at: 3 } });

  test("ends with the reason, and the rest is not read if nobody waits for it", async () => {
    const { events, open, metric, sent } = await relayed([bad, chunk({ content: "more" }), 5]);
    expect([events, open(), sent[0].init.signal.aborted]).toEqual([[chunk({ content: "ab " }), cut, DONE], 0, true]);
    expect(await metric('qwen3guard_proxy_answers_total{outcome="flagged"}')).toBe("1");
  });

  test("is read on only for its count, if asked to", async () => {
    const counts = { ...HEAD, choices: [], usage: USAGE };
    const { events } = await relayed([bad, chunk({ content: "more" }, "stop"), counts], {
      stream_options: { include_usage: true },
    });
    expect(events).toEqual([chunk({ content: "ab " }), cut, counts, DONE]);
  });

  test("ends alone: the others go on to their end", async () => {
    const all = [
      bad,
      chunk({ content: "abcdef" }, null, 1),
      chunk({ content: "more" }),
      chunk({ content: "g" }, null, 1),
      chunk({}, "stop", 1),
      5,
    ];
    const { events, open } = await relayed(all, { n: 2 });
    expect(events).toEqual([
      ...[chunk({ content: "ab " }), cut, chunk({ content: "ab" }, null, 1), chunk({ content: "c" }, null, 1)],
      ...[chunk({ content: "defg" }, null, 1), end("stop", 1), DONE],
    ]);
    expect(open()).toBe(0);
  });

  test("may do so when the other has ended, or at its own end", async () => {
    const after = await relayed([chunk({ content: "x" }, "stop", 1), bad, 5], { n: 2 });
    expect(after.events.slice(-3)).toEqual([chunk({ content: "ab " }), cut, DONE]);
    const violation = { risk: "Unsafe" as const, category: "PII", at: 1 };
    const update = { verdicts: [], clearedTo: 0, violation: null };
    const query = (): never => ({ risk: "Safe", riskProbs: null, category: null, categoryProb: null }) as never;
    const late = {
      query: async () => query(),
      push: async () => update,
      end: async () => ({ ...update, violation }),
      close: () => {},
    };
    const guard = guardOf({ name: "late", stream: () => late, moderate: query }, false);
    for (const all of [[chunk({ content: "abc" }, "stop")], [chunk({ content: "abc" })]]) {
      const { post } = inProcess(guard, () => stream(all));
      const qwen3guard = { action: "block", guard: "late", ...violation, field: "content" };
      expect((await post({ stream: true })).events).toEqual([
        chunk({ content: "a" }),
        end("content_filter", 0, { qwen3guard }),
        DONE,
      ]);
    }
  });

  test("is logged with its text so far, if texts may be logged", async () => {
    const { log } = await relayed(
      [chunk({ content: "ab " }), chunk({ content: OFFENDS }), chunk({ content: "never" })],
      {},
      { logText: true },
    );
    expect(log[0]).toBe('qwen3guard: answer 0: Unsafe from character 3 of content: "ab OFFENDS"');
  });
});

describe("if nothing is blocked", () => {
  const bad = chunk({ content: `ab ${OFFENDS}` });

  test("chunks pass as they are, and the end tells the verdict", async () => {
    const odd = { ...bad, words: 1 };
    const { events, open, calls } = await relayed(
      [odd, chunk({ content: "more" }), chunk({ content: "c" }, "stop")],
      {},
      { action: "flag" },
    );
    const told = end("stop", 0, { qwen3guard: { ...BLOCKED, action: "flag", at: 3 } });
    expect(events).toEqual([odd, chunk({ content: "more" }), chunk({ content: "c" }), told, DONE]);
    expect([calls, open()]).toEqual([["query Hi", `push ab ${OFFENDS}`], 0]);
  });

  test("chunks pass as they are to their end, and only the log tells", async () => {
    const all = [bad, chunk({ content: "c" }, "stop"), { type: "ping" }];
    const { events, log, open } = await relayed(all, {}, { action: "log" });
    expect([events, log, open()]).toEqual([
      [...all, DONE],
      ["qwen3guard: answer 0: Unsafe from character 3 of content"],
      0,
    ]);
  });

  test("a choice without an end is judged to its end, and the verdict is told there", async () => {
    const { events } = await relayed([chunk({ content: "a" }), bad], {}, { action: "flag" });
    const last = { ...end("stop", 0, { finish_reason: null, qwen3guard: { ...BLOCKED, action: "flag", at: 4 } }) };
    expect(events).toEqual([chunk({ content: "a" }), bad, last, DONE]);
    const safe = await relayed([chunk({ content: "abcdef" })], {}, { action: "flag" });
    expect([safe.events, safe.calls.at(-1)]).toEqual([[chunk({ content: "abcdef" }), DONE], "end"]);
  });

  test("what is not a choice of this answer passes, and is not judged", async () => {
    const all = [{ choices: [null, 5] }, { choices: {} }, { ...HEAD, choices: [{ index: 7, delta: { content: "a" }, finish_reason: "stop" }] }, chunk({ content: "b" }, "stop")]; // biome-ignore format: one line
    const { events, calls } = await relayed(all, {}, { action: "log" });
    expect([events, calls]).toEqual([
      [...all, DONE],
      ["query Hi", "push b", "end"],
    ]);
    const told = await relayed(all, {}, { action: "flag" });
    expect(told.events).toEqual([all[0], all[1], { ...HEAD, choices: [{ index: 7, delta: { content: "a" }, finish_reason: null }] }, chunk({ content: "b" }), end("stop"), DONE]); // biome-ignore format: one line
  });

  test("a choice may have no index, and is then the first", async () => {
    const { calls } = await relayed([{ choices: [{ delta: { content: "a" } }] }, { choices: [{ delta: {}, finish_reason: "stop" }] }], {}, { action: "log" }); // biome-ignore format: one line
    expect(calls).toEqual(["query Hi", "push a", "end"]);
    const blocking = await relayed([{ choices: [{ delta: { content: "a" }, finish_reason: "stop" }] }]);
    expect(blocking.events[0]).toEqual({
      choices: [{ index: 0, delta: { content: "a" }, logprobs: null, finish_reason: null }],
    });
  });

  test("what cannot be read lets the rest of its choice pass unjudged, and the end tells", async () => {
    const all = [
      chunk({ content: "a" }),
      chunk({ content: 5 }),
      chunk({ content: "b" }),
      chunk({ content: "c" }, "stop"),
    ];
    const { events, calls, open, metric } = await relayed(all, {}, { action: "flag" });
    const qwen3guard = { action: "pass", guard: "stand-in-Stream", error: "upstream_invalid" };
    expect(events).toEqual([...all.slice(0, 3), chunk({ content: "c" }), end("stop", 0, { qwen3guard }), DONE]);
    expect([calls, open(), await metric('qwen3guard_proxy_answers_total{outcome="failed"}')]).toEqual([
      ["query Hi", "push a"],
      0,
      "1",
    ]);
  });

  test("what has no verdict lets the rest of its choice pass unjudged", async () => {
    const all = [
      chunk({ content: "a" }),
      chunk({ content: "FAILS_TYPE" }),
      chunk({ content: OFFENDS }),
      chunk({}, "stop"),
    ];
    const { events, calls } = await relayed(all, {}, { action: "flag" });
    const qwen3guard = { action: "pass", guard: "stand-in-Stream", error: "guard_cannot_judge" };
    expect(events).toEqual([...all.slice(0, 3), chunk({}), end("stop", 0, { qwen3guard }), DONE]);
    expect(calls).toEqual(["query Hi", "push a", "push FAILS_TYPE", "query -"]);
  });

  test("an error is told, and quotes what it says", async () => {
    const { events } = await relayed([chunk({ content: "a" }), { error: { message: "no" } }], {}, { action: "flag" });
    expect(events).toEqual([chunk({ content: "a" }), { error: { message: "no" } }]);
  });

  test("a client that leaves ends the reading", async () => {
    const client = new AbortController();
    const { query } = (standIn("Stream").guard as unknown as { stream: (input: object) => { query: never } }).stream({
      messages: [{ content: "a" }],
    });
    const push = (): never => {
      client.abort();
      throw new Error("aborted");
    };
    const guard = guardOf(
      { name: "own", stream: () => ({ query, push, end: push, close: () => {} }), moderate: push },
      false,
    );
    const { post, metric, open } = inProcess(
      guard,
      () => stream([chunk({ content: "a" }), chunk({ content: "b" }, "stop")]),
      {
        action: "flag",
      },
    );
    await post({ stream: true }, undefined, { signal: client.signal });
    expect([await metric('qwen3guard_proxy_answers_total{outcome="failed"}'), open()]).toEqual(["0", 0]);
    expect(await metric('qwen3guard_requests_total{route="/v1/chat/completions",status="499"}')).toBe("1");
  });
});
