/** Conversations from files: the JSON file that `--messages` names, and the lines of a batch or an evaluation. */

import { type ModerationInput, toConversation } from "../guard/conversation.ts";
import { type ChatMessage, checkMessages } from "../tokenizer/chat-template.ts";
import { inFile, parseJson, readTextFile } from "./reading.ts";
import type { Terminal } from "./terminal.ts";

/** Reads an array of `{role, content}`. Throws TypeError or RangeError, with the file's name, for anything else. */
export async function readMessages(path: string, terminal: Terminal): Promise<ChatMessage[]> {
  const name = path === "-" ? "stdin" : path;
  const value = parseJson(await readTextFile(path, terminal), name);
  if (!Array.isArray(value))
    throw new TypeError(
      `${name}: expected a JSON array of {role, content}, got ${value === null ? "null" : typeof value}`,
    );
  return inFile(path, () => checkMessages(value));
}

/**
 * The input in `{text}`, `{prompt, response?}` or `{messages}`. Other keys (an id, a label, a source) are ignored.
 * Throws TypeError or RangeError; the caller adds the name of the line.
 */
export function inputOfLine(value: unknown): ModerationInput {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new TypeError(`expected an object, got ${show(value)}`);
  const line = value as Readonly<Record<string, unknown>>;
  const forms = ["text", "prompt", "messages"].filter(key => line[key] !== undefined);
  if (forms.length !== 1) {
    throw new TypeError(
      `expected one of {text}, {prompt, response} and {messages}, got ${forms.length === 0 ? "none" : forms.join(" and ")}`,
    );
  }
  const { text, prompt, response, messages } = line;
  if (response !== undefined && prompt === undefined)
    throw new TypeError(`response: expected a prompt with it, got ${forms[0]}`);
  if (text !== undefined) {
    if (typeof text !== "string") throw new TypeError(`text: expected a string, got ${show(text)}`);
    return text;
  }
  if (messages !== undefined && !Array.isArray(messages)) {
    throw new TypeError(`messages: expected an array of {role, content}, got ${show(messages)}`);
  }
  return toConversation((messages ?? (response === undefined ? { prompt } : { prompt, response })) as ModerationInput);
}

/** A value as messages quote it: as JSON of at most 60 characters. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
