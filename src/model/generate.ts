/**
 * Generation: prompt ids -> answer ids, one at a time.
 *
 * In: a session (usually fresh), prompt ids, options. Out: a step for each id, with the logits it was chosen from, until a stop id, the
 * length limit or the end of the context.
 */

import { checkOptions } from "../tensor/options.ts";
import { createSampler, type SamplingOptions } from "./sampling.ts";
import { nextTurn, type Session } from "./session.ts";

export interface GenerateOptions extends SamplingOptions {
  /** At most this many ids, the stop id included; 128 by default, as the model card has it. */
  readonly maxNewTokens?: number;
  /** Ids that end the answer; the checkpoint's own by default. */
  readonly stopIds?: readonly number[];
  /** Heard between ids and between the pieces of a long prompt; generation then throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** One chosen id. `logits` [vocab] is what it was chosen from. */
export interface GenerationStep {
  readonly id: number;
  readonly logits: Float32Array;
}

/** "stop": a stop id was chosen; "length": the limit or the end of the context was reached. */
export type FinishReason = "stop" | "length";

/** A whole answer: its ids, the stop id included. */
export interface Generation {
  readonly ids: Int32Array;
  readonly finishReason: FinishReason;
}

/** After so long without one, the event loop gets a turn between two ids. (A long prompt gives it one between its pieces.) */
const TURN_MS = 20;

/**
 * Runs the prompt, then id after id. The last id is yielded before it is fed back, so an answer of n ids costs n passes and the session
 * holds all but the last. Throws RangeError for options out of range, a prompt that does not fit, or logits that are not finite.
 */
export async function* generateSteps(
  session: Session,
  prompt: ArrayLike<number>,
  maxPositions: number,
  options: GenerateOptions & { readonly stopIds: readonly number[] },
): AsyncGenerator<GenerationStep, FinishReason, undefined> {
  checkOptions(options, ["maxNewTokens", "stopIds", "signal", "temperature", "topK", "topP", "seed"], "generate");
  const { maxNewTokens = 128, stopIds, signal } = options;
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new RangeError(`maxNewTokens: expected an integer of at least 1, got ${maxNewTokens}`);
  }
  const { temperature, topK, topP, seed } = options;
  const sample = createSampler({ temperature, topK, topP, seed });
  let logits = await session.prefill(prompt, signal);
  let turnStarted = performance.now();
  for (let count = 1; ; count++) {
    const id = sample(logits);
    yield { id, logits };
    if (stopIds.includes(id)) return "stop";
    if (count === maxNewTokens || session.position === maxPositions) return "length";
    if (performance.now() - turnStarted > TURN_MS) {
      await nextTurn();
      turnStarted = performance.now();
    }
    signal?.throwIfAborted();
    logits = session.forward([id]);
  }
}
