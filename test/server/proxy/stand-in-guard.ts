/**
 * Guards that judge at once, by what a text has in it: of either kind, for properties that take thousands of cases. It
 * also has an account that records the verdicts of any guard.
 *
 * A text with OFFENDS offends from there on. One with a word of FAILURES has no verdict: the guard throws as it might
 * for a text of a user's, and goes on to judge others.
 */

import { Guard } from "../../../src/guard/guard.ts";
import type { ModerationStream, RiskReading, StreamUpdate, Violation } from "../../../src/guard/moderation-stream.ts";
import type { StreamGuard } from "../../../src/guard/stream-guard.ts";
import type { Verdict } from "../../../src/guard/verdict.ts";
import { ContextLengthError } from "../../../src/model/context-length-error.ts";
import type { Engine } from "../../../src/tensor/engine.ts";
import { MemoryError } from "../../../src/tensor/memory-error.ts";
import type { ChatMessage } from "../../../src/tokenizer/chat-template.ts";
import { ConversationError } from "../../../src/tokenizer/conversation-error.ts";

export const OFFENDS = "OFFENDS";
/** Its verdict on this cannot be read. */
export const UNREADABLE = "UNREADABLE";

/** What a guard may throw for a text, by the word that makes the stand-in throw it. */
export const FAILURES: Readonly<Record<string, () => unknown>> = {
  FAILS_LONG: () =>
    new ContextLengthError(
      "conversation too long: expected fewer than 32768 tokens with the guard's prompt, got 40000",
    ),
  FAILS_ANSWER: () =>
    new ContextLengthError("answer too long: expected at most 32768 tokens with the conversation, got at least 40000"),
  FAILS_SHADOWS: () =>
    new ConversationError(
      "messages: expected a private-use character that does not occur in them, got texts that use them all",
    ),
  FAILS_TYPE: () => new TypeError("text: expected a string, got null"),
  FAILS_TEMPLATE: () => new Error("chat_template.jinja: roles must alternate"),
  FAILS_NUMBERS: () => new RangeError("logits: expected finite numbers, got NaN (the weights or the sums overflow)"),
  FAILS_TRAP: () => new WebAssembly.RuntimeError("memory access out of bounds"),
  FAILS_STACK: () => new RangeError("Maximum call stack size exceeded"),
  FAILS_MEMORY: () => new MemoryError("memory: expected 1000 bytes, got 10"),
  FAILS_ODDLY: () => "a text",
};

type Input = { readonly messages: readonly ChatMessage[] };

/** What the proxy calls of either guard. */
export interface Core {
  readonly name: string;
  /** Without one: an engine that runs. */
  readonly model?: { readonly engine: Pick<Engine, "failure"> };
  readonly stream: (input: Input, options: object) => ModerationStream;
  readonly moderate: (
    messages: readonly ChatMessage[],
    options: object,
  ) => Promise<Pick<Verdict, "safety" | "categories" | "flagged">>;
}

export interface StandIn {
  readonly guard: Guard | StreamGuard;
  /** From now on it throws for whatever it is asked. */
  readonly break: () => void;
}

/** `lag`: how many characters at the end of an answer a Stream guard has not judged before the next come. */
export function standIn(kind: "Gen" | "Stream", lag: number = 4): StandIn {
  let isBroken = false;
  const check = (text: string): void => {
    if (isBroken) throw new Error("the threads have stopped");
    for (const [word, failure] of Object.entries(FAILURES)) if (text.includes(word)) throw failure();
  };
  const riskOf = (text: string): Violation["risk"] =>
    text.includes(OFFENDS) ? "Unsafe" : text.includes(UNREADABLE) ? null : "Safe";
  const judge = (text: string): Violation["risk"] => {
    check(text);
    return riskOf(text);
  };

  const stream = ({ messages }: Input): ModerationStream => {
    const question = lastText(messages);
    if (kind === "Stream" && question.includes("FAILS_LONG")) check(question); // at once
    let answer = "";
    const update = (end: number): StreamUpdate => {
      check(answer);
      const at = answer.search(new RegExp(`${OFFENDS}|${UNREADABLE}`));
      const violation = at < 0 ? null : { risk: riskOf(answer), category: null, at };
      // No guard clears half of a character.
      const isInside = /[\ud800-\udbff]$/.test(answer.slice(0, Math.max(0, end)));
      return { verdicts: [], clearedTo: violation?.at ?? Math.max(0, isInside ? end - 1 : end), violation };
    };
    return {
      query: async (): Promise<RiskReading> => ({
        risk: judge(question),
        riskProbs: null,
        category: null,
        categoryProb: null,
      }),
      push: async text => {
        answer += text;
        return update(answer.length - lag);
      },
      end: async () => update(answer.length),
      close: () => {},
    };
  };
  const moderate: Core["moderate"] = async messages => {
    const safety = judge(lastText(messages));
    return { safety, categories: [], flagged: safety !== "Safe" };
  };
  return {
    guard: guardOf(
      { name: `stand-in-${kind}`, model: { engine: { failure: undefined } }, stream, moderate },
      kind === "Gen",
    ),
    break: () => {
      isBroken = true;
    },
  };
}

export interface Account {
  readonly guard: Guard | StreamGuard;
  /** The texts that it was asked about and let pass: questions, and answers as far as they were cleared. */
  readonly passed: string[];
  /** All that it was given, also as context. */
  readonly heard: string[];
  /** What it was asked, in order: "query Hi", "push a", "end", "moderate Hi | a". */
  readonly calls: string[];
  /** What it was asked with. */
  readonly options: object[];
  /** Streams that hold memory. */
  readonly open: () => number;
}

/** The same guard, with an account of its verdicts. */
export function accountOf(guard: Guard | StreamGuard): Account {
  const core = guard as unknown as Core;
  const passed: string[] = [];
  const heard: string[] = [];
  const calls: string[] = [];
  const allOptions: object[] = [];
  let open = 0;
  const hear = (messages: readonly ChatMessage[]): void => void heard.push(...messages.map(({ content }) => content));
  const stream = (input: Input, options: object): ModerationStream => {
    const inner = core.stream(input, options);
    allOptions.push(options);
    open++;
    let isOpen = true;
    let answer = "";
    const note = (update: StreamUpdate): StreamUpdate => {
      passed.push(answer.slice(0, update.violation?.at ?? update.clearedTo));
      return update;
    };
    return {
      query: async () => {
        hear(input.messages);
        calls.push(`query ${lastText(input.messages)}`);
        const reading = await inner.query();
        if (reading.risk === "Safe") passed.push(lastText(input.messages));
        return reading;
      },
      push: async text => {
        answer += text;
        calls.push(`push ${text}`);
        return note(await inner.push(text));
      },
      end: async () => {
        calls.push("end");
        const update = await inner.end();
        if (!update.violation) passed.push(answer); // one token that alone would offend is no violation where its text ends with it
        return note(update);
      },
      close: () => {
        if (isOpen) open--;
        isOpen = false;
        inner.close();
      },
    };
  };
  const moderate: Core["moderate"] = async (messages, options) => {
    allOptions.push(options);
    calls.push(`moderate ${messages.map(({ content }) => content).join(" | ")}`);
    const verdict = await core.moderate(messages, options);
    if (!verdict.flagged) passed.push(lastText(messages));
    return verdict;
  };
  const guarded = guardOf(
    { ...(core.model ? { model: core.model } : {}), name: core.name, stream, moderate },
    guard instanceof Guard,
  );
  return { guard: guarded, passed, heard, calls, options: allOptions, open: () => open };
}

export function guardOf(core: Core, isGen: boolean): Guard | StreamGuard {
  return Object.assign(Object.create(isGen ? Guard.prototype : null), {
    model: { engine: { failure: undefined } },
    ...core,
  });
}

function lastText(messages: readonly ChatMessage[]): string {
  return messages[messages.length - 1].content;
}
