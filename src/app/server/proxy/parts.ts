/**
 * Which parts of an answer are a model's text, and which may pass as they are.
 *
 * In: a choice of the upstream's, of a chunk or a whole answer. Out: its texts, each with its kind and how a choice carries it. Only what is listed
 * here leaves the proxy when it blocks: a field that nobody knows may hold text that nobody judged.
 */

import { upstreamFault } from "./upstream.ts";

type Json = Readonly<Record<string, unknown>>;

/** A stretch of text of one kind. */
export interface Part {
  /** Where it stands in an answer: "content", "tool_calls[0].function.arguments", ... */
  readonly kind: string;
  readonly text: string;
  /** A choice's fields that introduce it and are no text: a tool call's id and name. */
  readonly frame: Json | null;
  /** A choice's fields that carry so much of it. */
  readonly wrap: (text: string) => Json;
}

export interface ChoiceParts {
  /** A choice's fields that have no text: the role. */
  readonly opening: Json | null;
  readonly parts: readonly Part[];
}

/** How the choices of an endpoint are read and written. */
export interface AnswerForm {
  readonly ofChunk: (choice: Json) => ChoiceParts;
  /** The same of an answer that came as a whole. */
  readonly ofWhole: (choice: Json) => ChoiceParts;
  /** A choice's fields at the end of a stream. */
  readonly end: Json;
  /** A whole choice without its text. */
  readonly withheld: Json;
  /** A whole choice with what may pass. */
  readonly copy: (choice: Json) => Json;
}

/** Of a chunk, or of a whole answer. */
const HEAD_FIELDS = ["id", "object", "created", "model", "system_fingerprint", "service_tier", "usage"];
const TEXT_FIELDS = ["reasoning_content", "reasoning", "content", "refusal"];

export function headOf(answer: Json): Json {
  return pick(answer, HEAD_FIELDS);
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
        ...pick(message, ["role", ...TEXT_FIELDS]),
        ...(Array.isArray(calls) ? { tool_calls: calls.map(call => copyCall(objectOf(call, "tool call"))) } : {}),
        ...(message.function_call ? { function_call: pick(objectOf(message.function_call, "function_call"), ["name", "arguments"]) } : {}),
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

/** Reasoning comes first, as it is written first. */
function messageParts(message: Json, wrap: (fields: Json) => Json): ChoiceParts {
  const parts: Part[] = [];
  const add = (kind: string, value: unknown, fields: (text: string) => Json, frame: Json | null = null): void => {
    const text = textOf(value, kind);
    if (text !== "" || frame) parts.push({ kind, text, frame: frame && wrap(frame), wrap: text => wrap(fields(text)) });
  };
  for (const field of TEXT_FIELDS) {
    // vLLM writes the same reasoning under both names.
    const isTwice = message.reasoning === message.reasoning_content;
    if (isTwice && field === "reasoning") continue;
    const isBoth = isTwice && field === "reasoning_content";
    add(field, message[field], text => (isBoth ? { reasoning_content: text, reasoning: text } : { [field]: text }));
  }
  const calls = message.tool_calls ?? [];
  if (!Array.isArray(calls)) throw upstreamFault("tool_calls to be an array", "something else");
  for (const [i, value] of calls.entries()) addCall(objectOf(value, "tool call"), i, add);
  if (message.function_call !== undefined && message.function_call !== null) {
    const { name, arguments: text } = objectOf(message.function_call, "function_call");
    const frame = name === undefined ? null : { function_call: { name, arguments: "" } };
    add("function_call.arguments", text, text => ({ function_call: { arguments: text } }), frame);
  }
  const empty = pick(message, TEXT_FIELDS.filter(field => message[field] === "" || message[field] === null)); // biome-ignore format: one step
  return { opening: message.role === undefined ? null : wrap({ role: message.role, ...empty }), parts };
}

/** A call's arguments, or the text that a custom tool is given. */
function addCall(
  call: Json,
  i: number,
  add: (kind: string, value: unknown, fields: (text: string) => Json, frame: Json | null) => void,
): void {
  const index = call.index ?? i;
  for (const [type, field] of [
    ["function", "arguments"],
    ["custom", "input"],
  ] as const) {
    // biome-ignore format: two pairs
    if (call[type] === undefined || call[type] === null) continue;
    const body = objectOf(call[type], "tool call");
    const isBegun = call.id !== undefined || call.type !== undefined || body.name !== undefined;
    const frame = { tool_calls: [{ index, ...pick(call, ["id", "type"]), [type]: { ...pick(body, ["name"]), [field]: "" } }] };
    const fields = (text: string): Json => ({ tool_calls: [{ index, [type]: { [field]: text } }] });
    add(`tool_calls[${String(index)}].${type}.${field}`, body[field], fields, isBegun ? frame : null);
  }
}

function copyCall(call: Json): Json {
  return {
    ...pick(call, ["id", "type"]),
    ...(call.function ? { function: pick(objectOf(call.function, "tool call"), ["name", "arguments"]) } : {}),
    ...(call.custom ? { custom: pick(objectOf(call.custom, "tool call"), ["name", "input"]) } : {}),
  };
}

function textOf(value: unknown, what: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw upstreamFault(`${what} to be a text`, "something else");
  return value;
}

/** An object of the upstream's; `what` was expected to be one. */
export function objectOf(value: unknown, what: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw upstreamFault(`${what} to be an object`, "something else");
  return value as Json;
}

function pick(object: Json, names: readonly string[]): Json {
  return Object.fromEntries(names.filter(name => object[name] !== undefined).map(name => [name, object[name]]));
}
