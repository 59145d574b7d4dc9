/**
 * The Qwen3 forward pass: ids -> logits, or -> the scores of a Stream guard's heads; one path for prefill and step. Start reading here.
 *
 * Shapes: T ids of this call, at positions `start` ... `start + T - 1`, behind what the cache holds; H query heads, K key/value heads, D head
 * size. Everything is row-major float32. The block is that of the Qwen3 report (arXiv:2505.09388): pre-norm, grouped-query attention with
 * RMSNorm on each head of q and k, rotary positions, SwiGLU. What each operation computes: tensor/reference.ts.
 */

import type { Engine, FloatBuffer, KvCache } from "../tensor/engine.ts";
import type { Qwen3Config } from "./config.ts";
import type { RotaryTable } from "./rope.ts";
import type { GuardHeadWeights, Qwen3Weights } from "./weights.ts";

/** What all sessions of one model share. */
export interface ForwardModel {
  readonly engine: Engine;
  readonly config: Qwen3Config;
  readonly weights: Qwen3Weights;
  readonly rope: RotaryTable;
}

/** Receives an intermediate by name. `data` is the engine's own memory: copy it to keep it. */
export type TapListener = (name: string, data: Float32Array, shape: readonly number[]) => void;

/** What a pair of classification heads says at T positions, before any softmax. */
export interface GuardScores {
  readonly riskLevel: Float32Array; // [T, risk levels]
  readonly category: Float32Array; // [T, categories]
}

/** From ids to the final norm. Returns the hidden states [rows, hidden] of the last `rows` positions: with a tap all, else the `wanted` ones. */
function hiddenStates(
  model: ForwardModel,
  cache: KvCache,
  start: number,
  ids: ArrayLike<number>,
  wanted: number,
  tap?: TapListener,
): { x: FloatBuffer; rows: number } {
  const { config, engine, weights, rope } = model;
  const { hiddenSize, intermediateSize, numHeads: H, numKvHeads: K, headDim: D, rmsNormEps: eps } = config;
  const T = ids.length;

  const x = engine.buffer(T, hiddenSize); // the residual stream
  const h = engine.buffer(T, hiddenSize); // what a block reads, and what it writes back
  const q = engine.buffer(T, H * D);
  const k = engine.buffer(T, K * D);
  const v = engine.buffer(T, K * D);
  const attended = engine.buffer(T, H * D);
  const gate = engine.buffer(T, intermediateSize);
  const up = engine.buffer(T, intermediateSize);
  const show = (name: string, buffer: FloatBuffer, ...shape: number[]): void => tap?.(name, buffer.data, shape);

  // 1. Look the ids up.
  engine.embedInto(x, weights.embedTokens, ids); // [T, hidden]
  show("embed", x, T, hiddenSize);

  let rows = T; // positions that go on: all, until the last layer
  for (const [i, layer] of weights.layers.entries()) {
    // 2. Normalise, and project to keys and values, for every position.
    engine.rmsNormInto(h, x, layer.inputLayernorm, T, eps);
    show(`layers.${i}.attn_norm`, h, T, hiddenSize);
    engine.linearInto(k, h, 0, T, layer.kProj); // [T, K * D]
    engine.linearInto(v, h, 0, T, layer.vProj); // [T, K * D]
    engine.rmsNormInto(k, k, layer.kNorm, T * K, eps);
    engine.ropeInto(k, T, K, D, rope.cos, rope.sin, start);
    cache.store(i, start, T, k, v);

    // 3. In the last layer only the positions whose logits are wanted go on.
    if (i === weights.layers.length - 1 && !tap) {
      rows = wanted;
      if (rows === 0) return { x, rows };
      x.data.copyWithin(0, (T - rows) * hiddenSize, T * hiddenSize);
    }

    // 4. Queries: project, normalise each head, rotate it to its position.
    const first = T - rows;
    engine.linearInto(q, h, first, rows, layer.qProj); // [rows, H * D]
    engine.rmsNormInto(q, q, layer.qNorm, rows * H, eps);
    engine.ropeInto(q, rows, H, D, rope.cos, rope.sin, start + first);
    show(`layers.${i}.q`, q, T, H, D);
    show(`layers.${i}.k`, k, T, K, D);
    show(`layers.${i}.v`, v, T, K, D);

    // 5. Attend to all positions so far, project back, and add to the stream.
    cache.attentionInto(attended, q, i, start + first, rows);
    show(`layers.${i}.attn`, attended, T, H * D);
    engine.linearInto(h, attended, 0, rows, layer.oProj); // [rows, hidden]
    engine.addInto(x, h, rows * hiddenSize);
    show(`layers.${i}.attn_residual`, x, T, hiddenSize);

    // 6. The gated MLP: down(silu(gate) * up), added to the stream.
    engine.rmsNormInto(h, x, layer.postAttentionLayernorm, rows, eps);
    show(`layers.${i}.mlp_norm`, h, T, hiddenSize);
    engine.linearInto(gate, h, 0, rows, layer.gateProj); // [rows, intermediate]
    engine.linearInto(up, h, 0, rows, layer.upProj); // [rows, intermediate]
    engine.siluMulInto(gate, up, rows * intermediateSize);
    show(`layers.${i}.mlp_act`, gate, T, intermediateSize);
    engine.linearInto(h, gate, 0, rows, layer.downProj); // [rows, hidden]
    engine.addInto(x, h, rows * hiddenSize);
    show(`layers.${i}.out`, x, T, hiddenSize);
  }

  // 7. The final norm.
  engine.rmsNormInto(x, x, weights.norm, rows, eps);
  show("final_norm", x, T, hiddenSize);
  return { x, rows };
}

/**
 * Runs `ids` behind the `start` positions that `cache` holds, and stores their keys and values in it (the caller made room). Returns the
 * logits of the last `wanted` positions, [wanted, vocab]. With a tap, every position goes through every step; without, the last layer leaves
 * out what no wanted logit depends on.
 */
export function forward(
  model: ForwardModel,
  cache: KvCache,
  start: number,
  ids: ArrayLike<number>,
  wanted: number,
  tap?: TapListener,
): Float32Array {
  const { engine, config, weights } = model;
  return engine.scope(() => {
    const { x, rows } = hiddenStates(model, cache, start, ids, wanted, tap);
    if (tap && weights.guardHeads) {
      for (const [prefix, head] of [
        ["", weights.guardHeads.response],
        ["query_", weights.guardHeads.query],
      ] as const) {
        const { riskLevel, category } = guardHead(model, x, rows, head);
        tap(`${prefix}risk_level`, riskLevel.data, [rows, head.riskLevel.shape[0]]);
        tap(`${prefix}category`, category.data, [rows, head.category.shape[0]]);
      }
    }
    if (wanted === 0) return new Float32Array(0);

    // 8. The logits that are wanted.
    const logits = engine.buffer(wanted, config.vocabSize);
    engine.linearInto(logits, x, rows - wanted, wanted, weights.lmHead); // [wanted, vocab]
    if (wanted === ids.length) tap?.("logits", logits.data, [wanted, config.vocabSize]);
    return logits.data.slice();
  });
}

/** The same pass with a pair of guard heads in the place of the output head: their scores at every one of the T positions. */
export function classify(model: ForwardModel, cache: KvCache, start: number, ids: ArrayLike<number>, head: GuardHeadWeights): GuardScores {
  return model.engine.scope(() => {
    const { x, rows } = hiddenStates(model, cache, start, ids, ids.length);
    const { riskLevel, category } = guardHead(model, x, rows, head);
    return { riskLevel: riskLevel.data.slice(), category: category.data.slice() };
  });
}

/** A pair of classification heads of a Stream checkpoint on T hidden states: pre-projection, norm, then level and category scores. */
function guardHead(
  { engine, config }: ForwardModel,
  x: FloatBuffer,
  T: number,
  head: GuardHeadWeights,
): { riskLevel: FloatBuffer; category: FloatBuffer } {
  const [innerSize] = head.pre.shape;
  const inner = engine.buffer(T, innerSize);
  const riskLevel = engine.buffer(T, head.riskLevel.shape[0]);
  const category = engine.buffer(T, head.category.shape[0]);
  engine.linearInto(inner, x, 0, T, head.pre); // [T, inner]
  engine.rmsNormInto(inner, inner, head.layernorm, T, config.rmsNormEps);
  engine.linearInto(riskLevel, inner, 0, T, head.riskLevel); // [T, risk levels]
  engine.linearInto(category, inner, 0, T, head.category); // [T, categories]
  return { riskLevel, category };
}
