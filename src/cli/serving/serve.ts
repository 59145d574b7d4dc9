/** `qwen3guard serve`: loads the guard and serves it until it is told to stop. */

import { existsSync } from "node:fs";
import { parseHubId } from "../../checkpoint/hub/id.ts";
import { Guard } from "../../guard/guard.ts";
import { createHandler } from "../../server/handler.ts";
import { isLoopback } from "../../server/hosts.ts";
import { checkpointFiles, engineOptions, type ModelOptions } from "../model-options.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { checkPort, hostsToAllow, logTo, serveUntilStopped } from "./listening.ts";
import type { LimitOptions, ListeningOptions } from "./options.ts";

interface ServeOptions extends ModelOptions, ListeningOptions, LimitOptions {
  readonly apiKey?: string;
  readonly servedModelName?: readonly string[];
  readonly cors?: string;
  readonly logRequests?: boolean;
  readonly logText?: boolean;
}

/** Resolves when the server has ended: to true if Ctrl-C ended it. */
export async function serveGuard(options: ServeOptions, terminal: Terminal): Promise<boolean> {
  const { host, port, cors, maxQueue, timeout } = options;
  checkPort(port);
  if (timeout > 86_400) throw new UsageError(`--timeout: expected at most 86400 seconds, got ${timeout}`);
  if (cors !== undefined && !isOrigin(cors))
    throw new UsageError(`--cors: expected an origin, as in https://example.org, or *, got ${cors}`);
  const apiKey = options.apiKey ?? (terminal.env.QWEN3GUARD_API_KEY || undefined);
  if (apiKey === "") throw new UsageError("--api-key: expected a key, got an empty text");
  const allowedHosts = hostsToAllow(host, apiKey !== undefined, options.allowHost);
  const engine = engineOptions(options);

  const guard = await Guard.load(await checkpointFiles(options, terminal), engine);
  try {
    const handler = createHandler(guard, {
      modelNames: [...(options.servedModelName ?? []), ...hubNames(options, terminal)],
      ...(apiKey === undefined ? {} : { apiKey }),
      maxQueue,
      maxBodyBytes: options.maxBody,
      timeoutMs: timeout * 1000,
      ...(cors === undefined ? {} : { cors }),
      log: logTo(terminal),
      logRequests: options.logRequests ?? false,
      logText: options.logText ?? false,
    });
    const isOpen = apiKey === undefined && !isLoopback(host);
    const notice = isOpen ? `qwen3guard: ${host} may be reached by others and no --api-key is asked for\n` : "";
    const listening = { host, port, timeoutMs: timeout * 1000, allowedHosts };
    return await serveUntilStopped(guard.model.engine, handler, listening, terminal, notice);
  } finally {
    guard.close();
  }
}

/** Clients may also call a model of the Hub by its id. */
function hubNames(options: ModelOptions, terminal: Terminal): string[] {
  const source = options.model ?? terminal.env.QWEN3GUARD_MODEL;
  const hubId = source && !existsSync(source) ? parseHubId(source) : undefined;
  return hubId ? [hubId.id] : [];
}

function isOrigin(text: string): boolean {
  return text === "*" || (URL.canParse(text) && new URL(text).origin === text);
}
