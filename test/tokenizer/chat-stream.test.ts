/**
 * An answer in pieces, after a chat template: every way to cut a short answer gives the ids of the whole
 * conversation, and ranges of the answer.
 */

import { describe, expect, test } from "vitest";
import { ChatStream, type Opening } from "../../src/tokenizer/chat-stream.ts";
import type { ChatMessage } from "../../src/tokenizer/chat-template.ts";
import { EncodingBuilder } from "../../src/tokenizer/offsets.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { readJson, TINY_PATH } from "./checkpoints.ts";

const tiny = readJson<object>(TINY_PATH);
const chat = (content: string): Tokenizer =>
  Tokenizer.fromJson(
    tiny,
    {},
    `{% for m in messages %}<|im_start|>{{ m.role }}\n{{ ${content} }}<|im_end|>\n{% endfor %}`,
  );
const plain = chat("m.content");
const QUESTION: readonly ChatMessage[] = [{ role: "user", content: "Who?" }];

/** All ways to cut a text into pieces that are not empty. */
function cuts(text: string): string[][] {
  if (text === "") return [[]];
  return Array.from({ length: text.length }, (_, i) => i + 1).flatMap(at =>
    cuts(text.slice(at)).map(rest => [text.slice(0, at), ...rest]),
  );
}

/** Feeds an answer and checks at every step what the stream reports; returns its ids and their ranges. */
function feed(
  stream: ChatStream,
  parts: readonly string[],
  kept: number,
): { ids: number[]; ranges: [number, number][] } {
  const ids: number[] = [];
  const ranges: [number, number][] = [];
  let given = 0;
  for (const part of [...parts, undefined]) {
    const earliest = stream.openStart;
    const { ids: more, starts, ends } = part === undefined ? stream.end() : stream.push(part);
    given += part?.length ?? 0;
    if (starts.length > 0) expect(starts[0]).toBeGreaterThanOrEqual(earliest);
    ids.push(...more);
    ranges.push(...Array.from(starts, (start, i): [number, number] => [start, ends[i]!]));
    // Text without ids yet is waiting. Before the answer's first id, the template's own text may be waiting too.
    if (part !== undefined && ranges.length > 0 && ranges.at(-1)![1] > kept)
      expect(stream.pending).toBe(given - ranges.at(-1)![1]);
  }
  return { ids, ranges };
}

describe.each([
  { name: "keeps an answer", tokenizer: plain, leftOut: /^/ },
  { name: "leaves out line feeds", tokenizer: chat("m.content.lstrip('\\n')"), leftOut: /^\n*/ },
])("a template that $name", ({ tokenizer, leftOut }) => {
  const closing = [tokenizer.tokenToId("<|im_end|>")!, ...tokenizer.encode("\n")];

  test.each([
    "",
    " ",
    "\n",
    "\n\n ",
    "\n \n",
    "Hi",
    " Hi",
    "\n\nHi",
    "\n Hi\n",
    "a b\n",
    "\u0085\u001Ca",
    "\u001Fa \u001D",
    "<|",
    "\t\u0301a",
  ])("%j", text => {
    const kept = leftOut.exec(text)![0].length;
    const whole = [...tokenizer.encodeChat([...QUESTION, { role: "assistant", content: text }])];
    for (const parts of [...cuts(text), ["", ...text, ""]]) {
      const stream = tokenizer.chatStream(QUESTION);
      const { ids, ranges } = feed(stream, parts, kept);
      expect([...stream.before, ...ids, ...closing]).toEqual(whole);
      // The ids of "assistant\n" come first, with empty ranges where the kept text begins. The other
      // templates remove nothing of that text.
      expect(ranges[0]).toEqual([kept, kept]);
      let covered = kept;
      for (const [start, end] of ranges) {
        expect([start, covered, end]).toEqual([start, covered, end].sort((a, b) => a - b));
        expect(start).toBeGreaterThanOrEqual(kept);
        covered = end;
      }
      expect(covered).toBe(text.length);
    }
  });
});

describe("white space at an answer's beginning", () => {
  test("waits, all of it, for the text after it", () => {
    const stream = plain.chatStream(QUESTION);
    for (const [i, space] of [" ", "\n\u0085", "\t"].entries()) {
      expect(stream.push(space).ids).toHaveLength(0);
      expect(stream.pending).toBe([1, 3, 4][i]);
      expect(stream.openStart).toBe(0);
    }
    expect(stream.push("and so on").ids.length).toBeGreaterThan(2);
    expect(stream.pending).toBeLessThan(4);
    expect(stream.openStart).toBeGreaterThan(4);
  });

  test("that the template removes shifts where ranges can begin", () => {
    const stream = chat("m.content.lstrip('\\n')").chatStream(QUESTION);
    stream.push("\n\n");
    expect(stream.openStart).toBe(0);
    stream.push("H");
    expect(stream.openStart).toBe(2);
  });

  test.each([
    [
      ["\n", " ", "\t a", " b", " "],
      ["", "\n \t "],
    ],
    [["a", " b"], [""]],
    [[], [""]],
  ])("the template is rendered once, with all of it: %j", (parts, expected) => {
    const asked: string[] = [];
    const open = (space: string): Opening => {
      asked.push(space);
      return { ids: Int32Array.of(1), lead: `x${space}` };
    };
    const stream = new ChatStream(open, () => plain.encodeStream());
    for (const part of parts) stream.push(part);
    stream.end();
    expect(asked).toEqual(expected);
  });

  test.each([
    ["other text before it", "yx "],
    ["something else instead", "x_"],
    ["less of the template's own text", ""],
  ])("a template that then writes %s is refused", (_, lead) => {
    const open = (space: string): Opening => ({ ids: Int32Array.of(1), lead: space === "" ? "x" : lead });
    const stream = new ChatStream(open, () => plain.encodeStream());
    expect(stream.push(" ")).toEqual(new EncodingBuilder().finish());
    expect(() => stream.push("a")).toThrow(
      "chat template: expected the text before an answer to stay as it is when the answer begins with white space",
    );
  });
});
