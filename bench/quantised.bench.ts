/**
 * Compares forms of weights at the 0.6B shape: `node bench/quantised.bench.ts [CHECKPOINT]` (by default a seeded random
 * checkpoint, written to a temporary folder). Takes three to five minutes.
 *
 * All models are loaded at once and measured in turn, and the best of several rounds counts for each: on a shared
 * machine only the ratios can be trusted. Results are checked before they are timed: one thread and two must give the
 * same bits.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stepBytes } from "../src/cli/model-cost.ts";
import { writeRandomCheckpoint } from "../src/cli/random-checkpoint.ts";
import { Qwen3 } from "../src/model/qwen3.ts";
import type { WasmEngine } from "../src/tensor/wasm/wasm-engine.ts";

const ROUNDS = Number(process.env.ROUNDS ?? 5);
const FORMS = ["checkpoint", "int8", "int4"] as const;
const PROMPT = Array.from({ length: 371 }, (_, i) => (i * 7919) % 150_000);
const STEPS = 12;

interface Figures {
  readonly model: Qwen3;
  readonly loadMs: number;
  prefillMs: number;
  decodeMs: number;
}

async function load(folder: string, weights: (typeof FORMS)[number], threads: number): Promise<Figures> {
  const started = performance.now();
  const model = await Qwen3.load(folder, { engine: "wasm", threads, weights });
  return { model, loadMs: performance.now() - started, prefillMs: Infinity, decodeMs: Infinity };
}

function measure(figures: Figures): void {
  const session = figures.model.newSession();
  let started = performance.now();
  session.forward(PROMPT);
  figures.prefillMs = Math.min(figures.prefillMs, performance.now() - started);
  for (let i = 0; i < STEPS; i++) {
    started = performance.now();
    session.forward([PROMPT[i]]);
    figures.decodeMs = Math.min(figures.decodeMs, performance.now() - started);
  }
  session.close();
}

const given = process.argv[2];
const folder = given ?? (await mkdtemp(join(tmpdir(), "qwen3guard-bench-")));
try {
  if (given === undefined) await writeRandomCheckpoint(folder, "0.6B", 0);
  const rows: { readonly name: string; readonly threads: number; readonly figures: Figures }[] = [];
  for (const form of FORMS)
    for (const threads of [1, 2]) rows.push({ name: form, threads, figures: await load(folder, form, threads) });
  for (const form of FORMS) {
    const [one, two] = rows
      .filter(row => row.name === form)
      .map(({ figures }) => {
        const session = figures.model.newSession();
        const logits = session.forward(PROMPT.slice(0, 40)).join();
        session.close();
        return logits;
      });
    if (one !== two)
      throw new Error(`bench: expected the same bits with one thread and two of ${form}, got different ones`);
  }
  let bytesPerSecond = [0, 0];
  for (let round = 0; round < ROUNDS; round++) {
    for (const { figures } of rows) measure(figures);
    bytesPerSecond = bytesPerSecond.map((best, i) =>
      Math.max(best, (rows[i].figures.model.engine as WasmEngine).measureLimits().bytesPerSecond),
    );
  }
  console.log(
    `Node ${process.version}, best of ${ROUNDS} rounds; reading memory ${bytesPerSecond.map(b => (b / 1e9).toFixed(1)).join(" and ")} GB/s`,
  );
  for (const { name, threads, figures } of rows) {
    const { prefillMs, decodeMs, loadMs, model } = figures;
    const base = rows.find(row => row.threads === threads)!.figures;
    const single = rows.find(row => row.name === name)!.figures;
    const GBs = stepBytes(model) / decodeMs / 1e6;
    console.log(
      `${name.padEnd(11)} ${threads} thread(s): load ${loadMs.toFixed(0)} ms, prefill ${prefillMs.toFixed(0)} ms (${(base.prefillMs / prefillMs).toFixed(2)} times checkpoint's speed),`,
      `decode ${decodeMs.toFixed(1)} ms (${(base.decodeMs / decodeMs).toFixed(2)}), ${GBs.toFixed(1)} GB/s, ${((1e11 * GBs) / bytesPerSecond[threads - 1]).toFixed(0)} % of the limit;`,
      `against one thread ${(single.prefillMs / prefillMs).toFixed(2)} and ${(single.decodeMs / decodeMs).toFixed(2)}`,
    );
    model.close();
  }
} finally {
  if (given === undefined) await rm(folder, { recursive: true, force: true });
}
