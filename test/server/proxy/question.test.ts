/**
 * What a request asks: which texts the guard hears, as whose, and what is refused because the guard would not hear it.
 */

import { describe, expect, test } from "vitest";
import { type Asked, chatQuestion, promptQuestions, readAsked } from "../../../src/server/proxy/question.ts";
import type { ChatMessage } from "../../../src/tokenizer/chat-template.ts";

const HI = [{ role: "user", content: "Hi" }];

const chat = (body: object, isLenient: boolean = false): Asked =>
  readAsked({ messages: HI, ...body }, chatQuestion, isLenient);
const completion = (body: object, isLenient: boolean = false): Asked =>
  readAsked(body as Record<string, unknown>, promptQuestions, isLenient);
const question = (messages: unknown, isLenient: boolean = false): ChatMessage[] =>
  chat({ messages }, isLenient).questions[0];

const user = (content: string): ChatMessage => ({ role: "user", content });
const assistant = (content: string): ChatMessage => ({ role: "assistant", content });
const system = (content: string): ChatMessage => ({ role: "system", content });
const tool = (content: string): ChatMessage => ({ role: "tool", content });

const refusedAs = (param: string, code: string, message: string): object => ({ status: 400, param, code, message });
/** The error's fields, so that the whole of it is compared. */
function errorOf(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    const { status, param, code, message } = error as { status: number; param: string; code: string; message: string };
    return { status, param, code, message };
  }
  return undefined;
}

describe("a request", () => {
  test("asks for one answer that does not stream, unless it says otherwise", () => {
    const plain = { questions: [HI], answersEach: 1, isStream: false, includeUsage: false };
    expect(chat({})).toStrictEqual(plain);
    expect(chat({ n: null, stream: null, stream_options: null })).toStrictEqual(plain);
    expect(chat({ n: 1024, stream: true })).toStrictEqual({ ...plain, answersEach: 1024, isStream: true });
    for (const [
      options,
      includeUsage,
    ] of [[{}, false], [{ include_usage: null }, false], [{ include_usage: false }, false], [{ include_usage: true }, true]] as const) // biome-ignore format: one line
      expect(chat({ stream: true, stream_options: options })).toStrictEqual({ ...plain, isStream: true, includeUsage });
    expect(chat({ stream: false, stream_options: { include_usage: true } })).toStrictEqual(plain);
    expect(chat({ stream_options: { include_usage: "no matter" } })).toStrictEqual(plain);
  });

  test.each<[object, string, string]>([
    [{ n: 0 }, "n", "an integer from 1 to 1024, got 0"],
    [{ n: 1025 }, "n", "an integer from 1 to 1024, got 1025"],
    [{ n: "1" }, "n", 'an integer from 1 to 1024, got "1"'],
    [{ stream: 1 }, "stream", "true or false, got 1"],
    [{ stream_options: 5 }, "stream_options", "an object, got 5"],
    [{ stream: true, stream_options: { include_usage: 1 } }, "stream_options.include_usage", "true or false, got 1"],
    [{ messages: [] }, "messages", "at least one entry, got none"],
    [{ messages: [5] }, "messages[0]", "an object, got 5"],
    [{ messages: [...HI, { role: 5 }] }, "messages[1].role", "a string, got 5"],
    [{ messages: [{ role: "user", content: 5 }] }, "messages[0].content", "a string or an array of parts, got 5"],
    [
      { messages: [{ role: "user", content: {} }] },
      "messages[0].content",
      "a string or an array of parts, got an object",
    ],
    [{ messages: [{ role: "user", content: [5] }] }, "messages[0].content[0]", "an object, got 5"],
    [{ messages: [{ role: "user", content: [{ type: 5 }] }] }, "messages[0].content[0].type", "a string, got 5"],
    [{ messages: [{ role: "user", content: [{ text: 5 }] }] }, "messages[0].content[0].text", "a string, got 5"],
  ])("%j is refused by name", (body, param, expected) => {
    expect(errorOf(() => chat(body))).toEqual(refusedAs(param, "invalid_value", `${param}: expected ${expected}`));
  });

  test.each<[string, (name: string) => object]>([
    ...["messages", "prompt", "suffix", "n", "stream", "stream_options"].map(name => [name, (other: string) => ({ [other]: null })] as [string, () => object]), // biome-ignore format: one line
    ["stream_options.include_usage", other => ({ stream_options: { [other]: null } })],
    ["messages[1].role", other => ({ messages: [...HI, { role: "user", [other]: null }] })],
    ["messages[1].content", other => ({ messages: [...HI, { role: "user", [other]: null }] })],
    [
      "messages[0].content[1].type",
      other => ({ messages: [{ content: [{ text: "a" }, { text: "b", [other]: null }] }] }),
    ],
    [
      "messages[0].content[1].text",
      other => ({ messages: [{ content: [{ text: "a" }, { text: "b", [other]: null }] }] }),
    ],
    [
      "messages[0].content[1].refusal",
      other => ({ messages: [{ content: [{ text: "a" }, { text: "b", [other]: null }] }] }),
    ],
  ])("with %s in other letters is refused, even where that is null", (param, body) => {
    const name = param.replace(/.*\./, "");
    const other = name.toUpperCase();
    expect(errorOf(() => chat(body(other)))).toEqual(
      refusedAs(
        param,
        "invalid_value",
        `${param}: expected no other field that is spelt as ${name} but for its case, got "${other}"`,
      ),
    );
    expect(errorOf(() => chat(body(other), true))).toBeUndefined();
  });

  test("may have fields that the proxy does not read, with names similar to one that it does", () => {
    expect(chat({ model: "m", Model: "m", message: 1, n_: 1, tools: [] }).questions).toEqual([HI]);
  });

  const others = [
    ...[
      "messages",
      "prompt",
      "suffix",
      "input",
      "inputs",
      "contents",
      "instructions",
      "system",
      "system_prompt",
      "documents",
      "images",
    ],
    ...["chat_template", "template", "prompt_token_ids", "prompt_embeds", "input_ids", "input_embeds"],
  ];
  test.each(others)("has no second question in %s, whatever the case", name => {
    const error = (read: string): object =>
      refusedAs(
        name,
        "content_not_moderated",
        `${name}: expected no question but in ${read}, which the guard judges, got one`,
      );
    if (name !== "messages") expect(errorOf(() => chat({ [name]: "x" }))).toEqual(error("messages"));
    if (name !== "prompt" && name !== "suffix")
      expect(errorOf(() => completion({ prompt: "Hi", [name]: "x" }))).toEqual(error("prompt and suffix"));
    if (others.indexOf(name) > 2) expect(errorOf(() => chat({ [name.toUpperCase()]: "x" }))).toEqual(error("messages"));
    expect(errorOf(() => chat({ [name === "messages" ? "x" : name]: null }))).toBeUndefined();
    expect(errorOf(() => chat({ [name === "messages" ? "x" : name]: "x" }, true))).toBeUndefined();
    expect(errorOf(() => completion({ prompt: "Hi", [name === "suffix" ? "x" : name]: "x" }, true))).toBeUndefined();
  });

  test("has none under letters beyond ASCII that some servers fold into ASCII", () => {
    expect(errorOf(() => chat({ "prompt_to\u212aen_ids": "x" }))).toMatchObject({ param: "prompt_token_ids" });
    expect(errorOf(() => chat({ "\u017fystem": "x" }))).toMatchObject({ param: "system" });
  });
});

describe("the guard hears", () => {
  test("what users said since the last answer as one message, and what was said before as it was", () => {
    const before = [system("S"), user("a"), user("b"), assistant("c")];
    expect(question([...before, user("d"), system("T"), user("e")])).toEqual([...before, system("T"), user("d\ne")]);
    expect(question([user("a"), user("b")])).toEqual([user("a\nb")]);
    expect(question([assistant("a"), user("b")])).toEqual([assistant("a"), user("b")]);
  });

  test("with the question, the instructions after it and nothing else", () => {
    expect(question([user("a"), system("S"), assistant("b"), system("T")])).toEqual([user("a\nS\nT")]);
    expect(question([user("a"), assistant("b")])).toEqual([user("a")]);
    expect(question([system("S"), user("a"), assistant("b"), user("c"), system("T")])).toEqual([
      ...[system("S"), user("a"), assistant("b")],
      user("c\nT"),
    ]);
  });

  test("instructions alone as a question", () => {
    expect(question([system("a"), { role: "developer", content: "b" }, assistant("c")])).toEqual([user("a\nb\nc")]);
  });

  test("developers as the system, and an unknown role as the user", () => {
    expect(question([{ role: "developer", content: "S" }, user("a")])).toEqual([system("S"), user("a")]);
    for (const role of ["human", "User", "", undefined, null])
      expect(question([assistant("a"), { role, content: "b" }])).toEqual([assistant("a"), user("b")]);
  });

  test("nothing of what tools found, and no empty message but a user's", () => {
    expect(
      question([user("a"), assistant(""), system(""), tool("x"), { role: "function", content: "y" }, user("b")]),
    ).toEqual([user("a\nb")]);
    expect(question([{ role: "assistant", content: null }, user("")])).toEqual([user("")]);
    expect(question([assistant("a"), user(""), assistant("b")])).toEqual([assistant("a"), user("")]);
  });

  test("parts joined by line ends, of every type of text", () => {
    const parts = [
      { type: "text", text: "a", cache_control: { type: "ephemeral" } },
      { type: "input_text", text: "b", annotations: [] },
      { type: "output_text", text: "c", logprobs: [] },
      { type: "refusal", refusal: "d" },
      { text: "e", type: null },
      { type: "text", text: "", image_url: null },
    ];
    expect(question([{ role: "user", content: parts }])).toEqual([user("a\nb\nc\nd\ne\n")]);
    expect(question([{ role: "user", content: [] }])).toEqual([user("")]);
  });

  test.each([
    ...[
      {},
      { type: "text" },
      { type: "refusal" },
      { type: "refusal", text: "a" },
      { type: "text", refusal: "a" },
      { refusal: "a" },
    ],
    ...[
      { type: "image_url", text: "a" },
      { type: "", text: "a" },
      { type: "toString", text: "a" },
      { type: "text", text: "a", other: 1 },
    ],
    ...[
      { type: "text", text: "a", refusal: "b" },
      { type: "refusal", text: "a", refusal: "b" },
    ],
  ])("no part of another kind: %j is refused", part => {
    const param = "messages[1].content[1]";
    const message = `${param}: expected text, which is all that the guard reads, got something else`;
    const messages = [...HI, { role: "user", content: [{ text: "a" }, part] }];
    expect(errorOf(() => question(messages))).toEqual(refusedAs(param, "content_not_moderated", message));
  });

  test("if nothing is blocked, as much of it as is text", () => {
    const parts = [
      { type: "image_url", text: "a" },
      { refusal: "b" },
      { text: "c", refusal: "d" },
      { type: "image_url", image_url: {} },
    ];
    expect(question([{ role: "user", content: parts }], true)).toEqual([user("a\nb\nc\n")]);
  });
});

describe("a prompt", () => {
  const asked = (body: object, isLenient?: boolean): unknown => completion(body, isLenient).questions;

  test("is a question, each of several is, and the suffix is judged with each", () => {
    expect(asked({ prompt: "a" })).toEqual([[user("a")]]);
    expect(asked({ prompt: "a", suffix: "b" })).toEqual([[user("ab")]]);
    expect(asked({ prompt: ["a", "c"], suffix: "b" })).toEqual([[user("ab")], [user("cb")]]);
    expect(asked({ suffix: "b" })).toEqual([[user("b")]]);
    expect(asked({})).toEqual([[user("")]]);
    expect(asked({ prompt: null, suffix: null })).toEqual([[user("")]]);
  });

  test.each<[object, string, string, string]>([
    [{ prompt: [] }, "prompt", "invalid_value", "at least one prompt, got none"],
    [{ suffix: 5 }, "suffix", "invalid_value", "a string, got 5"],
    [{ prompt: 5 }, "prompt", "content_not_moderated", "text, which is all that the guard reads, got something else"],
    [
      { prompt: [1, 2] },
      "prompt",
      "content_not_moderated",
      "text, which is all that the guard reads, got something else",
    ],
    [
      { prompt: ["a", [1]] },
      "prompt[1]",
      "content_not_moderated",
      "text, which is all that the guard reads, got something else",
    ],
    [
      { prompt: [[1], "a"] },
      "prompt[0]",
      "content_not_moderated",
      "text, which is all that the guard reads, got something else",
    ],
  ])("%j is refused", (body, param, code, expected) => {
    expect(errorOf(() => completion(body))).toEqual(refusedAs(param, code, `${param}: expected ${expected}`));
  });

  test("of token ids passes if nothing is blocked, and its suffix is judged", () => {
    expect(asked({ prompt: [1, 2], suffix: "b" }, true)).toEqual([[user("b")]]);
    expect(asked({ prompt: ["a", [1, 2]], suffix: "b" }, true)).toEqual([[user("ab")], [user("b")]]);
  });
});
