/**
 * Node's listener for the handler: an HTTP/1.1 server with bounds on what a connection may use, and a shutdown that
 * finishes accepted requests.
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
  /** 0 takes a free port. */
  readonly port: number;
  /** How long the handler lets a request take. */
  readonly timeoutMs: number;
  /** How long a request's headers and body may take to arrive; 30,000 by default. */
  readonly receiveMs?: number;
  /** Names in `Host` to answer besides those of the loopback (hosts.ts); without it, any name. */
  readonly allowedHosts?: readonly string[] | undefined;
}

export interface Listener {
  readonly url: string;
  /** Refuses new work, cuts off requests that are still arriving, finishes the rest and closes the connections. */
  readonly close: () => Promise<void>;
}

/** A megabyte takes seconds. A client that needs longer holds a connection open, on purpose or not. */
const RECEIVE_MS = 30_000;
const MAX_HEADERS_MS = 10_000;
const CHECK_INTERVAL_MS = 1_000;
const KEEP_ALIVE_MS = 15_000;
const MAX_HEADER_BYTES = 16 * 2 ** 10;
const MAX_HEADERS = 100;
const MAX_CONNECTIONS = 1_024;
/**
 * A request that is still arriving at shutdown is cut off when nothing has come for SILENT_MS, and after ARRIVE_MS at
 * the latest.
 */
const SILENT_MS = 20;
const ARRIVE_MS = 1_000;
/** How long answers may still be sent after the last was given. Connections without one are closed at once. */
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
    // A request without a valid URL and host never reaches the handler.
    errorHandler: () => failure(new ApiError(400, "request: expected a URL and a host, got others")),
  });
  /** Requests whose answers have not been sent to the end. */
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
      // HTTP/1.0, which some health checks still use, need not name a host.
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
 * Breaks the connection when a body fails, so that what was sent does not look complete. Without this, the adapter
 * would also print the error.
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
        outgoing.destroy(); // this cancels the stream
      }
    },
    cancel: reason => reader.cancel(reason),
  });
  return new Response(body, response);
}

/** Ends the connections of requests that have stopped arriving. What has arrived is read first. */
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
      // A request with bytes that are not read yet, because the upstream of a proxy is slow, may be complete.
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
      // Node does not count connections as idle that have sent half of a request's headers, or nothing at all.
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
