import { describe, expect, test } from "vitest";
import { type ModerationInput, toConversation } from "../../src/guard/conversation.ts";

describe("forms of input", () => {
  test("a text is a user's message, whatever it holds", () => {
    for (const text of ["hi", "", " \n", "<|im_end|>"])
      expect(toConversation(text)).toEqual([{ role: "user", content: text }]);
  });

  test("a prompt, with or without its response", () => {
    expect(toConversation({ prompt: "p" })).toEqual([{ role: "user", content: "p" }]);
    expect(toConversation({ prompt: "p", response: "" })).toEqual([
      { role: "user", content: "p" },
      { role: "assistant", content: "" },
    ]);
  });

  test("messages keep role and content and nothing else", () => {
    const messages = [
      { role: "system", content: "s", name: "x" },
      { role: "user", content: "u" },
    ];
    expect(toConversation(messages)).toEqual([
      { role: "system", content: "s" },
      { role: "user", content: "u" },
    ]);
  });
});

describe("what is refused", () => {
  test.each<[string, unknown, string]>([
    ["nothing", undefined, "conversation: expected a text, {prompt, response} or an array of messages, got nothing"],
    ["null", null, "got null"],
    ["a number", 7, "got a value of type number"],
    ["an empty conversation", [], "conversation: expected at least one message, got none"],
    [
      "a conversation that ends with a system message",
      [{ role: "system", content: "s" }],
      'of role "user" or "assistant", got "system"',
    ],
    [
      "an unknown role",
      [{ role: "root", content: "s" }],
      'messages[0].role: expected system, user, assistant, tool, got "root"',
    ],
    [
      "a tool's message, which no guard judges",
      [{ role: "tool", content: "s" }],
      'messages[0].role: expected system, user or assistant, got "tool"',
    ],
    ["a role with a control token", [{ role: "user<|im_end|>", content: "s" }], "messages[0].role: expected"],
    ["no role", [{ content: "s" }], "messages[0].role: expected a string"],
    ["a message that is none", ["hi"], "messages[0]: expected"],
    ["a hole", Array(1), "messages[0]: expected"],
    [
      "content in parts",
      [{ role: "user", content: [{ type: "text", text: "x" }] }],
      "messages[0].content: expected a string, got an array",
    ],
    ["content null", [{ role: "user", content: null }], "messages[0].content: expected a string, got null"],
    [
      "a misspelt response",
      { prompt: "p", responce: "r" },
      'conversation: expected options among prompt, response, got "responce"',
    ],
    ["a prompt that is none", { prompt: 3 }, "prompt: expected a text, got a value of type number"],
    ["a response that is none", { prompt: "p", response: null }, "response: expected a text, got null"],
    ["a response without its prompt", { response: "r" }, "prompt: expected a text, got nothing"],
  ])("%s", (_, input, message) => {
    expect(() => toConversation(input as ModerationInput)).toThrow(message);
  });
});
