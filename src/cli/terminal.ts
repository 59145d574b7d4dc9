/** Where a command reads and writes: results to stdout, everything else to stderr. Tests give their own. */

import { fstatSync } from "node:fs";
import { fileError } from "./file-error.ts";

/** Wrong usage, exit status 2. Any other error means that data, a model or the machine is at fault: 1. */
export class UsageError extends Error {}

export interface Terminal {
  readonly stdin: AsyncIterable<Uint8Array | string> & { readonly isTTY?: boolean };
  /** Resolves when the text is written. Rejects with the error EPIPE if the reader has gone. */
  readonly out: (text: string) => Promise<void>;
  readonly err: (text: string) => void;
  /** Columns and colours of stdout; colours are off for pipes and where NO_COLOR is set. */
  readonly columns: number;
  readonly isTTY: boolean;
  readonly colors: boolean;
  /** Columns of stderr if it is a terminal, for progress. */
  readonly errColumns: number | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /**
   * Calls `listener` at the first Ctrl-C; a second one ends the process. Returns a function that stops listening, after
   * which Ctrl-C ends the process again.
   */
  readonly onInterrupt: (listener: () => void) => () => void;
  /** The same for SIGTERM. */
  readonly onTerminate: (listener: () => void) => () => void;
}

export function processTerminal(): Terminal {
  const { stdout, stderr, stdin, env } = process;
  const isTTY = stdout.isTTY === true;
  return {
    stdin: Object.assign(stdinChunks(stdin), { isTTY: stdin.isTTY === true }),
    out: text => new Promise((resolve, reject) => stdout.write(text, error => (error ? reject(error) : resolve()))),
    err: text => void stderr.write(text),
    columns: stdout.columns || 80, // 0 where a pseudo-terminal was given no size
    isTTY,
    colors:
      env.FORCE_COLOR !== undefined && env.FORCE_COLOR !== "0" ? true : isTTY && !env.NO_COLOR && env.TERM !== "dumb",
    errColumns: stderr.isTTY ? stderr.columns || 80 : undefined,
    env,
    onInterrupt: onceSignal("SIGINT"),
    onTerminate: onceSignal("SIGTERM"),
  };
}

/** Node reads a folder as an empty stdin. */
async function* stdinChunks(stdin: typeof process.stdin): AsyncGenerator<Uint8Array | string> {
  if (fstatSync(0).isDirectory()) throw fileError("stdin", Object.assign(new Error(), { code: "EISDIR" }));
  yield* stdin;
}

function onceSignal(signal: NodeJS.Signals): (listener: () => void) => () => void {
  return listener => {
    process.once(signal, listener);
    return () => void process.off(signal, listener);
  };
}

/**
 * Makes text from outside safe to show: characters that would move the cursor, begin a line or reverse the text are
 * replaced by a visible one.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, "\ufffd");
}

/** Keeps a message to one line, whatever text it quotes. */
export function oneLine(text: string): string {
  return printable(text.trim().replace(/\s*\n\s*/g, " "));
}
