/**
 * The weights of one checkpoint, named as in the checkpoint, and checked before the first byte is read.
 *
 * In: an open safetensors checkpoint, the config, and the engine that will compute. Out: `Qwen3Weights`, immutable and
 * shared by all sessions. Matrices keep the dtype they are stored in and are widened when they are used, or are
 * quantised (quantised-weights.ts). The small norm gains are widened once, here.
 */

import type { SafetensorsCheckpoint } from "../checkpoint/safetensors-sharded.ts";
import { type Dtype, WEIGHT_DTYPES, type WeightDtype } from "../tensor/dtype.ts";
import type { Engine, FloatBuffer, Matrix } from "../tensor/engine.ts";
import { MemoryError } from "../tensor/memory-error.ts";
import { type QuantisedScheme, quantisedByteLength } from "../tensor/quantised.ts";
import type { Qwen3Config } from "./config.ts";
import { savedScheme, savedSource, savedTensors, schemeFor } from "./quantised-weights.ts";

/** One transformer block. Matrices are [outputs, inputs]. */
export interface LayerWeights {
  readonly inputLayernorm: FloatBuffer; // [hidden]
  readonly qProj: Matrix; // [heads * headDim, hidden]
  readonly kProj: Matrix; // [kvHeads * headDim, hidden]
  readonly vProj: Matrix; // [kvHeads * headDim, hidden]
  readonly qNorm: FloatBuffer; // [headDim]
  readonly kNorm: FloatBuffer; // [headDim]
  readonly oProj: Matrix; // [hidden, heads * headDim]
  readonly postAttentionLayernorm: FloatBuffer; // [hidden]
  readonly gateProj: Matrix; // [intermediate, hidden]
  readonly upProj: Matrix; // [intermediate, hidden]
  readonly downProj: Matrix; // [hidden, intermediate]
}

/**
 * One of the two pairs of classification heads of a Stream checkpoint: for the answer, or for the question ("query").
 */
export interface GuardHeadWeights {
  readonly pre: Matrix; // risk_level_category_pre [inner, hidden]
  readonly layernorm: FloatBuffer; // risk_level_category_layernorm [inner]
  readonly riskLevel: Matrix; // risk_level_head [risk levels, inner]
  readonly category: Matrix; // category_head [categories, inner]
}

export interface Qwen3Weights {
  readonly embedTokens: Matrix; // [vocab, hidden]
  readonly layers: readonly LayerWeights[];
  readonly norm: FloatBuffer; // [hidden]
  /** The output head [vocab, hidden]. It is the embedding table itself if the config ties them. */
  readonly lmHead: Matrix;
  readonly guardHeads?: { readonly response: GuardHeadWeights; readonly query: GuardHeadWeights };
}

/**
 * Every tensor that the config calls for, with its shape, in the order of the computation. Tools that write a
 * checkpoint use it too.
 */
export function expectedTensors(config: Qwen3Config): Map<string, readonly number[]> {
  const { vocabSize, hiddenSize, intermediateSize, numHeads, numKvHeads, headDim } = config;
  const shapes = new Map<string, readonly number[]>();
  shapes.set("model.embed_tokens.weight", [vocabSize, hiddenSize]);
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const layer = `model.layers.${i}`;
    shapes.set(`${layer}.input_layernorm.weight`, [hiddenSize]);
    shapes.set(`${layer}.self_attn.q_proj.weight`, [numHeads * headDim, hiddenSize]);
    shapes.set(`${layer}.self_attn.k_proj.weight`, [numKvHeads * headDim, hiddenSize]);
    shapes.set(`${layer}.self_attn.v_proj.weight`, [numKvHeads * headDim, hiddenSize]);
    shapes.set(`${layer}.self_attn.q_norm.weight`, [headDim]);
    shapes.set(`${layer}.self_attn.k_norm.weight`, [headDim]);
    shapes.set(`${layer}.self_attn.o_proj.weight`, [hiddenSize, numHeads * headDim]);
    shapes.set(`${layer}.post_attention_layernorm.weight`, [hiddenSize]);
    shapes.set(`${layer}.mlp.gate_proj.weight`, [intermediateSize, hiddenSize]);
    shapes.set(`${layer}.mlp.up_proj.weight`, [intermediateSize, hiddenSize]);
    shapes.set(`${layer}.mlp.down_proj.weight`, [hiddenSize, intermediateSize]);
  }
  shapes.set("model.norm.weight", [hiddenSize]);
  if (!config.tieWordEmbeddings) shapes.set("lm_head.weight", [vocabSize, hiddenSize]);
  const heads = config.guardHeads;
  if (heads) {
    for (const [prefix, levels, categories] of [
      ["", heads.responseRiskLevels, heads.responseCategories],
      ["query_", heads.queryRiskLevels, heads.queryCategories],
    ] as const) {
      shapes.set(`${prefix}risk_level_category_pre.weight`, [heads.innerSize, hiddenSize]);
      shapes.set(`${prefix}risk_level_category_layernorm.weight`, [heads.innerSize]);
      shapes.set(`${prefix}risk_level_head.weight`, [levels.length, heads.innerSize]);
      shapes.set(`${prefix}category_head.weight`, [categories.length, heads.innerSize]);
    }
  }
  return shapes;
}

/**
 * Checks every tensor's presence, shape and dtype, before anything is read. Throws RangeError, naming the tensor and
 * both shapes. Tensors that the config does not call for are left alone (a tied checkpoint may store its head).
 */
export function checkShapes(
  checkpoint: Pick<SafetensorsCheckpoint, "name" | "tensors" | "metadata">,
  config: Qwen3Config,
): void {
  const saved = savedScheme(checkpoint);
  const check = (name: string, shape: readonly number[], dtypes: readonly Dtype[]): void => {
    const info = checkpoint.tensors.get(name);
    const where = `${checkpoint.name}: tensor "${name}"`;
    if (info === undefined) throw new RangeError(`${where}: expected shape [${shape}], got no such tensor`);
    if (String(info.shape) !== String(shape))
      throw new RangeError(`${where}: expected shape [${shape}], got [${info.shape}]`);
    if (!dtypes.includes(info.dtype))
      throw new RangeError(`${where}: expected dtype ${dtypes.join(", ")}, got ${info.dtype}`);
  };
  for (const [name, shape] of expectedTensors(config)) {
    const scheme = saved && schemeFor(name, shape, saved);
    if (scheme)
      for (const tensor of savedTensors(name, shape, scheme)) check(tensor.name, tensor.shape, [tensor.dtype]);
    else check(name, shape, WEIGHT_DTYPES);
  }
}

/** The dtype of a tensor that `checkShapes` has accepted. */
export function storedDtype(checkpoint: Pick<SafetensorsCheckpoint, "tensors">, name: string): WeightDtype {
  return checkpoint.tensors.get(name)!.dtype as WeightDtype;
}

/** How many bytes the weights take in memory, held under `scheme` or as they are stored. */
export function weightBytes(
  checkpoint: Pick<SafetensorsCheckpoint, "tensors">,
  config: Qwen3Config,
  scheme: QuantisedScheme | undefined,
): number {
  let bytes = 0;
  for (const [name, shape] of expectedTensors(config)) {
    const held = scheme && schemeFor(name, shape, scheme);
    const [outputs, inputs] = shape;
    if (shape.length === 1) bytes += 4 * outputs;
    else if (held) bytes += quantisedByteLength(held, outputs, inputs);
    else bytes += checkpoint.tensors.get(name)?.byteLength ?? 0;
  }
  return bytes;
}

/**
 * Reads a checkpoint that `checkShapes` has accepted. Matrices are held under `scheme`, or as they are stored. Throws
 * MemoryError where there is not enough memory for them, with both numbers, before anything is read.
 */
export async function loadWeights(
  checkpoint: SafetensorsCheckpoint,
  config: Qwen3Config,
  engine: Engine,
  scheme?: QuantisedScheme,
): Promise<Qwen3Weights> {
  try {
    return await readWeights(checkpoint, config, engine, scheme);
  } catch (error) {
    const lighter = savedScheme(checkpoint) === undefined ? LIGHTER[scheme ?? "checkpoint"] : undefined;
    if (!(error instanceof MemoryError) || lighter === undefined) throw error;
    const megabytes = Math.ceil(weightBytes(checkpoint, config, lighter) / 2 ** 20);
    throw new MemoryError(`${error.message}; ${megabytes} MB suffice with --weights ${lighter}`, { cause: error });
  }
}

/** For each form of weights, the next one that takes less memory. */
const LIGHTER: Readonly<Record<string, QuantisedScheme | undefined>> = { checkpoint: "int8", int8: "int4" };

async function readWeights(
  checkpoint: SafetensorsCheckpoint,
  config: Qwen3Config,
  engine: Engine,
  scheme: QuantisedScheme | undefined,
): Promise<Qwen3Weights> {
  engine.checkRoom(weightBytes(checkpoint, config, scheme), `the weights of ${checkpoint.name}`);
  const isSaved = savedScheme(checkpoint) !== undefined;
  const shapes = expectedTensors(config);
  const matrix = async (name: string): Promise<Matrix> => {
    const tensor = `${name}.weight`;
    const [outputs, inputs] = shapes.get(tensor)!;
    const shape = [outputs, inputs] as const;
    const held = scheme && schemeFor(tensor, shape, scheme);
    if (held && isSaved) return engine.loadQuantised(await savedSource(checkpoint, tensor, shape, held));
    const readInto = (target: Uint8Array, byteOffset: number): Promise<void> =>
      checkpoint.readInto(tensor, target, byteOffset);
    return engine.loadMatrix({ name, dtype: storedDtype(checkpoint, tensor), shape, readInto }, held);
  };
  const gain = async (name: string): Promise<FloatBuffer> => {
    const values = (await checkpoint.read(`${name}.weight`)).toFloat32();
    const buffer = engine.buffer(values.length);
    buffer.data.set(values);
    return buffer;
  };
  const guardHead = async (prefix: string): Promise<GuardHeadWeights> => ({
    pre: await matrix(`${prefix}risk_level_category_pre`),
    layernorm: await gain(`${prefix}risk_level_category_layernorm`),
    riskLevel: await matrix(`${prefix}risk_level_head`),
    category: await matrix(`${prefix}category_head`),
  });

  const embedTokens = await matrix("model.embed_tokens");
  const layers: LayerWeights[] = [];
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const layer = `model.layers.${i}`;
    layers.push({
      inputLayernorm: await gain(`${layer}.input_layernorm`),
      qProj: await matrix(`${layer}.self_attn.q_proj`),
      kProj: await matrix(`${layer}.self_attn.k_proj`),
      vProj: await matrix(`${layer}.self_attn.v_proj`),
      qNorm: await gain(`${layer}.self_attn.q_norm`),
      kNorm: await gain(`${layer}.self_attn.k_norm`),
      oProj: await matrix(`${layer}.self_attn.o_proj`),
      postAttentionLayernorm: await gain(`${layer}.post_attention_layernorm`),
      gateProj: await matrix(`${layer}.mlp.gate_proj`),
      upProj: await matrix(`${layer}.mlp.up_proj`),
      downProj: await matrix(`${layer}.mlp.down_proj`),
    });
  }
  return {
    embedTokens,
    layers,
    norm: await gain("model.norm"),
    lmHead: config.tieWordEmbeddings ? embedTokens : await matrix("lm_head"),
    ...(config.guardHeads ? { guardHeads: { response: await guardHead(""), query: await guardHead("query_") } } : {}),
  };
}
