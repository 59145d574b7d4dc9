/** Server-sent events, however the bytes are cut. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readEvents } from "../../../src/server/proxy/event-reader.ts";

async function read(bytes: Uint8Array, cuts: readonly number[] = []): Promise<string[]> {
  const at = [0, ...[...cuts].sort((a, b) => a - b), bytes.length];
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let i = 1; i < at.length; i++) yield bytes.subarray(at[i - 1], at[i]);
  }
  const events: string[] = [];
  for await (const event of readEvents(pieces())) events.push(event);
  return events;
}

const readText = (text: string): Promise<string[]> => read(new TextEncoder().encode(text));

describe("an event's data", () => {
  test.each<[string, string[]]>([
    ["data: a\n\n", ["a"]],
    ["data:a\r\n\r\n", ["a"]],
    ["data:  a\r\r", [" a"]],
    ["data: a\ndata: b\n\n", ["a\nb"]],
    ["data\n\ndata:\n\n", []],
    [": comment\n\nevent: x\nid: 1\nretry: 5\n\n", []],
    ["event: x\ndata: a\nid: 1\n\ndata: b\n\n", ["a", "b"]],
    ["database: a\n\n", []],
    ["\uFEFFdata: a\n\n", ["a"]],
    ["data: a", ["a"]],
    ["data:a ", ["a "]],
    ["data:a b : c\n\n", ["a b : c"]],
    ["data: \n\n", []],
    ["data\ndata: a\n\n", ["\na"]],
    ["data: a\n\ndata: b\n\n\n\n", ["a", "b"]],
    [":data: a\n\n", []],
    [" data: a\n\n", []],
    ["data: a\r\ndata: b\r\r\n", ["a\nb"]],
    ["data: a\r", ["a"]],
    ["data: a\u2028b\n\n", ["a\u2028b"]],
    ["", []],
  ])("of %j", async (text, events) => {
    expect(await readText(text)).toEqual(events);
  });
});

test("is the same wherever the bytes are cut: between CR and LF, and in a character", async () => {
  const line = fc.constantFrom("data: a", "data: \u{1F600}é", "data:", ": c", "event: e", "", "", "x");
  const lines = fc.array(fc.tuple(line, fc.constantFrom("\n", "\r\n", "\r")), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(lines, fc.array(fc.nat(200), { maxLength: 20 }), async (lines, cuts) => {
      const bytes = new TextEncoder().encode(lines.flat().join(""));
      const inside = cuts.map(cut => cut % (bytes.length + 1));
      expect(await read(bytes, inside)).toEqual(await read(bytes));
    }),
    { numRuns: 300 },
  );
});

test("may be cut inside each of its characters", async () => {
  const bytes = new TextEncoder().encode("data: \u{1F600}\u00e9\r\n\r\ndata: b");
  const everywhere = Array.from(bytes.keys());
  expect(await read(bytes, everywhere)).toEqual(["\u{1F600}\u00e9", "b"]);
  for (const at of everywhere) expect(await read(bytes, [at])).toEqual(["\u{1F600}\u00e9", "b"]);
});

test("is an error if its bytes are not UTF-8, or cut off a character at the end", async () => {
  for (const bytes of [[0x64, 0xff, 0x0a], [0x64, 0xf0, 0x9f]])
    await expect(read(Uint8Array.from(bytes))).rejects.toMatchObject({
      status: 502,
      code: "upstream_invalid",
      message: "upstream: expected UTF-8 text, got bytes that are not",
    }); // biome-ignore format: two kinds
});

test("an event may have 2 ** 20 characters, in one line or in several, and not one more", async () => {
  const tooLong = "upstream: expected an event of at most 1048576 characters, got a longer one";
  const half = "x".repeat(2 ** 19);
  const [first, second] = [`${half}\n`, half.slice(1)];
  expect(await readText(`data:${first}data:${second}\n\n`)).toEqual([first + second]);
  await expect(readText(`data:${first}data:${second}x\n\n`)).rejects.toThrow(tooLong);
  // A line without its end: the field's name counts as well.
  const line = `data:${half}${half.slice(5)}`;
  expect(await readText(line)).toEqual([line.slice(5)]);
  await expect(readText(`${line}x`)).rejects.toThrow(tooLong);
});

test("many data lines without end are bounded, too", async () => {
  await expect(
    readText("data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".repeat(20_000)),
  ).rejects.toThrow("upstream: expected an event of at most 1048576 characters, got a longer one");
});
