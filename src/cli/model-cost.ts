/** What a model's passes cost at least: bytes to read for a step, products and sums for a prompt. */

import type { Qwen3Config } from "../model/config.ts";
import type { Qwen3 } from "../model/qwen3.ts";

/**
 * Bytes of weights that one step reads: all matrices and the output head; of an embedding table of its own one row,
 * which does not count.
 */
export function stepBytes({ weights }: Qwen3): number {
  const matrices = weights.layers.flatMap(l => [l.qProj, l.kProj, l.vProj, l.oProj, l.gateProj, l.upProj, l.downProj]);
  return [...matrices, weights.lmHead].reduce((sum, matrix) => sum + matrix.byteLength, 0);
}

/** Products and sums of a prompt's matrices and attention. The last layer and the head run for one position only. */
export function prefillFlops(config: Qwen3Config, tokens: number): number {
  const { hiddenSize, intermediateSize, numHiddenLayers, numHeads, numKvHeads, headDim, vocabSize } = config;
  const keysAndValues = 2 * hiddenSize * 2 * numKvHeads * headDim;
  const others = 2 * hiddenSize * (2 * numHeads * headDim + 3 * intermediateSize);
  const attention = (rows: number, seen: number): number => 4 * numHeads * headDim * rows * seen;
  const layers = (numHiddenLayers - 1) * (tokens * (keysAndValues + others) + attention(tokens, tokens / 2));
  const last = tokens * keysAndValues + others + attention(1, tokens);
  return layers + last + 2 * hiddenSize * vocabSize;
}
