/**
 * `qwen3guard pull`: downloads a model of the Hub into the Hugging Face cache. It prints the folder, which `--model`
 * takes.
 */

import type { Command } from "commander";
import { hubSettings } from "../../checkpoint/hub/cache.node.ts";
import { parseHubId } from "../../checkpoint/hub/id.ts";
import { type CommandContext, example, withJson } from "../command.ts";
import { downloadProgress } from "../download-progress.ts";
import { type Terminal, UsageError } from "../terminal.ts";

export function specify(command: Command, { terminal }: CommandContext): void {
  withJson(command)
    .description("download a model of the Hugging Face Hub, or bring it up to date: org/name or org/name@revision")
    .argument("<id>")
    .option("--quiet", "no progress on stderr")
    .addHelpText("after", example("qwen3guard pull Qwen/Qwen3Guard-Gen-0.6B"))
    .action((id, options) => pullModel(id, options, terminal));
}

/** The `--json` object. `downloaded`: bytes of a file that this run has fetched from the network. */
export interface PullReport {
  readonly id: string;
  readonly revision: string;
  readonly commit: string;
  readonly path: string;
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly downloaded: number }[];
  readonly bytes: number;
  readonly ms: number;
}

async function pullModel(
  text: string,
  options: { json?: boolean; quiet?: boolean },
  terminal: Terminal,
): Promise<void> {
  const hub = parseHubId(text);
  if (hub === undefined) throw new UsageError(`pull: expected a Hub id, org/name or org/name@revision, got ${text}`);
  const started = performance.now();
  // Imported here, since no other command needs the package that talks to the Hub.
  const { pull } = await import("../../checkpoint/hub/download.node.ts");
  const line = downloadProgress(options, terminal);
  try {
    const pulled = await pull(hub, await hubSettings(terminal.env), line.show);
    line.clear();
    const bytes = pulled.files.reduce((sum, file) => sum + file.bytes, 0);
    const report: PullReport = { ...pulled, bytes, ms: Math.round(performance.now() - started) };
    await terminal.out(options.json ? `${JSON.stringify(report)}\n` : `${pulled.path}\n`);
  } finally {
    line.clear();
  }
}
