/**
 * The server behind the proxy.
 *
 * In: a client's request. Out: the upstream's response, whose bytes are read with a limit on how long it may be silent.
 * The request's headers pass as they are, Authorization included, except those that belong to one connection
 * (hop-by-hop headers, lengths, encodings). Of the response's headers, only listed ones pass.
 */

import { ApiError } from "../api-error.ts";
import { isName } from "./names.ts";

/** RFC 9110, section 7.6.1, and headers that each connection sets anew. */
const HOP_BY_HOP = [
  ...["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"],
  ...["transfer-encoding", "upgrade"],
];
/** The body is written anew and comes back decoded; `fetch` asks for the encodings that it knows. */
const NOT_FORWARDED = [
  ...HOP_BY_HOP,
  ...["host", "content-length", "accept-encoding", "expect"],
  // These make some servers use another method or path than the one that was let through.
  ...["x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"],
];

/** Headers about a request and its limits. Each value is a name, a number or a date. */
const RETURNED = [
  ...["x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms", "openai-version"],
  ...["access-control-allow-origin", "access-control-allow-credentials", "access-control-max-age"],
];
const LIMIT = /^x-ratelimit-(limit|remaining|reset)(-(requests|(input-|output-)?tokens))?(-(second|minute|hour|day))?$/;
/** The same, with several names between commas. */
const RETURNED_LISTS = [
  "access-control-allow-methods",
  "access-control-allow-headers",
  "access-control-expose-headers",
  "vary",
];
const HTTP_DATE = /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/;
/** Headers of a body that passes as it is. They are not judged either. */
const OF_A_BODY = [
  ...["content-type", "content-disposition", "content-language", "content-range", "accept-ranges"],
  ...["cache-control", "etag", "last-modified", "expires", "location"],
];

const MAX_LIST_CHARS = 1_024;

/** The statuses of responses without a body. */
const WITHOUT_BODY = [204, 205, 304];

/** 502: the upstream sent something other than it should have. */
export function upstreamFault(expected: string, got: string): ApiError {
  return new ApiError(502, `upstream: expected ${expected}, got ${got}`, { code: "upstream_invalid" });
}

export interface UpstreamRequest {
  readonly method: string;
  /** The path under /v1, with its slash: "/chat/completions". */
  readonly path: string;
  readonly search: string;
  readonly headers: Headers;
  readonly body: string | ReadableStream<Uint8Array> | null;
}

export interface UpstreamResponse {
  readonly status: number;
  readonly isOk: boolean;
  /** The headers that may be passed on with any body. */
  readonly headers: Headers;
  /** The headers that may be passed on with the body as it is. */
  readonly bodyHeaders: Headers;
  /** The media type without parameters. */
  readonly type: string;
  /** Can be read once. */
  readonly bytes: AsyncGenerator<Uint8Array, void, undefined>;
  /** Ends the request, however much has been read. */
  readonly close: () => void;
}

export class Upstream {
  /** Up to and including /v1. */
  readonly #base: string;
  readonly #timeoutMs: number;

  /**
   * `url` may or may not end with /v1. Throws RangeError for one that is not http(s), or has a user, query or fragment.
   */
  constructor(url: string | URL, timeoutMs: number) {
    const text = String(url);
    const base = URL.canParse(text) ? new URL(text) : undefined;
    if (
      !base ||
      !["http:", "https:"].includes(base.protocol) ||
      base.search !== "" ||
      base.hash !== "" ||
      base.username !== "" ||
      base.password !== ""
    ) {
      // Not quoted, since it may contain a key.
      throw new RangeError(
        "upstream: expected an http or https URL without user, query and fragment, as in http://localhost:8000/v1, got another text",
      );
    }
    this.#base = `${base.origin}${base.pathname.replace(/\/+$/, "").replace(/\/v1$/, "")}/v1`;
    this.#timeoutMs = timeoutMs;
  }

  /** Throws ApiError if the upstream cannot be reached, and the signal's reason when aborted. */
  async send({ method, path, search, headers, body }: UpstreamRequest, signal: AbortSignal): Promise<UpstreamResponse> {
    const watch = new Watch(this.#timeoutMs, signal);
    const init: RequestInit & { duplex: "half" } = {
      method,
      headers: forwarded(headers),
      body,
      redirect: "manual",
      signal: watch.signal,
      duplex: "half", // for bodies that are forwarded as they arrive
    };
    try {
      const response = await watch.wait(fetch(this.#base + path + search, init));
      return {
        status: response.status,
        isOk: response.ok,
        headers: only(response.headers, isReturned),
        bodyHeaders: only(response.headers, name => OF_A_BODY.includes(name)),
        type: (response.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase(),
        bytes: readBytes(response.body, watch),
        close: () => watch.end(),
      };
    } catch (error) {
      watch.end();
      throw error;
    }
  }
}

/** Passes the response on as it is. `exchange.ended` resolves when its body has been read, failed or was cancelled. */
export function passOn(answer: UpstreamResponse, exchange: { ended: Promise<void> | undefined }): Response {
  const { status, bytes, close } = answer;
  const headers = new Headers([...answer.headers, ...answer.bodyHeaders]);
  if (WITHOUT_BODY.includes(status)) {
    close();
    return new Response(null, { status, headers });
  }
  let end!: () => void;
  exchange.ended = new Promise(resolve => {
    end = resolve;
  });
  const body = new ReadableStream<Uint8Array>({
    pull: async controller => {
      try {
        const { done, value } = await bytes.next();
        if (!done) return controller.enqueue(value);
        controller.close();
      } catch (error) {
        controller.error(error); // breaks the connection: a response that has begun cannot become an error
      }
      end();
    },
    cancel: () => {
      close();
      end();
    },
  });
  return new Response(body, { status, headers });
}

async function* readBytes(
  body: ReadableStream<Uint8Array> | null,
  watch: Watch,
): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = body?.getReader();
  try {
    while (reader) {
      const { done, value } = await watch.wait(reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    watch.end();
  }
}

/** Ends a request when its client has gone, when the upstream is silent for too long, or when nobody reads any more. */
class Watch {
  readonly #controller = new AbortController();
  readonly #timeoutMs: number;
  readonly #signal: AbortSignal;
  readonly #leave: () => void;

  constructor(timeoutMs: number, signal: AbortSignal) {
    this.#timeoutMs = timeoutMs;
    this.#signal = signal;
    this.#leave = () => this.#controller.abort(signal.reason);
    if (signal.aborted) this.#leave();
    else signal.addEventListener("abort", this.#leave);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Waits for the upstream. The clock runs only during this wait, not while the guard works. */
  async wait<T>(answer: Promise<T>): Promise<T> {
    const late = new ApiError(504, `upstream: expected data within ${this.#timeoutMs} ms, got none`, {
      code: "upstream_timeout",
      headers: { "x-should-retry": "false" },
    });
    const timer = setTimeout(() => this.#controller.abort(late), this.#timeoutMs);
    try {
      return await answer;
    } catch (error) {
      if (this.signal.aborted) throw this.signal.reason;
      const code = ((error as Error).cause as { code?: unknown } | undefined)?.code;
      const got = typeof code === "string" && /^[A-Z0-9_]+$/.test(code) ? code : "a connection that failed"; // a message might quote the URL
      throw new ApiError(502, `upstream: expected an answer, got ${got}`, { code: "upstream_failed" });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the request. If everything has been read, the request is over, and this has no effect on it. */
  end(): void {
    this.#signal.removeEventListener("abort", this.#leave);
    this.#controller.abort(new Error("nobody reads the answer any more"));
  }
}

function isReturned(name: string, value: string): boolean {
  if (RETURNED_LISTS.includes(name))
    return value.split(/, ?/).every(item => isName(item) || item === "*") && value.length <= MAX_LIST_CHARS;
  return (RETURNED.includes(name) || LIMIT.test(name)) && (isName(value) || value === "*" || HTTP_DATE.test(value));
}

function only(headers: Headers, may: (name: string, value: string) => boolean): Headers {
  return new Headers(Array.from(headers).filter(([name, value]) => may(name, value)));
}

/** The headers to forward: without those of the client's connection, and those that its Connection header lists. */
function forwarded(headers: Headers): Headers {
  const listed = (headers.get("connection") ?? "").split(",").map(name => name.trim().toLowerCase());
  return only(headers, name => !NOT_FORWARDED.includes(name) && !listed.includes(name));
}
