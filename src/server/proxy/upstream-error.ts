/**
 * Errors from the upstream.
 *
 * In: what the upstream sends instead of an answer. Out: the four fields of OpenAI's errors: a message that the guard
 * has judged like an answer, and names. Other fields are left out: some servers put the model's text into one
 * (`failed_generation`), and others quote it in the message.
 */

import { ApiError } from "../api-error.ts";
import type { Call } from "./call.ts";
import { isName } from "./names.ts";
import { isObject, type Json } from "./parts.ts";
import type { UpstreamResponse } from "./upstream.ts";

const MAX_MESSAGE_CHARS = 1_000;
const MAX_BODY_BYTES = 2 ** 18;

/** An error from the upstream in an answer that has begun, in the form that `tellError` returns. */
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

/** What to tell the client. `error` is an object with a message, or a message. */
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

/** Passes on a response that is an error, with its status and headers. */
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

/** The error in a body: OpenAI's `{"error": ...}`, or the error itself. From any other body only the status is told. */
function errorIn(text: string, status: number): unknown {
  try {
    const body: unknown = JSON.parse(text);
    if (isObject(body)) return body.error ?? body;
  } catch {
    // The body is not JSON, so it is not quoted.
  }
  return `upstream: expected an answer, got status ${status}`;
}
