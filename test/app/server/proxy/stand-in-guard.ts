/**
 * Guards that judge at once, by what a text has in it, and keep what they let pass: of either kind, for properties that take thousands of cases.
 *
 * A text with OFFENDS offends from there on. One with a word of FAILURES has no verdict: the guard throws as it might for a text of a user's, and goes on
 * to judge others.
 */

import type { Guard } from "../../../../src/guard/guard.ts";
import { Guard as GuardClass } from "../../../../src/guard/guard.ts";
import type { ModerationStream, RiskReading, StreamInput, StreamUpdate, Violation } from "../../../../src/guard/moderation-stream.ts";
import type { StreamGuard } from "../../../../src/guard/stream-guard.ts";
import { MemoryError } from "../../../../src/tensor/memory-error.ts";
import type { ChatMessage } from "../../../../src/tokenizer/chat-template.ts";

export const OFFENDS = "OFFENDS";

/** What a guard may throw for a text, by the word that makes the stand-in throw it. */
export const FAILURES: Readonly<Record<string, () => unknown>> = {
  FAILS_LONG: () => new RangeError("conversation too long: expected fewer than 32768 tokens with the guard's prompt, got 40000"),
  FAILS_LONG_ANSWER: () => new RangeError("answer too long: expected at most 32768 tokens with the conversation, got at least 40000"),
  FAILS_SHADOWS: () => new RangeError("messages: expected a private-use character that does not occur in them, got texts that use all"),
  FAILS_TYPE: () => new TypeError("text: expected a string, got null"),
  FAILS_TEMPLATE: () => new Error("chat_template.jinja: roles must alternate"),
  FAILS_NUMBERS: () => new RangeError("logits: expected finite numbers, got NaN (the weights or the sums overflow)"),
  FAILS_TRAP: () => new WebAssembly.RuntimeError("memory access out of bounds"),
  FAILS_STACK: () => new RangeError("Maximum call stack size exceeded"),
  FAILS_MEMORY: () => new MemoryError("memory: expected 1000 bytes, got 10"),
  FAILS_ODDLY: () => "a text",
};

/** Its verdict on this cannot be read. */
export const UNREADABLE = "UNREADABLE";

export interface StandIn {
  readonly guard: Guard | StreamGuard;
  /** The texts that it was asked about and let pass: questions, and answers as far as they were cleared. */
  readonly passed: string[];
  /** From now on it throws for whatever it is asked. */
  break(): void;
}

/** `lag`: how many characters at the end of an answer a Stream guard has not judged before the next come. */
export function standIn(kind: "Gen" | "Stream", lag: number = 4): StandIn {
  const passed: string[] = [];
  let isBroken = false;

  const check = (text: string): void => {
    if (isBroken) throw new Error("threads: expected running workers, got none");
    for (const [word, failure] of Object.entries(FAILURES)) if (hasWord(text, word)) throw failure();
  };
  const riskOf = (text: string): Violation["risk"] => (text.includes(OFFENDS) ? "Unsafe" : text.includes(UNREADABLE) ? null : "Safe");
  const judge = (text: string): Violation["risk"] => {
    check(text);
    const risk = riskOf(text);
    if (risk === "Safe") passed.push(text);
    return risk;
  };
  const violationOf = (text: string): Violation | null => {
    const at = text.search(new RegExp(`${OFFENDS}|${UNREADABLE}`));
    return at < 0 ? null : { risk: riskOf(text), category: null, at };
  };

  const stream = (input: StreamInput): ModerationStream => {
    const question = "messages" in input ? lastText(input.messages) : input.prompt;
    if (hasWord(question, "FAILS_LONG")) check(question); // at once, as a Stream guard does
    let answer = "";
    const update = (end: number): StreamUpdate => {
      check(answer);
      const violation = violationOf(answer);
      const clearedTo = violation?.at ?? Math.max(0, end);
      passed.push(answer.slice(0, clearedTo));
      return { verdicts: [], clearedTo, violation };
    };
    return {
      query: async (): Promise<RiskReading> => ({ risk: judge(question), riskProbs: null, category: null, categoryProb: null }),
      push: async text => {
        answer += text;
        return update(answer.length - lag);
      },
      end: async () => update(answer.length),
      close: () => {},
    };
  };
  const moderate = async (messages: readonly ChatMessage[]): Promise<object> => {
    const safety = judge(lastText(messages));
    return { safety, categories: [], flagged: safety !== "Safe" };
  };
  const name = `stand-in-${kind}`;
  const guard = kind === "Gen" ? Object.create(GuardClass.prototype, property({ name, stream, moderate })) : { name, stream };
  return {
    guard: guard as Guard | StreamGuard,
    passed,
    break: () => {
      isBroken = true;
    },
  };
}

function property(values: object): PropertyDescriptorMap {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { value }]));
}

function lastText(messages: readonly ChatMessage[]): string {
  return messages[messages.length - 1].content;
}

/** Not as the beginning of a longer one. */
function hasWord(text: string, word: string): boolean {
  return new RegExp(`${word}(?!_)`).test(text);
}
