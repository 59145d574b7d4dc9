/** Whether the engine still computes, for /health. */

import type { Engine } from "../tensor/engine.ts";

/**
 * Returns a function that says whether the engine still computes. The reason why it ended goes to the log, once:
 * /health needs no key, so its readers learn only that it has ended.
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
