/**
 * The server behind the proxy.
 *
 * In: a client's request. Out: the upstream's response, whose bytes are read with a limit on how long it may be silent. What belongs to one connection
 * alone (hop-by-hop headers, lengths, encodings) is left out on both ways; everything else, Authorization with it, passes as it is.
 */

import { ApiError } from "../api-error.ts";

/** RFC 9110, 7.6.1; and what is said anew for each connection. */
const HOP_BY_HOP = [
  ...["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"],
  ...["transfer-encoding", "upgrade"],
];
/** The body is sent anew, and comes back decoded: `fetch` asks for the encodings that it knows. */
const NOT_FORWARDED = [...HOP_BY_HOP, "host", "content-length", "accept-encoding", "expect"];
const NOT_RETURNED = [...HOP_BY_HOP, "content-length", "content-encoding"];

/** Statuses whose responses have no body. */
const WITHOUT_BODY = [204, 205, 304];

/** What the upstream sent is not what it should have sent. */
export function upstreamFault(expected: string, got: string): ApiError {
  return new ApiError(502, `upstream: expected ${expected}, got ${got}`, { code: "upstream_invalid" });
}

export interface UpstreamRequest {
  readonly method: string;
  /** Below /v1, with its slash: "/chat/completions". */
  readonly path: string;
  readonly search: string;
  readonly headers: Headers;
  readonly body: string | ReadableStream<Uint8Array> | null;
}

export interface UpstreamResponse {
  readonly status: number;
  readonly isOk: boolean;
  /** Those that may be passed on. */
  readonly headers: Headers;
  /** The media type alone. */
  readonly type: string;
  /** To be read once. */
  readonly bytes: AsyncGenerator<Uint8Array, void, undefined>;
  /** Ends the request, however much was read. */
  readonly close: () => void;
}

export class Upstream {
  readonly #base: URL;
  readonly #timeoutMs: number;

  /** `url`: with or without its /v1. Throws RangeError for what is no http URL, or has a part that requests could not keep. */
  constructor(url: string | URL, timeoutMs: number) {
    const text = String(url);
    const base = URL.canParse(text) ? new URL(text) : undefined;
    if (
      !base ||
      !/^https?:$/.test(base.protocol) ||
      base.search !== "" ||
      base.hash !== "" ||
      base.username !== "" ||
      base.password !== ""
    ) {
      // Not quoted: a key may have been put into it.
      throw new RangeError(
        "upstream: expected an http or https URL without user, query and fragment, as in http://localhost:8000/v1, got another text",
      );
    }
    base.pathname = base.pathname.replace(/\/+$/, "").replace(/\/v1$/, "");
    this.#base = base;
    this.#timeoutMs = timeoutMs;
  }

  /** Throws ApiError where the upstream cannot be reached, and the signal's reason when that is aborted. */
  async send(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamResponse> {
    const url = new URL(this.#base);
    url.pathname = `${this.#base.pathname.replace(/\/$/, "")}/v1${request.path}`;
    url.search = request.search;
    const watch = new Watch(this.#timeoutMs, signal);
    const { method, body } = request;
    const init: RequestInit & { duplex: "half" } = {
      method,
      headers: without(request.headers, NOT_FORWARDED),
      body,
      redirect: "manual",
      signal: watch.signal,
      duplex: "half", // for bodies that are passed on as they come
    };
    try {
      const response = await watch.wait(fetch(url, init));
      return {
        status: response.status,
        isOk: response.ok,
        headers: without(response.headers, NOT_RETURNED),
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

/** The response as it is; `exchange.ended` resolves when its body has been read, whichever way that ends. */
export function passOn({ status, headers, bytes, close }: UpstreamResponse, exchange: { ended: Promise<void> | undefined }): Response {
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
        controller.error(error); // what has begun cannot become an error any more: the connection breaks
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

async function* readBytes(body: ReadableStream<Uint8Array> | null, watch: Watch): AsyncGenerator<Uint8Array, void, undefined> {
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

/** Ends a request when its client has gone, when it was silent for too long, or when nobody reads it any more. */
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
    else signal.addEventListener("abort", this.#leave, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The clock runs while the upstream is waited for, and not while the guard works. */
  async wait<T>(answer: Promise<T>): Promise<T> {
    const late = new ApiError(504, `upstream: expected a sign of life within ${this.#timeoutMs} ms, got none`, {
      code: "upstream_timeout",
      headers: { "x-should-retry": "false" },
    });
    const timer = setTimeout(() => this.#controller.abort(late), this.#timeoutMs);
    try {
      return await answer;
    } catch (error) {
      if (this.signal.aborted) throw this.signal.reason;
      const { message, cause } = error as Error;
      const code = (cause as { code?: unknown } | undefined)?.code;
      throw new ApiError(502, `upstream: expected an answer, got ${typeof code === "string" ? code : message}`, {
        code: "upstream_failed",
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Also where all has been read: the request is then over, and this does nothing to it. */
  end(): void {
    this.#signal.removeEventListener("abort", this.#leave);
    this.#controller.abort(new Error("nobody reads it any more"));
  }
}

function without(headers: Headers, names: readonly string[]): Headers {
  const kept = new Headers(headers);
  const listed = (headers.get("connection") ?? "").split(",").map(name => name.trim().toLowerCase());
  for (const name of [...names, ...listed]) if (/^[\w!#$%&'*+.^`|~-]+$/.test(name)) kept.delete(name);
  return kept;
}
