/**
 * What moderates an answer while it is being written, whichever guard does it: a Stream guard token by token
 * (answer-stream.ts), a Gen guard every so many tokens (gen-stream.ts).
 *
 * In: the answer's text in pieces, cut anywhere. Out: verdicts on stretches of it, how far it may be shown, and where
 * it is to be cut.
 */

import { checkOptions } from "../tensor/options.ts";
import { type ChatMessage, checkMessages } from "../tokenizer/chat-template.ts";
import { ConversationError } from "../tokenizer/conversation-error.ts";
import { toConversation } from "./conversation.ts";
import type { SafetyLevel } from "./policy.ts";

export interface ModerationStream {
  /** The verdict on the question. The first `push` or `end` of a Stream guard needs it anyway. */
  query(): Promise<RiskReading>;
  /** Takes the next piece of the answer, cut anywhere. Calls may overlap: they are answered in their order. */
  push(text: string): Promise<StreamUpdate>;
  /** The answer is complete: verdicts on the rest. Gives the memory back. */
  end(): Promise<StreamUpdate>;
  /** Gives the memory back, when what was begun is done. Nothing may be pushed afterwards. */
  close(): void;
}

/**
 * A level with its probabilities. `risk` is null where a Gen guard's answer could not be read: to be taken for the
 * worst.
 */
export interface RiskReading {
  readonly risk: SafetyLevel | null;
  readonly riskProbs: Readonly<Record<SafetyLevel, number>> | null;
  /** null where the risk is Safe. */
  readonly category: string | null;
  /** Probability of `category`; null where there is none. */
  readonly categoryProb: number | null;
}

/** On a stretch of the answer's text, in UTF-16 offsets. */
export interface StretchVerdict extends RiskReading {
  readonly start: number;
  readonly end: number;
}

/** What a piece of the answer brought. */
export interface StreamUpdate {
  /** On what was judged now, in order; none where a word, or a stretch, is not complete. */
  readonly verdicts: readonly StretchVerdict[];
  /** What stands before this offset was judged and may be shown: no later verdict cuts there. */
  readonly clearedTo: number;
  /** The first one of the whole answer so far; null while there is none. */
  readonly violation: Violation | null;
}

/** Why and where an answer is cut. */
export interface Violation {
  readonly risk: SafetyLevel | null;
  readonly category: string | null;
  /** The first offending character: UTF-16 offset in the answer's text. What stands before it may be shown. */
  readonly at: number;
}

/** Throws TypeError for a piece of an answer that is not a text. */
export function checkPiece(text: unknown): void {
  if (typeof text !== "string")
    throw new TypeError(`push: expected a text, got ${text === null ? "null" : typeof text}`);
}

/** What the answer answers: a user's message, or a conversation whose last message is a user's. */
export type StreamInput = { readonly prompt: string } | { readonly messages: readonly ChatMessage[] };

/** Throws TypeError for an input of the wrong form and ConversationError for one without a question at its end. */
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
