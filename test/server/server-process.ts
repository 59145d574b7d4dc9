/**
 * `qwen3guard serve`, or `proxy`, in a process of its own, so that signals reach it and its memory can be told from the
 * clients'.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { projectPath } from "../helpers.ts";

export interface ServerProcess {
  readonly url: string;
  readonly child: ChildProcess;
  readonly stderr: () => string;
  /** Exit status and signal. */
  readonly ended: Promise<[number | null, string | null]>;
  /** Resident memory in MB; NaN where /proc is not. */
  readonly rssMB: () => number;
}

/**
 * Resolves when it listens; rejects with what it wrote where it ends before. Who starts it ends it. `files`: how many
 * it may have open.
 */
export async function startServer(
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
  { command = "serve", files }: { readonly command?: "serve" | "proxy"; readonly files?: number } = {},
): Promise<ServerProcess> {
  const all = [projectPath("src/cli/main.ts"), command, "--port", "0", "--quiet", ...args];
  const options = { env: { ...process.env, ...env } };
  const child =
    files === undefined
      ? spawn(process.execPath, all, options)
      : spawn("sh", ["-c", `ulimit -n ${files}; exec "$@"`, "sh", process.execPath, ...all], options);
  let stderr = "";
  const ended = new Promise<[number | null, string | null]>(resolve =>
    child.on("close", (status, signal) => resolve([status, signal])),
  );
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr.on("data", chunk => {
      stderr += chunk;
      const listening = /^listening on (http:\/\/\S+)$/m.exec(stderr);
      if (listening) resolve(listening[1]);
    });
    void ended.then(() => reject(new Error(stderr)));
  });
  const rssMB = (): number => {
    try {
      return Number(/VmRSS:\s*(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]) / 1024;
    } catch {
      return Number.NaN;
    }
  };
  return { url, child, stderr: () => stderr, ended, rssMB };
}
