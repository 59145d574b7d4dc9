/** The proxy without a port: requests go to its handler, and `fetch` stands in for the upstream. */

import { onTestFinished, vi } from "vitest";
import type { Guard } from "../../../src/guard/guard.ts";
import type { StreamGuard } from "../../../src/guard/stream-guard.ts";
import type { Handler } from "../../../src/server/handler.ts";
import { createProxy, type ProxyOptions } from "../../../src/server/proxy/proxy.ts";
import { events } from "../requests.ts";
import { HEAD, USAGE } from "./stand-in.ts";
import { type Account, accountOf, standIn } from "./stand-in-guard.ts";

export interface Sent {
  readonly url: string;
  readonly init: RequestInit & { readonly headers: Headers; readonly signal: AbortSignal };
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  readonly json: any;
  /** Of a stream. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into events of every shape
  readonly events: any[];
}

export interface InProcess extends Account {
  readonly handler: Handler;
  /** What the upstream was asked. */
  readonly sent: Sent[];
  readonly log: string[];
  readonly send: (path: string, init?: RequestInit) => Promise<Answer>;
  /** A question, or this body, to an endpoint that is moderated. */
  readonly post: (body?: object, path?: string, init?: RequestInit) => Promise<Answer>;
  /** The value of a line of the metrics. */
  readonly metric: (name: string) => Promise<string | undefined>;
}

type Upstream = (sent: Sent) => Response | Promise<Response>;

export function inProcess(
  guard: "Gen" | "Stream" | Guard | StreamGuard,
  answer: Upstream,
  options: Partial<ProxyOptions> = {},
): InProcess {
  const account = accountOf(typeof guard === "string" ? standIn(guard).guard : guard);
  const sent: Sent[] = [];
  vi.stubGlobal("fetch", async (url: string, init: Sent["init"]) => {
    const request = { url, init };
    sent.push(request);
    return answer(request);
  });
  onTestFinished(() => void vi.unstubAllGlobals());
  const log: string[] = [];
  const handler = createProxy(account.guard, { upstream: "http://up", log: line => log.push(line), ...options });
  const send = async (path: string, init: RequestInit = {}): Promise<Answer> => {
    const { status, headers, ...response } = await handler
      .fetch(new Request(`http://proxy${path}`, init))
      .then(async response => ({
        ...{ status: response.status, headers: response.headers, text: await response.text() },
      }));
    const type = headers.get("content-type") ?? "";
    const { text } = response;
    return {
      ...{ status, headers, text },
      json: type.startsWith("application/json") && text !== "" ? JSON.parse(text) : undefined,
      events: type.startsWith("text/event-stream") ? events(text) : [],
    };
  };
  const post: InProcess["post"] = (body = {}, path = "/v1/chat/completions", init = {}) => {
    const question = path.startsWith("/v1/chat/") ? { messages: [{ role: "user", content: "Hi" }] } : { prompt: "Hi" };
    const headers = { "content-type": "application/json" };
    return send(path, { method: "POST", headers, body: JSON.stringify({ ...question, ...body }), ...init });
  };
  const metric: InProcess["metric"] = async name => {
    const { text } = await send("/metrics");
    return text
      .split("\n")
      .find(line => line.startsWith(`${name} `))
      ?.slice(name.length + 1);
  };
  return { ...account, handler, sent, log, send, post, metric };
}

/** The upstream's answer as a whole. */
export function json(value: unknown, status: number = 200, headers: Record<string, string> = {}): Response {
  return Response.json(value, { status, headers });
}

/** The upstream's answer as a stream of these events. */
export function stream(all: readonly unknown[], isDone: boolean = true): Response {
  const lines = all.map(event => `data: ${JSON.stringify(event)}\n\n`).join("");
  return new Response(lines + (isDone ? "data: [DONE]\n\n" : ""), { headers: { "content-type": "text/event-stream" } });
}

/** A whole answer with these messages, one a choice. */
export function whole(...messages: readonly (object | string)[]): typeof HEAD & { choices: object[]; usage: object } {
  const choices = messages.map((message, index) => ({
    ...{ index, finish_reason: "stop", logprobs: null },
    message: typeof message === "string" ? { role: "assistant", content: message } : message,
  }));
  return { ...HEAD, object: "chat.completion", choices, usage: USAGE };
}
