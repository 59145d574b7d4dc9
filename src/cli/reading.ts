/** Reads files and stdin: bytes, UTF-8 text, JSON. Every error names the file. */

import { constants, createReadStream } from "node:fs";
import { access, stat } from "node:fs/promises";
import { fileError } from "./file-error.ts";
import { oneLine, type Terminal, UsageError } from "./terminal.ts";

/** More than any context holds. An endless pipe or device must not fill the memory. */
const MAX_INPUT_BYTES = 64 * 2 ** 20;

/** Reads all of it as strict UTF-8. Throws RangeError for more than 64 MB. */
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
 * The bytes of a file as they are read; `-` is stdin. Throws what `fileError` makes of an error of the file system.
 * Throws UsageError for a stdin that ends without a byte: the program before it in the pipe failed, or nobody gave it
 * any input, and an answer would hide that.
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

/** Throws if the file cannot be opened for reading; `-` is stdin. */
export async function checkReadable(path: string): Promise<void> {
  if (path === "-") return;
  try {
    await access(path, constants.R_OK);
    if ((await stat(path)).isDirectory()) throw Object.assign(new Error(), { code: "EISDIR" });
  } catch (error) {
    throw fileError(path, error as NodeJS.ErrnoException);
  }
}

/** Text as it arrives, as strict UTF-8. A character that is split between two chunks comes with the second. */
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

/** A text argument as given. `-`, or none if stdin is a pipe, means all of stdin without its last line break. */
export async function textArgument(text: string | undefined, terminal: Terminal, what: string): Promise<string> {
  if (text !== undefined && text !== "-") return text;
  if (text === undefined && terminal.stdin.isTTY)
    throw new UsageError(`${what}: expected a text, or text on stdin, got neither`);
  return (await readTextFile("-", terminal)).replace(/\r?\n$/, "");
}

export function parseJson(text: string, name: string): unknown {
  try {
    return JSON.parse(text.replace(/^\ufeff/, "")); // editors on Windows begin files with a byte order mark
  } catch (error) {
    throw new TypeError(`${name}: expected JSON, got ${oneLine((error as Error).message)}`); // it quotes the text, line feeds and all
  }
}

/** Runs a check, and puts the name of the file before the message of its error. */
export function inFile<T>(path: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    const { message } = error as Error;
    throw new (error instanceof RangeError ? RangeError : TypeError)(`${path === "-" ? "stdin" : path}: ${message}`);
  }
}
