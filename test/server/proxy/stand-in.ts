/** A scripted upstream on loopback, the proxy in front of it on another port, and OpenAI's client in front of that. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import OpenAI from "openai";
import { onTestFinished } from "vitest";
import type { Guard } from "../../../src/guard/guard.ts";
import type { StreamGuard } from "../../../src/guard/stream-guard.ts";
import type { Handler } from "../../../src/server/handler.ts";
import { listen } from "../../../src/server/listen.node.ts";
import { createProxy, type ProxyOptions } from "../../../src/server/proxy/proxy.ts";
import { randomNumbers } from "../../../tools/unicode/random-texts.ts";

export interface Received {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape
  readonly json: any;
}

/** Answers one request; what it does not end stays open. */
export type Script = (request: Received, response: ServerResponse) => void | Promise<void>;

export interface Setting {
  readonly openai: OpenAI;
  readonly handler: Handler;
  /** The proxy's address, with its /v1. */
  readonly url: string;
  /** The upstream's own address. */
  readonly upstream: string;
  /** What the upstream got, in order. */
  readonly received: Received[];
  readonly log: string[];
  readonly metrics: () => Promise<string>;
}

export async function setting(
  guard: Guard | StreamGuard,
  script: Script,
  options: Partial<ProxyOptions> = {},
): Promise<Setting> {
  const received: Received[] = [];
  const upstream = createServer(async (incoming, response) => {
    const parts: Buffer[] = [];
    for await (const part of incoming) parts.push(part as Buffer);
    const text = Buffer.concat(parts).toString();
    const request = {
      method: incoming.method ?? "",
      url: incoming.url ?? "",
      headers: incoming.headers,
      text,
      get json() {
        return JSON.parse(text);
      },
    };
    received.push(request);
    response.on("error", () => {});
    await script(request, response);
  });
  await new Promise<void>(resolve => upstream.listen(0, "127.0.0.1", resolve));
  const log: string[] = [];
  const upstreamUrl = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}/v1`;
  const handler = createProxy(guard, {
    upstream: upstreamUrl,
    log: line => log.push(line),
    ...options,
  });
  const listener = await listen(handler, { host: "127.0.0.1", port: 0, timeoutMs: 600_000 });
  onTestFinished(async () => {
    upstream.closeAllConnections();
    upstream.close();
    await listener.close();
  });
  const url = `${listener.url}/v1`;
  return {
    openai: new OpenAI({ baseURL: url, apiKey: "sk-test", maxRetries: 0 }),
    handler,
    url,
    upstream: upstreamUrl,
    received,
    log,
    metrics: async () => (await fetch(`${listener.url}/metrics`)).text(),
  };
}

/** Waits until the metrics have this line. */
export async function metricsSay({ metrics }: Setting, line: string): Promise<void> {
  while (!(await metrics()).includes(`${line}\n`)) await new Promise(resolve => setTimeout(resolve, 5));
}

export const HEAD = {
  id: "chatcmpl-7",
  object: "chat.completion.chunk",
  created: 1_700_000_000,
  model: "llm-1",
  system_fingerprint: "fp",
};

export interface Choice {
  readonly index: number;
  readonly delta: object;
  readonly finish_reason: string | null;
}

export function chunk(delta: object, finish_reason: string | null = null, index: number = 0): object {
  return { ...HEAD, choices: [{ index, delta, finish_reason, logprobs: null }] };
}

export const USAGE = { prompt_tokens: 9, completion_tokens: 12, total_tokens: 21 };

/** The chunks of an answer, its text cut into these pieces. */
export function answerChunks(pieces: readonly string[], includeUsage: boolean = false): object[] {
  return [
    chunk({ role: "assistant", content: "" }),
    ...pieces.map(content => chunk({ content })),
    chunk({}, "stop"),
    ...(includeUsage ? [{ ...HEAD, choices: [], usage: USAGE }] : []),
  ];
}

export function beginEvents(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8", "x-request-id": "upstream-1" });
}

export function sendEvents(response: ServerResponse, events: readonly object[], isDone: boolean = true): void {
  beginEvents(response);
  for (const event of events) response.write(`data: ${JSON.stringify(event)}\n\n`);
  if (isDone) response.write("data: [DONE]\n\n");
  response.end();
}

export function sendJson(response: ServerResponse, value: unknown, status: number = 200): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

/** A script that writes the same answer to everyone, as it is asked for. */
export function writes(pieces: readonly string[]): Script {
  return ({ json }, response) => {
    if (json.stream) return sendEvents(response, answerChunks(pieces, json.stream_options?.include_usage));
    const message = { role: "assistant", content: pieces.join("") };
    sendJson(response, {
      ...HEAD,
      object: "chat.completion",
      choices: [{ index: 0, message, finish_reason: "stop" }],
      usage: USAGE,
    });
  };
}

/** Cuts at random places, in characters too, into pieces of `size` on average. */
export function cutRandomly(text: string, size: number, random: (below: number) => number): string[] {
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    const end = Math.min(text.length, at + random(2 * size + 1));
    pieces.push(text.slice(at, end));
    at = end;
  }
  return pieces;
}

export { randomNumbers };
