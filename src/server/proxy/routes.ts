/**
 * Where a request goes: to be moderated, straight through, or nowhere.
 *
 * The routes that go straight through are a list. A list of refused routes would never be complete, since servers get
 * new endpoints that write text every month. A path must be spelt exactly as in the list, since servers differ in which
 * other spellings they accept for it.
 */

import { ApiError } from "../api-error.ts";

export type ModeratedRoute = (typeof MODERATED)[number];
export type Route = ModeratedRoute | "/v1/*";

/**
 * The routes that go straight through: a method and a path. `*` stands for a name, `**` at the end for one or more
 * names with slashes between them (models are named `org/name`). Whoever runs the proxy can allow others.
 */
const OPEN_ROUTES = [
  "GET /v1/models",
  "GET /v1/models/**",
  "POST /v1/embeddings",
  "POST /v1/moderations",
  "POST /v1/rerank",
  "POST /v1/score",
  "GET /v1/files",
  "POST /v1/files",
  "GET /v1/files/*",
  "GET /v1/files/*/content",
  "DELETE /v1/files/*",
  "POST /v1/images/generations",
  "POST /v1/images/edits",
  "POST /v1/images/variations",
  "POST /v1/audio/speech",
  "POST /v1/audio/transcriptions",
  "POST /v1/audio/translations",
];

const MODERATED = ["/v1/chat/completions", "/v1/completions"] as const;
const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"];
const NAME = /^[\w.~:@+=-]+$/;

/** The routes of a proxy: those above, and those that it is told to allow. */
export class Routes {
  readonly #open: readonly (readonly [method: string, names: readonly string[]])[];

  /**
   * `allowed` has the form of the list: "POST /v1/tokenize". Throws RangeError for an entry of another form, and for
   * one that might be a moderated route.
   */
  constructor(allowed: readonly string[]) {
    for (const route of allowed) checkRoute(route);
    this.#open = [...OPEN_ROUTES, ...allowed].map(route => {
      const [method, path] = route.split(" ");
      return [method, path.split("/")];
    });
  }

  /** The route of a method and a URL's path. Throws ApiError if there is none. */
  find(method: string, path: string): Route {
    const moderated = MODERATED.find(known => known === path);
    if (moderated) return moderated;
    const names = path.split("/");
    // A route that answers GET answers HEAD. OPTIONS is a browser asking about any method.
    const isMethod = (allowed: string): boolean =>
      allowed === method || (method === "HEAD" && allowed === "GET") || method === "OPTIONS";
    if (this.#open.some(([allowed, pattern]) => isMethod(allowed) && matches(names, pattern))) return "/v1/*";
    const expected = `${MODERATED.join(", ")} or a route that may pass unjudged`;
    throw new ApiError(404, `path: expected ${expected}, got another; --allow-route lets one pass`, {
      code: "not_moderated",
    });
  }
}

function matches(names: readonly string[], pattern: readonly string[]): boolean {
  const isOpen = pattern[pattern.length - 1] === "**";
  const fixed = isOpen ? pattern.slice(0, -1) : pattern;
  const rest = decoded(names.slice(fixed.length).join("/"));
  const isEnd = isOpen ? rest.split("/").every(isName) : names.length === fixed.length;
  return isEnd && fixed.every((name, i) => (name === "*" ? isName(decoded(names[i])) : name === names[i]));
}

/** Dots, or anything more than a name, might lead a server to another endpoint. */
function isName(name: string): boolean {
  return NAME.test(name) && !/^\.+$/.test(name) && !/completions/i.test(name);
}

/** Decodes once. If there is still a `%`, the text is not a name. */
function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return "";
  }
}

function checkRoute(route: string): void {
  const [method, ...paths] = route.split(" ");
  const [root, version, ...names] = paths.join(" ").split("/");
  const isPattern = names.every(
    (name, i) => name === "*" || (name === "**" && i === names.length - 1 && i > 0) || isName(name),
  );
  if (!METHODS.includes(method) || root !== "" || version !== "v1" || names.length === 0 || !isPattern) {
    const form = `${METHODS.join(" or ")} and a path under /v1 that is not moderated, as in "POST /v1/tokenize" or "GET /v1/batches/*"`;
    throw new RangeError(`allowRoutes: expected ${form}, got ${JSON.stringify(route)}`);
  }
}
