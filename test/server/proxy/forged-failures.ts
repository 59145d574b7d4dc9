/**
 * Every error that a text can cause in a guard, with the proxy open for failures: as a question, in its context, or
 * somewhere in an answer. Nothing that was not judged passes, in either direction, and the proxy stays in service.
 */

import fc from "fast-check";
import { createProxy } from "../../../src/server/proxy/proxy.ts";
import { marked, marksIn, TEXT } from "./marks.ts";
import { answerChunks, HEAD, type Script, sendEvents, sendJson, setting } from "./stand-in.ts";
import { accountOf, FAILURES, OFFENDS, standIn, UNREADABLE } from "./stand-in-guard.ts";

export interface ForgedFailure {
  readonly kind: "Gen" | "Stream";
  readonly isStream: boolean;
  readonly holdBack: number;
  readonly lag: number;
  readonly word: string;
  readonly place: "question" | "context" | "answer" | "error";
  readonly question: string;
  /** Pieces of an answer. */
  readonly answer: readonly string[];
}

const words = [...Object.keys(FAILURES), UNREADABLE, OFFENDS];
const piece = fc.constantFrom(TEXT, ` ${TEXT} and `, "so ", "\u{1F600}", "\n");

export const forgedFailure: fc.Arbitrary<ForgedFailure> = fc
  .record({
    kind: fc.constantFrom("Gen" as const, "Stream" as const),
    isStream: fc.boolean(),
    holdBack: fc.constantFrom(0, 1, 9),
    lag: fc.nat(12),
    word: fc.constantFrom(...words),
    place: fc.constantFrom("question" as const, "context" as const, "answer" as const, "error" as const),
    question: fc.array(piece, { minLength: 1, maxLength: 4 }).map(all => all.join("")),
    answer: fc.array(piece, { minLength: 1, maxLength: 8 }),
    at: fc.nat(8),
  })
  .map(({ at, ...forged }) => {
    const { place, word, answer } = forged;
    const index = Math.min(at, answer.length);
    const failing =
      place === "answer" || place === "error" ? [...answer.slice(0, index), word, ...answer.slice(index)] : answer;
    return marked({
      ...forged,
      question: place === "question" ? `${forged.question} ${word} ${TEXT}` : forged.question,
      answer: failing,
    });
  });

export interface Seen {
  readonly status: number;
  readonly isForwarded: boolean;
  readonly got: number;
}

/** Throws where something passed that was not judged. */
export async function failing(): Promise<(forged: ForgedFailure) => Promise<Seen>> {
  let script: Script = () => {};
  const s = await setting(standIn("Gen").guard, (request, response) => script(request, response));
  return async forged => {
    const { kind, isStream, holdBack, lag, word, place, question, answer } = forged;
    script = (_, response) => {
      if (place === "error") return sendJson(response, { error: { message: answer.join("") } }, 422);
      if (isStream) return sendEvents(response, answerChunks(answer));
      const message = { role: "assistant", content: answer.join("") };
      sendJson(response, { ...HEAD, choices: [{ index: 0, message, finish_reason: "stop" }] });
    };
    const account = accountOf(standIn(kind, lag).guard);
    const { fetch } = createProxy(account.guard, { upstream: s.upstream, holdBack, failOpen: true });
    s.received.length = 0;
    const history =
      place === "context"
        ? [
            { role: "user", content: word },
            { role: "assistant", content: "Yes." },
          ]
        : [];
    const body = JSON.stringify({ stream: isStream, messages: [...history, { role: "user", content: question }] });
    const headers = { "content-type": "application/json" };
    const response = await fetch(new Request("http://proxy/v1/chat/completions", { method: "POST", headers, body }));
    const received = await response.text();
    const passed = account.passed.join("\n");
    const check = (isRight: boolean, what: string): void => {
      if (!isRight)
        throw new Error(`${what}\n${JSON.stringify(forged, null, 1)}\nreceived: ${received}\npassed: ${passed}`);
    };
    const isForwarded = s.received.length > 0;
    check(isForwarded === (place !== "question"), "a question that has no verdict");
    for (const mark of marksIn(received)) check(passed.includes(mark), `a text that nobody judged: ${mark}`);
    if (place === "answer") {
      for (const mark of marksIn(answer.slice(answer.indexOf(word)).join("")))
        check(!received.includes(mark), `a text after ${word}: ${mark}`);
      check(
        received.includes("content_filter") || (word === "FAILS_MEMORY" && received.includes("guard_out_of_memory")),
        "no cut",
      );
    }
    check(!received.includes('"action":"pass"') && !response.headers.has("x-qwen3guard-question"), "unjudged");
    check((await fetch(new Request("http://proxy/health"))).status === 200, "health");
    return { status: response.status, isForwarded, got: marksIn(received).length };
  };
}
