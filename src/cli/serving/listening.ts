/** Serves a handler on a port until Ctrl-C or SIGTERM. Then it finishes the requests that it has accepted. */

import type { Handler } from "../../server/handler.ts";
import { isHostName, isLoopback } from "../../server/hosts.ts";
import { type Listener, type ListenOptions, listen } from "../../server/listen.node.ts";
import type { Engine } from "../../tensor/engine.ts";
import { printable, type Terminal, UsageError } from "../terminal.ts";

export function checkPort(port: number): void {
  if (port > 65_535) throw new UsageError(`--port: expected at most 65535, got ${port}`);
}

/**
 * The `allowedHosts` of a listener at `host`. On loopback without a key they are the names that `--allow-host` gives,
 * since nothing but the name in `Host` tells a web page's requests from others. Elsewhere, or with a key, any name is
 * allowed unless `--allow-host` is given.
 */
export function hostsToAllow(
  host: string,
  hasKey: boolean,
  names: readonly string[] = [],
): readonly string[] | undefined {
  for (const name of names) {
    if (!isHostName(name))
      throw new UsageError(`--allow-host: expected a name without a port, as in guard.example.org, got ${name}`);
  }
  return names.length > 0 || (isLoopback(host) && !hasKey) ? names : undefined;
}

/**
 * Listens once the engine's threads are up: connections could take the file descriptors that a thread needs to start.
 * `notice` is written before the address. Resolves to true if Ctrl-C ended it.
 */
export async function serveUntilStopped(
  engine: Pick<Engine, "ready">,
  handler: Handler,
  options: ListenOptions,
  terminal: Terminal,
  notice: string = "",
): Promise<boolean> {
  await engine.ready().catch(error => {
    throw new Error(`${error.message} (--threads 1 needs no workers)`);
  });
  const listener = await open(handler, options);
  const stop = untilStopped(terminal);
  terminal.err(`${notice}listening on ${listener.url}\n`);
  const isInterrupted = await stop;
  await listener.close();
  return isInterrupted;
}

/** Writes lines of the log to stderr. */
export function logTo(terminal: Terminal): (line: string) => void {
  return line => terminal.err(`${printable(line)}\n`);
}

async function open(...[handler, options]: Parameters<typeof listen>): Promise<Listener> {
  try {
    return await listen(handler, options);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reasons: Record<string, string> = {
      EADDRINUSE: "one that is in use",
      EACCES: "one that needs more rights",
      EADDRNOTAVAIL: "an address that is not this machine's",
      ENOTFOUND: "a name without an address",
    };
    throw new Error(
      `${options.host}:${options.port}: expected a port to listen on, got ${reasons[code ?? ""] ?? message}`,
    );
  }
}

/** Resolves to true for Ctrl-C, false for SIGTERM. A second signal of the same kind ends the process at once. */
function untilStopped(terminal: Terminal): Promise<boolean> {
  return new Promise(resolve => {
    terminal.onInterrupt(() => resolve(true));
    terminal.onTerminate(() => resolve(false));
  });
}
