/**
 * Log probabilities from logits: of the chosen id, and of the likeliest ids. In float64, over the whole vocabulary,
 * before any temperature.
 */

export interface TokenLogprob {
  readonly id: number;
  readonly logprob: number;
}

export interface ChosenLogprob extends TokenLogprob {
  /** In descending order; of equal ones, the smaller id first. */
  readonly top: readonly TokenLogprob[];
}

export function chosenLogprob(logits: Float32Array, id: number, topCount: number): ChosenLogprob {
  let max = -Infinity;
  for (const logit of logits) if (logit > max) max = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  const logSum = max + Math.log(sum);
  const logprob = (i: number): TokenLogprob => ({ id: i, logprob: logits[i] - logSum });
  return { ...logprob(id), top: likeliest(logits, topCount).map(logprob) };
}

/** By insertion: `count` is small, and most ids of the vocabulary are below the last entry. */
function likeliest(logits: Float32Array, count: number): number[] {
  const ids: number[] = [];
  for (let id = 0; id < logits.length && count > 0; id++) {
    if (ids.length === count && !(logits[id] > logits[ids[count - 1]])) continue;
    let at = ids.length;
    while (at > 0 && logits[id] > logits[ids[at - 1]]) at--;
    ids.splice(at, 0, id);
    if (ids.length > count) ids.pop();
  }
  return ids;
}
