/** `qwen3guard serve` in a process of its own, so that its memory can be told from the clients'. */

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { projectPath } from "../../helpers.ts";

export interface ServerProcess {
  readonly url: string;
  /** Resident memory in MB; NaN where /proc is not. */
  readonly rssMB: () => number;
  readonly stderr: () => string;
  /** SIGTERM; gives the exit status. */
  readonly stop: () => Promise<number | null>;
}

export async function startServer(args: readonly string[] = []): Promise<ServerProcess> {
  const child = spawn(process.execPath, [projectPath("src/app/main.ts"), "serve", "--port", "0", "--quiet", ...args]);
  let stderr = "";
  const ended = new Promise<number | null>(resolve => child.on("close", resolve));
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
  return {
    url,
    rssMB,
    stderr: () => stderr,
    stop: () => {
      child.kill("SIGTERM");
      return ended;
    },
  };
}
