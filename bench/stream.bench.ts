/**
 * What a token costs a Stream guard at short and long contexts: `node bench/stream.bench.ts [CHECKPOINT]` (by default a
 * seeded random checkpoint of the 0.6B shape, written to a temporary folder). Takes about three minutes, mostly to fill
 * the long contexts.
 *
 * The contexts are measured in turn, round after round. The fastest token of each counts, since other work on the
 * machine can only add time.
 *
 * Only attention over the cache grows with the context; nothing is computed again. At this shape a token reads every
 * weight but the embeddings once, 0.88 GB. The keys and values of a token are 229 kB, those of 4,000 tokens 0.92 GB. So
 * at the speed of memory, a token takes twice as long at 4,000.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeRandomCheckpoint } from "../src/cli/random-checkpoint.ts";
import { Qwen3 } from "../src/model/qwen3.ts";

const CONTEXTS = [100, 1000, 4000];
const ROUNDS = 30;
const TOKENS = 2;

async function measure(folder: string): Promise<void> {
  const model = await Qwen3.load(folder);
  const ids = Array.from(
    { length: CONTEXTS.at(-1)! },
    (_, i) => (i * 7919) % Math.min(150_000, model.config.vocabSize),
  );
  const best = CONTEXTS.map(() => Infinity);
  const sessions = CONTEXTS.map(() => model.newSession());
  for (const [i, context] of CONTEXTS.entries()) {
    const started = performance.now();
    await sessions[i].classify(ids.slice(0, context), "response");
    console.log(`fill ${context}`.padEnd(20), `${((performance.now() - started) / 1000).toFixed(1)} s`);
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, context] of CONTEXTS.entries()) {
      for (let n = 0; n < TOKENS; n++) {
        const started = performance.now();
        await sessions[i].classify([ids[n]], "response");
        best[i] = Math.min(best[i], performance.now() - started);
      }
      sessions[i].truncate(context);
    }
  }
  for (const [i, context] of CONTEXTS.entries()) {
    console.log(
      `context ${context}`.padEnd(20),
      `${best[i].toFixed(1)} ms a token, ${(best[i] / best[0]).toFixed(2)} times that at ${CONTEXTS[0]}`,
    );
  }
  model.close();
}

const [given] = process.argv.slice(2);
const folder = given ?? (await mkdtemp(join(tmpdir(), "qwen3guard-bench-")));
try {
  if (given === undefined) await writeRandomCheckpoint(folder, "0.6B", 0, "Stream");
  await measure(folder);
} finally {
  if (given === undefined) await rm(folder, { recursive: true });
}
