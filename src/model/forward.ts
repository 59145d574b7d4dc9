/**
 * The Qwen3 forward pass: ids -> logits, one path for prefill and step. Start reading here.
 *
 * Shapes: T ids of this call, at positions `start` ... `start + T - 1`; P = start + T positions in the cache; H query heads, K key/value
 * heads, D head size. Everything is row-major float32. The block is that of the Qwen3 report (arXiv:2505.09388): pre-norm, grouped-query
 * attention with RMSNorm on each head of q and k, rotary positions, SwiGLU.
 */

import { addInto, attentionInto, embedInto, linearInto, rmsNormInto, ropeInto, siluMulInto } from "../tensor/reference.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Qwen3Config } from "./config.ts";
import type { LayerCache } from "./kv-cache.ts";
import type { RotaryTable } from "./rope.ts";
import type { GuardHeadWeights, Qwen3Weights } from "./weights.ts";

/** What all sessions of one model share. */
export interface ForwardModel {
  readonly config: Qwen3Config;
  readonly weights: Qwen3Weights;
  readonly rope: RotaryTable;
}

export type LogitsWanted = "last" | "all" | "none";

/** Receives an intermediate by name. `data` is the engine's own buffer: copy it to keep it. */
export type TapListener = (name: string, data: Float32Array, shape: readonly number[]) => void;

/**
 * Runs `ids` behind the `start` positions that `cache` holds, and appends their keys and values to it (the caller made room).
 * Returns the logits wanted: [vocab], [T, vocab] or nothing.
 */
export function forward(
  model: ForwardModel,
  cache: readonly LayerCache[],
  start: number,
  ids: ArrayLike<number>,
  wanted: LogitsWanted,
  tap?: TapListener,
): Float32Array {
  const { config, weights, rope } = model;
  const { hiddenSize, intermediateSize, numHeads: H, numKvHeads: K, headDim: D, rmsNormEps: eps, vocabSize } = config;
  const T = ids.length;

  const x = new Float32Array(T * hiddenSize); // the residual stream
  const h = new Float32Array(T * hiddenSize); // what a block reads, and what it writes back
  const q = new Float32Array(T * H * D);
  const attended = new Float32Array(T * H * D);
  const gate = new Float32Array(T * intermediateSize);
  const up = new Float32Array(T * intermediateSize);

  // 1. Look the ids up.
  embedInto(x, weights.embedTokens, ids); // [T, hidden]
  tap?.("embed", x, [T, hiddenSize]);

  for (const [i, layer] of weights.layers.entries()) {
    // 2. Normalise, and project to queries, keys and values. Keys and values go straight to their rows of the cache.
    rmsNormInto(h, x, layer.inputLayernorm, T, eps);
    tap?.(`layers.${i}.attn_norm`, h, [T, hiddenSize]);
    const k = cache[i].keys.subarray(start * K * D, (start + T) * K * D);
    const v = cache[i].values.subarray(start * K * D, (start + T) * K * D);
    linearInto(q, h, T, layer.qProj); // [T, H * D]
    linearInto(k, h, T, layer.kProj); // [T, K * D]
    linearInto(v, h, T, layer.vProj); // [T, K * D]

    // 3. Normalise each head of q and k, and rotate it to its position.
    rmsNormInto(q, q, layer.qNorm, T * H, eps);
    rmsNormInto(k, k, layer.kNorm, T * K, eps);
    ropeInto(q, T, H, D, rope.cos, rope.sin, start);
    ropeInto(k, T, K, D, rope.cos, rope.sin, start);
    tap?.(`layers.${i}.q`, q, [T, H, D]);
    tap?.(`layers.${i}.k`, k, [T, K, D]);
    tap?.(`layers.${i}.v`, v, [T, K, D]);

    // 4. Attend to all positions so far, project back, and add to the stream.
    attentionInto(attended, q, cache[i].keys, cache[i].values, { rows: T, start, numHeads: H, numKvHeads: K, headDim: D });
    tap?.(`layers.${i}.attn`, attended, [T, H * D]);
    linearInto(h, attended, T, layer.oProj); // [T, hidden]
    addInto(x, h, T * hiddenSize);
    tap?.(`layers.${i}.attn_residual`, x, [T, hiddenSize]);

    // 5. The gated MLP: down(silu(gate) * up), added to the stream.
    rmsNormInto(h, x, layer.postAttentionLayernorm, T, eps);
    tap?.(`layers.${i}.mlp_norm`, h, [T, hiddenSize]);
    linearInto(gate, h, T, layer.gateProj); // [T, intermediate]
    linearInto(up, h, T, layer.upProj); // [T, intermediate]
    siluMulInto(gate, up, T * intermediateSize);
    tap?.(`layers.${i}.mlp_act`, gate, [T, intermediateSize]);
    linearInto(h, gate, T, layer.downProj); // [T, hidden]
    addInto(x, h, T * hiddenSize);
    tap?.(`layers.${i}.out`, x, [T, hiddenSize]);
  }

  // 6. The final norm, and the logits of the rows that are wanted.
  rmsNormInto(x, x, weights.norm, T, eps);
  tap?.("final_norm", x, [T, hiddenSize]);
  if (tap && weights.guardHeads) {
    guardHead(x, T, weights.guardHeads.response, "", eps, tap);
    guardHead(x, T, weights.guardHeads.query, "query_", eps, tap);
  }
  if (wanted === "none") return new Float32Array(0);
  const rows = wanted === "all" ? T : 1;
  const logits = new Float32Array(rows * vocabSize);
  linearInto(logits, x.subarray((T - rows) * hiddenSize), rows, weights.lmHead); // [rows, vocab]
  if (wanted === "all") tap?.("logits", logits, [rows, vocabSize]);
  return logits;
}

/** The classification heads of a Stream checkpoint on T hidden states: pre-projection, norm, then level and category scores. */
function guardHead(x: Float32Array, T: number, head: GuardHeadWeights, prefix: string, eps: number, tap: TapListener): void {
  const project = (input: Float32Array, weight: Tensor): Float32Array => {
    const out = new Float32Array(T * weight.shape[0]);
    linearInto(out, input, T, weight);
    return out;
  };
  const inner = project(x, head.pre); // [T, inner]
  rmsNormInto(inner, inner, head.layernorm, T, eps);
  tap(`${prefix}risk_level`, project(inner, head.riskLevel), [T, head.riskLevel.shape[0]]);
  tap(`${prefix}category`, project(inner, head.category), [T, head.category.shape[0]]);
}
