/**
 * Writes a random checkpoint to keep: `node tools/write-random-checkpoint.ts OUT_DIR [--shape 0.6B] [--seed 0]`.
 * src/cli/random-checkpoint.ts says what is in it; `qwen3guard bench --shape` makes one for the time of its run.
 */

import { parseArgs } from "node:util";
import { writeRandomCheckpoint } from "../src/cli/random-checkpoint.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { shape: { type: "string", default: "0.6B" }, seed: { type: "string", default: "0" } },
});
if (positionals.length !== 1)
  throw new RangeError("usage: node tools/write-random-checkpoint.ts OUT_DIR [--shape 0.6B] [--seed 0]");
await writeRandomCheckpoint(positionals[0], values.shape, Number(values.seed));
