/** The options that the server and the proxy share. */

import { type Command, InvalidArgumentError } from "commander";
import { integer } from "../command.ts";

export interface ListeningOptions {
  readonly host: string;
  readonly port: number;
  readonly allowHost?: readonly string[];
}

/** `condition` says when the names are restricted on loopback. */
export function withListening(command: Command, port: number, condition: string = ""): Command {
  return command
    .option("--host <host>", "address to listen on", "127.0.0.1")
    .option("--port <n>", "port to listen on; 0 picks a free one", integer(0), port)
    .option(
      "--allow-host <name...>",
      `names in Host to answer to, besides localhost, 127.0.0.1 and [::1]; on loopback${condition} no others are accepted`,
    );
}

export interface LimitOptions {
  readonly maxQueue: number;
  /** Bytes. */
  readonly maxBody: number;
  /** Seconds. */
  readonly timeout: number;
}

/** `timeout` says in the help what the seconds limit. */
export function withLimits(command: Command, maxBodyBytes: number, timeout: string, seconds: number): Command {
  return command
    .option("--max-queue <n>", "requests that may wait; further ones are told to come back later", integer(1), 64)
    .option("--max-body <size>", "largest request: 500kB, 1MB, ...", byteSize, maxBodyBytes)
    .option("--timeout <s>", timeout, integer(1), seconds);
}

/** "500kB", "1MB", or bytes. */
function byteSize(text: string): number {
  const [, digits, unit] = /^(\d+) ?(B|kB|MB)?$/i.exec(text) ?? [];
  const bytes = Number(digits) * { b: 1, kb: 2 ** 10, mb: 2 ** 20 }[(unit ?? "B").toLowerCase() as "b" | "kb" | "mb"];
  if (!(bytes >= 1 && bytes <= 64 * 2 ** 20))
    throw new InvalidArgumentError("expected a size of at most 64MB, as in 500kB or 1MB.");
  return bytes;
}
