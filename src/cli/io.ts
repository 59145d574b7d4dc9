/**
 * The terminal: results to stdout, everything else to stderr, and the errors that decide the exit status.
 */

import { constants, createReadStream, fstatSync, rmdirSync, rmSync } from "node:fs";
import { access, open, readlink, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/** Wrong usage: exit status 2. Everything wrong with data or models is any other error: 1. */
export class UsageError extends Error {}

/** Where a command reads and writes; tests give their own. */
export interface Terminal {
  readonly stdin: AsyncIterable<Uint8Array | string> & { readonly isTTY?: boolean };
  /** Resolves when the text has been taken; rejects with EPIPE's error when the reader is gone. */
  readonly out: (text: string) => Promise<void>;
  readonly err: (text: string) => void;
  /** Columns and colours of stdout; colours are off for pipes and where NO_COLOR is set. */
  readonly columns: number;
  readonly isTTY: boolean;
  readonly colors: boolean;
  /** Columns of stderr where that is a terminal, for progress. */
  readonly errColumns: number | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /**
   * Calls `listener` at the first Ctrl-C; the second ends the process. Returns what stops listening: Ctrl-C then ends
   * the process again.
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

/** Node takes a folder for a stdin that is empty. */
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

/** More than any context holds; a pipe or a device without end must not fill the memory. */
const MAX_INPUT_BYTES = 64 * 2 ** 20;

/** All of it, as strict UTF-8. Throws RangeError for more than 64 MB. */
async function readAll(chunks: AsyncIterable<Uint8Array | string>, name: string): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    parts.push(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
    bytes += parts[parts.length - 1].length;
    if (bytes > MAX_INPUT_BYTES) throw new RangeError(`${name}: expected at most ${MAX_INPUT_BYTES} bytes, got more`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(parts));
  } catch {
    throw new TypeError(`${name}: expected UTF-8 text, got bytes that are not`);
  }
}

/**
 * The bytes of a file as they are read; `-` is stdin. Throws what `fileError` makes of the file system's errors, and
 * UsageError for a stdin that ends without a byte: the program before it in the pipe failed, or nobody gave it
 * anything, and an answer would hide that.
 */
export async function* inputChunks(
  path: string,
  terminal: Pick<Terminal, "stdin">,
): AsyncGenerator<Uint8Array | string> {
  if (path === "-") {
    let isEmpty = true;
    for await (const chunk of terminal.stdin) {
      isEmpty &&= chunk.length === 0;
      yield chunk;
    }
    if (isEmpty) throw new UsageError("stdin: expected input, got none");
    return;
  }
  try {
    yield* createReadStream(path) as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw fileError(path, error as NodeJS.ErrnoException);
  }
}

/** Throws what reading the file would throw at its beginning; `-` is stdin. */
export async function checkReadable(path: string): Promise<void> {
  if (path === "-") return;
  try {
    await access(path, constants.R_OK);
    if ((await stat(path)).isDirectory()) throw Object.assign(new Error(), { code: "EISDIR" });
  } catch (error) {
    throw fileError(path, error as NodeJS.ErrnoException);
  }
}

/** Text as it arrives, strict UTF-8: a character that is cut between two chunks comes with the second. */
export async function* textChunks(chunks: AsyncIterable<Uint8Array | string>, name: string): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const decode = (bytes: Uint8Array, stream: boolean): string => {
    try {
      return decoder.decode(bytes, { stream });
    } catch {
      throw new TypeError(`${name}: expected UTF-8 text, got bytes that are not`);
    }
  };
  for await (const chunk of chunks) yield typeof chunk === "string" ? chunk : decode(chunk, true);
  yield decode(new Uint8Array(0), false);
}

/** A file's text; `-` is stdin. */
export function readTextFile(path: string, terminal: Terminal): Promise<string> {
  return readAll(inputChunks(path, terminal), path === "-" ? "stdin" : path);
}

/** A text argument: as given; `-`, or nothing where stdin is a pipe, means all of stdin without its last line break. */
export async function textArgument(text: string | undefined, terminal: Terminal, what: string): Promise<string> {
  if (text !== undefined && text !== "-") return text;
  if (text === undefined && terminal.stdin.isTTY)
    throw new UsageError(`${what}: expected a text, or text on stdin, got neither`);
  return (await readTextFile("-", terminal)).replace(/\r?\n$/, "");
}

export function parseJson(text: string, name: string): unknown {
  try {
    return JSON.parse(text.replace(/^\ufeff/, "")); // editors on Windows put a byte order mark there
  } catch (error) {
    throw new TypeError(`${name}: expected JSON, got ${oneLine((error as Error).message)}`); // it quotes the text, line feeds and all
  }
}

/** Runs a check and puts the file's name before what it throws. */
export function inFile<T>(path: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    const { message } = error as Error;
    throw new (error instanceof RangeError ? RangeError : TypeError)(`${path === "-" ? "stdin" : path}: ${message}`);
  }
}

/** A file that appears whole or not at all. */
export interface WholeFile {
  write(text: string): Promise<void>;
  done(): Promise<void>;
  /** After `done` it does nothing. */
  discard(): Promise<void>;
}

/**
 * Written beside its place and renamed, so that a run that fails, or that a signal ends, leaves what was there. Opened
 * at once, so that a place where nothing can be written is known before the work. A link stays one: what it leads to is
 * written. What is there and is no file (a pipe, a device) is written as the text comes.
 */
export async function wholeFile(path: string, terminal: Terminal): Promise<WholeFile> {
  const refuse = (error: NodeJS.ErrnoException): never => {
    throw fileError(path, error, "a file to write");
  };
  const there = await stat(path).catch((error: NodeJS.ErrnoException) =>
    error.code === "ENOENT" ? undefined : refuse(error),
  );
  if (there?.isDirectory()) refuse(Object.assign(new Error(), { code: "EISDIR" }));
  if (there && !there.isFile()) {
    const handle = await open(path, constants.O_WRONLY).catch(refuse);
    return {
      write: text => handle.writeFile(text).catch(refuse),
      done: () => handle.close(),
      discard: () => handle.close(),
    };
  }

  const target = await linkTarget(path).catch(refuse);
  const partial = `${target}.${process.pid}.part`;
  const handle = await open(partial, "wx").catch(refuse);
  const stopListening = removeOnSignal([partial], terminal);
  return {
    write: text => handle.writeFile(text).catch(refuse),
    async done() {
      await handle.close();
      await rename(partial, target).catch(refuse);
    },
    async discard() {
      stopListening();
      await handle.close();
      await rm(partial, { force: true });
    },
  };
}

/**
 * Removes files or folders when Ctrl-C or SIGTERM ends the process, which they do after that as they would without it.
 * Returns what takes this back; a signal is heard at the next turn of the event loop. `made` are folders that go only
 * where nothing else is in them, the innermost first.
 */
export function removeOnSignal(
  paths: readonly string[],
  { onInterrupt, onTerminate }: Pick<Terminal, "onInterrupt" | "onTerminate">,
  made: readonly string[] = [],
): () => void {
  const removeAndEnd = (signal: NodeJS.Signals) => (): void => {
    removeWritten(paths, made);
    process.kill(process.pid, signal);
  };
  const stops = [onInterrupt(removeAndEnd("SIGINT")), onTerminate(removeAndEnd("SIGTERM"))];
  return () => {
    for (const stop of stops) stop();
  };
}

/** What `removeOnSignal` removes. */
export function removeWritten(paths: readonly string[], made: readonly string[]): void {
  for (const path of paths) rmSync(path, { recursive: true, force: true });
  try {
    for (const folder of made) rmdirSync(folder);
  } catch {
    // Somebody has put something there.
  }
}

/** Where a link leads, be something there or not; what is no link leads to itself. */
export async function linkTarget(path: string): Promise<string> {
  const link = await readlink(path).catch(() => undefined);
  return link === undefined ? path : linkTarget(resolve(await realpath(dirname(path)), link));
}

const READABLE = "a readable file";

/**
 * One line for an error of the file system, instead of its own. `what` was expected of the path: what is not to be read
 * is to be written.
 */
export function fileError(path: string, error: NodeJS.ErrnoException, what: string = READABLE): Error {
  const reasons: Record<string, string> = {
    ENOENT: "no such file",
    EISDIR: "a folder",
    EACCES: what === READABLE ? "no permission to read it" : "no permission to write it",
    ENOTDIR: "a path through something that is no folder",
    EEXIST: "a file",
    ENOSPC: "a full disk",
    EROFS: "a disk that is only for reading",
  };
  return new Error(`${path}: expected ${what}, got ${reasons[error.code ?? ""] ?? error.message}`);
}

/**
 * Text from outside as a terminal may show it: what would move the cursor, begin a line or turn the text around becomes
 * visible.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, "\ufffd");
}

/** A message keeps to one line, whatever text it quotes. */
export function oneLine(text: string): string {
  return printable(text.trim().replace(/\s*\n\s*/g, " "));
}
