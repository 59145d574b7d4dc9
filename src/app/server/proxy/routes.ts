/**
 * Where a request goes: to be moderated, straight through, or nowhere.
 *
 * What writes text and is not moderated must not slip by under another spelling of its path, so a path is decoded as often as any server might
 * decode it before it is judged.
 */

import { ApiError } from "../api-error.ts";

export type Route = "/v1/chat/completions" | "/v1/completions" | "/v1/*";

/** Names of the endpoints that take or give a model's text: OpenAI's, and those that servers have beside them. */
const WRITERS = [
  ...["chat", "completions", "responses", "messages", "threads", "assistants", "conversations", "batches", "realtime", "edits"],
  ...[
    "generate",
    "generate_stream",
    "infill",
    "completion",
    "complete",
    "internal",
    "inference",
    "interactions",
    "a2a",
    "graders",
    "evals",
    "runs",
  ],
];

/** `path` is a URL's. Throws ApiError for one that is not under /v1, or writes text that the proxy does not read. */
export function routeOf(method: string, path: string): Route {
  if (path === "/v1/chat/completions" || path === "/v1/completions") return path;
  const names = decoded(path)
    .toLowerCase()
    .split(/[/\\]+/)
    .map(name =>
      name
        .split(";")[0]
        .trim()
        .replace(/\.+$/, match => (name === match ? match : "")),
    );
  if (!path.startsWith("/v1/") || names.includes(".") || names.includes("..")) {
    throw notFound("a path under /v1", "another");
  }
  // Models are named freely; what is posted to one, or to a verb of one (Google's `models/NAME:generateContent`), writes text.
  const isModel = names[2] === "models";
  const isVerb = method === "POST" && (isModel || names.some(name => name.includes(":")));
  if (isVerb || (!isModel && names.some(name => WRITERS.includes(name)))) {
    throw notFound("/v1/chat/completions, /v1/completions, or what writes no text", "an endpoint whose text is not moderated");
  }
  return "/v1/*";
}

function decoded(path: string): string {
  for (let i = 0; i < 3; i++) {
    try {
      path = decodeURIComponent(path);
    } catch {
      throw notFound("a path in UTF-8", "another");
    }
  }
  if (path.includes("%")) throw notFound("a path without %", "one that has it when decoded");
  // Another server may end the path at one of these, or read a letter beyond ASCII as one of ours.
  if (/[^!-~]|[?#]/.test(path)) throw notFound("a path of printable ASCII without ? and #", "another when decoded");
  return path;
}

function notFound(expected: string, got: string): ApiError {
  return new ApiError(404, `path: expected ${expected}, got ${got}`, { code: "not_moderated" });
}
