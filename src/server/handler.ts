/**
 * The server as a web-standard handler: `(Request) => Promise<Response>`.
 *
 * In: a loaded guard. Out: OpenAI's chat, completions and moderations, with health, metrics, a description and a page
 * to try it. It runs wherever there are `Request` and `Response`; the listener for Node is in listen.node.ts. Reading
 * order: this file; exchange.ts (what surrounds each request); routes.ts; moderations.ts; chat.ts and generation.ts;
 * queue.ts (who goes first); request-body.ts and fields.ts (what is refused).
 */

import { Hono } from "hono";
import type { Guard } from "../guard/guard.ts";
import { checkInteger, checkOptions } from "../tensor/options.ts";
import { ApiError, failure } from "./api-error.ts";
import { BearerKey } from "./bearer-key.ts";
import { watchEngine } from "./engine-watch.ts";
import { type Exchange, Exchanges } from "./exchange.ts";
import { newRoutes } from "./routes.ts";
import { Service } from "./service.ts";

export interface HandlerOptions {
  /** Names for the model that requests may use besides its own; answers carry the first. */
  readonly modelNames?: readonly string[];
  /** Required of every request except those for `/`, `/health` and `/openapi.json`. */
  readonly apiKey?: string;
  /** How many requests may wait, 64 by default; one more is told to come back later (503). */
  readonly maxQueue?: number;
  /** 1 MB by default. */
  readonly maxBodyBytes?: number;
  /** How long a request may take, waiting included; 300,000 by default. */
  readonly timeoutMs?: number;
  /** The origin whose pages may call the server from a browser, or "*". */
  readonly cors?: string;
  /** Receives a line for each failure of the server's own. By default nothing is logged. */
  readonly log?: (line: string) => void;
  /** Logs a line for each request too, without any of its text. */
  readonly logRequests?: boolean;
  /** Logs that line with the texts. */
  readonly logText?: boolean;
}

export interface Handler {
  readonly fetch: (request: Request) => Promise<Response>;
  /** Refuses new work from now on (503). Resolves when all accepted requests have been answered. */
  readonly drain: () => Promise<void>;
}

interface Env {
  readonly Bindings: { readonly exchange: Exchange };
}

/** The largest delay that a timer takes; no body needs to be longer, either. */
const MAX_INTEGER = 2 ** 31 - 1;

/** Throws RangeError for options out of range. The caller still owns the guard and closes it. */
export function createHandler(guard: Guard, options: HandlerOptions = {}): Handler {
  checkOptions(
    options,
    ["modelNames", "apiKey", "maxQueue", "maxBodyBytes", "timeoutMs", "cors", "log", "logRequests", "logText"],
    "handler",
  );
  const {
    maxQueue = 64,
    maxBodyBytes = 2 ** 20,
    timeoutMs = 300_000,
    cors,
    log = () => {},
    logRequests = false,
    logText = false,
  } = options;
  checkInteger("maxBodyBytes", maxBodyBytes, 1, MAX_INTEGER);
  checkInteger("timeoutMs", timeoutMs, 1, MAX_INTEGER);
  const service = new Service(guard, options.modelNames ?? [], maxQueue);
  const key = options.apiKey === undefined ? undefined : new BearerKey(options.apiKey);
  const exchanges = new Exchanges(service.metrics, { maxBodyBytes, timeoutMs, log, logRequests, logText });

  const isComputing = watchEngine(guard.model.engine, log);
  const state = () => (exchanges.isDraining ? "draining" : isComputing() ? "ok" : "engine_failed");
  const routes = newRoutes(service, () => exchanges.checkOpen(), state);

  const app = new Hono<Env>();
  for (const { method, path, isOpen, answer } of routes) {
    const pattern = path.replace("{id}", ":id{.+}"); // names on the Hub contain a slash
    app.on(method, pattern, async ({ req, env: { exchange } }) => {
      exchange.route = path;
      if (!isOpen) await key?.check(req.raw.headers);
      return answer(exchange, req.param("id") ?? "");
    });
    app.all(pattern, ({ req, env: { exchange } }) => {
      exchange.route = path;
      const allow = method === "GET" ? "GET, HEAD" : method;
      throw new ApiError(405, `${path}: expected ${allow}, got ${req.method.slice(0, 20)}`, { headers: { allow } });
    });
  }
  app.notFound(() =>
    failure(new ApiError(404, `path: expected one of ${routes.map(({ path }) => path).join(", ")}, got another`)),
  );
  app.onError((error, { env: { exchange } }) => failure(exchange.failed(error)));

  const answer = async (exchange: Exchange): Promise<Response> => {
    const { request } = exchange;
    const isPreflight =
      cors !== undefined && request.method === "OPTIONS" && request.headers.has("access-control-request-method");
    const response = isPreflight ? preflight() : await app.fetch(request, { exchange });
    if (cors !== undefined) {
      response.headers.set("access-control-allow-origin", cors);
      if (cors !== "*") response.headers.append("vary", "origin");
    }
    return response;
  };

  return {
    fetch: request => exchanges.run(request, answer),
    drain: () => exchanges.drain(),
  };
}

function preflight(): Response {
  const headers = {
    "access-control-allow-methods": "GET, POST",
    // `*`, because OpenAI's clients send many X-Stainless-... headers.
    "access-control-allow-headers": "*, authorization, content-type",
    "access-control-max-age": "86400",
  };
  return new Response(null, { status: 204, headers });
}
