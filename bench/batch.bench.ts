/**
 * A batch of many lines with the embedded guard: `node bench/batch.bench.ts [LINES]` (20,000 by default, which takes
 * about six minutes).
 *
 * The command is started, killed (SIGKILL) after a third of the lines, and continued with --resume, while its memory
 * and its lines a second are recorded. Then every id must be there once and in order. For comparison, in turn and on
 * the same lines: one library call after another, and the time of the arithmetic alone at the multiply-add rate of the
 * machine.
 */

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { prefillFlops } from "../src/cli/model-cost.ts";
import { Guard } from "../src/guard/guard.ts";
import type { WasmEngine } from "../src/tensor/wasm/wasm-engine.ts";
import { randomConversations } from "../test/guard/conversations.ts";

const LINES = Number(process.argv[2] ?? 20_000);
const MAIN = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "qwen3guard-batch-"));
const [input, output] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];

interface Watched {
  readonly seconds: number;
  /** MB, once a second, from the first verdict on. */
  readonly rss: number[];
  readonly code: number | null;
}

/** Runs the batch until it ends, or kills it after this many lines. */
async function watch(args: readonly string[], killAfterLines: number): Promise<Watched> {
  const child = spawn(process.execPath, [MAIN, "moderate", "--jsonl", input, "--out", output, "--quiet", ...args], {
    stdio: "inherit",
  });
  const ended = new Promise<number | null>(resolve => child.on("exit", resolve));
  const started = performance.now();
  const rss: number[] = [];
  const timer = setInterval(() => {
    const kilobytes = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1];
    rss.push(Math.round(Number(kilobytes) / 1024));
    if (linesOut() >= killAfterLines) child.kill("SIGKILL");
  }, 1000);
  const code = await ended;
  clearInterval(timer);
  return { seconds: (performance.now() - started) / 1000, rss, code };
}

/** Estimated from the size, since reading the whole file every second would cost too much. */
function linesOut(): number {
  return statSync(output, { throwIfNoEntry: false })?.size ? Math.floor((statSync(output).size / 850) | 0) : 0;
}

try {
  const conversations = [...randomConversations(1, LINES)];
  writeFileSync(
    input,
    conversations.map((messages, i) => `${JSON.stringify({ id: `line ${i}`, messages })}\n`).join(""),
  );

  const first = await watch([], LINES / 3);
  const kept = readFileSync(output, "utf8").split("\n").length - 1;
  const second = await watch(["--resume"], Infinity);
  const ids = readFileSync(output, "utf8")
    .trimEnd()
    .split("\n")
    .map(line => JSON.parse(line).id);
  if (ids.length !== LINES || ids.some((id, i) => id !== `line ${i}`))
    throw new Error("batch: expected every id once and in order");
  console.log(
    `killed after ${kept} lines, resumed: ${ids.length} lines, every id once and in order; exit ${second.code}`,
  );
  for (const [name, { rss }] of Object.entries({ first, second })) {
    const tail = rss.slice(5);
    console.log(
      `RSS of the ${name} run, MB: after 5 s ${rss[5]}, lowest ${Math.min(...tail)}, highest ${Math.max(...tail)}, last ${rss.at(-1)}`,
    );
  }
  const batchRate = (LINES - kept) / second.seconds;

  const guard = await Guard.load();
  const engine = guard.model.engine as WasmEngine;
  const sample = conversations.slice(kept, kept + 2000);
  const started = performance.now();
  let [rows, passes] = [0, 0];
  for (const messages of sample) {
    const { usage } = await guard.moderate(messages);
    rows += usage.promptTokens - usage.cachedTokens + usage.completionTokens - 1;
    passes += usage.passes;
  }
  const callRate = (1000 * sample.length) / (performance.now() - started);
  // The best of several measurements: a burst of a millisecond may find a thread asleep. At 500 tokens a row attends to
  // as many positions as these rows do.
  const flops = Math.max(...Array.from({ length: 10 }, () => engine.measureLimits().flopsPerThread));
  const limit = (flops * engine.threads) / (prefillFlops(guard.model.config, 500) / 500);
  guard.close();
  console.log(
    `lines a second: ${batchRate.toFixed(1)} as a batch, ${callRate.toFixed(1)} one library call after the other`,
  );
  console.log(`rows a line ${(rows / sample.length).toFixed(0)}, passes a line ${(passes / sample.length).toFixed(2)}`);
  console.log(
    `what multiply-add on ${engine.threads} threads would allow: ${((limit * sample.length) / rows).toFixed(1)} lines a second`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
