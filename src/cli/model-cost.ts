/** What a model's passes cost: the bytes that a step reads, and the operations that a prompt takes. */

import type { Qwen3Config } from "../model/config.ts";
import type { Qwen3 } from "../model/qwen3.ts";

/**
 * Bytes of weights that one step reads: all matrices and the output head. From an embedding table that is not also the
 * head it reads one row, which is not counted.
 */
export function stepBytes({ weights }: Qwen3): number {
  const matrices = weights.layers.flatMap(l => [l.qProj, l.kProj, l.vProj, l.oProj, l.gateProj, l.upProj, l.downProj]);
  return [...matrices, weights.lmHead].reduce((sum, matrix) => sum + matrix.byteLength, 0);
}

/** Multiplications and additions in a prompt's matrices and attention. The head, and all of the last layer but its keys
 * and values, run for one position only. */
export function prefillFlops(config: Qwen3Config, tokens: number): number {
  const { hiddenSize, intermediateSize, numHiddenLayers, numHeads, numKvHeads, headDim, vocabSize } = config;
  const keysAndValues = 2 * hiddenSize * 2 * numKvHeads * headDim;
  const others = 2 * hiddenSize * (2 * numHeads * headDim + 3 * intermediateSize);
  const attention = (rows: number, seen: number): number => 4 * numHeads * headDim * rows * seen;
  const layers = (numHiddenLayers - 1) * (tokens * (keysAndValues + others) + attention(tokens, tokens / 2));
  const last = tokens * keysAndValues + others + attention(1, tokens);
  return layers + last + 2 * hiddenSize * vocabSize;
}
