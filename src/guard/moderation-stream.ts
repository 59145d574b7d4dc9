/**
 * The interface that moderates an answer while it is being written, with either guard: a Stream guard judges each token
 * (answer-stream.ts), a Gen guard the answer so far every few tokens (gen-stream.ts).
 *
 * In: the answer's text in pieces, cut anywhere. Out: verdicts on stretches of the text, how far it may be shown, and
 * where to cut it.
 */

import { checkOptions } from "../tensor/options.ts";
import { type ChatMessage, checkMessages } from "../tokenizer/chat-template.ts";
import { ConversationError } from "../tokenizer/conversation-error.ts";
import { toConversation } from "./conversation.ts";
import type { SafetyLevel } from "./policy.ts";

export interface ModerationStream {
  /** The verdict on the question. The first `push` or `end` of a Stream guard needs it anyway. */
  query(): Promise<RiskReading>;
  /** Takes the next piece of the answer, cut anywhere. Calls may overlap; they are answered in order. */
  push(text: string): Promise<StreamUpdate>;
  /** The answer is complete: judges the rest and frees the memory. */
  end(): Promise<StreamUpdate>;
  /** Frees the memory after the operations that have begun. Nothing can be pushed afterwards. */
  close(): void;
}

/** A level with its probabilities. If a Gen guard's answer could not be read, `risk` is null: treat it as the worst. */
export interface RiskReading {
  readonly risk: SafetyLevel | null;
  readonly riskProbs: Readonly<Record<SafetyLevel, number>> | null;
  /** null if the risk is Safe. */
  readonly category: string | null;
  /** The probability of `category`; null if there is none. */
  readonly categoryProb: number | null;
}

/** A reading for a stretch of the answer's text, in UTF-16 offsets. */
export interface StretchVerdict extends RiskReading {
  readonly start: number;
  readonly end: number;
}

/** What is known after a piece of the answer. */
export interface StreamUpdate {
  /** The verdicts on what was judged now, in order; none if the piece completes no word, or no stretch. */
  readonly verdicts: readonly StretchVerdict[];
  /** The text before this offset was judged and may be shown: no later verdict will cut it. */
  readonly clearedTo: number;
  /** The first violation of the answer so far; null if there is none. */
  readonly violation: Violation | null;
}

/** Why and where an answer is cut. */
export interface Violation {
  readonly risk: SafetyLevel | null;
  readonly category: string | null;
  /** The UTF-16 offset of the first offending character. The text before it may be shown. */
  readonly at: number;
}

/** Throws TypeError for a piece of an answer that is not a text. */
export function checkPiece(text: unknown): void {
  if (typeof text !== "string")
    throw new TypeError(`push: expected a text, got ${text === null ? "null" : typeof text}`);
}

/** The question: a user's message, or a conversation that ends with one. */
export type StreamInput = { readonly prompt: string } | { readonly messages: readonly ChatMessage[] };

/** Throws TypeError for malformed input and ConversationError for one without a question at its end. */
export function toQuestion(input: StreamInput): ChatMessage[] {
  let messages: ChatMessage[];
  if (typeof input === "object" && input !== null && "messages" in input) {
    checkOptions(input, ["messages"], "conversation");
    messages = toConversation(checkMessages(input.messages));
  } else {
    checkOptions(input, ["prompt"], "conversation");
    messages = toConversation(input);
  }
  if (messages[messages.length - 1].role !== "user") {
    throw new ConversationError(
      'conversation: expected the last message, the one to answer, to be of role "user", got "assistant"',
    );
  }
  return messages;
}
