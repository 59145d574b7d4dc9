/** Where an answer is cut: never inside a character, and with nothing after its end. */

import { describe, expect, test } from "vitest";
import { events } from "../requests.ts";
import { chunk, type Script, type Setting, sendEvents, setting } from "./stand-in.ts";
import { accountOf, OFFENDS, standIn } from "./stand-in-guard.ts";

async function contents({ url }: Setting): Promise<string[]> {
  const response = await fetch(`${url}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ stream: true, messages: [{ role: "user", content: "Hi" }] }),
  });
  const got = events(await response.text()).flatMap(event => event.choices ?? []);
  return got.flatMap(({ delta }) => (delta.content === undefined ? [] : [delta.content]));
}

const says =
  (...pieces: readonly string[]): Script =>
  (_, response) =>
    sendEvents(response, [...pieces.map(content => chunk({ content })), chunk({}, "stop")]);

describe("a character of two units", () => {
  const faces = "\u{1F600}\u{10000}\u{10FFFD}\u{1F603}";

  test.each([0, 1, 2, 3])("leaves whole, however much is held back: %i", async holdBack => {
    for (const lag of [0, 1, 2]) {
      // In pieces of one unit, so that each place for a cut comes.
      const s = await setting(standIn("Stream", lag).guard, says(...faces.split("")), { holdBack });
      const got = await contents(s);
      expect([got.join(""), got.filter(text => !/^\P{Cs}*$/u.test(text))]).toEqual([faces, []]);
    }
  });

  test("is not cut in two before what offends", async () => {
    const s = await setting(standIn("Stream").guard, says(`Hi ${faces}${OFFENDS}`), { holdBack: 1 });
    expect((await contents(s)).join("")).toBe(`Hi ${faces.slice(0, -2)}`);
  });
});

describe("after the end of a choice", () => {
  const more = chunk({ content: " And a word more." });

  test("nothing passes or is judged if it ended by itself", async () => {
    const s = await setting(standIn("Stream").guard, (_, response) =>
      sendEvents(response, [
        chunk({ content: "Yes." }),
        chunk({}, "stop"),
        more,
        chunk({ content: OFFENDS }, "length"),
      ]),
    );
    expect((await contents(s)).join("")).toBe("Yes.");
    expect(await s.metrics()).toContain('qwen3guard_proxy_answers_total{outcome="passed"} 1\n');
    expect(await s.metrics()).toContain('qwen3guard_proxy_answers_total{outcome="flagged"} 0\n');
  });

  test("nothing passes if it was cut and another goes on", async () => {
    const s = await setting(standIn("Stream").guard, (_, response) =>
      sendEvents(response, [
        chunk({ content: `Yes. ${OFFENDS}` }),
        more,
        chunk({}, "stop"),
        chunk({ content: "x" }, "stop", 1),
      ]),
    );
    const response = await fetch(`${s.url}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ stream: true, n: 2, messages: [{ role: "user", content: "Hi" }] }),
    });
    const choices = events(await response.text()).flatMap(event => event.choices ?? []);
    const first = choices.filter(({ index }) => index === 0);
    expect(first.map(({ delta, finish_reason }) => [delta.content, finish_reason])).toEqual([
      ["Yes. ", null],
      [undefined, "content_filter"],
    ]);
  });

  test("nothing is judged again if nothing is blocked", async () => {
    const { guard, passed } = accountOf(standIn("Stream").guard);
    const s = await setting(
      guard,
      (_, response) => sendEvents(response, [chunk({ content: "Yes." }, "stop"), more, more]),
      {
        action: "flag",
      },
    );
    expect((await contents(s)).join("")).toBe("Yes. And a word more. And a word more.");
    expect(passed.filter(text => text.includes("word"))).toEqual([]);
  });
});
