/**
 * Which engine computes, and with how many threads: the one place that decides.
 */

import type { Engine } from "./engine.ts";
import { checkOptions } from "./options.ts";
import { QUANTISED_SCHEMES } from "./quantised.ts";
import { ReferenceEngine } from "./reference-engine.ts";
import { WasmEngine } from "./wasm/wasm-engine.ts";

/** More than any machine needs: memory is the limit long before. */
export const MAX_THREADS = 64;

/**
 * How matrices may be held. "auto" and "checkpoint": as the checkpoint stores them. The others: quantised while they
 * are read (quantised.ts).
 */
export const WEIGHTS = ["auto", "checkpoint", ...QUANTISED_SCHEMES] as const;

export interface EngineOptions {
  /** "auto" (default): the fast engine where there is WebAssembly SIMD, else the readable one. */
  readonly engine?: "auto" | "wasm" | "reference";
  /**
   * Threads of the fast engine: by default one for each physical core on Node, and one elsewhere. The reference engine
   * has one.
   */
  readonly threads?: number;
  /** How a model's matrices are held: "auto" by default. */
  readonly weights?: (typeof WEIGHTS)[number];
}

/**
 * Throws RangeError for options that cannot be honoured, and Error where the engine that was asked for cannot run here.
 */
export async function createEngine(options: EngineOptions = {}): Promise<Engine> {
  checkOptions(options, ["engine", "threads", "weights"], "engine");
  const { engine = "auto", threads, weights = "auto" } = options;
  if (!["auto", "wasm", "reference"].includes(engine))
    throw new RangeError(`engine: expected auto, wasm or reference, got ${engine}`);
  if (!WEIGHTS.includes(weights)) throw new RangeError(`weights: expected ${WEIGHTS.join(", ")}, got ${weights}`);
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS)) {
    throw new RangeError(`threads: expected an integer from 1 to ${MAX_THREADS}, got ${threads}`);
  }
  if (engine === "reference" || (engine === "auto" && !hasWasmSimd())) {
    if (threads !== undefined && threads !== 1)
      throw new RangeError(`threads: expected 1, since the reference engine has one, got ${threads}`);
    return new ReferenceEngine();
  }
  if (!hasWasmSimd())
    throw new Error(
      "engine: expected WebAssembly with SIMD for the wasm engine, got a machine without it (reference works)",
    );
  const node =
    isNode() && typeof SharedArrayBuffer === "function" ? await import("./wasm/worker-start.node.ts") : undefined;
  if (!node && threads !== undefined && threads > 1)
    throw new RangeError(`threads: expected 1, since there is no shared memory here, got ${threads}`);
  if (!node) return WasmEngine.create();
  const startWorker = node.startNodeWorker;
  const memoryLimit = node.availableMemoryBytes();
  if (threads !== undefined) return WasmEngine.create({ threads, startWorker, memoryLimit });
  try {
    return WasmEngine.create({ threads: node.physicalCores(), startWorker, memoryLimit });
  } catch {
    return WasmEngine.create({ memoryLimit }); // nobody asked for workers, and none can be started here
  }
}

/** A module with one SIMD instruction: (func (result v128) i32.const 0 i8x16.splat). */
function hasWasmSimd(): boolean {
  const module = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11];
  return typeof WebAssembly === "object" && WebAssembly.validate(Uint8Array.from(module));
}

function isNode(): boolean {
  return (globalThis as { process?: { versions?: { node?: string } } }).process?.versions?.node !== undefined;
}
