/**
 * Errors of the upstream's.
 *
 * In: what it says instead of an answer. Out: OpenAI's four fields of an error: a message that the guard has judged
 * like an answer, and names. What else stands there is left out: some servers put what the model wrote into it
 * (`failed_generation`), and others quote it in the message.
 */

import { ApiError } from "../api-error.ts";
import type { Call } from "./call.ts";
import { isName } from "./names.ts";
import { isObject, type Json } from "./parts.ts";
import type { UpstreamResponse } from "./upstream.ts";

const MAX_MESSAGE_CHARS = 1_000;
const MAX_BODY_BYTES = 2 ** 18;

/** The upstream's own error, in place of an answer that has begun: what `tellError` gives. */
export class UpstreamError extends ApiError {
  readonly #told: ApiError["body"];

  constructor(told: ApiError["body"]) {
    super(502, told.message, { code: "upstream_failed" });
    this.#told = told;
  }

  override get body(): ApiError["body"] {
    return this.#told;
  }
}

/** `error`: an object with a message, or a message. */
export async function tellError(call: Call, error: unknown): Promise<ApiError["body"]> {
  const { message, detail, type, param, code } = isObject(error) ? error : ({ message: error } as Json);
  const given = [message, detail].find(text => typeof text === "string");
  const text = given?.slice(0, MAX_MESSAGE_CHARS).replace(/[\ud800-\udbff]$/, "");
  const told = text !== undefined && (await call.clears(text)) ? text : "upstream: expected an answer, got an error";
  const kept = Object.entries({ type, param, code }).filter(
    ([, value]) => value === null || typeof value === "number" || isName(value),
  );
  return { message: told, ...Object.fromEntries(kept) } as ApiError["body"];
}

/** A response that is no answer, with its status and its headers. */
export async function passError(call: Call, { status, headers, bytes }: UpstreamResponse): Promise<Response> {
  const decoder = new TextDecoder();
  let text = "";
  let length = 0;
  for await (const part of bytes) {
    length += part.length;
    if (length > MAX_BODY_BYTES) break;
    text += decoder.decode(part, { stream: true });
  }
  return Response.json({ error: await tellError(call, errorIn(text, status)) }, { status, headers });
}

/** OpenAI's `{"error": ...}`, or the error itself; a page or nothing says no more than its status. */
function errorIn(text: string, status: number): unknown {
  try {
    const body: unknown = JSON.parse(text);
    if (isObject(body)) return body.error ?? body;
  } catch {
    // Not quoted: whatever it is, it is no error of OpenAI's form.
  }
  return `upstream: expected an answer, got status ${status}`;
}
