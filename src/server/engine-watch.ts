/** Whether the engine still computes: what /health asks. */

import type { Engine } from "../tensor/engine.ts";

/**
 * The log is told once why an engine has ended; whoever asks at /health need not have a key, and learns only that it
 * has.
 */
export function watchEngine(engine: Pick<Engine, "failure">, log: (line: string) => void): () => boolean {
  let isLogged = false;
  return () => {
    const { failure } = engine;
    if (failure === undefined) return true;
    if (!isLogged) log(`qwen3guard: the engine has ended: ${failure}`);
    isLogged = true;
    return false;
  };
}
