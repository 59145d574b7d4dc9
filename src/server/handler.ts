/**
 * The server as a web-standard handler: `(Request) => Promise<Response>`.
 *
 * In: a loaded guard. Out: OpenAI's chat, completions and moderations, with health, metrics, a description and a page
 * to try it. It runs wherever there are `Request` and `Response`; the listener for Node is in listen.node.ts. Reading
 * order: this file; routes.ts; moderations.ts; chat.ts and generation.ts; queue.ts (who goes first); request-body.ts
 * and fields.ts (what is refused).
 */

import { Hono } from "hono";
import type { Guard } from "../guard/guard.ts";
import { checkOptions } from "../tensor/options.ts";
import { ApiError, failure, toApiError, unavailable } from "./api-error.ts";
import { BearerKey } from "./bearer-key.ts";
import { type Exchange, newId, Service } from "./context.ts";
import { watchEngine } from "./engine-watch.ts";
import { InFlight } from "./in-flight.ts";
import { readJsonBody } from "./request-body.ts";
import { newRoutes } from "./routes.ts";

export interface HandlerOptions {
  /** Names that requests may call the model by, besides its own; answers carry the first. */
  readonly modelNames?: readonly string[];
  /** Asked of every request but those for `/`, `/health` and `/openapi.json`. */
  readonly apiKey?: string;
  /** Requests that may wait, 64 by default; one more is told to come back (503). */
  readonly maxQueue?: number;
  /** 1 MB by default. */
  readonly maxBodyBytes?: number;
  /** How long a request may take, waiting included: 300,000 by default. */
  readonly timeoutMs?: number;
  /** The origin whose pages may call the server from a browser, or "*". */
  readonly cors?: string;
  /** Receives a line for each failure that is the server's own. Nothing is logged by default. */
  readonly log?: (line: string) => void;
  /** Also a line for each request, without any of its text. */
  readonly logRequests?: boolean;
  /** Also the texts. */
  readonly logText?: boolean;
}

export interface Handler {
  readonly fetch: (request: Request) => Promise<Response>;
  /** Refuses new work from now on (503), and resolves when all that was accepted has been answered. */
  readonly drain: () => Promise<void>;
}

interface Env {
  readonly Bindings: { readonly exchange: Exchange };
}

/** What a client that has gone away would have been told; nginx's number. */
const CLIENT_GONE = 499;

/** Throws RangeError for options out of range. The guard stays the caller's: closing it is his. */
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
  for (const [name, value] of Object.entries({ maxBodyBytes, timeoutMs })) {
    if (!Number.isInteger(value) || value < 1 || value >= 2 ** 31) {
      throw new RangeError(`${name}: expected an integer from 1 to ${2 ** 31 - 1}, got ${value}`);
    }
  }
  const service = new Service(guard, options.modelNames ?? [], maxQueue);
  const key = options.apiKey === undefined ? undefined : new BearerKey(options.apiKey);
  const countRequest = service.metrics.counter(
    "qwen3guard_requests_total",
    "Requests by route and status; 499: the client went away.",
  );
  const timeRequest = service.metrics.histogram(
    "qwen3guard_request_seconds",
    "Time from a request's headers to the end of its answer.",
  );

  const inFlight = new InFlight();

  const readBody = (request: Request, exchange: Exchange): Promise<Record<string, unknown>> => {
    if (!inFlight.isDraining) return readJsonBody(request, maxBodyBytes, exchange.signal);
    throw unavailable("the server is shutting down", 1, "shutting_down", {
      connection: "close",
    });
  };
  const isComputing = watchEngine(guard.model.engine, log);
  const state = () => (inFlight.isDraining ? "draining" : isComputing() ? "ok" : "engine_failed");
  const routes = newRoutes(service, readBody, state);

  const app = new Hono<Env>();
  for (const { method, path, isOpen, answer } of routes) {
    const pattern = path.replace("{id}", ":id{.+}"); // names of the Hub have a slash in them
    app.on(method, pattern, async ({ req, env: { exchange } }) => {
      exchange.route = path;
      if (!isOpen) await key?.check(req.raw.headers);
      return answer(req.raw, exchange, req.param("id") ?? "");
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

  const answer = async (request: Request, exchange: Exchange): Promise<Response> => {
    const isPreflight =
      cors !== undefined && request.method === "OPTIONS" && request.headers.has("access-control-request-method");
    const response = isPreflight ? preflight() : await app.fetch(request, { exchange });
    if (cors !== undefined) {
      response.headers.set("access-control-allow-origin", cors);
      if (cors !== "*") response.headers.append("vary", "origin");
    }
    response.headers.set("x-request-id", newId("req"));
    response.headers.set("x-content-type-options", "nosniff");
    return response;
  };

  const handle = async (request: Request): Promise<Response> => {
    const started = performance.now();
    inFlight.begin();
    const { exchange, release } = newExchange(request, timeoutMs, log);
    const finish = (status: number): void => {
      release();
      const seconds = (performance.now() - started) / 1000;
      const labels = { route: exchange.route, status: String(request.signal.aborted ? CLIENT_GONE : status) };
      countRequest(labels);
      timeRequest({ route: exchange.route }, seconds);
      if (logRequests || logText) {
        const texts = logText ? exchange.texts.map(text => ` ${JSON.stringify(text)}`).join("") : "";
        log(`${labels.status} ${exchange.route} ${(seconds * 1000).toFixed(1)} ms${texts}`);
      }
      inFlight.end();
    };
    const response = await answer(request, exchange).catch(error => failure(exchange.failed(error)));
    if (exchange.ended) void exchange.ended.then(() => finish(response.status));
    else finish(response.status);
    return response;
  };

  return {
    fetch: handle,
    drain: () => inFlight.drain(),
  };
}

/** Whatever comes first ends it: the client's leaving, the time limit, or what works on it. */
function newExchange(
  request: Request,
  timeoutMs: number,
  log: (line: string) => void,
): { exchange: Exchange; release: () => void } {
  const controller = new AbortController();
  const gone = (): void => controller.abort(new ApiError(CLIENT_GONE, "the client went away"));
  const late = (): void =>
    controller.abort(
      new ApiError(504, `request: expected an answer within ${timeoutMs} ms, got none`, {
        code: "timeout",
        headers: { "x-should-retry": "false" }, // OpenAI's clients would try again, to the same end
      }),
    );
  const timer = setTimeout(late, timeoutMs);
  if (request.signal.aborted) gone();
  else request.signal.addEventListener("abort", gone, { once: true });
  const release = (): void => {
    clearTimeout(timer);
    request.signal.removeEventListener("abort", gone);
  };
  const { signal } = controller;
  const exchange: Exchange = {
    route: "other",
    signal,
    abort: reason => controller.abort(reason),
    failed: error => {
      if (!(error instanceof ApiError))
        log(`qwen3guard: ${exchange.route}: ${error instanceof Error ? error.message : error}`);
      return toApiError(error);
    },
    texts: [],
    ended: undefined,
  };
  return { exchange, release };
}

function preflight(): Response {
  const headers = {
    "access-control-allow-methods": "GET, POST",
    // The X-Stainless-... headers that OpenAI's clients send have many names.
    "access-control-allow-headers": "*, authorization, content-type",
    "access-control-max-age": "86400",
  };
  return new Response(null, { status: 204, headers });
}
