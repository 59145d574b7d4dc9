/**
 * Qwen3 in float64, as naive as possible: the truth to compare a float32 forward pass with where no golden can be kept.
 * It shares no arithmetic with src/: other loops, the engine's own exp, pow, sin and cos.
 */

import type { Qwen3 } from "../../src/model/qwen3.ts";
import type { FloatBuffer, Matrix } from "../../src/tensor/engine.ts";
import { ReferenceMatrix } from "../../src/tensor/reference-engine.ts";
import { Tensor } from "../../src/tensor/tensor.ts";

/** The weights as the checkpoint stores them. The model must run on the reference engine and not be quantised. */
function tensorOf(matrix: Matrix): Tensor {
  if (!(matrix instanceof ReferenceMatrix && matrix.tensor instanceof Tensor))
    throw new TypeError("expected a model on the reference engine");
  return matrix.tensor;
}

/** y [rows, outputs] = x [rows, inputs] times weight^T. */
function linear(x: Float64Array, weight: Matrix): Float64Array {
  const [outputs, inputs] = weight.shape;
  const tensor = tensorOf(weight);
  const rows = x.length / inputs;
  const y = new Float64Array(rows * outputs);
  for (let n = 0; n < outputs; n++) {
    const w = tensor.rows(n, n + 1).toFloat32();
    for (let t = 0; t < rows; t++) {
      let [s0, s1] = [0, 0];
      const row = t * inputs;
      for (let k = 0; k < inputs - 1; k += 2) {
        s0 += x[row + k] * w[k];
        s1 += x[row + k + 1] * w[k + 1];
      }
      if (inputs % 2 === 1) s0 += x[row + inputs - 1] * w[inputs - 1];
      y[t * outputs + n] = s0 + s1;
    }
  }
  return y;
}

/** RMSNorm of each row of gain's length. */
function norm(x: Float64Array, { data: gain }: FloatBuffer, eps: number): Float64Array {
  const size = gain.length;
  const y = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += size) {
    let squares = 0;
    for (let i = 0; i < size; i++) squares += x[row + i] ** 2;
    for (let i = 0; i < size; i++) y[row + i] = (x[row + i] / Math.sqrt(squares / size + eps)) * gain[i];
  }
  return y;
}

/** Logits of the last of `ids`, [vocab]. The rotary angle is float32, as in the reference. */
export function float64Logits({ config, weights }: Qwen3, ids: readonly number[]): Float64Array {
  const { hiddenSize, numHeads: H, numKvHeads: K, headDim: D, rmsNormEps: eps, ropeTheta } = config;
  const T = ids.length;
  const f = Math.fround;
  const rotate = (x: Float64Array, heads: number): Float64Array =>
    x.map((value, i) => {
      const d = i % D;
      const t = Math.floor(i / (heads * D));
      const frequency = f(1 / f(ropeTheta ** f((2 * (d % (D / 2))) / D)));
      const angle = f(t * frequency);
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      return d < D / 2 ? value * c - x[i + D / 2] * s : value * c + x[i - D / 2] * s;
    });
  const add = (a: Float64Array, b: Float64Array): Float64Array => a.map((value, i) => value + b[i]);

  let x: Float64Array = new Float64Array(T * hiddenSize);
  ids.forEach((id, t) => {
    x.set(
      tensorOf(weights.embedTokens)
        .rows(id, id + 1)
        .toFloat32(),
      t * hiddenSize,
    );
  });
  for (const layer of weights.layers) {
    const h = norm(x, layer.inputLayernorm, eps);
    const q = rotate(norm(linear(h, layer.qProj), layer.qNorm, eps), H);
    const k = rotate(norm(linear(h, layer.kProj), layer.kNorm, eps), K);
    const v = linear(h, layer.vProj);
    const attended = new Float64Array(T * H * D);
    for (let t = 0; t < T; t++) {
      for (let head = 0; head < H; head++) {
        const kv = Math.floor(head / (H / K));
        const at = (tensor: Float64Array, position: number, heads: number, which: number): Float64Array =>
          tensor.subarray((position * heads + which) * D, (position * heads + which + 1) * D);
        const query = at(q, t, H, head);
        const scores = Array.from(
          { length: t + 1 },
          (_, j) => at(k, j, K, kv).reduce((sum, value, d) => sum + value * query[d], 0) / Math.sqrt(D),
        );
        const max = Math.max(...scores);
        const exps = scores.map(score => Math.exp(score - max));
        const total = exps.reduce((a, b) => a + b);
        const out = at(attended, t, H, head);
        exps.forEach((e, j) => {
          at(v, j, K, kv).forEach((value, d) => {
            out[d] += (e / total) * value;
          });
        });
      }
    }
    x = add(x, linear(attended, layer.oProj));
    const m = norm(x, layer.postAttentionLayernorm, eps);
    const up = linear(m, layer.upProj);
    const act = linear(m, layer.gateProj).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]);
    x = add(x, linear(act, layer.downProj));
  }
  const last = norm(x, weights.norm, eps).subarray((T - 1) * hiddenSize);
  return linear(last, weights.lmHead);
}
