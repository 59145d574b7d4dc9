/** Runs the command line inside the test: arguments and stdin in, stdout, stderr and exit status out. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { run } from "../../src/cli/program.ts";
import type { Terminal } from "../../src/cli/terminal.ts";

export interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

export interface HarnessOptions {
  /** Text on a piped stdin, in one chunk or several. Without it, stdin is a terminal. */
  readonly stdin?: string | Uint8Array | readonly (string | Uint8Array)[];
  readonly env?: Record<string, string>;
  readonly colors?: boolean;
  readonly isTTY?: boolean;
  readonly columns?: number;
  /** Makes stderr a terminal of this width. */
  readonly errColumns?: number;
}

export async function cli(args: readonly string[], options: HarnessOptions = {}): Promise<Outcome> {
  let out = "";
  let err = "";
  async function* chunks(): AsyncGenerator<Uint8Array | string> {
    const { stdin = [] } = options;
    yield* typeof stdin === "string" || stdin instanceof Uint8Array ? [stdin] : stdin;
  }
  const terminal: Terminal = {
    stdin: Object.assign(chunks(), { isTTY: options.stdin === undefined }),
    out: async text => {
      out += text;
    },
    err: text => {
      err += text;
    },
    columns: options.columns ?? 80,
    isTTY: options.isTTY ?? false,
    colors: options.colors ?? false,
    errColumns: options.errColumns,
    env: options.env ?? {},
    onInterrupt: () => () => {},
    onTerminate: () => () => {},
  };
  const status = await run(args, terminal);
  return { status, out, err };
}

/** A temporary folder with these files, removed when the test ends. Its name has a space, as people's folders do. */
export function temporaryFolder(files: Readonly<Record<string, string | Uint8Array>> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), "qwen3guard test "));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  return folder;
}
