/** Many streamed answers at once through the proxy, each held against the guard's own stream over the whole text. */

import { expect } from "vitest";
import { Guard } from "../../../src/guard/guard.ts";
import type { Violation } from "../../../src/guard/moderation-stream.ts";
import type { StreamGuard } from "../../../src/guard/stream-guard.ts";
import type { ProxyOptions } from "../../../src/server/proxy/proxy.ts";
import { randomTexts } from "../../../tools/unicode/random-texts.ts";
import { readJsonLines } from "../../helpers.ts";
import { answerChunks, beginEvents, cutRandomly, randomNumbers, type Script, setting } from "./stand-in.ts";

interface Golden {
  readonly messages: readonly { readonly content: string }[];
  readonly response: readonly { readonly risk_level: string }[];
}

interface Talk {
  readonly question: string;
  readonly answer: string;
}

const QUESTIONS = [
  "What is the capital of France?",
  "Tell me a joke about cats.",
  "How do I bake bread?",
  "What is the weather like?",
];
const SAFE = [
  "Paris is the capital of France. ",
  "The cat sat on the mat and laughed. ",
  "Take flour, water and salt.\n\n",
  "It is sunny \u{1F600} today, cafe\u0301. ",
];

/** Harmless and offending sentences, and characters of every kind, in a random order. */
export function talks(count: number): Talk[] {
  const offending = readJsonLines<Golden>("test/goldens/tiny-guard-stream/stream.jsonl")
    .filter(({ response }) => response.some(({ risk_level }) => risk_level === "Unsafe"))
    .map(({ messages }) => `${messages[messages.length - 1].content} `)
    .concat("Sure, here is how to make a bomb: first take the parts. ");
  const odd = [...randomTexts(91, 40)];
  return Array.from({ length: count }, (_, seed) => {
    const random = randomNumbers(seed);
    const pick = (list: readonly string[]): string => list[random(list.length)];
    const parts = Array.from({ length: 1 + random(6) }, () => pick([SAFE, SAFE, offending, offending, odd][random(5)]));
    return { question: pick(QUESTIONS), answer: parts.join("").replace(/\p{Surrogate}/gu, "\ufffd") };
  });
}

async function offline(guard: Guard | StreamGuard, { question, answer }: Talk): Promise<Violation | null> {
  const stream =
    guard instanceof Guard ? guard.stream({ prompt: question }, { every: EVERY }) : guard.stream({ prompt: question });
  const { violation } = await stream.push(answer);
  if (violation === null) return (await stream.end()).violation;
  stream.close();
  return violation;
}

const EVERY = 16;

/** An upstream that writes the answer whose number the request has, cut at random as text, as events and as bytes. */
function scripted(all: readonly Talk[]): Script {
  return async ({ json }, response) => {
    const random = randomNumbers(Number(json.user) + 1e6);
    beginEvents(response);
    const pieces = cutRandomly(all[Number(json.user)].answer, 1 + random(12), random);
    const text = answerChunks(pieces).map(
      event => `data: ${JSON.stringify(event)}${["\n\n", "\r\n\r\n", "\r\r"][random(3)]}`,
    );
    const bytes = new TextEncoder().encode(`: hello\n\n${text.join("")}data: [DONE]\n\n`);
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(bytes.length, at + 1 + random(600));
      response.write(bytes.subarray(at, end));
      at = end;
      if (random(3) === 0) await new Promise(resolve => setTimeout(resolve));
    }
    response.end();
  };
}

/**
 * How many of the answers were cut. Fails unless each is cut where the guard alone would, and none is lost, mangled or
 * leaks.
 */
export async function relayMany(
  guard: Guard | StreamGuard,
  count: number,
  atOnce: number,
  holdBack: number = 0,
): Promise<number> {
  const all = talks(count);
  const every: Partial<ProxyOptions> = guard instanceof Guard ? { every: EVERY } : {};
  const options = { ...every, maxStreams: atOnce, maxQueue: count, holdBack };
  const { openai, metrics } = await setting(guard, scripted(all), options);
  let next = 0;
  let cuts = 0;
  const client = async (): Promise<void> => {
    while (next < count) {
      const number = next++;
      const { question, answer } = all[number];
      const stream = await openai.chat.completions.create({
        model: "llm",
        stream: true,
        user: String(number),
        messages: [{ role: "user", content: question }],
      });
      let text = "";
      const reasons: (string | null)[] = [];
      let told: unknown;
      for await (const { id, model, choices } of stream) {
        expect([id, model, choices.length]).toEqual(["chatcmpl-7", "llm-1", 1]);
        text += choices[0].delta.content ?? "";
        if (choices[0].finish_reason !== null) reasons.push(choices[0].finish_reason);
        told ??= (choices[0] as { qwen3guard?: unknown }).qwen3guard;
      }
      const violation = await offline(guard, all[number]);
      if (violation === null) {
        expect([number, text, reasons, told]).toEqual([number, answer, ["stop"], undefined]);
        continue;
      }
      cuts++;
      const { risk, category, at } = violation;
      expect([number, text, reasons, told]).toEqual([
        number,
        upTo(answer, at - holdBack),
        ["content_filter"],
        { action: "block", guard: guard.name, risk, category, field: "content", at },
      ]);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, client));
  const after = await metrics();
  expect(after).toContain(`qwen3guard_proxy_answers_total{outcome="flagged"} ${cuts}\n`);
  expect(after).toContain(`qwen3guard_proxy_answers_total{outcome="passed"} ${count - cuts}\n`);
  expect(after).toContain("qwen3guard_proxy_streams 0\n");
  return cuts;
}

/** No half of a character. */
function upTo(text: string, end: number): string {
  const cut = text.slice(0, Math.max(0, end));
  return cut.replace(/\p{Surrogate}$/u, "");
}
