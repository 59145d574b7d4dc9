/**
 * Questions before their answers: which are judged, what the client is told, and which question an answer belongs to.
 */

import { describe, expect, test } from "vitest";
import type { RiskReading } from "../../../src/guard/moderation-stream.ts";
import type { ProxyOptions } from "../../../src/server/proxy/proxy.ts";
import { type InProcess, inProcess, json, stream, whole } from "./in-process.ts";
import { chunk, HEAD } from "./stand-in.ts";
import { type Core, guardOf, OFFENDS, standIn } from "./stand-in-guard.ts";

const HEADER = "x-qwen3guard-question";
const texts = (...all: readonly string[]): object => ({ ...HEAD, choices: all.map((text, index) => ({ index, text, logprobs: null, finish_reason: "stop" })) }); // biome-ignore format: one line

async function asking(
  prompts: readonly string[],
  options: Partial<ProxyOptions> = {},
): Promise<InProcess & Awaited<ReturnType<InProcess["post"]>>> {
  const proxy = inProcess("Gen", () => json(texts(...prompts.map(() => "Yes."))), options);
  return { ...proxy, ...(await proxy.post({ prompt: prompts }, "/v1/completions")) };
}

/** How many questions had which outcome: passed, flagged, failed. */
function outcomes({ metric }: InProcess, what: string = "questions"): Promise<(string | undefined)[]> {
  return Promise.all(
    ["passed", "flagged", "failed"].map(outcome => metric(`qwen3guard_proxy_${what}_total{outcome="${outcome}"}`)),
  );
}

/** A guard that reads any question so. */
function reading(risk: RiskReading["risk"], category: string | null): InProcess["guard"] {
  const given = { risk, category, riskProbs: null, categoryProb: null };
  const core: Core = {
    name: "own",
    stream: () => ({
      query: async () => given,
      push: () => Promise.reject(),
      end: () => Promise.reject(),
      close: () => {},
    }),
    moderate: async () => ({ safety: "Safe", categories: [], flagged: false }),
  };
  return guardOf(core, true);
}

describe("a question", () => {
  test("that is safe is counted, and the client is told nothing", async () => {
    const asked = await asking(["a", "b"], { logText: true });
    expect([asked.status, asked.headers.has(HEADER), asked.open()]).toEqual([200, false, 0]);
    expect(await outcomes(asked)).toEqual(["2", "0", "0"]);
    expect(asked.log).toEqual([expect.stringMatching(/^200 \/v1\/completions \d+\.\d ms$/)]);
  });

  test("that is flagged is an error, whichever of several it is, and the upstream gets none", async () => {
    const asked = await asking(["a", OFFENDS, "b"]);
    const qwen3guard = { action: "block", guard: "stand-in-Gen", risk: "Unsafe", category: null, field: "question" };
    const error = { message: "the question was stopped by the guard", type: "invalid_request_error", param: "messages", code: "content_filter", qwen3guard }; // biome-ignore format: one line
    expect([asked.status, asked.json, asked.sent, asked.open()]).toEqual([400, { error }, [], 0]);
    expect([await outcomes(asked), asked.log, asked.calls]).toEqual([
      ["1", "1", "0"],
      [],
      ["query a", `query ${OFFENDS}`],
    ]);
    expect(await asked.metric("qwen3guard_proxy_streams")).toBe("0");
  });

  test.each(["flag", "log"] as const)(
    "that is flagged passes if nothing is blocked, and a header tells (%s)",
    async action => {
      const asked = await asking([OFFENDS, "b"], { action, logText: true });
      expect([asked.status, asked.json, asked.open()]).toEqual([200, texts("Yes.", "Yes."), 0]);
      expect([asked.headers.get(HEADER), await outcomes(asked)]).toEqual([
        action === "flag" ? "flagged; Unsafe" : null,
        ["1", "1", "0"],
      ]);
      expect(asked.log[0]).toBe('qwen3guard: question: Unsafe: "OFFENDS"');
    },
  );

  test.each<[RiskReading["risk"], string | null, string]>([
    ["Unsafe", "Violent", "Unsafe (Violent)"],
    ["Controversial", null, "Controversial"],
    [null, null, "unparsed"],
    ["Unsafe", "Pol\u00edtica\n~ !", "Unsafe (Pol?tica?~ !)"],
  ])("with the verdict %s (%j) is told as %j", async (risk, category, told) => {
    const { post, log } = inProcess(reading(risk, category), () => json(whole("a")), {
      action: "flag",
      logRequests: true,
    });
    expect((await post()).headers.get(HEADER)).toBe(`flagged; ${told}`);
    expect(log[0]).toBe(`qwen3guard: question: ${told.replace(/\(.*\)/, `(${category})`)}`);
    const blocking = inProcess(reading(risk, category), () => json(whole("a")));
    expect((await blocking.post()).json.error.qwen3guard).toEqual({
      action: "block",
      guard: "own",
      risk,
      category,
      field: "question",
    });
  });

  test("that is controversial passes in the loose mode", async () => {
    const { post } = inProcess(reading("Controversial", "Violent"), () => json(whole("a")), { mode: "loose" });
    expect((await post()).status).toBe(200);
  });

  test.each([
    ["FAILS_LONG", 400, "context_length_exceeded", "guard: conversation too long: expected fewer than 32768 tokens with the guard's prompt, got 40000"],
    ["FAILS_TYPE", 400, "invalid_value", "guard: text: expected a string, got null"],
    ["FAILS_MEMORY", 503, "guard_out_of_memory", "guard: memory: expected 1000 bytes, got 10"],
  ])("that has no verdict (%s) is an error of its own", async (word, status, code, message) => {
    const asked = await asking(["a", word], { logRequests: true });
    const [type, param] = status === 400 ? ["invalid_request_error", "messages"] : ["server_error", null];
    expect([asked.status, asked.json]).toEqual([status, { error: { message, type, param, code } }]);
    expect([asked.sent, asked.open(), await outcomes(asked), asked.log.length]).toEqual([[], 0, ["1", "0", "1"], 1]);
  }); // biome-ignore format: a table

  test("for which no stream can be opened is an error as well", async () => {
    const { post, sent, open } = inProcess("Stream", () => json(texts("Yes.")));
    const { status, json: got } = await post({ prompt: ["FAILS_LONG", "b"] }, "/v1/completions");
    expect([status, got.error.code, sent, open()]).toEqual([400, "context_length_exceeded", [], 0]);
  });

  test.each(["flag", "log"] as const)(
    "that has no verdict passes if nothing is blocked, and a header tells (%s)",
    async action => {
      const asked = await asking(["FAILS_TYPE", "b"], { action, logText: true });
      expect([asked.status, asked.headers.get(HEADER)]).toEqual([
        200,
        action === "flag" ? "unjudged; guard_cannot_judge" : null,
      ]);
      expect(asked.log[0]).toBe(
        'qwen3guard: the question passes unjudged: guard: text: expected a string, got null: "FAILS_TYPE"',
      );
      expect([asked.open(), await outcomes(asked)]).toEqual([0, ["1", "0", "1"]]);
    },
  );

  test.each([true, false])("that a broken guard cannot judge passes if the proxy fails open (%s)", async failOpen => {
    const { guard, break: breakIt } = standIn("Gen");
    const { post, sent, open } = inProcess(guard, () => json(whole("Yes.")), { failOpen });
    breakIt();
    const { status, json: got, headers } = await post();
    const passed = [
      200,
      "unjudged; guard_failed",
      { action: "pass", guard: "stand-in-Gen", error: "guard_failed" },
      1,
      0,
    ];
    const refused = [500, null, undefined, 0, 0];
    expect([status, headers.get(HEADER), got.choices?.[0].qwen3guard, sent.length, open()]).toEqual(
      failOpen ? passed : refused,
    );
  });

  test("whose client leaves is not a failure of the guard", async () => {
    const client = new AbortController();
    const core = reading("Safe", null) as unknown as Core;
    const leave = (): never => {
      client.abort();
      throw new Error("aborted");
    };
    const stream = (): ReturnType<Core["stream"]> => ({
      ...core.stream({ messages: [] }, {}),
      query: async () => leave(),
    });
    let isReady = false; // the judge opens one to check its options, and asks another where one fails
    const guard = guardOf({ ...core, stream: () => (isReady ? stream() : core.stream({ messages: [] }, {})) }, true);
    const asked = inProcess(guard, () => json(whole("a")), { failOpen: true });
    isReady = true;
    const { status } = await asked.post({}, undefined, { signal: client.signal });
    expect([status, asked.log, await outcomes(asked), asked.sent, asked.open()]).toEqual([
      499,
      [],
      ["0", "0", "0"],
      [],
      0,
    ]);
  });
});

describe("an answer's question", () => {
  test("is the prompt that it answers, even if each has several answers", async () => {
    const { post, calls } = inProcess("Gen", () => json(texts("1", "2", "3", "4")));
    const { status } = await post({ prompt: ["a", "b"], n: 2 }, "/v1/completions");
    expect([status, calls]).toEqual([
      200,
      ["query a", "query b", "moderate a | 1", "moderate a | 2", "moderate b | 3", "moderate b | 4"],
    ]);
  });

  test("already has an open stream, which its first answer takes", async () => {
    const given: string[] = [];
    const core = standIn("Stream").guard as unknown as Core;
    const noting: Core["stream"] = (input, options) => {
      given.push(input.messages[0].content);
      return core.stream(input, options);
    };
    const events = [0, 1, 2, 3].map(index => ({
      ...HEAD,
      choices: [{ index, text: `${index}`, finish_reason: "stop" }],
    }));
    const { post, open } = inProcess(guardOf({ ...core, stream: noting }, false), () => stream(events));
    await post({ prompt: ["a", "b"], n: 2, stream: true }, "/v1/completions");
    expect([given, open()]).toEqual([["-", "a", "b", "a", "b"], 0]);
  });

  test("frees what it holds if the answer breaks off", async () => {
    for (const kind of ["Gen", "Stream"] as const) {
      const { post, open, metric } = inProcess(kind, () => stream([chunk({ content: "abcdef" }), 5]));
      const { events } = await post({ stream: true, n: 2 });
      expect([events.length, open(), await metric("qwen3guard_proxy_streams")]).toEqual([2, 0, "0"]);
    }
  });
});
