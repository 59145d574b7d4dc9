/** Loads the guard for a command that takes either kind. The checkpoint's config says which kind it is. */

import { type Guard, loadGuard } from "../guard/guard.ts";
import { loadStreamGuard, type StreamGuard } from "../guard/stream-guard.ts";
import { readConfig } from "../model/qwen3.ts";
import { checkpointFiles, engineOptions, type ModelOptions } from "./model-options.ts";
import { type Terminal, UsageError } from "./terminal.ts";

/** A Stream guard judges every token. A Gen guard, such as the embedded one, judges after every `every` tokens. */
export async function loadEitherGuard(
  options: ModelOptions & { readonly every?: number },
  terminal: Terminal,
): Promise<Guard | StreamGuard> {
  const engine = engineOptions(options);
  const files = await checkpointFiles(options, terminal);
  const config = await readConfig(files);
  if (config.guardHeads && options.every !== undefined) {
    throw new UsageError("--every: expected a Gen guard, got a Stream guard, which judges every token");
  }
  return config.guardHeads ? loadStreamGuard(files, config, engine) : loadGuard(files, config, engine);
}
