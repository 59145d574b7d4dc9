/** Which parts of an answer are text, which may pass as they are, and which are left out. */

import { describe, expect, test } from "vitest";
import {
  type AnswerForm,
  CHAT_FORM,
  type ChoiceParts,
  COMPLETION_FORM,
  finishReasonOf,
  headOf,
  isObject,
  type Json,
  usageOf,
} from "../../../src/server/proxy/parts.ts";

const TEXT = "some words";

/** The parts with what their functions give. */
function shown({ opening, parts }: ChoiceParts): unknown {
  return {
    opening,
    parts: parts.map(({ kind, text, frame, wrap }) => ({
      kind,
      text,
      frame: frame && [frame.names, frame.wrap(frame.names)],
      wrapped: wrap("T"),
    })),
  };
}

const chunk = (delta: unknown): unknown => shown(CHAT_FORM.ofChunk({ delta }));
const NO_PARTS = { opening: null, parts: [] };

test("an answer keeps its names, and a number for when it was made", () => {
  const head = {
    id: "a-1",
    object: "chat.completion",
    model: "org/llm",
    system_fingerprint: "fp",
    service_tier: "default",
  };
  expect(headOf({ ...head, created: 17, choices: [], usage: {}, other: "x" })).toStrictEqual({ ...head, created: 17 });
  for (const name of Object.keys(head)) expect(headOf({ ...head, [name]: TEXT })).not.toHaveProperty(name);
  expect(headOf({ created: "17" })).toStrictEqual({});
});

describe("counts", () => {
  const counts = [
    ...[
      "prompt_tokens",
      "completion_tokens",
      "total_tokens",
      "input_tokens",
      "output_tokens",
      "cached_tokens",
      "reasoning_tokens",
    ],
    ...[
      "text_tokens",
      "audio_tokens",
      "image_tokens",
      "video_tokens",
      "accepted_prediction_tokens",
      "rejected_prediction_tokens",
    ],
    ...[
      "prompt_cache_hit_tokens",
      "prompt_cache_miss_tokens",
      "cache_write_tokens",
      "cache_creation_tokens",
      "prompt_audio_seconds",
    ],
    ...["queue_time", "prompt_time", "completion_time", "total_time", "cost"],
  ];
  const groups = [
    "prompt_tokens_details",
    "completion_tokens_details",
    "input_tokens_details",
    "output_tokens_details",
  ];

  test("of every known server pass, also in groups", () => {
    const numbers = Object.fromEntries(counts.map((name, i) => [name, i + 0.5]));
    const usage = { ...numbers, ...Object.fromEntries(groups.map(name => [name, numbers])) };
    expect(usageOf({ usage })).toStrictEqual(usage);
    expect(counts.length).toBe(23);
  });

  test("are numbers, and groups are objects of them", () => {
    const usage = {
      prompt_tokens: TEXT,
      cost: null,
      total_tokens: 0,
      input_tokens_details: [1],
      output_tokens_details: { cost: TEXT },
      x: 1,
    };
    expect(usageOf({ usage })).toStrictEqual({ total_tokens: 0, output_tokens_details: {} });
  });

  test.each([{}, { usage: null }, { usage: 5 }, { usage: [1] }, { usage: TEXT }])("are none in %j", answer => {
    expect(usageOf(answer)).toBeNull();
  });
});

test("a finish reason is a name, or there is none yet", () => {
  for (const answer of [{}, { finish_reason: null }, { finish_reason: "" }]) expect(finishReasonOf(answer)).toBeNull();
  expect(finishReasonOf({ finish_reason: "stop" })).toBe("stop");
  for (const finish_reason of [TEXT, 5, {}])
    expect(() => finishReasonOf({ finish_reason })).toThrow(
      "upstream: expected finish_reason to be a name, got something else",
    );
});

test("an object is neither null nor an array", () => {
  expect([{}, { a: 1 }, null, [], "a", undefined].map(isObject)).toEqual([true, true, false, false, false, false]);
});

describe("a message", () => {
  test("has its texts in the order in which models write them", () => {
    const given = { refusal: "c", content: "b", reasoning: "a" };
    const part = (kind: string, text: string, field: string): object => ({
      kind,
      text,
      frame: null,
      wrapped: { delta: { [field]: "T" } },
    });
    expect(chunk(given)).toStrictEqual({
      opening: null,
      parts: [part("reasoning", "a", "reasoning"), part("content", "b", "content"), part("refusal", "c", "refusal")],
    });
  });

  test.each([
    undefined,
    null,
    {},
    { content: "" },
    { content: null, refusal: null, reasoning: "", tool_calls: null, function_call: null },
  ])("%j has none", delta => {
    expect(chunk(delta)).toStrictEqual(NO_PARTS);
  });

  test("comes out under the names of reasoning that have a text", () => {
    const kind = "reasoning";
    const wrapped = (fields: object): object => ({
      opening: null,
      parts: [{ kind, text: "a", frame: null, wrapped: { delta: fields } }],
    });
    expect(chunk({ reasoning_content: "a", reasoning: "a" })).toStrictEqual(
      wrapped({ reasoning_content: "T", reasoning: "T" }),
    );
    expect(chunk({ reasoning_content: "a", reasoning: "" })).toStrictEqual(wrapped({ reasoning_content: "T" }));
    expect(() => chunk({ reasoning_content: "a", reasoning: "b" })).toThrow(
      "expected one reasoning text, got two that differ",
    );
  });

  test.each(["assistant", "user", "system", "developer", "tool", "function"])("opens with its role: %s", role => {
    expect(chunk({ role, content: "", refusal: null, reasoning: "a", secret: "" })).toMatchObject({
      opening: { delta: { role, content: "", refusal: null } },
    });
    expect(
      Object.keys((CHAT_FORM.ofChunk({ delta: { role, reasoning: "a" } }).opening as { delta: object }).delta),
    ).toEqual(["role"]);
  });

  test("with another role, or a text under it, has no opening", () => {
    for (const role of [TEXT, "human", null, 5]) expect(chunk({ role })).toStrictEqual(NO_PARTS);
  });

  test.each<[Json, string]>([
    [{ content: 5 }, "content to be a text"],
    [{ content: [] }, "content to be a text"],
    [{ refusal: {} }, "refusal to be a text"],
    [{ reasoning: 5 }, "reasoning to be a text"],
    [{ reasoning_content: 5 }, "reasoning_content to be a text"],
    [{ tool_calls: {} }, "tool_calls to be an array"],
    [{ tool_calls: [5] }, "tool call to be an object"],
    [{ tool_calls: [{ index: "0" }] }, "a tool call's index to be a number"],
    [{ tool_calls: [{ function: 5 }] }, "tool call to be an object"],
    [{ tool_calls: [{ function: { arguments: {} } }] }, "tool_calls[0].function.arguments to be a text"],
    [{ tool_calls: [{ id: TEXT, function: {} }] }, "a tool call's id to be a name"],
    [{ tool_calls: [{ id: 5, function: {} }] }, "a tool call's id to be a name"],
    [{ tool_calls: [{ type: TEXT, custom: {} }] }, "a tool call's type to be a name"],
    [{ tool_calls: [{ custom: { name: TEXT } }] }, "a tool call's name to be a name"],
    [{ function_call: 5 }, "function_call to be an object"],
    [{ function_call: { name: TEXT } }, "a tool call's name to be a name"],
  ])("%j is refused", (delta, expected) => {
    expect(() => chunk(delta)).toThrow(`upstream: expected ${expected}, got something else`);
  });

  test("that is not an object is refused", () => {
    expect(() => chunk(5)).toThrow("upstream: expected delta to be an object, got something else");
    for (const choice of [{}, { message: null }, { message: [] }]) {
      expect(() => CHAT_FORM.ofWhole(choice)).toThrow("upstream: expected message to be an object, got something else");
      expect(() => CHAT_FORM.copy(choice)).toThrow("upstream: expected message to be an object, got something else");
    }
  });

  test("has at most 128 calls", () => {
    const calls = (count: number): object[] => Array.from({ length: count }, () => ({ function: { arguments: "{}" } }));
    expect(CHAT_FORM.ofChunk({ delta: { tool_calls: calls(128) } }).parts.length).toBe(128);
    expect(() => chunk({ tool_calls: calls(129) })).toThrow("upstream: expected at most 128 tool calls, got 129");
  });
});

describe("a tool call", () => {
  test("of a function has arguments, introduced by its names", () => {
    const call = { id: "call-1", type: "function", function: { name: "weather", arguments: "{" } };
    const names = { id: "call-1", type: "function", name: "weather" };
    const begun = { index: 0, id: "call-1", type: "function", function: { name: "weather", arguments: "" } };
    const wrapped = { delta: { tool_calls: [{ index: 0, function: { arguments: "T" } }] } };
    const kind = "tool_calls[0].function.arguments";
    expect(chunk({ tool_calls: [call] })).toStrictEqual({
      opening: null,
      parts: [{ kind, text: "{", frame: [names, { delta: { tool_calls: [begun] } }], wrapped }],
    });
  });

  test("of a custom tool has an input, under its own index or its place", () => {
    const tool_calls = [
      { custom: { input: "a" } },
      { custom: { input: "b" } },
      { index: 7, custom: { input: "c" } },
      { index: 0, custom: {} },
    ];
    const part = (index: number, text: string): object => ({
      ...{ kind: `tool_calls[${index}].custom.input`, text, frame: null },
      wrapped: { delta: { tool_calls: [{ index, custom: { input: "T" } }] } },
    });
    expect(chunk({ tool_calls })).toStrictEqual({ opening: null, parts: [part(0, "a"), part(1, "b"), part(7, "c")] });
  });

  test("may have only names; null is not a name", () => {
    const tool_calls = [
      { index: 0, id: null, type: undefined, function: { name: "f", arguments: null }, custom: null },
    ];
    expect(chunk({ tool_calls })).toMatchObject({
      parts: [
        {
          text: "",
          frame: [{ name: "f" }, { delta: { tool_calls: [{ index: 0, function: { name: "f", arguments: "" } }] } }],
        },
      ],
    });
    const unnamed = [{ id: "call-1", function: {} }];
    const { parts } = CHAT_FORM.ofChunk({ delta: { tool_calls: unnamed } });
    expect(parts[0].frame?.wrap(parts[0].frame.names)).toStrictEqual({
      delta: { tool_calls: [{ index: 0, id: "call-1", function: { arguments: "" } }] },
    });
    expect(chunk({ tool_calls: [{ id: "call-1" }] })).toStrictEqual(NO_PARTS);
  });

  test("in the old form is a part as well", () => {
    expect(chunk({ function_call: { name: "f", arguments: "{" } })).toStrictEqual({
      opening: null,
      parts: [
        {
          kind: "function_call.arguments",
          text: "{",
          frame: [{ name: "f" }, { delta: { function_call: { name: "f", arguments: "" } } }],
          wrapped: { delta: { function_call: { arguments: "T" } } },
        },
      ],
    });
    expect(chunk({ function_call: { arguments: "" } })).toStrictEqual(NO_PARTS);
  });
});

describe("a whole message", () => {
  test("is read as a chunk is, under its own name", () => {
    expect(shown(CHAT_FORM.ofWhole({ message: { role: "assistant", content: "Hi" } }))).toStrictEqual({
      opening: { message: { role: "assistant" } },
      parts: [{ kind: "content", text: "Hi", frame: null, wrapped: { message: { content: "T" } } }],
    });
  });

  test("is copied with what was judged and with its names, and with nothing else", () => {
    const calls = [
      { id: "1", type: "function", function: { name: "f", arguments: "{}" } },
      { id: "2", type: "custom", custom: { name: "g", input: "x" } },
    ];
    const message = {
      ...{ role: "assistant", content: null, refusal: null, reasoning: "a", reasoning_content: "a" },
      ...{ tool_calls: calls, function_call: { name: "f", arguments: "{}" } },
    };
    const secret = { secret: TEXT };
    const forged = {
      ...{ ...message, ...secret, function_call: { ...message.function_call, ...secret } },
      tool_calls: [
        { ...calls[0], ...secret, function: { ...calls[0].function, ...secret } },
        { ...calls[1], ...secret, custom: { ...calls[1].custom, ...secret } },
      ],
    };
    expect(CHAT_FORM.copy({ message: forged, ...secret })).toStrictEqual({ message });
  });

  test("is copied without what it does not have", () => {
    expect(CHAT_FORM.copy({ message: { role: TEXT, content: "Hi", tool_calls: null } })).toStrictEqual({
      message: { content: "Hi" },
    });
    expect(CHAT_FORM.copy({ message: { tool_calls: [{}] } })).toStrictEqual({ message: { tool_calls: [{}] } });
    expect(() => CHAT_FORM.copy({ message: { tool_calls: [5] } })).toThrow("expected tool call to be an object");
    expect(() => CHAT_FORM.copy({ message: { function_call: "x" } })).toThrow("expected tool call to be an object");
  });

  test("that is withheld is empty", () => {
    expect(CHAT_FORM.withheld).toStrictEqual({ message: { role: "assistant", content: "", refusal: null } });
    expect(COMPLETION_FORM.withheld).toStrictEqual({ text: "" });
    expect([CHAT_FORM.end, COMPLETION_FORM.end]).toStrictEqual([{ delta: {} }, { text: "" }]);
  });
});

test.each<keyof AnswerForm>(["ofChunk", "ofWhole"])("a completion has one text (%s)", form => {
  const read = COMPLETION_FORM[form] as (choice: Json) => ChoiceParts;
  const part = { kind: "text", text: "Hi", frame: null, wrapped: { text: "T" } };
  expect(shown(read({ text: "Hi", secret: TEXT }))).toStrictEqual({ opening: null, parts: [part] });
  for (const choice of [{}, { text: "" }, { text: null }]) expect(shown(read(choice))).toStrictEqual(NO_PARTS);
  expect(() => read({ text: 5 })).toThrow("upstream: expected text to be a text, got something else");
  expect(COMPLETION_FORM.copy({ text: "Hi", index: 0, secret: TEXT })).toStrictEqual({ text: "Hi" });
});
