/**
 * One request and its response: what the server and the proxy both do around each.
 *
 * In: a request, and a function that answers it. Out: a response, whatever happens: a failure becomes OpenAI's JSON.
 * The function gets an `Exchange`, whose signal ends the work when nobody is waiting for it any more. When the answer
 * has been sent in full, the exchange is counted, timed and logged, and a shutdown stops waiting for it.
 */

import { ApiError, failure, toApiError, unavailable } from "./api-error.ts";
import { eventStream } from "./event-stream.ts";
import { InFlight } from "./in-flight.ts";
import type { Metrics } from "./metrics.ts";
import { newId } from "./new-id.ts";
import { readJsonBody } from "./request-body.ts";

export interface ExchangeOptions {
  readonly maxBodyBytes: number;
  /** How long a request may take, waiting included; unlimited by default. */
  readonly timeoutMs?: number;
  /** Receives a line for each failure that is the server's own. */
  readonly log: (line: string) => void;
  /** Whether to log a line for each request, without any of its text. */
  readonly logRequests: boolean;
  /** Whether to log that line with the exchange's texts. */
  readonly logText: boolean;
}

/** Recorded when the client has gone; the client never sees it. The number is nginx's. */
const CLIENT_GONE = 499;

/** A request that is being answered. */
export class Exchange {
  /** An entry of the route table, so that nothing a client chose gets into metrics and logs. */
  route: string = "other";
  /** The texts to moderate, for a log that shows texts. */
  texts: readonly string[] = [];
  /** If the response streams: resolves when the work on it has ended. */
  ended: Promise<void> | undefined;
  readonly request: Request;
  /** Aborted when the client has gone, when nobody reads the answer, or at the time limit. */
  readonly signal: AbortSignal;
  readonly #options: ExchangeOptions;
  readonly #controller = new AbortController();
  readonly #timer: ReturnType<typeof setTimeout> | undefined;
  #isClientGone = false;

  constructor(request: Request, options: ExchangeOptions) {
    this.request = request;
    this.signal = this.#controller.signal;
    this.#options = options;
    const { timeoutMs } = options;
    if (timeoutMs !== undefined) this.#timer = setTimeout(() => this.#controller.abort(late(timeoutMs)), timeoutMs);
    if (request.signal.aborted) this.#leave();
    else request.signal.addEventListener("abort", this.#leave, { once: true });
  }

  get isClientGone(): boolean {
    return this.#isClientGone;
  }

  /** Throws ApiError for a body that is not a JSON object within the limit. */
  readBody(): Promise<Record<string, unknown>> {
    return readJsonBody(this.request, this.#options.maxBodyBytes, this.signal);
  }

  /** What to tell the client about a failure. An unexpected one is logged. */
  failed(error: unknown): ApiError {
    if (!(error instanceof ApiError))
      this.#options.log(`qwen3guard: ${this.route}: ${error instanceof Error ? error.message : error}`);
    return toApiError(error);
  }

  /**
   * A response whose events `run` sends. Resolves at the first event, or rejects with what `run` throws before it.
   */
  stream(run: (send: (event: unknown) => void) => Promise<void>): Promise<Response> {
    const { response, ended } = eventStream(
      run,
      error => ({ error: this.failed(error).body }),
      reason => this.#giveUp(reason),
    );
    this.ended = ended;
    return response;
  }

  /** Stops the clock, and stops listening to the client. */
  release(): void {
    clearTimeout(this.#timer);
    this.request.signal.removeEventListener("abort", this.#leave);
  }

  readonly #leave = (): void => this.#giveUp(new ApiError(CLIENT_GONE, "the client went away"));

  #giveUp(reason: Error): void {
    this.#isClientGone = true;
    this.#controller.abort(reason);
  }
}

/** All exchanges of a server. */
export class Exchanges {
  readonly #options: ExchangeOptions;
  readonly #inFlight = new InFlight();
  readonly #count: (labels: { readonly route: string; readonly status: string }) => void;
  readonly #time: (labels: { readonly route: string }, seconds: number) => void;

  constructor(metrics: Metrics, options: ExchangeOptions) {
    this.#options = options;
    this.#count = metrics.counter(
      "qwen3guard_requests_total",
      "Requests by route and status; 499: the client went away.",
    );
    this.#time = metrics.histogram(
      "qwen3guard_request_seconds",
      "Time from a request's headers to the end of its answer.",
    );
  }

  /** Whether the server is shutting down. */
  get isDraining(): boolean {
    return this.#inFlight.isDraining;
  }

  /** Resolves when all that was accepted has been answered. From now on `checkOpen` throws. */
  drain(): Promise<void> {
    return this.#inFlight.drain();
  }

  /** Throws 503 if the server is shutting down. */
  checkOpen(): void {
    if (this.isDraining) throw unavailable("the server is shutting down", 1, "shutting_down", { connection: "close" });
  }

  /** Answers a request. Never rejects: what `answer` throws becomes the response. */
  async run(request: Request, answer: (exchange: Exchange) => Promise<Response>): Promise<Response> {
    const started = performance.now();
    this.#inFlight.begin();
    const exchange = new Exchange(request, this.#options);
    const response = await answer(exchange).catch(error => failure(exchange.failed(error)));
    if (!response.headers.has("x-request-id")) response.headers.set("x-request-id", newId("req"));
    response.headers.set("x-content-type-options", "nosniff");
    if (exchange.ended) void exchange.ended.then(() => this.#finish(exchange, response.status, started));
    else this.#finish(exchange, response.status, started);
    return response;
  }

  #finish(exchange: Exchange, status: number, started: number): void {
    exchange.release();
    const { route, texts } = exchange;
    const { log, logRequests, logText } = this.#options;
    const seconds = (performance.now() - started) / 1000;
    const told = String(exchange.isClientGone ? CLIENT_GONE : status);
    this.#count({ route, status: told });
    this.#time({ route }, seconds);
    if (logRequests || logText) {
      const shown = logText ? texts.map(text => ` ${JSON.stringify(text)}`).join("") : "";
      log(`${told} ${route} ${(seconds * 1000).toFixed(1)} ms${shown}`);
    }
    this.#inFlight.end();
  }
}

function late(timeoutMs: number): ApiError {
  return new ApiError(504, `request: expected an answer within ${timeoutMs} ms, got none`, {
    code: "timeout",
    headers: { "x-should-retry": "false" }, // OpenAI's clients would try again, with the same result
  });
}
