/**
 * The fast engine at the 0.6B shape, and the limits of this machine: `node bench/engine.bench.ts [CHECKPOINT]` (by
 * default a seeded random checkpoint, written to a temporary folder). Takes two to three minutes.
 *
 * Figures and limits are measured in turn, and the best of several rounds counts for both: on a shared machine only the
 * ratio can be trusted. This does not use tinybench, which runs one task after another; what is compared here must be
 * interleaved. Results are checked before they are timed.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { prefillFlops, stepBytes } from "../src/cli/model-cost.ts";
import { writeRandomCheckpoint } from "../src/cli/random-checkpoint.ts";
import { Qwen3 } from "../src/model/qwen3.ts";
import type { WasmEngine } from "../src/tensor/wasm/wasm-engine.ts";

const ROUNDS = 5;
const LINEAR_ROWS = 330;
const PROMPT = Array.from({ length: 371 }, (_, i) => (i * 7919) % 150_000);
const POLICY_TOKENS = 201;
/** What a one-pass verdict appends to the prompt: the answer "Safety: Safe / Categories: None" without its stop id. */
const ANSWER_TOKENS = 7;
/**
 * If the level is Unsafe, a second pass begins with it and guesses the rest of the answer. A third follows if the
 * category was not guessed.
 */
const SECOND_PASS_TOKENS = 6;
const THIRD_PASS_TOKENS = 3;

/** The shortest times and the highest limits of all rounds. */
interface Figures {
  flopsPerThread: number;
  bytesPerSecond: number;
  linearMs: number[];
  prefillMs: number;
  decodeMs: number;
  /** The prompt after the kept policy, with logits for its last id only, and verdicts on it. */
  warmPrefillMs: number;
  safeMs: number;
  secondPassMs: number;
  thirdPassMs: number;
}

async function measure(folder: string, threads: number): Promise<Figures> {
  const started = performance.now();
  const model = await Qwen3.load(folder, { engine: "wasm", threads });
  console.log(`load, ${threads} thread(s)`.padEnd(34), `${(performance.now() - started).toFixed(0)} ms`);
  const engine = model.engine as WasmEngine;
  const best: Figures = {
    flopsPerThread: 0,
    bytesPerSecond: 0,
    linearMs: [],
    prefillMs: Infinity,
    decodeMs: Infinity,
    warmPrefillMs: Infinity,
    safeMs: Infinity,
    secondPassMs: Infinity,
    thirdPassMs: Infinity,
  };
  const time = (work: () => unknown): number => {
    const from = performance.now();
    work();
    return performance.now() - from;
  };
  const layer = model.weights.layers[0];
  const matrices = [layer.qProj, layer.kProj, layer.oProj, layer.gateProj, layer.downProj];
  const operands = matrices.map(matrix => {
    const [outputs, inputs] = matrix.shape;
    const [x, y] = [engine.buffer(LINEAR_ROWS, inputs), engine.buffer(LINEAR_ROWS, outputs)];
    x.data.fill(0.5);
    return { matrix, x, y };
  });

  for (let round = 0; round < ROUNDS; round++) {
    const limits = engine.measureLimits();
    best.flopsPerThread = Math.max(best.flopsPerThread, limits.flopsPerThread);
    best.bytesPerSecond = Math.max(best.bytesPerSecond, limits.bytesPerSecond);
    for (const [i, { matrix, x, y }] of operands.entries()) {
      best.linearMs[i] = Math.min(
        best.linearMs[i] ?? Infinity,
        time(() => engine.linearInto(y, x, matrix)),
      );
    }
    const session = model.newSession();
    best.prefillMs = Math.min(
      best.prefillMs,
      time(() => session.forward(PROMPT)),
    );
    best.decodeMs = Math.min(
      best.decodeMs,
      ...Array.from({ length: 12 }, (_, i) => time(() => session.forward([PROMPT[i]]))),
    );
    const prompt = PROMPT.slice(POLICY_TOKENS);
    const answer = PROMPT.slice(0, ANSWER_TOKENS);
    const pass = (from: number, ids: readonly number[], logits: number): number => {
      session.truncate(from);
      return time(() => session.forward(ids, { logits }));
    };
    best.warmPrefillMs = Math.min(best.warmPrefillMs, pass(POLICY_TOKENS, prompt, 1));
    best.safeMs = Math.min(best.safeMs, pass(POLICY_TOKENS, [...prompt, ...answer], ANSWER_TOKENS + 1));
    const decided = PROMPT.length + 2; // after "Safety:"
    best.secondPassMs = Math.min(
      best.secondPassMs,
      pass(decided, answer.slice(0, SECOND_PASS_TOKENS), SECOND_PASS_TOKENS),
    );
    best.thirdPassMs = Math.min(
      best.thirdPassMs,
      pass(decided + 4, answer.slice(0, THIRD_PASS_TOKENS), THIRD_PASS_TOKENS),
    );
    session.close();
  }
  report(
    model,
    matrices.map(({ name, shape }) => ({ name, flops: 2 * shape[0] * shape[1] * LINEAR_ROWS })),
    best,
    threads,
  );
  model.close();
  return best;
}

function report(
  model: Qwen3,
  matrices: readonly { name: string; flops: number }[],
  best: Figures,
  threads: number,
): void {
  const peak = best.flopsPerThread * threads;
  const line = (what: string, figure: string, share?: number): void =>
    console.log(
      what.padEnd(34),
      figure.padEnd(26),
      share === undefined ? "" : `${(100 * share).toFixed(0)} % of the limit`,
    );
  line(
    `limits, ${threads} thread(s)`,
    `${(best.flopsPerThread / 1e9).toFixed(1)} GFLOP/s each, ${(best.bytesPerSecond / 1e9).toFixed(1)} GB/s`,
  );
  matrices.forEach(({ name, flops }, i) => {
    const rate = flops / (best.linearMs[i] / 1000);
    line(`linear ${name.replace(/.*\./, "")}, ${LINEAR_ROWS} rows`, `${(rate / 1e9).toFixed(1)} GFLOP/s`, rate / peak);
  });
  const tokens = PROMPT.length;
  const rate = prefillFlops(model.config, tokens) / (best.prefillMs / 1000);
  line(
    `prefill, ${tokens} tokens`,
    `${best.prefillMs.toFixed(0)} ms, ${((1000 * tokens) / best.prefillMs).toFixed(1)} tokens/s`,
    rate / peak,
  );
  const speed = stepBytes(model) / (best.decodeMs / 1000);
  line("decode", `${best.decodeMs.toFixed(1)} ms, ${(speed / 1e9).toFixed(1)} GB/s`, speed / best.bytesPerSecond);
  const verdict = (what: string, ms: number): void =>
    line(`warm verdict, ${what}`, `${ms.toFixed(0)} ms, ${(ms / best.warmPrefillMs).toFixed(2)} of its prefill's`);
  line(`warm prefill, ${tokens - POLICY_TOKENS} rows`, `${best.warmPrefillMs.toFixed(0)} ms`);
  verdict("Safe, 1 pass", best.safeMs);
  verdict("Unsafe, 2 passes", best.safeMs + best.secondPassMs);
  verdict("Unsafe, 3 passes", best.safeMs + best.secondPassMs + best.thirdPassMs);
}

const given = process.argv[2];
const folder = given ?? (await mkdtemp(join(tmpdir(), "qwen3guard-bench-")));
try {
  if (given === undefined) await writeRandomCheckpoint(folder, "0.6B", 0);
  // Before anything is timed: one thread and two, whole and in pieces must give the same bits.
  const hashes = [];
  for (const threads of [1, 2]) {
    const model = await Qwen3.load(folder, { engine: "wasm", threads });
    const session = model.newSession();
    if (threads === 2) session.forward(PROMPT.slice(0, 20), { logits: 0 });
    hashes.push(session.forward(PROMPT.slice(session.position, 40)).join());
    model.close();
  }
  if (hashes[0] !== hashes[1])
    throw new Error("bench: expected the same bits with one thread and two, got different ones");
  console.log(`Node ${process.version}, best of ${ROUNDS} rounds`);
  const one = await measure(folder, 1);
  const two = await measure(folder, 2);
  console.log(
    "two threads against one".padEnd(34),
    `prefill ${(one.prefillMs / two.prefillMs).toFixed(2)}, decode ${(one.decodeMs / two.decodeMs).toFixed(2)}`,
  );
} finally {
  if (given === undefined) await rm(folder, { recursive: true, force: true });
}
