/** Output files that appear whole or not at all, even if the run fails or a signal ends it. */

import { constants, rmdirSync, rmSync } from "node:fs";
import { open, readlink, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileError } from "./file-error.ts";
import type { Terminal } from "./terminal.ts";

/** A file that appears whole or not at all. */
export interface WholeFile {
  write(text: string): Promise<void>;
  done(): Promise<void>;
  /** After `done` it does nothing. */
  discard(): Promise<void>;
}

/**
 * Writes to a file beside `path` and renames it at the end, so that a run that fails, or that a signal ends, leaves the
 * old file as it was. The file is opened at once, so that a path that cannot be written is known before the work. A
 * link stays a link: its target is written. A pipe or a device is written as the text comes.
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
 * Removes files or folders when Ctrl-C or SIGTERM comes, and then lets the signal end the process as usual. Returns a
 * function that cancels this. A signal is handled at the next turn of the event loop. `made` are folders, the innermost
 * first, that are removed only if nothing else is in them.
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

/** Removes them, as `removeOnSignal` does. */
export function removeWritten(paths: readonly string[], made: readonly string[]): void {
  for (const path of paths) rmSync(path, { recursive: true, force: true });
  try {
    for (const folder of made) rmdirSync(folder);
  } catch {
    // Somebody else has put something there.
  }
}

/** The path that a link leads to, whether or not it exists; any other path itself. */
export async function linkTarget(path: string): Promise<string> {
  const link = await readlink(path).catch(() => undefined);
  return link === undefined ? path : linkTarget(resolve(await realpath(dirname(path)), link));
}
