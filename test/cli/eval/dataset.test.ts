/** Labelled lines: what is accepted, and every way in which a line can be wrong, reported with its number. */

import { describe, expect, test } from "vitest";
import { type DatasetOptions, type Example, readDataset } from "../../../src/cli/eval/dataset.ts";

async function read(text: string, options: DatasetOptions = {}): Promise<Example[]> {
  async function* chunks(): AsyncGenerator<string> {
    yield text;
  }
  return readDataset(chunks(), "data.jsonl", options);
}

test("every form of input, with and without optional keys; other keys are ignored", async () => {
  const lines = [
    { text: "a", label: "safe" },
    { id: 7, prompt: "b", label: "unsafe", categories: ["V", "H", "V"], type: "x", source: { any: "thing" } },
    { id: "r", prompt: "b", response: "c", label: "safe", categories: [] },
    { messages: [{ role: "user", content: "d" }], label: "unsafe" },
  ];
  expect(await read(lines.map(line => JSON.stringify(line)).join("\n\n"))).toEqual([
    { line: 1, id: null, input: "a", label: "safe", categories: [], group: null },
    { line: 3, id: "7", input: [{ role: "user", content: "b" }], label: "unsafe", categories: ["V", "H"], group: null },
    {
      line: 5,
      id: "r",
      input: [
        { role: "user", content: "b" },
        { role: "assistant", content: "c" },
      ],
      label: "safe",
      categories: [],
      group: null,
    },
    { line: 7, id: null, input: [{ role: "user", content: "d" }], label: "unsafe", categories: [], group: null },
  ]);
});

test("a limit leaves the rest unread, bad lines too; groups come from the key that is named", async () => {
  const text = '{"text": "a", "label": "safe", "area": "x"}\n{"text": "b", "label": "safe", "area": 3}\nnonsense\n';
  expect((await read(text, { limit: 2, by: "area" })).map(({ group }) => group)).toEqual(["x", "3"]);
  await expect(read(text, { limit: 3 })).rejects.toThrow(/^data\.jsonl line 3: expected JSON, got /);
});

describe("bad lines", () => {
  const text = '"text": "a", "label": "safe"';
  test.each<[string, string, string]>([
    ["no object", "[1]", "expected an object, got [1]"],
    ["null", "null", "expected an object, got null"],
    ["no label", '{"text": "a"}', 'label: expected "safe" or "unsafe", got nothing'],
    ["another label", '{"text": "a", "label": 1}', 'label: expected "safe" or "unsafe", got 1'],
    ["a label in capitals", '{"text": "a", "label": "Safe"}', 'label: expected "safe" or "unsafe", got "Safe"'],
    ["no input", '{"label": "safe"}', "expected one of {text}, {prompt, response} and {messages}, got none"],
    [
      "two inputs",
      `{${text}, "prompt": "b"}`,
      "expected one of {text}, {prompt, response} and {messages}, got text and prompt",
    ],
    ["a response to a text", `{${text}, "response": "b"}`, "response: expected a prompt with it, got text"],
    [
      "a response alone",
      '{"response": "b", "label": "safe"}',
      "expected one of {text}, {prompt, response} and {messages}, got none",
    ],
    ["a text that is a number", '{"text": 5, "label": "safe"}', "text: expected a string, got 5"],
    ["a prompt that is null", '{"prompt": null, "label": "safe"}', "prompt: expected a text, got null"],
    [
      "messages that are a string",
      '{"messages": "a", "label": "safe"}',
      'messages: expected an array of {role, content}, got "a"',
    ],
    [
      "an empty conversation",
      '{"messages": [], "label": "safe"}',
      "conversation: expected at least one message, got none",
    ],
    ["categories that are a text", `{${text}, "categories": "V"}`, 'categories: expected an array of strings, got "V"'],
    [
      "categories that are numbers",
      `{${text}, "categories": [1]}`,
      "categories: expected an array of strings, got [1]",
    ],
    ["an id that is an object", `{${text}, "id": {}}`, "id: expected a string or a number, got {}"],
    ["no group", `{${text}}`, "area: expected a string or a number, got nothing"],
    [
      "a group that only the prototype has",
      `{${text}, "area": {"toString": 1}}`,
      'area: expected a string or a number, got {"toString":1}',
    ],
  ])("%s", async (_, line, message) => {
    const by = message.startsWith("area") ? { by: "area" } : {};
    await expect(read(`{"text": "fine", "label": "safe", "area": "x"}\n${line}\n`, by)).rejects.toThrow(
      `data.jsonl line 2: ${message}`,
    );
  });

  test("a group by a name that every object has", async () => {
    await expect(read(`{${text}}`, { by: "constructor" })).rejects.toThrow(
      "data.jsonl line 1: constructor: expected a string or a number",
    );
  });

  test("no lines at all, and only blank lines", async () => {
    for (const nothing of ["", "\n \n"])
      await expect(read(nothing)).rejects.toThrow("data.jsonl: expected at least one line, got none");
  });
});
