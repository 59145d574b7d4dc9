/**
 * `qwen3guard inspect`: what a checkpoint is and what memory it will need, from its headers alone. Reads no weights and needs no tokenizer.
 */

import { type CheckpointFiles, readJson } from "../../model/checkpoint-files.ts";
import type { GuardHeadsConfig, Qwen3Config } from "../../model/config.ts";
import { readConfig } from "../../model/qwen3.ts";
import { checkShapes } from "../../model/weights.ts";
import type { TensorInfo } from "../../tensor/safetensors.ts";
import { SafetensorsCheckpoint } from "../../tensor/safetensors-sharded.ts";
import { checkpointFiles, type ModelOptions } from "../checkpoint-option.ts";
import { type Terminal, UsageError } from "../io.ts";

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
  readonly files: readonly string[];
  readonly hasTokenizer: boolean;
  readonly hasChatTemplate: boolean;
  readonly memory: { readonly weightsMB: number; readonly kvCacheBytesPerToken: number; readonly kvCacheFullContextMB: number };
}

export async function inspectCommand(
  dir: string | undefined,
  options: ModelOptions & { json?: boolean; tensors?: boolean },
  terminal: Terminal,
): Promise<void> {
  if (dir !== undefined && options.model !== undefined) throw new UsageError("inspect: expected a folder or --model, got both");
  const files = await checkpointFiles(dir === undefined ? options : { ...options, model: dir }, terminal);
  const config = await readConfig(files);
  const checkpoint = await SafetensorsCheckpoint.open(files);
  try {
    checkShapes(checkpoint, config);
    const inspection = await inspect(files, config, checkpoint);
    const list = options.tensors
      ? Array.from(checkpoint.tensors.values(), ({ name, dtype, shape, byteLength }) => ({ name, dtype, shape, byteLength }))
      : undefined;
    if (options.json) await terminal.out(`${JSON.stringify(list ? { ...inspection, tensorList: list } : inspection)}\n`);
    else
      await terminal.out(
        describe(inspection) + (list ? `\n${list.map(t => `  ${t.dtype.padEnd(5)} [${t.shape.join(", ")}]  ${t.name}\n`).join("")}` : ""),
      );
  } finally {
    await checkpoint.close();
  }
}

async function inspect(files: CheckpointFiles, config: Qwen3Config, checkpoint: SafetensorsCheckpoint): Promise<Inspection> {
  const infos = [...checkpoint.tensors.values()];
  const dtypes: Record<string, { count: number; bytes: number }> = {};
  for (const info of infos) {
    dtypes[info.dtype] ??= { count: 0, bytes: 0 };
    dtypes[info.dtype].count++;
    dtypes[info.dtype].bytes += info.byteLength;
  }
  const bytes = infos.reduce((sum, info) => sum + info.byteLength, 0);
  const tokenizerConfig = (await readJson(files, "tokenizer_config.json")) as { chat_template?: unknown } | undefined;
  const kvCacheBytesPerToken = 2 * config.numHiddenLayers * config.numKvHeads * config.headDim * Float32Array.BYTES_PER_ELEMENT;
  return {
    name: files.name,
    variant: config.guardHeads ? "Stream" : "Gen",
    config,
    parameters: infos.reduce((sum, info) => sum + elements(info), 0),
    tensors: { count: infos.length, bytes, dtypes },
    files: checkpoint.files.map(file => file.name.slice(files.name.length + 1)),
    hasTokenizer: (await files.readText("tokenizer.json")) !== undefined,
    hasChatTemplate: tokenizerConfig?.chat_template !== undefined || (await files.readText("chat_template.jinja")) !== undefined,
    memory: {
      weightsMB: megabytes(bytes),
      kvCacheBytesPerToken,
      kvCacheFullContextMB: megabytes(kvCacheBytesPerToken * config.maxPositionEmbeddings),
    },
  };
}

function elements(info: TensorInfo): number {
  return info.shape.reduce((product, size) => product * size, 1);
}

function megabytes(bytes: number): number {
  return Math.round((bytes / 2 ** 20) * 10) / 10;
}

/** What the heads of a Stream guard tell apart, in the order of their classes. */
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
      "memory",
      `weights ${i.memory.weightsMB} MB; cache ${i.memory.kvCacheBytesPerToken} bytes a token, ${i.memory.kvCacheFullContextMB} MB at full context`,
    ],
  ];
  return rows.map(([name, value]) => `${name.padEnd(12)}${value}\n`).join("");
}
