/**
 * What a guard judges: one message, a question with its answer, or a whole conversation.
 *
 * In: one of these forms, unchecked. Out: messages with checked roles and contents; the last one is judged.
 */

import { checkOptions } from "../tensor/options.ts";
import { type ChatMessage, checkMessages } from "../tokenizer/chat-template.ts";
import { ConversationError } from "../tokenizer/conversation-error.ts";

/**
 * A string is a user's message; `response` is an assistant's answer to `prompt`. The last message is judged; the others
 * are its context.
 */
export type ModerationInput = string | { readonly prompt: string; readonly response?: string } | readonly ChatMessage[];

/** Throws TypeError for a wrong kind and ConversationError for a wrong value, naming the message. */
export function toConversation(input: ModerationInput): ChatMessage[] {
  if (typeof input === "string") return [{ role: "user", content: input }];
  if (Array.isArray(input)) return checkConversation(input);
  if (typeof input !== "object" || input === null) {
    throw new TypeError(
      `conversation: expected a text, {prompt, response} or an array of messages, got ${kind(input)}`,
    );
  }
  checkOptions(input, ["prompt", "response"], "conversation");
  const { prompt, response } = input as { prompt: unknown; response?: unknown };
  if (typeof prompt !== "string") throw new TypeError(`prompt: expected a text, got ${kind(prompt)}`);
  if (response === undefined) return [{ role: "user", content: prompt }];
  if (typeof response !== "string") throw new TypeError(`response: expected a text, got ${kind(response)}`);
  return [
    { role: "user", content: prompt },
    { role: "assistant", content: response },
  ];
}

/** Checks what a guard's template takes: at least one message, the last one from the user or the assistant. */
function checkConversation(messages: readonly ChatMessage[]): ChatMessage[] {
  const checked = checkMessages(messages);
  if (checked.length === 0) throw new ConversationError("conversation: expected at least one message, got none");
  const tool = checked.findIndex(({ role }) => role === "tool");
  // The template would leave it out, so its text would silently go unjudged.
  if (tool >= 0) throw new ConversationError(`messages[${tool}].role: expected system, user or assistant, got "tool"`);
  if (checked[checked.length - 1].role === "system") {
    throw new ConversationError(
      'conversation: expected the last message, the one to judge, to be of role "user" or "assistant", got "system"',
    );
  }
  return checked;
}

function kind(value: unknown): string {
  return value === null
    ? "null"
    : Array.isArray(value)
      ? "an array"
      : value === undefined
        ? "nothing"
        : `a value of type ${typeof value}`;
}
