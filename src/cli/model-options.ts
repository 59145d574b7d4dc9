/**
 * The options of every command that loads a model, and what they stand for: the files of the checkpoint (`--model`,
 * else QWEN3GUARD_MODEL, else the embedded demo guard, which is announced as such) and the engine.
 */

import { setFlagsFromString } from "node:v8";
import { type Command, Option } from "commander";
import type { CheckpointFiles } from "../checkpoint/files.ts";
import { openCheckpointFiles } from "../checkpoint/open.ts";
import { DEMO_GUARD } from "../guard/demo-guard.ts";
import { type EngineOptions, MAX_THREADS, WEIGHTS } from "../tensor/engine-choice.ts";
import { integer } from "./command.ts";
import { downloadProgress } from "./download-progress.ts";
import { type Terminal, UsageError } from "./terminal.ts";

export interface ModelOptions {
  readonly model?: string;
  readonly engine?: "auto" | "wasm" | "reference";
  readonly threads?: number;
  readonly weights?: EngineOptions["weights"];
  readonly wide?: boolean;
  readonly quiet?: boolean;
}

export function withModel(command: Command): Command {
  return command
    .option("--model <dir|id>", "checkpoint folder or Hub id (else QWEN3GUARD_MODEL, else the embedded demo guard)")
    .addOption(
      new Option("--engine <name>", "wasm is the fast one, reference the readable one")
        .choices(["auto", "wasm", "reference"])
        .default("auto"),
    )
    .option("--threads <n>", "threads to compute with (default: the physical cores)", integer(1))
    .addOption(
      new Option("--weights <form>", "quantise the weights while they are read: less memory, faster")
        .choices(WEIGHTS)
        .default("auto"),
    )
    .option("--wide", "experimental: let V8 widen the kernels to 256 bits (Node 24 and later)")
    .option("--quiet", "no notices on stderr");
}

/**
 * The engine that `--engine`, `--threads`, `--weights` and `--wide` ask for. An impossible combination is wrong usage.
 * `--wide` sets a flag of V8 for the whole process, so call this before the kernels are compiled.
 */
export function engineOptions({ engine = "auto", threads, weights = "auto", wide }: ModelOptions): EngineOptions {
  if (wide) {
    if (Number.parseInt(process.versions.node, 10) < 24)
      throw new UsageError(`--wide: expected Node 24 or later, got ${process.version}`);
    setFlagsFromString("--experimental-wasm-revectorize");
  }
  if (engine === "reference" && threads !== undefined && threads !== 1) {
    throw new UsageError(`--threads: expected 1, since the reference engine has one, got ${threads}`);
  }
  if (threads !== undefined && threads > MAX_THREADS)
    throw new UsageError(`--threads: expected at most ${MAX_THREADS}, got ${threads}`);
  return { engine, weights, ...(threads === undefined ? {} : { threads }) };
}

/** The files of a folder, or of a model of the Hub, which is downloaded first unless the cache has it. */
export async function checkpointFiles(options: ModelOptions, terminal: Terminal): Promise<CheckpointFiles> {
  const source = options.model ?? (terminal.env.QWEN3GUARD_MODEL || undefined);
  if (source === undefined) {
    if (!options.quiet) {
      terminal.err(
        "qwen3guard: using the embedded demo guard, which is not for protection; for the real one: --model Qwen/Qwen3Guard-Gen-0.6B (downloaded once)\n",
      );
    }
    return openCheckpointFiles(DEMO_GUARD);
  }
  const line = downloadProgress(options, terminal);
  try {
    return await openCheckpointFiles(source, { env: terminal.env, onProgress: line.show });
  } finally {
    line.clear();
  }
}
