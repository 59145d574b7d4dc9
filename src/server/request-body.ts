/**
 * Reads a request's body as JSON; it is hostile until checked.
 *
 * In: a Request and a limit in bytes. Out: an object. A body is an ApiError if it is not `application/json`, is longer
 * than the limit (as counted, whatever Content-Length says), is not UTF-8, is nested too deep, or is not an object.
 */

import { ApiError, describe } from "./api-error.ts";

/** OpenAI's own requests are nested five deep. */
const MAX_DEPTH = 32;

export async function readJsonBody(
  request: Request,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Record<string, unknown>> {
  checkContentType(request.headers);
  const bytes = await readBytes(request, maxBytes, signal);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw malformed("UTF-8 text", "bytes that are not");
  }
  if (depthOf(text) > MAX_DEPTH) throw malformed(`JSON at most ${MAX_DEPTH} deep`, "deeper");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own message would quote the text.
    throw malformed("JSON", text.trim() === "" ? "nothing" : "text that is not");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw malformed("a JSON object", describe(value));
  return value as Record<string, unknown>;
}

function malformed(expected: string, got: string): ApiError {
  return new ApiError(400, `body: expected ${expected}, got ${got}`, { code: "invalid_json" });
}

/** Only JSON: a web page may send forms and plain text to any server without a preflight. */
function checkContentType(headers: Headers): void {
  const [type, ...parameters] = (headers.get("content-type") ?? "").toLowerCase().split(";");
  const charset = parameters
    .map(parameter => /^\s*charset\s*=\s*"?([^"\s]*)"?\s*$/.exec(parameter)?.[1])
    .find(name => name !== undefined);
  if (type.trim() !== "application/json" || (charset !== undefined && charset !== "utf-8" && charset !== "utf8")) {
    throw new ApiError(
      415,
      `content-type: expected application/json in UTF-8, got ${describe(headers.get("content-type") ?? undefined)}`,
    );
  }
  const encoding = headers.get("content-encoding");
  if (encoding !== null && encoding !== "identity") {
    throw new ApiError(415, `content-encoding: expected none, got ${describe(encoding)}`);
  }
}

async function readBytes(request: Request, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
  // The unread rest of a body would be taken for the next request, so the connection ends with the answer.
  const tooLarge = (got: string): ApiError =>
    new ApiError(413, `body: expected at most ${maxBytes} bytes, got ${got}`, {
      code: "body_too_large",
      headers: { connection: "close" },
    });
  const declared = request.headers.get("content-length");
  if (declared !== null && Number(declared) > maxBytes) throw tooLarge(declared);
  if (request.body === null) return new Uint8Array(0);

  const reader = request.body.getReader();
  const cancel = (): void => void reader.cancel(signal.reason).catch(() => {});
  signal.addEventListener("abort", cancel, { once: true });
  try {
    const parts: Uint8Array[] = [];
    let length = 0;
    for (;;) {
      const { done, value } = await reader.read().catch(() => {
        throw malformed("all of it", "a connection that ended");
      });
      signal.throwIfAborted();
      if (done) break;
      length += value.length;
      if (length > maxBytes) {
        cancel();
        throw tooLarge("more");
      }
      parts.push(value);
    }
    const all = new Uint8Array(length);
    let end = 0;
    for (const part of parts) {
      all.set(part, end);
      end += part.length;
    }
    return all;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

/** How deep brackets and braces are nested outside strings. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) inString = !inString;
    else if (inString) at += code === BACKSLASH ? 1 : 0;
    else if (code === OPEN_BRACKET || code === OPEN_BRACE) deepest = Math.max(deepest, ++depth);
    else if (code === CLOSE_BRACKET || code === CLOSE_BRACE) depth--;
  }
  return deepest;
}

const [QUOTE, BACKSLASH] = [0x22, 0x5c];
const [OPEN_BRACKET, OPEN_BRACE, CLOSE_BRACKET, CLOSE_BRACE] = [0x5b, 0x7b, 0x5d, 0x7d];
