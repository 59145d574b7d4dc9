/**
 * Node's listener for the handler: an HTTP/1.1 server with bounds on what a connection may take, and an end that
 * finishes what runs.
 */

import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { getRequestListener, type HttpBindings } from "@hono/node-server";
import { ApiError, failure, toApiError } from "./api-error.ts";
import type { Handler } from "./handler.ts";
import { checkHost } from "./hosts.ts";
import { hearConnections } from "./turns.ts";

export interface ListenOptions {
  readonly host: string;
  /** 0: a free one. */
  readonly port: number;
  /** How long the handler lets a request take. */
  readonly timeoutMs: number;
  /** How long a request's headers and body may take to arrive: 30,000 by default. */
  readonly receiveMs?: number;
  /** Names in `Host` that are answered besides those of the loopback (hosts.ts); any where it is left out. */
  readonly allowedHosts?: readonly string[] | undefined;
}

export interface Listener {
  readonly url: string;
  /** Refuses new work, cuts off what has not arrived, finishes what was accepted, and closes the connections. */
  readonly close: () => Promise<void>;
}

/** A megabyte takes seconds: who needs longer holds a connection open, on purpose or not. */
const RECEIVE_MS = 30_000;
const MAX_HEADERS_MS = 10_000;
const CHECK_INTERVAL_MS = 1_000;
const KEEP_ALIVE_MS = 15_000;
const MAX_HEADER_BYTES = 16 * 2 ** 10;
const MAX_HEADERS = 100;
const MAX_CONNECTIONS = 1_024;
/**
 * For requests that are still arriving when the end comes: they are cut off when nothing more comes of them for the one
 * time, or after the other.
 */
const SILENT_MS = 20;
const ARRIVE_MS = 1_000;
/**
 * For answers that are still being sent when all have been given; a connection without one is closed as soon as it is
 * seen.
 */
const CLOSE_MS = 5_000;
const IDLE_CHECK_MS = 20;

/** Rejects with the system's error, for instance EADDRINUSE. */
export async function listen(handler: Handler, options: ListenOptions): Promise<Listener> {
  const { host, port, timeoutMs, receiveMs = RECEIVE_MS, allowedHosts } = options;
  const serve = async (request: Request, { incoming, outgoing }: HttpBindings): Promise<Response> => {
    try {
      if (allowedHosts) checkHost(incoming.headers.host, allowedHosts);
    } catch (error) {
      return failure(toApiError(error));
    }
    return breaking(await handler.fetch(request), outgoing);
  };
  const listener = getRequestListener((request, env) => serve(request, env as HttpBindings), {
    overrideGlobalObjects: false,
    // What is no URL or has no host never comes to the handler.
    errorHandler: () => failure(new ApiError(400, "request: expected a URL and a host, got others")),
  });
  /** Requests that have not been answered to the end. */
  const open = new Set<IncomingMessage>();
  const server = createServer(
    {
      headersTimeout: Math.min(MAX_HEADERS_MS, receiveMs),
      requestTimeout: receiveMs,
      connectionsCheckingInterval: Math.min(CHECK_INTERVAL_MS, receiveMs),
      keepAliveTimeout: KEEP_ALIVE_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
    },
    (request, response) => {
      open.add(request);
      response.once("close", () => open.delete(request));
      // HTTP/1.0, which health checks still speak, need not name a host.
      if (request.httpVersion === "1.0") request.headers.host ??= "localhost";
      void listener(request, response);
    },
  );
  server.maxHeadersCount = MAX_HEADERS;
  server.maxConnections = MAX_CONNECTIONS;
  server.timeout = timeoutMs + receiveMs; // without a byte in either direction
  const sockets = new Set<Socket>();
  server.on("connection", socket => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const { address, family, port: bound } = server.address() as AddressInfo;
  return {
    url: `http://${family === "IPv6" ? `[${address}]` : address}:${bound}`,
    close: async () => {
      const drained = handler.drain();
      await cutOffArriving(open);
      await drained;
      await closeServer(server, sockets, open);
    },
  };
}

/**
 * A body that fails breaks the connection, so that what was sent does not look complete. The adapter would print the
 * error as well.
 */
function breaking(response: Response, outgoing: HttpBindings["outgoing"]): Response {
  if (!response.body) return response;
  const reader = response.body.getReader();
  const body = new ReadableStream<Uint8Array>({
    pull: async controller => {
      try {
        const { done, value } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      } catch {
        outgoing.destroy(); // which cancels this
      }
    },
    cancel: reason => reader.cancel(reason),
  });
  return new Response(body, response);
}

/**
 * Ends the connections of requests that are still arriving, but of which nothing comes any more. What has arrived is
 * read before that.
 */
async function cutOffArriving(open: ReadonlySet<IncomingMessage>): Promise<void> {
  const deadline = performance.now() + ARRIVE_MS;
  const bytes = new Map<IncomingMessage, number>();
  for (;;) {
    await hearConnections();
    const arriving = [...open].filter(({ complete }) => !complete);
    if (arriving.length === 0) return;
    const isLate = performance.now() > deadline;
    for (const request of arriving) {
      const { socket } = request;
      // One that has bytes which nobody reads for the moment (the upstream of a proxy is slow) may have arrived as a
      // whole.
      const isSilent = bytes.get(request) === socket.bytesRead && request.readableLength === 0;
      if (isSilent || isLate) socket.destroy();
      bytes.set(request, socket.bytesRead);
    }
    await sleep(SILENT_MS);
  }
}

function closeServer(server: Server, sockets: ReadonlySet<Socket>, open: ReadonlySet<IncomingMessage>): Promise<void> {
  return new Promise(resolve => {
    const idle = setInterval(() => {
      // Also those with half a request's headers, and those that were opened ahead and never used: to Node these are
      // not idle.
      const busy = new Set(Array.from(open, ({ socket }) => socket));
      for (const socket of sockets) if (!busy.has(socket)) socket.destroy();
    }, IDLE_CHECK_MS);
    const last = setTimeout(() => server.closeAllConnections(), CLOSE_MS);
    server.close(() => {
      clearInterval(idle);
      clearTimeout(last);
      resolve();
    });
  });
}
