/**
 * Errors of the upstream's, which nobody judges.
 *
 * In: what it says instead of an answer. Out: OpenAI's four fields of an error, as far as they are short. What else stands there is left out: some servers
 * put what the model wrote into it (`failed_generation`).
 */

import { isObject, type Json } from "./parts.ts";
import type { UpstreamResponse } from "./upstream.ts";

const MAX_MESSAGE_CHARS = 1_000;
const MAX_BODY_BYTES = 2 ** 18;

/** `error`: an object with a message, or a message. */
export function readError(error: unknown): Json {
  const { message, detail, type, param, code } = isObject(error) ? error : ({ message: error } as Json);
  const text = typeof message === "string" ? message : typeof detail === "string" ? detail : "upstream: expected an answer, got an error";
  const kept = Object.entries({ type, param, code }).filter(
    ([, value]) => value === null || typeof value === "number" || (typeof value === "string" && value.length <= 100),
  );
  return { message: text.slice(0, MAX_MESSAGE_CHARS), ...Object.fromEntries(kept) };
}

/** A response that is no answer, with its status and its headers. */
export async function passError({ status, headers, bytes, close }: UpstreamResponse): Promise<Response> {
  const decoder = new TextDecoder();
  let text = "";
  let length = 0;
  for await (const part of bytes) {
    length += part.length;
    if (length > MAX_BODY_BYTES) break;
    text += decoder.decode(part, { stream: true });
  }
  close();
  const kept = new Headers(headers);
  kept.delete("content-type");
  return Response.json({ error: readError(errorIn(text, status)) }, { status, headers: kept });
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
