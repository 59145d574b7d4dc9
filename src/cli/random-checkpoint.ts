/**
 * Writes a checkpoint of seeded random weights in one of the shapes of the family, since these sizes are too large for
 * git. It has BF16 weights in one file, or in shards of at most 5 GB as the published ones have, and no tokenizer. The
 * same shape and seed give the same bytes everywhere.
 */

import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { safetensorsHeader, type TensorSpec } from "../checkpoint/safetensors-writer.ts";
import { parseConfig } from "../model/config.ts";
import { seededRandom } from "../model/sampling.ts";
import { expectedTensors } from "../model/weights.ts";
import { float32ToBf16 } from "../tensor/dtype.ts";
import { tensorByteLength } from "../tensor/tensor.ts";

/** As published: hidden size, layers, query heads, key/value heads, head size, MLP size, tied head. */
export const SHAPES: Record<string, readonly [number, number, number, number, number, number, boolean]> = {
  "0.6B": [1024, 28, 16, 8, 128, 3072, true],
  "4B": [2560, 36, 32, 8, 128, 9728, true],
  "8B": [4096, 36, 32, 8, 128, 12288, false],
};

const LEVELS = ["Safe", "Unsafe", "Controversial"];
/** The categories of the answer's head. The question's head has Jailbreak too. */
const CATEGORIES = [
  "Violent",
  "Sexual Content or Sexual Acts",
  "Suicide & Self-Harm",
  "Politically Sensitive Topics",
  "PII",
  "Copyright Violation",
  "Non-violent Illegal Acts",
  "Unethical Acts",
];

/**
 * What the config of a Stream checkpoint adds. 512 is the inner size of the heads in 0.6B; the larger shapes get the
 * same.
 */
function streamConfig(): Record<string, unknown> {
  const map = (labels: readonly string[]): Record<string, string> =>
    Object.fromEntries(labels.map((label, i) => [String(i), label]));
  return {
    architectures: ["Qwen3ForGuardModel"],
    guard_inner_size: 512,
    max_position_embeddings: 8192,
    query_category_map: map([...CATEGORIES, "Jailbreak"]),
    query_risk_level_map: map(LEVELS),
    response_category_map: map(CATEGORIES),
    response_risk_level_map: map(LEVELS),
  };
}

function shapeConfig(shape: string): Record<string, unknown> {
  const sizes = SHAPES[shape];
  if (!sizes) throw new RangeError(`--shape: expected ${Object.keys(SHAPES).join(", ")}, got ${shape}`);
  const [hidden, layers, heads, kvHeads, headDim, mlp, tied] = sizes;
  return {
    architectures: ["Qwen3ForCausalLM"],
    attention_bias: false,
    eos_token_id: 151645,
    head_dim: headDim,
    hidden_act: "silu",
    hidden_size: hidden,
    intermediate_size: mlp,
    max_position_embeddings: 32768,
    model_type: "qwen3",
    num_attention_heads: heads,
    num_hidden_layers: layers,
    num_key_value_heads: kvHeads,
    rms_norm_eps: 1e-6,
    rope_scaling: null,
    rope_theta: 1000000,
    sliding_window: null,
    tie_word_embeddings: tied,
    torch_dtype: "bfloat16",
    use_sliding_window: false,
    vocab_size: 151936,
  };
}

/**
 * Gains are near 1. Matrices are uniform with variance 1.4^2 / inputs, which keeps activations at a moderate size
 * through all layers.
 */
function* tensorBytes(shape: readonly number[], random: () => number): Generator<Uint8Array> {
  const isGain = shape.length === 1;
  const reach = isGain ? 0.2 : (1.4 * Math.sqrt(3)) / Math.sqrt(shape[shape.length - 1]);
  let left = shape.reduce((product, size) => product * size, 1);
  const chunk = new Uint16Array(1 << 20);
  while (left > 0) {
    const count = Math.min(left, chunk.length);
    for (let i = 0; i < count; i++)
      chunk[i] = float32ToBf16(Math.fround((isGain ? 1 : 0) + reach * (2 * random() - 1)));
    yield new Uint8Array(chunk.buffer, 0, 2 * count);
    left -= count;
  }
}

/** `shape` is a key of SHAPES. The folder is made if it does not exist. */
export async function writeRandomCheckpoint(
  folder: string,
  shape: string,
  seed: number,
  variant: "Gen" | "Stream" = "Gen",
): Promise<void> {
  const json = { ...shapeConfig(shape), ...(variant === "Stream" ? streamConfig() : {}) };
  const tensors = Array.from(expectedTensors(parseConfig(json, undefined, folder)), ([name, dims]) => ({
    name,
    shape: dims,
    dtype: "BF16" as const,
  }));
  const shards = inShards(tensors);
  const fileName = (i: number): string =>
    shards.length === 1
      ? "model.safetensors"
      : `model-${String(i + 1).padStart(5, "0")}-of-${String(shards.length).padStart(5, "0")}.safetensors`;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), `${JSON.stringify(json, null, 2)}\n`);
  if (shards.length > 1) {
    const weight_map = Object.fromEntries(shards.flatMap((shard, i) => shard.map(({ name }) => [name, fileName(i)])));
    const total_size = tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
    await writeFile(
      join(folder, "model.safetensors.index.json"),
      `${JSON.stringify({ metadata: { total_size }, weight_map }, null, 2)}\n`,
    );
  }
  const random = seededRandom(seed);
  for (const [i, shard] of shards.entries()) {
    const { header, order } = safetensorsHeader(shard, new Map([["format", "pt"]]));
    const file = await open(join(folder, fileName(i)), "w");
    try {
      await file.write(header);
      for (const tensor of order) for (const bytes of tensorBytes(tensor.shape, random)) await file.write(bytes);
    } finally {
      await file.close();
    }
  }
}

const MAX_SHARD_BYTES = 5e9;

function bytesOf({ dtype, shape }: TensorSpec): number {
  return tensorByteLength(dtype, shape)!;
}

/** Divides the tensors, in their order, into shards: a new one begins where the next tensor would not fit. */
export function inShards<T extends TensorSpec>(tensors: readonly T[], maxBytes: number = MAX_SHARD_BYTES): T[][] {
  const shards: T[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    if (bytes > 0 && bytes + bytesOf(tensor) > maxBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards[shards.length - 1].push(tensor);
    bytes += bytesOf(tensor);
  }
  return shards;
}
