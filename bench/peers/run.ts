/**
 * Measures other engines and this project's own on one machine, one checkpoint and the same ids:
 *
 *     npx node bench/peers/run.ts [--threads 2] [--rounds 3] [--work DIR] [--only NAME,NAME] [--base NAME]
 *
 * Out: on stdout one JSON line for each engine and round, then the table of medians; progress on stderr. README.md says
 * what is measured and how to read it. An engine that cannot be prepared or run is reported, and the others continue.
 *
 * Begin reading at `peers`, the list of engines: each names what must be prepared and the command that measures it.
 * Engines take turns, round by round, each time in a new process, so that a ratio compares runs of nearly the same
 * moment.
 */

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Job, Measurements } from "./measure.ts";

// The versions that the scripts were written against.
const TORCH_PACKAGES = ["torch==2.13.0", "transformers==5.23.0", "safetensors==0.8.0", "numpy", "gguf==0.19.0"];
const ONNX_PACKAGES = ["onnxruntime==1.32.0", "onnxruntime-genai==0.18.0", "onnx==1.23.2", "onnx-ir==1.1.0"];
const LLAMA_VERSION = "3.22.1";
const ORT_WEB_VERSION = "1.30.0";
const TIMEOUT_MS = 20 * 60 * 1000;

const { values: options } = parseArgs({
  options: {
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    work: { type: "string", default: join(tmpdir(), "qwen3guard-peers") },
    only: { type: "string", default: "" },
    base: { type: "string", default: "own" },
  },
});
const threads = positiveInteger("--threads", options.threads);
const rounds = positiveInteger("--rounds", options.rounds);
const work = resolve(options.work);
const inWork = (...names: string[]) => join(work, ...names);
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

const ids = Array.from({ length: 373 }, (_, i) => (i * 7919) % 150000);
const workload = {
  threads,
  promptIds: ids.slice(0, 371),
  steps: 10,
  prefixIds: ids.slice(0, 201),
  tailIds: ids.slice(201),
  maxPositions: 512,
};

/** Something to make once in the work folder: commands to run in order. */
interface Preparation {
  readonly name: string;
  readonly needs: readonly Preparation[];
  readonly commands: readonly (readonly string[])[];
}

const python = inWork("venv", "bin", "python");
const checkpoint: Preparation = {
  name: "checkpoint",
  needs: [],
  commands: [[process.execPath, here("../../tools/write-random-checkpoint.ts"), inWork("checkpoint")]],
};
const torchPackages: Preparation = {
  name: "torch-packages",
  needs: [],
  commands: [
    [process.env.QWEN3GUARD_PYTHON ?? "python3", "-m", "venv", inWork("venv")],
    [python, "-m", "pip", "install", "--quiet", ...TORCH_PACKAGES],
  ],
};
const onnxPackages: Preparation = {
  name: "onnx-packages",
  needs: [torchPackages],
  commands: [[python, "-m", "pip", "install", "--quiet", ...ONNX_PACKAGES]],
};
function npmInstall(folder: string, ...packages: string[]): string[] {
  return ["npm", "install", "--silent", "--ignore-scripts", "--prefix", inWork(folder), ...packages];
}

// On Linux npm would fetch the binaries for CUDA and Vulkan too, 700 MB, as optional dependencies: only the one for the
// CPU is named.
const llamaBinary =
  process.platform === "linux" ? ["--omit=optional", `@node-llama-cpp/linux-${process.arch}@${LLAMA_VERSION}`] : [];
const llamaPackages: Preparation = {
  name: "llama-packages",
  needs: [],
  commands: [npmInstall("npm", `node-llama-cpp@${LLAMA_VERSION}`, ...llamaBinary)],
};
const ortWebPackages: Preparation = {
  name: "ort-web-packages",
  needs: [],
  commands: [npmInstall("npm-ort-web", `onnxruntime-web@${ORT_WEB_VERSION}`)],
};

function gguf(type: string): Preparation {
  const command = [python, here("write_gguf.py"), inWork("checkpoint"), inWork(`${type}.gguf`), type];
  return { name: `gguf-${type}`, needs: [checkpoint, torchPackages, llamaPackages], commands: [command] };
}

/**
 * Made by onnxruntime-genai's own exporter. It gives logits for the last id only, as all engines here do. int8 has
 * activations in int8 too (level 4).
 */
function onnx(type: string): Preparation {
  const folders = ["-i", inWork("checkpoint"), "-o", inWork(`onnx-${type}`), "-c", inWork("onnx-cache")];
  const extra = ["--extra_options", "prune_lm_head=true", "accuracy_level=4"];
  const command = [python, "-m", "onnxruntime_genai.models.builder", ...folders, "-p", type, "-e", "cpu", ...extra];
  return { name: `onnx-${type}`, needs: [checkpoint, onnxPackages], commands: [command] };
}

const onnxFloat = onnx("fp32");
const onnxInt8 = onnx("int8");
function onnxDynamic(name: string, ...options: string[]): Preparation {
  const command = [python, here("quantize_onnx.py"), inWork("onnx-fp32"), inWork(name), ...options];
  return { name, needs: [onnxFloat], commands: [command] };
}

const onnxInt8Dynamic = onnxDynamic("onnx-int8-dynamic");
const onnxInt8Plain = onnxDynamic("onnx-int8-plain", "--plain-attention");

interface PeerProgram {
  readonly name: string;
  readonly needs: readonly Preparation[];
  /** The program, and its own part of the job. */
  readonly command: readonly string[];
  readonly path: string;
  readonly variant: string;
}

const WIDE = "--experimental-wasm-revectorize"; // the flag that `--wide` of the command line sets

function own(name: string, weights: string, ...flags: string[]): PeerProgram {
  const command = [process.execPath, ...flags, here("peer-own.ts")];
  return { name, needs: [checkpoint], command, path: inWork("checkpoint"), variant: weights };
}

/** The engines. Their ids are compared with those of torch-float32. */
const peers: PeerProgram[] = [
  own("own", "checkpoint"),
  own("own-wide", "checkpoint", WIDE),
  own("own-int8", "int8"),
  own("own-int8-wide", "int8", WIDE),
  own("own-int4", "int4"),
  ...["float32", "bfloat16"].map(type => ({
    name: `torch-${type}`,
    needs: [checkpoint, torchPackages],
    command: [python, here("peer_torch.py")],
    path: inWork("checkpoint"),
    variant: type,
  })),
  ...["f16", "q8_0", "q4_0"].map(type => ({
    name: `llama.cpp-${type}`,
    needs: [gguf(type)],
    command: [process.execPath, here("peer-llama.ts")],
    path: inWork(`${type}.gguf`),
    variant: inWork("npm"),
  })),
  ...[onnxFloat, onnxInt8, onnxInt8Dynamic].map(made => ({
    name: made.name.replace("onnx", "onnxruntime"),
    needs: [made],
    command: [python, here("peer_onnx.py")],
    path: inWork(made.name),
    variant: "",
  })),
  ...[onnxInt8, onnxInt8Plain].map(made => ({
    name: made.name.replace("onnx", "onnxruntime-web"),
    needs: [made, ortWebPackages],
    command: [process.execPath, here("peer-ort-web.ts")],
    path: inWork(made.name),
    variant: inWork("npm-ort-web"),
  })),
];

function positiveInteger(option: string, text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new RangeError(`${option}: expected a positive integer, got ${text}`);
  return Number(text);
}

/**
 * Runs a program, which must not contact a model hub or write files beside the scripts. Returns its stdout. Throws
 * Error with the end of its output.
 */
function run([program, ...args]: readonly string[]): string {
  const env = { ...process.env, HF_HUB_OFFLINE: "1", PYTHONDONTWRITEBYTECODE: "1" };
  const { stdout, stderr, status, signal, error } = spawnSync(program, args, {
    env,
    cwd: work,
    encoding: "utf8",
    timeout: TIMEOUT_MS,
    maxBuffer: 1 << 28,
  });
  if (error) throw error;
  if (status !== 0)
    throw new Error(
      `${program} ${args[0]}: expected exit status 0, got ${status ?? signal}: ${`${stdout}\n${stderr}`.trim().slice(-600)}`,
    );
  return stdout;
}

const failedPreparations = new Map<Preparation, unknown>();

/**
 * Makes what is needed unless an earlier run has; a marker says that it was finished. Throws the error of a command,
 * also if it failed earlier.
 */
function prepare(preparation: Preparation): void {
  const { name, needs, commands } = preparation;
  for (const needed of needs) prepare(needed);
  if (failedPreparations.has(preparation)) throw failedPreparations.get(preparation);
  const marker = inWork(`${name}.done`);
  if (existsSync(marker)) return;
  console.error(`preparing ${name}`);
  try {
    for (const command of commands) run(command);
  } catch (error) {
    failedPreparations.set(preparation, error);
    throw error;
  }
  writeFileSync(marker, "");
}

function measurePeer({ command, path, variant }: PeerProgram): Measurements {
  const job: Job = { ...workload, path, variant };
  const line = run([...command, JSON.stringify(job)])
    .split("\n")
    .findLast(text => text.startsWith("{"));
  if (line === undefined) throw new Error(`${command.join(" ")}: expected a JSON line, got none`);
  return JSON.parse(line) as Measurements;
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

type Metric = { [K in keyof Measurements]: Measurements[K] extends number ? K : never }[keyof Measurements];
type Rounds = Map<number, Measurements>;

/** How many of the answer's first ids equal the reference's, and whether the id of `best` does. */
function agreement(got: Measurements, reference: Measurements): string {
  const differs = got.ids.findIndex((id, i) => id !== reference.ids[i]);
  return `${differs < 0 ? got.ids.length : differs}/${got.ids.length}${got.bestId === reference.bestId ? ", best too" : ", best not"}`;
}

/** A row of medians, as [heading, cell]; ratios are taken within each round. */
function row(name: string, base: Rounds | undefined, runs: Rounds, reference: Measurements): string[][] {
  const all = [...runs.values()];
  const value = (metric: Metric, digits = 0) => median(all.map(result => result[metric])).toFixed(digits);
  const ratio = (metric: Metric) => {
    const ratios = [...runs].flatMap(([round, result]) => {
      const own = base?.get(round);
      return own ? [result[metric] / own[metric]] : [];
    });
    return ratios.length > 0 ? median(ratios).toFixed(2) : "-";
  };
  return [
    ["engine", name],
    ["quick start ms", value("quickStartMs")],
    [`/ ${options.base}`, ratio("quickStartMs")],
    ["best ms", value("bestMs")],
    [`/ ${options.base}`, ratio("bestMs")],
    ["prefill ms", value("prefillMs")],
    ["decode tokens/s", value("decodeTokensPerSecond", 1)],
    ["load ms", value("loadMs")],
    ["first quick start ms", value("firstQuickStartMs")],
    ["peak RSS MB", value("peakRssMb")],
    ["ids", agreement(all[0], reference)],
  ];
}

function printTable(results: ReadonlyMap<string, Rounds>): void {
  const averages = loadavg().map(load => load.toFixed(1));
  console.log(
    `\n${cpus()[0].model}, ${cpus().length} logical cores, ${(totalmem() / 2 ** 30).toFixed(0)} GiB; Node ${process.version}`,
  );
  console.log(
    [...TORCH_PACKAGES, ...ONNX_PACKAGES, `node-llama-cpp ${LLAMA_VERSION}`, `onnxruntime-web ${ORT_WEB_VERSION}`].join(
      ", ",
    ),
  );
  console.log(`${threads} threads, median of ${rounds}; load average at the end ${averages.join(" ")}\n`);
  const reference = (results.get("torch-float32") ?? results.values().next().value)?.values().next().value;
  if (!reference) return;
  const rows = Array.from(results, ([name, runs]) => row(name, results.get(options.base), runs, reference));
  console.log(`| ${rows[0].map(([heading]) => heading).join(" | ")} |\n|${"---|".repeat(rows[0].length)}`);
  for (const cells of rows) console.log(`| ${cells.map(([, cell]) => cell).join(" | ")} |`);
}

function main(): void {
  mkdirSync(work, { recursive: true });
  const names = peers.map(({ name }) => name);
  const only = options.only === "" ? names : options.only.split(",");
  const unknown = [...only, options.base].find(name => !names.includes(name));
  if (unknown !== undefined)
    throw new RangeError(`--only and --base: expected some of ${names.join(", ")}, got ${unknown}`);
  let left = peers.filter(({ name }) => only.includes(name));
  const failures: string[] = [];
  /** The peers for which `attempt` succeeded. */
  const without = (attempt: (peer: PeerProgram) => void) =>
    left.filter(peer => {
      try {
        attempt(peer);
        return true;
      } catch (error) {
        failures.push(`${peer.name}: not measured: ${error instanceof Error ? error.message : error}`);
        return false;
      }
    });

  left = without(peer => peer.needs.forEach(prepare));
  const results = new Map<string, Rounds>();
  for (let round = 1; round <= rounds; round++) {
    left = without(peer => {
      console.error(`round ${round}: ${peer.name}`);
      const load = loadavg()[0];
      const result = measurePeer(peer);
      console.log(JSON.stringify({ engine: peer.name, round, threads, loadAverage: load, ...result }));
      results.set(peer.name, (results.get(peer.name) ?? new Map()).set(round, result));
    });
  }

  printTable(results);
  for (const failure of failures) console.log(`\n${failure}`);
}

main();
