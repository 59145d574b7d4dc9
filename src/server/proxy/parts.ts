/**
 * Which parts of an answer are text that a model wrote, and which may pass as they are.
 *
 * In: a choice from a chunk or a whole answer of the upstream's. Out: its texts, each with its kind and how a choice
 * carries it. When the proxy blocks, only what is listed here leaves it: an unknown field may hold text that nobody
 * judged.
 */

import { isName } from "./names.ts";
import { upstreamFault } from "./upstream.ts";

/** A JSON object. */
export type Json = Readonly<Record<string, unknown>>;

/** A stretch of text of one kind. */
export interface Part {
  /** Its place in an answer: "content", "tool_calls[0].function.arguments", ... */
  readonly kind: string;
  readonly text: string;
  /** The names that introduce it: a tool call's id, type and name. */
  readonly frame: Frame | null;
  /** The fields with which a choice carries a piece of it. */
  readonly wrap: (text: string) => Json;
}

export interface Frame {
  readonly names: Json;
  /** The fields with which a choice carries some of the names. */
  readonly wrap: (names: Json) => Json;
}

export interface ChoiceParts {
  /** A choice's fields without text: the role. */
  readonly opening: Json | null;
  readonly parts: readonly Part[];
}

/** How the choices of an endpoint are read and written. */
export interface AnswerForm {
  readonly ofChunk: (choice: Json) => ChoiceParts;
  /** The same for a choice of a whole answer. */
  readonly ofWhole: (choice: Json) => ChoiceParts;
  /** The fields of a choice at the end of a stream. */
  readonly end: Json;
  /** A whole choice without its text. */
  readonly withheld: Json;
  /** A whole choice with what may pass. */
  readonly copy: (choice: Json) => Json;
}

/** Fields of a chunk or a whole answer. */
const HEAD_FIELDS = ["id", "object", "model", "system_fingerprint", "service_tier"];
const TEXT_FIELDS = ["reasoning_content", "reasoning", "content", "refusal"];
const ROLES: readonly unknown[] = ["assistant", "user", "system", "developer", "tool", "function"];

/** Each call has names, which nobody judges, so their number is bounded. */
const MAX_CALLS = 128;

/** The counts that servers report, under the names of OpenAI, DeepSeek, Groq, OpenRouter and Mistral. */
const COUNTS = [
  ...[
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
  ],
  ...[
    "text_tokens",
    "audio_tokens",
    "image_tokens",
    "video_tokens",
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
  ],
  ...[
    "prompt_cache_hit_tokens",
    "prompt_cache_miss_tokens",
    "cache_write_tokens",
    "cache_creation_tokens",
    "prompt_audio_seconds",
  ],
  ...["queue_time", "prompt_time", "completion_time", "total_time", "cost"],
];
const COUNT_GROUPS = [
  "prompt_tokens_details",
  "completion_tokens_details",
  "input_tokens_details",
  "output_tokens_details",
];

/** The names of an answer. A field that holds anything but a name is left out: it may be text that nobody judged. */
export function headOf(answer: Json): Json {
  const { created } = answer;
  return { ...pick(answer, HEAD_FIELDS, isName), ...(typeof created === "number" ? { created } : {}) };
}

/** Token counts, also in groups; null if there are none. Only known names pass, since names could carry a text. */
export function usageOf({ usage }: Json): Json | null {
  if (!isObject(usage)) return null;
  const numbers = (object: Json): Json => pick(object, COUNTS, value => typeof value === "number");
  const groups = Object.entries(pick(usage, COUNT_GROUPS, isObject)).map(([name, group]) => [
    name,
    numbers(group as Json),
  ]);
  return { ...numbers(usage), ...Object.fromEntries(groups) };
}

/** Why a choice ended; null if it has not. */
export function finishReasonOf({ finish_reason: reason }: Json): string | null {
  if (reason === undefined || reason === null || reason === "") return null;
  if (!isName(reason)) throw upstreamFault("finish_reason to be a name", "something else");
  return reason as string;
}

export const CHAT_FORM: AnswerForm = {
  ofChunk: choice => messageParts(objectOf(choice.delta ?? {}, "delta"), delta => ({ delta })),
  ofWhole: choice => messageParts(objectOf(choice.message, "message"), message => ({ message })),
  end: { delta: {} },
  withheld: { message: { role: "assistant", content: "", refusal: null } },
  copy: choice => {
    const message = objectOf(choice.message, "message");
    const calls = message.tool_calls;
    return {
      message: {
        ...(ROLES.includes(message.role) ? { role: message.role } : {}),
        ...pick(message, TEXT_FIELDS),
        ...(Array.isArray(calls) ? { tool_calls: calls.map(call => copyCall(objectOf(call, "tool call"))) } : {}),
        ...(message.function_call ? { function_call: copyNamed(message.function_call, "arguments") } : {}),
      },
    };
  },
};

const textParts = (choice: Json): ChoiceParts => {
  const text = textOf(choice.text, "text");
  return { opening: null, parts: text === "" ? [] : [{ kind: "text", text, frame: null, wrap: text => ({ text }) }] };
};

export const COMPLETION_FORM: AnswerForm = {
  ofChunk: textParts,
  ofWhole: textParts,
  end: { text: "" },
  withheld: { text: "" },
  copy: choice => pick(choice, ["text"]),
};

/** The parts of a message. Reasoning comes first, since it is written first. */
function messageParts(message: Json, wrap: (fields: Json) => Json): ChoiceParts {
  const parts: Part[] = [];
  const add = (kind: string, value: unknown, fields: (text: string) => Json, frame: Frame | null = null): void => {
    const text = textOf(value, kind);
    const wrapped = frame && { names: frame.names, wrap: (names: Json) => wrap(frame.wrap(names)) };
    if (text !== "" || frame) parts.push({ kind, text, frame: wrapped, wrap: text => wrap(fields(text)) });
  };
  // Servers write reasoning under one of two names, and vLLM under both. It is one text, and comes out under the
  // names with which it began.
  const reasonings = ["reasoning_content", "reasoning"].filter(name => textOf(message[name], name) !== "");
  const [first, second] = reasonings.map(name => message[name]);
  if (second !== undefined && second !== first) throw upstreamFault("one reasoning text", "two that differ");
  add("reasoning", first, text => Object.fromEntries(reasonings.map(name => [name, text])));
  for (const field of ["content", "refusal"]) add(field, message[field], text => ({ [field]: text }));
  const calls = message.tool_calls ?? [];
  if (!Array.isArray(calls)) throw upstreamFault("tool_calls to be an array", "something else");
  if (calls.length > MAX_CALLS) throw upstreamFault(`at most ${MAX_CALLS} tool calls`, String(calls.length));
  for (const [i, value] of calls.entries()) addCall(objectOf(value, "tool call"), i, add);
  if (message.function_call !== undefined && message.function_call !== null) {
    const call = objectOf(message.function_call, "function_call");
    const { arguments: text } = call;
    const begin = (named: Json): Json => ({ function_call: { ...named, arguments: "" } });
    add(
      "function_call.arguments",
      text,
      text => ({ function_call: { arguments: text } }),
      frameOf(names(call, ["name"]), begin),
    );
  }
  const empty = pick(message, TEXT_FIELDS.filter(field => message[field] === "" || message[field] === null)); // biome-ignore format: one step
  return { opening: ROLES.includes(message.role) ? wrap({ role: message.role, ...empty }) : null, parts };
}

/** Adds a call's arguments, or a custom tool's input. */
function addCall(
  call: Json,
  i: number,
  add: (kind: string, value: unknown, fields: (text: string) => Json, frame: Frame | null) => void,
): void {
  const index = call.index ?? i;
  if (typeof index !== "number") throw upstreamFault("a tool call's index to be a number", "something else");
  for (const [type, field] of [
    ["function", "arguments"],
    ["custom", "input"],
  ] as const) {
    // biome-ignore format: two pairs
    if (call[type] === undefined || call[type] === null) continue;
    const body = objectOf(call[type], "tool call");
    const begin = ({ name, ...own }: Json): Json => ({
      tool_calls: [{ index, ...own, [type]: { ...(name === undefined ? {} : { name }), [field]: "" } }],
    });
    const fields = (text: string): Json => ({ tool_calls: [{ index, [type]: { [field]: text } }] });
    const named = { ...names(call, ["id", "type"]), ...names(body, ["name"]) };
    add(`tool_calls[${index}].${type}.${field}`, body[field], fields, frameOf(named, begin));
  }
}

function frameOf(named: Json, wrap: Frame["wrap"]): Frame | null {
  return Object.keys(named).length > 0 ? { names: named, wrap } : null;
}

function copyCall(call: Json): Json {
  return {
    ...names(call, ["id", "type"]),
    ...(call.function ? { function: copyNamed(call.function, "arguments") } : {}),
    ...(call.custom ? { custom: copyNamed(call.custom, "input") } : {}),
  };
}

function copyNamed(value: unknown, field: string): Json {
  const call = objectOf(value, "tool call");
  return { ...names(call, ["name"]), ...pick(call, [field]) };
}

/** A call's names, which its reader needs. Throws ApiError if one is not a name. */
function names(call: Json, fields: readonly string[]): Json {
  const named = pick(call, fields, value => value !== undefined && value !== null);
  for (const [field, value] of Object.entries(named)) {
    if (!isName(value)) throw upstreamFault(`a tool call's ${field} to be a name`, "something else");
  }
  return named;
}

function textOf(value: unknown, what: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw upstreamFault(`${what} to be a text`, "something else");
  return value;
}

/** Checks that `value` from the upstream is an object; `what` names it in the error. */
export function objectOf(value: unknown, what: string): Json {
  if (!isObject(value)) throw upstreamFault(`${what} to be an object`, "something else");
  return value;
}

export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function pick(
  object: Json,
  names: readonly string[],
  may: (value: unknown) => boolean = value => value !== undefined,
): Json {
  return Object.fromEntries(names.filter(name => may(object[name])).map(name => [name, object[name]]));
}
