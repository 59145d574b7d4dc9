/**
 * `qwen3guard inspect`: what a checkpoint is and how much memory it will need, from its headers alone. It reads no
 * weights and needs no tokenizer.
 */

import type { Command } from "commander";
import { type CheckpointFiles, readJson } from "../../checkpoint/files.ts";
import { SafetensorsCheckpoint } from "../../checkpoint/safetensors-sharded.ts";
import type { GuardHeadsConfig, Qwen3Config } from "../../model/config.ts";
import { savedScheme, schemeToHold } from "../../model/quantised-weights.ts";
import { readConfig } from "../../model/qwen3.ts";
import { checkShapes, expectedTensors, weightBytes } from "../../model/weights.ts";
import type { WEIGHTS } from "../../tensor/engine-choice.ts";
import { QUANTISED_SCHEMES, type QuantisedScheme } from "../../tensor/quantised.ts";
import { availableMemoryBytes } from "../../tensor/wasm/worker-start.node.ts";
import { type CommandContext, example, withJson } from "../command.ts";
import { checkpointFiles, type ModelOptions, withModel } from "../model-options.ts";
import { type Terminal, UsageError } from "../terminal.ts";

export function specify(command: Command, { terminal }: CommandContext): void {
  withJson(withModel(command))
    .description("what a checkpoint is: config, tensors, dtypes, bytes, memory it will need")
    .argument("[dir]")
    .option("--tensors", "list every tensor")
    .addHelpText("after", example("qwen3guard inspect ./Qwen3Guard-Gen-0.6B"))
    .action((dir, options) => printInspection(dir, options, terminal));
}

/** The `--json` object. Sizes in bytes unless the name says MB (2^20 bytes). */
export interface Inspection {
  readonly name: string;
  readonly variant: "Gen" | "Stream";
  readonly config: Qwen3Config;
  readonly parameters: number;
  readonly tensors: {
    readonly count: number;
    readonly bytes: number;
    readonly dtypes: Readonly<Record<string, { count: number; bytes: number }>>;
  };
  /** The scheme, if `quantize` wrote the checkpoint. */
  readonly savedAs: QuantisedScheme | null;
  readonly files: readonly string[];
  readonly hasTokenizer: boolean;
  readonly hasChatTemplate: boolean;
  readonly memory: {
    /** Size as stored. */
    readonly weightsMB: number;
    /** Size for each choice of `--weights`. */
    readonly choicesMB: Readonly<Record<string, number>>;
    readonly freeMB: number;
    readonly kvCacheBytesPerToken: number;
    readonly kvCacheFullContextMB: number;
  };
}

async function printInspection(
  dir: string | undefined,
  options: ModelOptions & { json?: boolean; tensors?: boolean },
  terminal: Terminal,
): Promise<void> {
  if (dir !== undefined && options.model !== undefined)
    throw new UsageError("inspect: expected a folder or --model, got both");
  const files = await checkpointFiles(dir === undefined ? options : { ...options, model: dir }, terminal);
  const config = await readConfig(files);
  const checkpoint = await SafetensorsCheckpoint.open(files);
  try {
    checkShapes(checkpoint, config);
    const inspection = await inspect(files, config, checkpoint);
    const list = options.tensors
      ? Array.from(checkpoint.tensors.values(), ({ name, dtype, shape, byteLength }) => ({
          name,
          dtype,
          shape,
          byteLength,
        }))
      : undefined;
    if (options.json)
      await terminal.out(`${JSON.stringify(list ? { ...inspection, tensorList: list } : inspection)}\n`);
    else
      await terminal.out(
        describe(inspection) +
          (list ? `\n${list.map(t => `  ${t.dtype.padEnd(5)} [${t.shape.join(", ")}]  ${t.name}\n`).join("")}` : ""),
      );
  } finally {
    await checkpoint.close();
  }
}

async function inspect(
  files: CheckpointFiles,
  config: Qwen3Config,
  checkpoint: SafetensorsCheckpoint,
): Promise<Inspection> {
  const infos = [...checkpoint.tensors.values()];
  const dtypes: Record<string, { count: number; bytes: number }> = {};
  for (const info of infos) {
    dtypes[info.dtype] ??= { count: 0, bytes: 0 };
    dtypes[info.dtype].count++;
    dtypes[info.dtype].bytes += info.byteLength;
  }
  const saved = savedScheme(checkpoint);
  const bytes = infos.reduce((sum, info) => sum + info.byteLength, 0);
  const tokenizerConfig = (await readJson(files, "tokenizer_config.json")) as { chat_template?: unknown } | undefined;
  const kvCacheBytesPerToken =
    2 * config.numHiddenLayers * config.numKvHeads * config.headDim * Float32Array.BYTES_PER_ELEMENT;
  return {
    name: files.name,
    variant: config.guardHeads ? "Stream" : "Gen",
    config,
    parameters: (saved ? [...expectedTensors(config).values()] : infos.map(info => info.shape)).reduce(
      (sum, shape) => sum + elements(shape),
      0,
    ),
    tensors: { count: infos.length, bytes, dtypes },
    savedAs: saved ?? null,
    files: checkpoint.files.map(file => file.name.slice(files.name.length + 1)),
    hasTokenizer: (await files.readText("tokenizer.json")) !== undefined,
    hasChatTemplate:
      tokenizerConfig?.chat_template !== undefined || (await files.readText("chat_template.jinja")) !== undefined,
    memory: {
      weightsMB: megabytes(weightBytes(checkpoint, config, saved)),
      choicesMB: Object.fromEntries(
        saved
          ? [[saved, megabytes(weightBytes(checkpoint, config, saved))]]
          : ["checkpoint", ...QUANTISED_SCHEMES].map(form => [
              form,
              megabytes(weightBytes(checkpoint, config, schemeToHold(checkpoint, form as (typeof WEIGHTS)[number]))),
            ]),
      ),
      freeMB: megabytes(availableMemoryBytes()),
      kvCacheBytesPerToken,
      kvCacheFullContextMB: megabytes(kvCacheBytesPerToken * config.maxPositionEmbeddings),
    },
  };
}

function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function megabytes(bytes: number): number {
  return Math.round((bytes / 2 ** 20) * 10) / 10;
}

/** The labels that the heads of a Stream guard tell apart, in the order of their classes. */
function headRows(heads: GuardHeadsConfig): [string, string][] {
  return [
    ["heads", `inner size ${heads.innerSize}`],
    ["  query", `${heads.queryRiskLevels.join(", ")}; ${heads.queryCategories.join(", ")}`],
    ["  response", `${heads.responseRiskLevels.join(", ")}; ${heads.responseCategories.join(", ")}`],
  ];
}

function describe(i: Inspection): string {
  const c = i.config;
  const rows: [string, string][] = [
    ["checkpoint", i.name],
    ["variant", `${i.variant} (${c.architecture})`],
    ["parameters", i.parameters.toLocaleString("en-US")],
    ["layers", `${c.numHiddenLayers} of hidden size ${c.hiddenSize}, MLP ${c.intermediateSize}`],
    ["attention", `${c.numHeads} query and ${c.numKvHeads} key/value heads of ${c.headDim}`],
    ["vocabulary", `${c.vocabSize} rows, output head ${c.tieWordEmbeddings ? "tied to the embeddings" : "of its own"}`],
    ["context", `${c.maxPositionEmbeddings} tokens`],
    ["stop ids", c.stopIds.join(", ") || "none"],
    ...(c.guardHeads ? headRows(c.guardHeads) : []),
    ["tensors", `${i.tensors.count} in ${i.files.join(", ")}`],
    [
      "dtypes",
      Object.entries(i.tensors.dtypes)
        .map(([dtype, d]) => `${dtype} ${d.count} (${megabytes(d.bytes)} MB)`)
        .join(", "),
    ],
    ["tokenizer", i.hasTokenizer ? `yes, ${i.hasChatTemplate ? "with" : "without"} a chat template` : "none"],
    [
      "weights",
      Object.entries(i.memory.choicesMB)
        .map(
          ([form, size]) =>
            `${size} MB ${form === "checkpoint" || form === i.savedAs ? `as they are stored${i.savedAs ? `, ${i.savedAs}` : ""}` : `with --weights ${form}`}`,
        )
        .join(", "),
    ],
    [
      "memory",
      `cache ${i.memory.kvCacheBytesPerToken} bytes a token, ${i.memory.kvCacheFullContextMB} MB at full context; ${i.memory.freeMB} MB are free`,
    ],
  ];
  return rows.map(([name, value]) => `${name.padEnd(12)}${value}\n`).join("");
}
