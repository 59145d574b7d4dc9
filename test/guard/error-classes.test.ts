/** Errors are told apart by class: what a caller can act on has one of its own, wherever it is thrown. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import { toConversation } from "../../src/guard/conversation.ts";
import { Guard } from "../../src/guard/guard.ts";
import { StreamGuard } from "../../src/guard/stream-guard.ts";
import { cutIntoWindows } from "../../src/guard/windows.ts";
import * as entry from "../../src/index.ts";
import { ContextLengthError } from "../../src/model/context-length-error.ts";
import { MemoryError } from "../../src/tensor/memory-error.ts";
import { ConversationError } from "../../src/tokenizer/conversation-error.ts";
import { GEN, loadGuard, STREAM } from "../checkpoints.ts";

const WORDS = "word ".repeat(3000);
const PRIVATE_USE = Array.from({ length: 0x110000 }, (_, i) => i)
  .filter(code => (code >= 0xe000 && code < 0xf900) || (code >= 0xf0000 && (code & 0xffff) < 0xfffe))
  .map(code => String.fromCodePoint(code))
  .join("");
const user = (content: string) => ({ role: "user", content });

let gen: Guard;
let streamGuard: StreamGuard;
beforeAll(async () => {
  [gen, streamGuard] = [await loadGuard(), await StreamGuard.load(STREAM)];
});
afterAll(() => streamGuard.close());

test.each([
  ["ContextLengthError", ContextLengthError],
  ["ConversationError", ConversationError],
  ["MemoryError", MemoryError],
])("%s is exported, is a RangeError, and says its name", (name, Class) => {
  expect(Object.entries(entry)).toContainEqual([name, Class]);
  const error = new Class("what: expected more, got less");
  expect([error instanceof RangeError, String(error)]).toEqual([true, `${name}: what: expected more, got less`]);
});

describe("ContextLengthError", () => {
  test.each<[string, () => unknown]>([
    ["a prompt's ids", () => gen.model.newSession().prefill(new Int32Array(2049).fill(1))],
    ["a conversation, by its ids", () => gen.encode(WORDS)],
    ["a conversation, by its length alone", () => gen.encode("x".repeat(1e7))],
    ["messages before the one to judge", () => gen.moderate([user(WORDS), user("Hi")])],
    ["messages before the one to judge, by their length alone", () => gen.moderate([user("x".repeat(1e7)), user("Hi")])],
    ["more windows than anyone waits for unasked", () => gen.moderate("x".repeat(1e7))],
    ["a character that no window holds", () => cutIntoWindows(`a${"\u0301".repeat(3000)}`, gen.tokenizer, 500, {})],
    ["no room for a window", () => cutIntoWindows(WORDS, gen.tokenizer, 31, {})],
    ["a streamed answer with the verdict, to a Gen guard", () => gen.stream({ prompt: "Hi" }, { every: 2048 }).push(WORDS)],
    ["a streamed answer, to a Stream guard", () => streamGuard.stream({ prompt: "Hi" }).push(WORDS)],
    ["a question, to a Stream guard, by its ids", () => streamGuard.stream({ prompt: WORDS })],
    ["a question, to a Stream guard, by its length alone", () => streamGuard.stream({ prompt: "x".repeat(1e7) })],
  ])("%s", async (_what, act) => {
    await expect((async () => act())()).rejects.toThrow(ContextLengthError);
  }); // biome-ignore format: a table

  test("no room for a Gen guard's verdict on an answer that would fit by itself", async () => {
    const files = await openCheckpointFiles(GEN);
    const answer = "The weather was fine and the garden was full of flowers.";
    const { length } = gen.encode([user("Hi"), { role: "assistant", content: answer }]);
    const readText = async (file: string): Promise<string | undefined> => {
      const text = await files.readText(file);
      return file === "config.json" && text !== undefined
        ? JSON.stringify({ ...JSON.parse(text), max_position_embeddings: length + 1 })
        : text;
    };
    const guard = await Guard.load({ ...files, readText }, { threads: 1 });
    const stream = guard.stream({ prompt: "Hi" }, { every: 10 });
    await expect(stream.push(answer).then(() => stream.end())).rejects.toThrow(ContextLengthError);
    stream.close();
    guard.close();
  });
});

describe("ConversationError", () => {
  test.each<[string, () => unknown]>([
    ["no message", () => toConversation([])],
    ["an unknown role", () => toConversation([{ role: "narrator", content: "Hi" }])],
    ["a tool's message", () => toConversation([{ role: "tool", content: "Hi" }, user("Hi")])],
    ["a system message at the end", () => toConversation([{ role: "system", content: "Hi" }])],
    ["no question at the end", () => gen.stream({ messages: [{ role: "assistant", content: "Hi" }] })],
    ["no question at the end, for a Stream guard", () => streamGuard.stream({ messages: [{ role: "assistant", content: "Hi" }] })],
    ["all private-use characters and a control token", () => gen.tokenizer.encodeChat([user(`${PRIVATE_USE}<|im_end|>`)])],
  ])("%s", async (_what, act) => {
    await expect((async () => act())()).rejects.toThrow(ConversationError);
  }); // biome-ignore format: a table
});
