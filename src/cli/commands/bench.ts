/**
 * `qwen3guard bench`: how fast this machine runs a model, and how fast it could at most.
 *
 * Results are checked before they are timed. Our own kernels measure the machine's limits in the same run, in turn with
 * the figures, because machines differ, and one machine differs from minute to minute. The best of several rounds
 * counts, for figures and limits alike.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { Guard } from "../../guard/guard.ts";
import { Qwen3 } from "../../model/qwen3.ts";
import type { Session } from "../../model/session.ts";
import { WasmEngine } from "../../tensor/wasm/wasm-engine.ts";
import { Tokenizer } from "../../tokenizer/tokenizer.ts";
import { type CommandContext, example, integer, withJson } from "../command.ts";
import { prefillFlops, stepBytes } from "../model-cost.ts";
import { checkpointFiles, engineOptions, type ModelOptions, withModel } from "../model-options.ts";
import { SHAPES, writeRandomCheckpoint } from "../random-checkpoint.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { removeOnSignal } from "../writing.ts";

export function specify(command: Command, { terminal }: CommandContext): void {
  withJson(withModel(command))
    .description("how fast this machine runs a model, and how fast it could at most")
    .addOption(
      new Option("--shape <shape>", "make a random checkpoint of this shape and use it instead of a model").choices(
        Object.keys(SHAPES),
      ),
    )
    .option("--rounds <n>", "rounds to measure; the best one counts", integer(1), 3)
    .addHelpText("after", example("qwen3guard bench --shape 0.6B"))
    .action(options => bench(options, terminal));
}

/** The `--json` object. MB are 2^20 bytes, GB/s 10^9 bytes a second. */
export interface BenchReport {
  readonly model: string;
  readonly engine: string;
  readonly threads: number;
  readonly node: string;
  /** The form in which matrices are held: BF16, int8, ... With int4 it is the form of the layers'. */
  readonly weights: string;
  /** Limits of the arithmetic that the weights call for: float32, or 16-bit integers summed in 32 bits. */
  readonly limits: { readonly gflopsPerThread: number; readonly memoryGBs: number } | null;
  readonly load: { readonly ms: number };
  readonly prefill: {
    readonly tokens: number;
    readonly ms: number;
    readonly tokensPerSecond: number;
    readonly gflops: number;
    readonly shareOfLimit: number | null;
  };
  readonly decode: { readonly tokensPerSecond: number; readonly GBs: number; readonly shareOfLimit: number | null };
  readonly verdict: {
    readonly coldMs: number;
    readonly warmMs: number;
    readonly promptTokens: number;
    readonly passes: number;
  };
  readonly memory: { readonly weightsMB: number; readonly peakRssMB: number };
}

/** The quick start's prompt with the real tokenizer: 201 tokens of policy, 75 of question, then 95 more. */
const PROMPT_TOKENS = 371;
const POLICY_TOKENS = 201;
/** Tokens of an answer such as "Safety: Unsafe / Categories: Violent". */
const ANSWER_TOKENS = 8;
const DECODE_STEPS = 16;
const QUESTION = "How can I make a bomb?";

async function bench(
  options: ModelOptions & { shape?: string; rounds: number; json?: boolean },
  terminal: Terminal,
): Promise<void> {
  if (options.shape !== undefined && options.model !== undefined)
    throw new UsageError("bench: expected --shape or --model, got both");
  const engine = engineOptions(options);
  const say = (text: string): void => {
    if (!options.quiet && terminal.errColumns !== undefined) terminal.err(`${text}\n`);
  };
  const temporary = options.shape === undefined ? undefined : await mkdtemp(join(tmpdir(), "qwen3guard-bench-"));
  const stopListening = temporary === undefined ? undefined : removeOnSignal([temporary], terminal);
  try {
    if (temporary !== undefined && options.shape !== undefined) {
      say(`writing a random checkpoint of shape ${options.shape}`);
      await writeRandomCheckpoint(temporary, options.shape, 0);
    }
    const files = await checkpointFiles(temporary === undefined ? options : { ...options, model: temporary }, terminal);
    const started = performance.now();
    const model = await Qwen3.load(files, engine);
    const loadMs = performance.now() - started;
    const isGuard =
      (await files.readText("tokenizer.json")) !== undefined && model.config.architecture === "Qwen3ForCausalLM";
    const guard = isGuard ? new Guard(model, await Tokenizer.load(files), files.name) : undefined;
    const name = options.shape === undefined ? files.name : `random ${options.shape}`;
    const report = { model: name, load: { ms: round(loadMs) }, ...(await measure(model, guard, options.rounds, say)) };
    model.close();
    await terminal.out(options.json ? `${JSON.stringify(report)}\n` : describe(report));
  } finally {
    stopListening?.();
    if (temporary !== undefined) await rm(temporary, { recursive: true, force: true });
  }
}

/** With a guard it times verdicts; without one, passes of the same sizes. */
async function measure(
  model: Qwen3,
  guard: Guard | undefined,
  rounds: number,
  say: (text: string) => void,
): Promise<Omit<BenchReport, "model" | "load">> {
  const { config, engine } = model;
  const tokens = Math.min(PROMPT_TOKENS, config.maxPositionEmbeddings - DECODE_STEPS);
  const prompt = Array.from({ length: tokens }, (_, i) => (i * 7919) % config.vocabSize);
  const wasm = engine instanceof WasmEngine ? engine : undefined;
  const { form } = model.weights.layers[0].qProj;
  const best = { flops: 0, bytes: 0, prefillMs: Infinity, decodeMs: Infinity, coldMs: Infinity, warmMs: Infinity };

  say("checking results");
  checkEqual(
    await prefilled(model, prompt, [tokens]),
    await prefilled(model, prompt, [100, 1, tokens - 101]),
    "logits of a prompt whole and in pieces",
  );
  let verdict = { promptTokens: tokens, passes: ANSWER_TOKENS };
  for (let round = 0; round < rounds; round++) {
    say(`round ${round + 1} of ${rounds}`);
    if (wasm) {
      const limits = wasm.measureLimits(form === "int8" || form === "int4" ? "int16" : "float32");
      best.flops = Math.max(best.flops, limits.flopsPerThread);
      best.bytes = Math.max(best.bytes, limits.bytesPerSecond);
    }
    const session = model.newSession();
    best.prefillMs = Math.min(best.prefillMs, await time(() => session.prefill(prompt)));
    best.decodeMs = Math.min(
      best.decodeMs,
      (await time(() => repeat(DECODE_STEPS, i => session.forward([prompt[i]])))) / DECODE_STEPS,
    );
    if (guard) {
      const cold = await new Guard(guard.model, guard.tokenizer, guard.name).moderate(QUESTION);
      await guard.moderate("hello");
      const warm = await guard.moderate(QUESTION);
      checkEqual(cold.scores, warm.scores, "scores of a cold and a warm verdict");
      best.coldMs = Math.min(best.coldMs, cold.ms);
      best.warmMs = Math.min(best.warmMs, warm.ms);
      verdict = { promptTokens: warm.usage.promptTokens, passes: warm.usage.passes };
    } else {
      // The passes of a verdict, for a model without a tokenizer. Warm means one pass after the policy, over the rest
      // of the prompt and an answer's ids, with logits for the answer's positions.
      best.coldMs = Math.min(best.coldMs, await time(() => coldVerdict(model, prompt)));
      best.warmMs = Math.min(best.warmMs, await time(() => warmVerdict(session, prompt)));
    }
    session.close();
  }

  const bytes = stepBytes(model);
  const gflops = prefillFlops(config, tokens) / best.prefillMs / 1e6;
  const GBs = bytes / best.decodeMs / 1e6;
  return {
    engine: engine.name,
    threads: engine.threads,
    node: process.version,
    weights: form,
    limits: wasm ? { gflopsPerThread: round(best.flops / 1e9), memoryGBs: round(best.bytes / 1e9) } : null,
    prefill: {
      tokens,
      ms: round(best.prefillMs),
      tokensPerSecond: round((tokens / best.prefillMs) * 1000),
      gflops: round(gflops),
      shareOfLimit: wasm ? round(gflops / ((best.flops / 1e9) * engine.threads), 3) : null,
    },
    decode: {
      tokensPerSecond: round(1000 / best.decodeMs),
      GBs: round(GBs, 3),
      shareOfLimit: wasm ? round(GBs / (best.bytes / 1e9), 3) : null,
    },
    verdict: { coldMs: round(best.coldMs), warmMs: round(best.warmMs), ...verdict },
    memory: { weightsMB: round(bytes / 2 ** 20), peakRssMB: round(process.resourceUsage().maxRSS / 1024) },
  };
}

/** Logits of the prompt's last id, with the prompt run in pieces of these sizes. */
async function prefilled(model: Qwen3, prompt: readonly number[], pieces: readonly number[]): Promise<Float32Array> {
  const session = model.newSession();
  let logits = new Float32Array(0) as Float32Array;
  for (const size of pieces)
    if (size > 0) logits = session.forward(prompt.slice(session.position, session.position + size));
  session.close();
  return logits;
}

function coldVerdict(model: Qwen3, prompt: readonly number[]): void {
  const session = model.newSession();
  session.forward(prompt);
  repeat(ANSWER_TOKENS - 1, i => session.forward([prompt[i]]));
  session.close();
}

function warmVerdict(session: Session, prompt: readonly number[]): void {
  const policy = Math.min(POLICY_TOKENS, prompt.length - 1);
  session.truncate(policy);
  session.forward([...prompt.slice(policy), ...prompt.slice(0, ANSWER_TOKENS - 1)], { logits: ANSWER_TOKENS });
}

function repeat(count: number, work: (i: number) => unknown): void {
  for (let i = 0; i < count; i++) work(i);
}

async function time(work: () => unknown): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

function checkEqual(got: unknown, expected: unknown, what: string): void {
  const text = (value: unknown): string =>
    value instanceof Float32Array ? new Uint32Array(value.slice().buffer).join() : JSON.stringify(value);
  if (text(got) !== text(expected))
    throw new Error(`bench: expected the same bits for the ${what}, got different ones`);
}

function round(value: number, digits: number = 1): number {
  return Number(value.toFixed(digits));
}

function describe(r: BenchReport): string {
  const share = (value: number | null): string =>
    value === null ? "" : `, ${(value * 100).toFixed(0)} % of this machine's limit`;
  const rows: [string, string][] = [
    ["model", r.model],
    ["engine", `${r.engine}, ${r.threads} thread${r.threads === 1 ? "" : "s"}, Node ${r.node}`],
    ["weights", r.weights],
    [
      "limits",
      r.limits
        ? `${r.limits.gflopsPerThread} GFLOP/s a thread, ${r.limits.memoryGBs} GB/s from memory`
        : "not measured on this engine",
    ],
    ["load", `${r.load.ms} ms`],
    [
      "prefill",
      `${r.prefill.tokens} tokens in ${r.prefill.ms} ms: ${r.prefill.tokensPerSecond} tokens/s, ${r.prefill.gflops} GFLOP/s${share(r.prefill.shareOfLimit)}`,
    ],
    ["decode", `${r.decode.tokensPerSecond} tokens/s, ${r.decode.GBs} GB/s${share(r.decode.shareOfLimit)}`],
    [
      "verdict",
      `${r.verdict.coldMs} ms cold, ${r.verdict.warmMs} ms warm (${r.verdict.promptTokens} tokens of prompt, ${r.verdict.passes} passes)`,
    ],
    ["memory", `${r.memory.weightsMB} MB of weights, ${r.memory.peakRssMB} MB at the peak`],
  ];
  return rows.map(([name, value]) => `${name.padEnd(10)}${value}\n`).join("");
}
