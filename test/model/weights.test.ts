/** Weights that do not fit the memory: refused before anything is read, by an error that names a form that takes less. */

import { expect, onTestFinished, test } from "vitest";
import { openCheckpointFiles } from "../../src/model/open-checkpoint.ts";
import { readConfig } from "../../src/model/qwen3.ts";
import { loadWeights, weightBytes } from "../../src/model/weights.ts";
import { MemoryError } from "../../src/tensor/memory-error.ts";
import { SafetensorsCheckpoint } from "../../src/tensor/safetensors-sharded.ts";
import { WasmEngine } from "../../src/tensor/wasm/wasm-engine.ts";
import { GEN } from "../checkpoints.ts";

test.each([
  [undefined, 4, "memory: expected 5 MB for the weights of tiny-guard-gen, got 4 MB left; 3 MB suffice with --weights int8"],
  ["int8", 2, "memory: expected 3 MB for the weights of tiny-guard-gen, got 2 MB left; 2 MB suffice with --weights int4"],
  ["int4", 1, "memory: expected 2 MB for the weights of tiny-guard-gen, got 1 MB left"],
] as const)("%s weights in too little memory", async (scheme, megabytes, message) => {
  const files = { ...(await openCheckpointFiles(GEN)), name: "tiny-guard-gen" };
  const checkpoint = await SafetensorsCheckpoint.open(files);
  onTestFinished(() => checkpoint.close());
  const config = await readConfig(files);
  const engine = WasmEngine.create({ memoryLimit: megabytes * 2 ** 20 });
  expect(weightBytes(checkpoint, config, scheme)).toBeGreaterThan(megabytes * 2 ** 20);
  await expect(loadWeights(checkpoint, config, engine, scheme)).rejects.toThrow(new MemoryError(message));
  expect(engine.usedBytes).toBe(0);
  if (scheme === undefined) {
    await loadWeights(checkpoint, config, engine, "int8");
    expect(engine.usedBytes).toBeLessThan(2.7 * 2 ** 20);
  }
  engine.close();
});
