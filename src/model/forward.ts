/**
 * The Qwen3 forward pass: ids -> logits, or -> the scores of a Stream guard's heads; one path for prefill and step.
 * Start reading here.
 *
 * Shapes: T ids of this call, at positions `start` ... `start + T - 1`, after what the cache holds; H query heads, K
 * key/value heads, D head size. Everything is row-major float32. The block is that of the Qwen3 report
 * (arXiv:2505.09388): pre-norm, grouped-query attention with RMSNorm on each head of q and k, rotary positions, SwiGLU.
 * What each operation computes: tensor/reference.ts, and tensor/quantised.ts for weights in int8 or int4.
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

/** What one call runs. */
export interface Pass {
  /** Holds the keys and values of earlier positions, and has room for those of `ids`. */
  readonly cache: KvCache;
  /** The position of the first id. */
  readonly start: number;
  readonly ids: ArrayLike<number>;
  /** How many of the last positions to return. */
  readonly wanted: number;
  readonly tap?: TapListener | undefined;
}

/** Receives an intermediate by name. `data` is the engine's own memory: copy it to keep it. */
export type TapListener = (name: string, data: Float32Array, shape: readonly number[]) => void;

/** The scores of a pair of classification heads at T positions, before any softmax. */
export interface GuardScores {
  readonly riskLevel: Float32Array; // [T, risk levels]
  readonly category: Float32Array; // [T, categories]
}

/**
 * From ids to the final norm: the hidden states [rows, hidden] of the last `wanted` positions. With a tap every
 * position goes through every step, and all T are returned.
 */
function hiddenStates(model: ForwardModel, { cache, start, ids, wanted, tap }: Pass): FloatBuffer {
  const { config, engine, weights, rope } = model;
  const { hiddenSize, intermediateSize, numHeads: H, numKvHeads: K, headDim: D, rmsNormEps: eps } = config;
  const T = ids.length;
  const show = (name: string, { data, shape }: FloatBuffer): void => tap?.(name, data, shape);

  let x = engine.buffer(T, hiddenSize); // the residual stream
  let h = engine.buffer(T, hiddenSize); // what a block reads, and what it writes back
  let q = engine.buffer(T, H, D);
  const k = engine.buffer(T, K, D);
  const v = engine.buffer(T, K, D);
  let attended = engine.buffer(T, H * D);
  let gate = engine.buffer(T, intermediateSize);
  let up = engine.buffer(T, intermediateSize);

  // 1. Look the ids up.
  engine.embedInto(x, weights.embedTokens, ids); // [T, hidden]
  show("embed", x);

  let position = start; // of the first row of x: the last layer drops the rows that nobody wants
  for (const [i, layer] of weights.layers.entries()) {
    // 2. Normalise, and project to keys and values, for every position.
    engine.rmsNormInto(h, x, layer.inputLayernorm, eps);
    show(`layers.${i}.attn_norm`, h);
    engine.linearInto(k, h, layer.kProj); // [T, K, D]
    engine.linearInto(v, h, layer.vProj); // [T, K, D]
    engine.rmsNormInto(k, k, layer.kNorm, eps);
    engine.ropeInto(k, rope, start);
    cache.store(i, start, k, v);

    // 3. In the last layer only the wanted positions go on.
    if (i === weights.layers.length - 1 && !tap) {
      const dropped = T - wanted;
      if (wanted === 0) return x.tail(dropped);
      [x, h, q, attended, gate, up] = [x, h, q, attended, gate, up].map(buffer => buffer.tail(dropped));
      position += dropped;
    }

    // 4. Queries: project, normalise each head, rotate it to its position.
    engine.linearInto(q, h, layer.qProj); // [rows, H, D]
    engine.rmsNormInto(q, q, layer.qNorm, eps);
    engine.ropeInto(q, rope, position);
    show(`layers.${i}.q`, q);
    show(`layers.${i}.k`, k);
    show(`layers.${i}.v`, v);

    // 5. Attend to all positions so far, project back, and add to the stream.
    cache.attentionInto(attended, q, i, position); // [rows, H * D]
    show(`layers.${i}.attn`, attended);
    engine.linearInto(h, attended, layer.oProj); // [rows, hidden]
    engine.addInto(x, h);
    show(`layers.${i}.attn_residual`, x);

    // 6. The gated MLP: down(silu(gate) * up), added to the stream.
    engine.rmsNormInto(h, x, layer.postAttentionLayernorm, eps);
    show(`layers.${i}.mlp_norm`, h);
    engine.linearInto(gate, h, layer.gateProj); // [rows, intermediate]
    engine.linearInto(up, h, layer.upProj); // [rows, intermediate]
    engine.siluMulInto(gate, up);
    show(`layers.${i}.mlp_act`, gate);
    engine.linearInto(h, gate, layer.downProj); // [rows, hidden]
    engine.addInto(x, h);
    show(`layers.${i}.out`, x);
  }

  // 7. The final norm.
  engine.rmsNormInto(x, x, weights.norm, eps);
  show("final_norm", x);
  return x;
}

/**
 * Runs a pass, and stores its keys and values in the cache. Returns the logits of the wanted positions, [wanted,
 * vocab]. Throws RangeError for logits that are not finite.
 */
export function forward(model: ForwardModel, pass: Pass): Float32Array {
  const { engine, config, weights } = model;
  const { ids, wanted, tap } = pass;
  const endScope = engine.scope();
  try {
    const x = hiddenStates(model, pass);
    if (tap && weights.guardHeads) {
      for (const [prefix, head] of [
        ["", weights.guardHeads.response],
        ["query_", weights.guardHeads.query],
      ] as const) {
        const { riskLevel, category } = guardHead(model, x, head);
        tap(`${prefix}risk_level`, riskLevel.data, riskLevel.shape);
        tap(`${prefix}category`, category.data, category.shape);
      }
    }
    if (wanted === 0) return new Float32Array(0);

    // 8. The logits of the wanted positions.
    const logits = engine.buffer(wanted, config.vocabSize);
    engine.linearInto(logits, x.tail(x.shape[0] - wanted), weights.lmHead); // [wanted, vocab]
    if (wanted === ids.length) tap?.("logits", logits.data, logits.shape);
    return finite(logits.data.slice(), "logits");
  } finally {
    endScope();
  }
}

/**
 * The same pass with a pair of guard heads in place of the output head. Returns their scores at the wanted positions.
 * Throws RangeError for scores that are not finite.
 */
export function classify(model: ForwardModel, pass: Pass, head: GuardHeadWeights): GuardScores {
  const endScope = model.engine.scope();
  try {
    const { riskLevel, category } = guardHead(model, hiddenStates(model, pass), head);
    return {
      riskLevel: finite(riskLevel.data.slice(), "risk_level"),
      category: finite(category.data.slice(), "category"),
    };
  } finally {
    endScope();
  }
}

/**
 * A Stream checkpoint's pair of classification heads over hidden states x [T, hidden]: projection and norm, which both
 * share, then the scores of risk levels and categories.
 */
function guardHead(
  { engine, config }: ForwardModel,
  x: FloatBuffer,
  head: GuardHeadWeights,
): { riskLevel: FloatBuffer; category: FloatBuffer } {
  const [T] = x.shape;
  const inner = engine.buffer(T, head.pre.shape[0]);
  const riskLevel = engine.buffer(T, head.riskLevel.shape[0]);
  const category = engine.buffer(T, head.category.shape[0]);
  engine.linearInto(inner, x, head.pre); // [T, inner]
  engine.rmsNormInto(inner, inner, head.layernorm, config.rmsNormEps);
  engine.linearInto(riskLevel, inner, head.riskLevel); // [T, risk levels]
  engine.linearInto(category, inner, head.category); // [T, categories]
  return { riskLevel, category };
}

/** Throws RangeError for NaN and infinities. */
function finite(values: Float32Array, what: string): Float32Array {
  // A plain loop, because 150,000 calls of a function would add a millisecond to every token.
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) {
      throw new RangeError(`${what}: expected finite numbers, got ${values[i]} (the weights or the sums overflow)`);
    }
  }
  return values;
}
