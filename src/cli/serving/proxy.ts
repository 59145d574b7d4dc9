/**
 * `qwen3guard proxy`: loads a guard of either kind, and stands in front of an OpenAI-compatible server until it is told
 * to stop.
 */

import type { Mode } from "../../guard/verdict.ts";
import type { Action } from "../../server/proxy/call.ts";
import { createProxy } from "../../server/proxy/proxy.ts";
import { Routes } from "../../server/proxy/routes.ts";
import { Upstream } from "../../server/proxy/upstream.ts";
import { loadEitherGuard } from "../either-guard.ts";
import type { ModelOptions } from "../model-options.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { checkPort, hostsToAllow, logTo, serveUntilStopped } from "./listening.ts";
import type { LimitOptions, ListeningOptions } from "./options.ts";

interface ProxyCommandOptions extends ModelOptions, ListeningOptions, LimitOptions {
  readonly upstream: string;
  readonly mode: Mode;
  readonly every?: number;
  readonly action: Action;
  readonly holdBack: number;
  readonly maxStreams: number;
  readonly failOpen?: boolean;
  readonly allowRoute?: readonly string[];
  readonly logRequests?: boolean;
  readonly logText?: boolean;
}

/**
 * A connection without a byte in either direction for this long is closed. One that waits in the queue, or for a long
 * answer, has none for a while.
 */
const IDLE_MS = 3_600_000;

/** Resolves when the proxy has ended: to true if Ctrl-C ended it. */
export async function serveProxy(options: ProxyCommandOptions, terminal: Terminal): Promise<boolean> {
  const { host, port, upstream, every, timeout } = options;
  checkPort(port);
  if (timeout > 300) throw new UsageError(`--timeout: expected at most 300 seconds, got ${timeout}`);
  const { allowRoute = [] } = options;
  check("--upstream", () => new Upstream(upstream, 1));
  check("--allow-route", () => new Routes(allowRoute));
  const allowedHosts = hostsToAllow(host, false, options.allowHost);
  const guard = await loadEitherGuard(options, terminal);
  try {
    const handler = createProxy(guard, {
      upstream,
      mode: options.mode,
      ...(every === undefined ? {} : { every }),
      action: options.action,
      holdBack: options.holdBack,
      maxStreams: options.maxStreams,
      maxQueue: options.maxQueue,
      maxBodyBytes: options.maxBody,
      timeoutMs: timeout * 1000,
      failOpen: options.failOpen ?? false,
      allowRoutes: allowRoute,
      log: logTo(terminal),
      logRequests: options.logRequests ?? false,
      logText: options.logText ?? false,
    });
    const listening = { host, port, timeoutMs: IDLE_MS, allowedHosts };
    return await serveUntilStopped(guard.model.engine, handler, listening, terminal);
  } finally {
    guard.close();
  }
}

/** Checks an option before the guard is loaded. The library names its own option, so its name is replaced. */
function check(option: string, make: () => unknown): void {
  try {
    make();
  } catch (error) {
    throw new UsageError((error as Error).message.replace(/^\w+/, option));
  }
}
