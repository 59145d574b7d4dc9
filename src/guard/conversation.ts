/**
 * What a guard judges: one message, a question with its answer, or a whole conversation.
 *
 * In: one of these forms, unchecked. Out: messages with checked roles and contents, the last of which is to be judged.
 */

import type { ChatMessage } from "../tokenizer/chat-template.ts";

/** A string is a user's message; `response` is an assistant's answer to `prompt`. The last message is judged, the others are context. */
export type ModerationInput = string | { readonly prompt: string; readonly response?: string } | readonly ChatMessage[];

const ROLES = ["system", "user", "assistant"];

/** Throws TypeError for a wrong kind and RangeError for a wrong value, naming the message. */
export function toConversation(input: ModerationInput): ChatMessage[] {
  if (typeof input === "string") return [{ role: "user", content: input }];
  if (Array.isArray(input)) return checkMessages(input);
  if (typeof input !== "object" || input === null) {
    throw new TypeError(`conversation: expected a text, {prompt, response} or an array of messages, got ${kind(input)}`);
  }
  const { prompt, response } = input as { prompt: unknown; response?: unknown };
  if (typeof prompt !== "string") throw new TypeError(`prompt: expected a text, got ${kind(prompt)}`);
  if (response === undefined) return [{ role: "user", content: prompt }];
  if (typeof response !== "string") throw new TypeError(`response: expected a text, got ${kind(response)}`);
  return [
    { role: "user", content: prompt },
    { role: "assistant", content: response },
  ];
}

function checkMessages(messages: readonly unknown[]): ChatMessage[] {
  if (messages.length === 0) throw new RangeError("conversation: expected at least one message, got none");
  const checked = messages.map((message, i) => {
    if (typeof message !== "object" || message === null)
      throw new TypeError(`message ${i}: expected {role, content}, got ${kind(message)}`);
    const { role, content } = message as { role: unknown; content: unknown };
    if (typeof role !== "string" || !ROLES.includes(role)) {
      throw new RangeError(`message ${i}: role: expected ${ROLES.join(", ")}, got ${JSON.stringify(role) ?? "nothing"}`);
    }
    if (typeof content !== "string") throw new TypeError(`message ${i}: content: expected a text, got ${kind(content)}`);
    return { role, content };
  });
  const last = checked[checked.length - 1].role;
  if (last === "system") {
    throw new RangeError('conversation: expected the last message, the one to judge, to be of role "user" or "assistant", got "system"');
  }
  return checked;
}

function kind(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "an array" : value === undefined ? "nothing" : `a value of type ${typeof value}`;
}
