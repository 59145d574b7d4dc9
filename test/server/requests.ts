/** Requests to a handler without any network, and what comes back. */

import { Guard } from "../../src/guard/guard.ts";
import { createHandler, type Handler, type HandlerOptions } from "../../src/server/handler.ts";

/** The embedded guard, loaded once a file. */
export const guard: Guard = await Guard.load();

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  readonly json: any;
}

export interface Client {
  readonly handler: Handler;
  readonly get: (path: string, init?: RequestInit) => Promise<Answer>;
  readonly post: (path: string, body: unknown, init?: RequestInit) => Promise<Answer>;
}

export function client(options: HandlerOptions = {}): Client {
  const handler = createHandler(guard, options);
  const send = async (path: string, init: RequestInit): Promise<Answer> => {
    const response = await handler.fetch(new Request(`http://localhost${path}`, init));
    const text = await response.text();
    const isJson = response.headers.get("content-type")?.startsWith("application/json") && text !== "";
    return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined };
  };
  return {
    handler,
    get: (path, init = {}) => send(path, init),
    post: (path, body, init = {}) =>
      send(path, {
        method: "POST",
        body: typeof body === "string" || body instanceof Uint8Array ? (body as BodyInit) : JSON.stringify(body),
        ...init,
        headers: { "content-type": "application/json", ...init.headers },
      }),
  };
}

/** The events of a stream, parsed; "[DONE]" stays as it is. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into events of every shape
export function events(text: string): any[] {
  return text
    .split("\n\n")
    .filter(event => event !== "")
    .map(event => event.replace(/^data: /, ""))
    .map(data => (data === "[DONE]" ? data : JSON.parse(data)));
}

/** Waits until the queue stands so. */
export async function queueHas(
  get: (path: string) => Promise<{ readonly text: string }>,
  begun: number,
  waiting: number,
): Promise<void> {
  for (;;) {
    const { text } = await get("/metrics");
    if (text.includes(`qwen3guard_queue_begun ${begun}\n`) && text.includes(`qwen3guard_queue_waiting ${waiting}\n`))
      return;
    await new Promise(resolve => setTimeout(resolve));
  }
}
