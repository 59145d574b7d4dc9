/**
 * What a request asks: the conversation that the guard judges before the upstream sees it.
 *
 * In: the body of a chat or completions request. Out: one question for each prompt (chat has one), and what the answer
 * will look like. What the guard cannot read (pictures, sound, token ids) is refused, unless nothing is blocked.
 */

import type { ChatMessage } from "../../tokenizer/chat-template.ts";
import { ApiError, describe, invalid } from "../api-error.ts";
import { Fields } from "../fields.ts";

export interface Asked {
  /** Each ends with a user's message. */
  readonly questions: readonly ChatMessage[][];
  /** Answers to each question. */
  readonly answersEach: number;
  readonly isStream: boolean;
  readonly includeUsage: boolean;
}

export type ReadQuestions = (fields: Fields, isLenient: boolean) => ChatMessage[][];

/** The fields that the proxy reads: of a request, of its stream_options, of a message, and of a part of its content. */
const READ_NAMES = ["messages", "prompt", "suffix", "n", "stream", "stream_options"];
const READ_OPTION_NAMES = ["include_usage"];
const READ_MESSAGE_NAMES = ["role", "content"];
const READ_PART_NAMES = ["type", "text", "refusal"];

/** Under these names, some server reads a question, or an addition to it, that the proxy would not have judged. */
const OTHER_QUESTIONS = [
  ...[
    "messages",
    "prompt",
    "suffix",
    "input",
    "inputs",
    "contents",
    "instructions",
    "system",
    "system_prompt",
    "documents",
    "images",
  ],
  ...["chat_template", "template", "prompt_token_ids", "prompt_embeds", "input_ids", "input_embeds"],
];

/** Which field of a part holds its text, by the part's type. */
const PART_TEXTS: ReadonlyMap<string, string> = new Map([
  ["text", "text"],
  ["input_text", "text"],
  ["output_text", "text"],
  ["refusal", "refusal"],
]);
/** Other fields of a text part, which no model reads. */
const PART_EXTRAS = ["type", "cache_control", "annotations", "logprobs"];

export function readAsked(body: Record<string, unknown>, readQuestions: ReadQuestions, isLenient: boolean): Asked {
  const fields = new Fields(body);
  if (!isLenient) {
    checkSpelling(fields, READ_NAMES, "");
    if (fields.get("stream_options") !== undefined)
      checkSpelling(fields.inner("stream_options"), READ_OPTION_NAMES, "stream_options.");
  }
  const isStream = fields.boolean("stream") ?? false;
  const options = fields.get("stream_options");
  return {
    questions: readQuestions(fields, isLenient),
    answersEach: fields.integer("n", 1, 1024) ?? 1,
    isStream,
    includeUsage:
      isStream && options !== undefined && (fields.inner("stream_options").boolean("include_usage") ?? false),
  };
}

/**
 * The conversation up to the user's last message. A guard judges only the last message, so everything the user said
 * since the last answer becomes one message: a question split across messages is judged whole. Instructions that come
 * after it are judged with it.
 */
export function chatQuestion(fields: Fields, isLenient: boolean): ChatMessage[][] {
  if (!isLenient) refuseOtherQuestions(fields, ["messages"]);
  const messages = fields.array("messages").flatMap((value, i) => {
    const message = new Fields(value, `messages[${i}].`);
    if (!isLenient) checkSpelling(message, READ_MESSAGE_NAMES, `messages[${i}].`);
    const role = toRole(message.string("role"));
    const content = contentText(message.get("content"), `messages[${i}].content`, isLenient);
    // A tool's result is not a question, and the guards' templates have no place for it.
    return role === undefined || (role !== "user" && content === "") ? [] : [{ role, content }];
  });
  const last = messages.findLastIndex(({ role }) => role === "user");
  // If there are only instructions, they are the question.
  if (last < 0) return [[{ role: "user", content: messages.map(({ content }) => content).join("\n") }]];
  const conversation = messages.slice(0, last + 1);
  const turn = conversation.findLastIndex(({ role }) => role === "assistant") + 1;
  const isAsked = ({ role }: ChatMessage, i: number): boolean => i >= turn && role === "user";
  const after = messages.slice(last + 1).filter(({ role }) => role === "system");
  const question = [...conversation.filter(isAsked), ...after].map(({ content }) => content).join("\n");
  return [[...conversation.filter((message, i) => !isAsked(message, i)), { role: "user", content: question }]];
}

/**
 * undefined for a message that is not part of the conversation. An unknown role may be shown to the model as anything,
 * so it counts as the user's.
 */
function toRole(role: string | undefined): string | undefined {
  if (role === "tool" || role === "function") return undefined;
  if (role === "system" || role === "developer") return "system";
  return role === "assistant" ? "assistant" : "user";
}

function contentText(content: unknown, path: string, isLenient: boolean): string {
  if (content === undefined) return "";
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw invalid(path, "a string or an array of parts", describe(content));
  return content
    .map((part, i) => {
      const fields = new Fields(part, `${path}[${i}].`);
      if (isLenient) return fields.string("text") ?? fields.string("refusal") ?? "";
      checkSpelling(fields, READ_PART_NAMES, `${path}[${i}].`);
      // Read by its type, as servers do: a picture that also has a text would be shown as a picture. Without a type, a
      // part counts as text.
      const name = PART_TEXTS.get(fields.string("type") ?? "text");
      const text = name === undefined ? undefined : fields.string(name);
      if (text === undefined || fields.names.some(other => other !== name && !PART_EXTRAS.includes(other)))
        throw unreadable(`${path}[${i}]`);
      return text;
    })
    .join("\n");
}

/** Refuses names that differ from these only in case: some servers, e.g. with Go's encoding/json, ignore case. */
function checkSpelling(fields: Fields, names: readonly string[], path: string): void {
  for (const name of fields.allNames) {
    const meant = names.find(known => known !== name && folded(known) === folded(name));
    if (meant !== undefined)
      throw invalid(
        `${path}${meant}`,
        `no other field that is spelt as ${meant} but for its case`,
        JSON.stringify(name),
      );
  }
}

function refuseOtherQuestions(fields: Fields, read: readonly string[]): void {
  for (const name of fields.names) {
    const known = OTHER_QUESTIONS.find(other => folded(other) === folded(name));
    if (known === undefined || read.includes(known)) continue;
    throw new ApiError(
      400,
      `${known}: expected no question but in ${read.join(" and ")}, which the guard judges, got one`,
      {
        param: known,
        code: "content_not_moderated",
      },
    );
  }
}

/** Folds case, including U+017F and U+212A, the two letters beyond ASCII whose other case is in ASCII. */
function folded(name: string): string {
  return name.toUpperCase().toLowerCase();
}

/** Each prompt is a question; the suffix is judged with it. */
export function promptQuestions(fields: Fields, isLenient: boolean): ChatMessage[][] {
  if (!isLenient) refuseOtherQuestions(fields, ["prompt", "suffix"]);
  const prompt = fields.get("prompt") ?? "";
  const suffix = fields.string("suffix") ?? "";
  const isList = Array.isArray(prompt) && typeof prompt[0] !== "number";
  if (isList && prompt.length === 0) throw invalid("prompt", "at least one prompt", "none");
  return (isList ? prompt : [prompt]).map((entry: unknown, i) => {
    if (typeof entry !== "string" && !isLenient) throw unreadable(isList ? `prompt[${i}]` : "prompt");
    return [{ role: "user", content: typeof entry === "string" ? entry + suffix : suffix }];
  });
}

function unreadable(param: string): ApiError {
  return new ApiError(400, `${param}: expected text, which is all that the guard reads, got something else`, {
    param,
    code: "content_not_moderated",
  });
}
