/**
 * The proxy as a web-standard handler: an OpenAI-compatible server in front of another one, with a guard in between.
 *
 * In: a loaded guard of either kind and the upstream's URL. Out: chat and text completions whose questions are judged
 * before the upstream sees them, and whose answers are judged on their way back. Other routes on a list go straight
 * through. Reading order: this file; ../exchange.ts (what surrounds each request); call.ts and question.ts; relay.ts
 * and gate.ts (what may come out, and when); whole.ts; judge.ts (who has the engine); upstream.ts and event-reader.ts
 * (what is believed of the upstream).
 */

import type { Guard } from "../../guard/guard.ts";
import type { StreamGuard } from "../../guard/stream-guard.ts";
import type { Mode } from "../../guard/verdict.ts";
import { checkInteger, checkOptions } from "../../tensor/options.ts";
import { ApiError, invalid } from "../api-error.ts";
import { type Exchange, Exchanges } from "../exchange.ts";
import type { Handler } from "../handler.ts";
import { Metrics } from "../metrics.ts";
import { ACTIONS, type Action, Call, type ProxyService } from "./call.ts";
import { readEvents } from "./event-reader.ts";
import { Judge } from "./judge.ts";
import { isName } from "./names.ts";
import { type AnswerForm, CHAT_FORM, COMPLETION_FORM } from "./parts.ts";
import { chatQuestion, promptQuestions, type ReadQuestions, readAsked } from "./question.ts";
import { Relay } from "./relay.ts";
import { type ModeratedRoute, Routes } from "./routes.ts";
import { Slots } from "./slots.ts";
import { passOn, Upstream, type UpstreamResponse, upstreamFault } from "./upstream.ts";
import { passError } from "./upstream-error.ts";
import { moderateWhole } from "./whole.ts";

export interface ProxyOptions {
  /** The server to protect, with or without its /v1. */
  readonly upstream: string | URL;
  /** strict, the default, flags Unsafe and Controversial; loose flags Unsafe only. */
  readonly mode?: Mode;
  /** How many new tokens come between two verdicts of a Gen guard; 32 by default. */
  readonly every?: number;
  /** block by default. With flag, everything passes and a field tells; with log, only the log tells. */
  readonly action?: Action;
  /** How many characters to hold back besides those that the guard has not cleared; 0 by default. */
  readonly holdBack?: number;
  /** How many answers may be moderated at once, 8 by default. Each holds the memory of its tokens. */
  readonly maxStreams?: number;
  /** How many requests may wait, 64 by default; one more is told to come back later (503). */
  readonly maxQueue?: number;
  /** 4 MB by default. */
  readonly maxBodyBytes?: number;
  /** How long the upstream may be silent; 120,000 by default, at most 300,000. */
  readonly timeoutMs?: number;
  /** Lets unjudged text pass if the guard fails. A text that it cannot judge is not a failure of the guard. */
  readonly failOpen?: boolean;
  /** Other routes that may pass unjudged, both ways: "POST /v1/tokenize", "GET /v1/batches/*". */
  readonly allowRoutes?: readonly string[];
  /** Receives a line for each failure of the proxy or the guard, and the lines that the next two options ask for. */
  readonly log?: (line: string) => void;
  /** Logs a line for each request and each finding too, without any of its text. */
  readonly logRequests?: boolean;
  /** Logs those lines, with the texts of findings. */
  readonly logText?: boolean;
}

const OPTION_NAMES: readonly (keyof ProxyOptions)[] = [
  ...(["upstream", "mode", "every", "action", "holdBack", "maxStreams", "maxQueue", "maxBodyBytes"] as const),
  ...(["timeoutMs", "failOpen", "allowRoutes", "log", "logRequests", "logText"] as const),
];

/** Node's `fetch` itself waits no longer. */
const MAX_TIMEOUT_MS = 300_000;
const MAX_INTEGER = 2 ** 31 - 1;

/**
 * Throws TypeError or RangeError for options of the wrong type or out of range. The caller still owns the guard and
 * closes it.
 */
export function createProxy(guard: Guard | StreamGuard, options: ProxyOptions): Handler {
  checkOptions(options, OPTION_NAMES, "proxy");
  const routes = new Routes(options.allowRoutes ?? []);
  const { service, exchanges } = newService(guard, options);
  const { metrics, judge, upstream, action } = service;

  const health = (): Response => {
    const [status, word] = exchanges.isDraining ? [503, "draining"] : judge.isFailing ? [503, "failing"] : [200, "ok"];
    return Response.json({ status: word, guard: judge.name, mode: judge.mode, action }, { status });
  };

  const answer = async (exchange: Exchange): Promise<Response> => {
    const { request } = exchange;
    const { pathname, search } = new URL(request.url);
    const route = routes.find(request.method, pathname);
    exchange.route = route;
    exchanges.checkOpen();
    if (route === "/v1/*") {
      const { method, headers, body } = request;
      return passOn(
        await upstream.send({ method, path: pathname.slice(3), search, headers, body }, exchange.signal),
        exchange,
      );
    }
    if (request.method === "OPTIONS") {
      // A browser's preflight. The upstream says what it would say without the proxy.
      const sent = {
        method: "OPTIONS",
        path: route.slice(3),
        search: queryOf(request, action),
        headers: request.headers,
        body: null,
      };
      const { status, headers, close } = await upstream.send(sent, exchange.signal);
      close();
      return new Response(null, { status, headers });
    }
    if (request.method !== "POST") {
      throw new ApiError(405, `${route}: expected POST, got ${request.method.slice(0, 20)}`, {
        headers: { allow: "POST" },
      });
    }
    return moderate(service, route, exchange);
  };

  const handle = async (request: Request): Promise<Response> => {
    const { pathname } = new URL(request.url);
    if (pathname === "/health") return health();
    if (pathname === "/metrics") return metrics.response();
    return exchanges.run(request, answer);
  };

  return {
    fetch: handle,
    drain: () => exchanges.drain(),
  };
}

const ENDPOINTS: Readonly<Record<ModeratedRoute, readonly [AnswerForm, ReadQuestions]>> = {
  "/v1/chat/completions": [CHAT_FORM, chatQuestion],
  "/v1/completions": [COMPLETION_FORM, promptQuestions],
};

/** Builds the service from the options and their defaults. Throws RangeError if one is out of range. */
function newService(
  guard: Guard | StreamGuard,
  options: ProxyOptions,
): { readonly service: ProxyService; readonly exchanges: Exchanges } {
  const {
    mode = "strict",
    action = "block",
    holdBack = 0,
    maxStreams = 8,
    maxQueue = 64,
    maxBodyBytes = 4 * 2 ** 20,
    timeoutMs = 120_000,
    failOpen = false,
    log = () => {},
    logRequests = false,
    logText = false,
  } = options;
  checkInteger("holdBack", holdBack, 0, MAX_INTEGER);
  checkInteger("maxStreams", maxStreams, 1, MAX_INTEGER);
  checkInteger("maxQueue", maxQueue, 1, MAX_INTEGER);
  checkInteger("maxBodyBytes", maxBodyBytes, 1, MAX_INTEGER);
  checkInteger("timeoutMs", timeoutMs, 1, MAX_TIMEOUT_MS);
  if (!ACTIONS.includes(action))
    throw new RangeError(`action: expected ${ACTIONS.join(" or ")}, got ${JSON.stringify(action)}`);

  const metrics = new Metrics();
  const judge = new Judge(guard, { mode, every: options.every, maxStreams, log });
  const slots = new Slots(maxStreams, maxQueue);
  metrics.gauge(
    "qwen3guard_proxy_streams",
    "Answers that are being moderated, or may be moderated.",
    () => slots.taken,
  );
  metrics.gauge("qwen3guard_proxy_waiting", "Requests that wait for others to end.", () => slots.waiting);
  metrics.gauge("qwen3guard_queue_waiting", "Pieces of text that wait for the engine.", () => judge.queue.waiting);
  const questions = metrics.counter(
    "qwen3guard_proxy_questions_total",
    "Questions by outcome; failed: the guard gave no verdict.",
  );
  const answers = metrics.counter(
    "qwen3guard_proxy_answers_total",
    "Answers by outcome; failed: the guard gave no verdict.",
  );
  for (const outcome of ["passed", "flagged", "failed"])
    for (const count of [questions, answers]) count({ outcome }, 0);
  const service: ProxyService = {
    judge,
    slots,
    upstream: new Upstream(options.upstream, timeoutMs),
    metrics,
    action,
    holdBack,
    failOpen,
    countQuestion: outcome => questions({ outcome }),
    countAnswer: outcome => answers({ outcome }),
    note: (line, text) => {
      if (action === "log" || logRequests || logText)
        log(`qwen3guard: ${line}${logText ? `: ${JSON.stringify(text)}` : ""}`);
    },
  };
  return { service, exchanges: new Exchanges(metrics, { maxBodyBytes, log, logRequests, logText }) };
}

/** Judges a request for text, forwards it, and judges the answer. */
async function moderate(service: ProxyService, route: ModeratedRoute, exchange: Exchange): Promise<Response> {
  const { request, signal } = exchange;
  const [form, readQuestions] = ENDPOINTS[route];
  const search = queryOf(request, service.action);
  const body = await exchange.readBody();
  const asked = readAsked(body, readQuestions, service.action !== "block");
  const choices = asked.questions.length * asked.answersEach;
  if (choices > service.slots.count)
    throw invalid("n", `at most ${service.slots.count} answers a request`, String(choices));
  const call = new Call(service, form, asked, signal, await service.slots.take(choices, signal));
  let isStreaming = false;
  try {
    const told = Object.entries(await call.judgeQuestions());
    // Written anew from what was judged, since two readers of one JSON text may differ, e.g. on a repeated name.
    const headers = new Headers(request.headers);
    headers.set("content-type", "application/json");
    const sent = { method: "POST", path: route.slice(3), search, headers, body: JSON.stringify(body) };
    const answer = await service.upstream.send(sent, signal);
    if (answer.status >= 300 && answer.status < 400) {
      answer.close();
      throw upstreamFault("an answer", "a redirection, after which nothing would be judged");
    }
    if (!answer.isOk)
      return withHeaders(service.action === "block" ? await passError(call, answer) : passOn(answer, exchange), told);
    checkType(answer, asked.isStream);
    if (!asked.isStream) return withHeaders(await moderateWhole(call, answer.bytes), [...answer.headers, ...told]);

    isStreaming = true;
    const response = await exchange.stream(async send => {
      try {
        await new Relay(call, send).run(readEvents(answer.bytes));
      } finally {
        call.close();
      }
    });
    return withHeaders(response, [...answer.headers, ...told]);
  } finally {
    if (!isStreaming) call.close();
  }
}

/** Throws ApiError if the upstream does not answer in the form that was asked for. */
function checkType({ type, close }: UpstreamResponse, isStream: boolean): void {
  const expected = isStream ? "text/event-stream" : "application/json";
  if (type === expected) return;
  close();
  throw upstreamFault(`${expected}, as was asked for`, "another type");
}

/**
 * The query of a moderated request, which goes to the upstream. Azure's servers need `api-version`. Any other parameter
 * might be text for the model, so it is refused if violations are blocked.
 */
function queryOf(request: Request, action: Action): string {
  const { search, searchParams } = new URL(request.url);
  if (action !== "block") return search;
  for (const [name, value] of searchParams) {
    if (name !== "api-version" || !isName(value))
      throw invalid("query", "nothing but an api-version", "something else");
  }
  return search;
}

function withHeaders(response: Response, headers: Iterable<readonly [name: string, value: string]>): Response {
  for (const [name, value] of headers) response.headers.set(name, value);
  return response;
}
