/**
 * Ids, decoded text, rendered templates and ids of conversations, compared with records of the reference
 * (tools/reference says how they were made).
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { ChatMessage } from "../../src/tokenizer/chat-template.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { pathOf, QWEN3_PATH, readJson, readJsonLines, TINY_PATH } from "./checkpoints.ts";

describe.each([
  { name: "tiny", path: TINY_PATH, lines: 503 },
  { name: "qwen3", path: QWEN3_PATH, lines: 604 },
])("the $name vocabulary", ({ name, path, lines }) => {
  const tokenizer = Tokenizer.fromJson(readJson(path));
  const goldens = readJsonLines<{ text: string; ids: number[]; decoded: string }>(
    pathOf(`test/goldens/tokenizer-${name}.jsonl`),
  );

  test("ids are the reference's", () => {
    expect(goldens.length).toBe(lines);
    for (const { text, ids } of goldens) expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(ids);
  });

  test("decoded text is the reference's", () => {
    for (const { text, ids, decoded } of goldens) expect(tokenizer.decode(ids), JSON.stringify(text)).toBe(decoded);
  });
});

test("the real vocabulary is the published one, with the ids in the model card's answers", () => {
  expect(createHash("sha256").update(readFileSync(QWEN3_PATH)).digest("hex")).toBe(
    "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
  );
  const tokenizer = Tokenizer.fromJson(readJson(QWEN3_PATH));
  expect(tokenizer.vocabSize).toBe(151_669);
  expect([...tokenizer.encode("Safety: Unsafe\nCategories: Violent")]).toEqual([
    73037, 25, 73067, 198, 20970, 25, 29455, 306,
  ]);
});

describe.each([
  { name: "gen", folder: "models/tiny-guard-gen" },
  { name: "stream", folder: "test/fixtures/tiny-guard-stream" },
])("the $name template", ({ name, folder }) => {
  test("renders what jinja2 renders", async () => {
    const tokenizer = await Tokenizer.load(pathOf(folder));
    const goldens = readJsonLines<{ messages: ChatMessage[]; text: string }>(
      pathOf(`test/goldens/template-${name}.jsonl`),
    );
    expect(goldens.length).toBe(22);
    for (const { messages, text } of goldens) expect(tokenizer.applyChatTemplate(messages)).toBe(text);
  });
});

test("the ids of conversations: contents are text by default, and treated as in the reference on request", async () => {
  const tokenizer = await Tokenizer.load(pathOf("models/tiny-guard-gen"));
  const goldens = readJsonLines<{
    messages: ChatMessage[];
    prompt: string;
    prompt_ids: number[];
    reference_prompt_ids?: number[];
  }>(pathOf("test/goldens/tiny-guard-gen/generate.jsonl"));
  expect(goldens.filter(golden => golden.reference_prompt_ids).length).toBeGreaterThan(0);
  for (const { messages, prompt, prompt_ids, reference_prompt_ids } of goldens) {
    expect(tokenizer.applyChatTemplate(messages)).toBe(prompt);
    expect([...tokenizer.encodeChat(messages)]).toEqual(prompt_ids);
    expect([...tokenizer.encodeChat(messages, { reference: true })]).toEqual(reference_prompt_ids ?? prompt_ids);
  }
});
