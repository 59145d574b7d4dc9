/**
 * Generation: prompt ids -> answer ids.
 *
 * In: a session (usually fresh), prompt ids, options. Out: a step for each id, with the logits it was chosen from,
 * until a stop id, the length limit or the end of the context.
 *
 * One id at a time, or several in one pass: a `draft` guesses how the answer continues, the guess is run after the ids
 * that are certain, and those of its ids that the model would have chosen itself are accepted, up to the first that it
 * would not (the greedy case of speculative decoding, Leviathan et al. 2023, arXiv:2211.17192, with a guess that costs
 * nothing). A draft changes how many passes an answer takes, and nothing else.
 */

import { checkOptions } from "../tensor/options.ts";
import { createSampler, type SamplingOptions } from "./sampling.ts";
import { nextTurn, type Session, TURN_MS } from "./session.ts";

/**
 * Guesses the ids that follow `answer`, the ids chosen so far; the guess may be empty. `refused`: the logits that the
 * last pass computed after the first wrong guess, as if it had been right. They belong to another answer, but may hint
 * at this one.
 */
export type Draft = (answer: readonly number[], refused: readonly Float32Array[]) => readonly number[];

export interface GenerateOptions extends SamplingOptions {
  /** At most this many ids, the stop id included; 128 by default, as the model card has it. */
  readonly maxNewTokens?: number;
  /** Ids that end the answer; the checkpoint's own by default. */
  readonly stopIds?: readonly number[];
  /** Heard between passes and between the pieces of a long prompt; generation then throws the signal's reason. */
  readonly signal?: AbortSignal;
  /** Awaited between passes and between pieces, in place of a turn of the event loop: see TurnOptions. */
  readonly turn?: () => Promise<void>;
  /** Guesses ids, so that one pass may yield several. */
  readonly draft?: Draft;
}

/**
 * One chosen id. `logits` [vocab] is what it was chosen from; `pass` is the number, from 1, of the pass over the
 * weights that yielded it.
 */
export interface GenerationStep {
  readonly id: number;
  readonly logits: Float32Array;
  readonly pass: number;
}

/** "stop": a stop id was chosen; "length": the limit or the end of the context was reached. */
export type FinishReason = "stop" | "length";

/** A whole answer: its ids, the stop id included. */
export interface Generation {
  readonly ids: Int32Array;
  readonly finishReason: FinishReason;
}

/**
 * Runs the prompt, then pass after pass. The last id of a pass is yielded before it is fed back, so without a draft an
 * answer of n ids costs n passes, and the session then holds all ids but the last. Throws RangeError for options out of
 * range, a prompt that does not fit, or logits that are not finite.
 */
export async function* generateSteps(
  session: Session,
  prompt: ArrayLike<number>,
  options: GenerateOptions = {},
): AsyncGenerator<GenerationStep, FinishReason, undefined> {
  checkOptions(
    options,
    ["maxNewTokens", "stopIds", "signal", "turn", "draft", "temperature", "topK", "topP", "seed"],
    "generate",
  );
  const { maxPositionEmbeddings: maxPositions } = session.config;
  const { maxNewTokens = 128, stopIds = session.config.stopIds, signal, turn = nextTurn, draft = noDraft } = options;
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new RangeError(`maxNewTokens: expected an integer of at least 1, got ${maxNewTokens}`);
  }
  const { temperature, topK, topP, seed } = options;
  const sample = createSampler({ temperature, topK, topP, seed });
  if (prompt.length === 0) throw new RangeError("ids: expected at least one id, got none");

  const answer: number[] = [];
  let certain: ArrayLike<number> = prompt; // what the session has not run yet
  let refused: Float32Array[] = [];
  let turnStarted = performance.now();
  for (let pass = 1; ; pass++) {
    // 1. Guess, as far as there is room: each guessed id may become an id of the answer, and the last is followed by
    // one more.
    const room = Math.min(maxNewTokens - answer.length - 1, maxPositions - session.position - certain.length);
    const guess = draft(answer, refused).slice(0, Math.max(0, room));

    // 2. One pass over what is certain and the guess. Row i of the logits chooses the id at the place of guess[i].
    const start = session.position + certain.length;
    const ids = guess.length === 0 ? certain : Int32Array.from([...Array.from(certain), ...guess]);
    const logits = await session.prefill(ids, { logits: guess.length + 1, turn, ...(signal ? { signal } : {}) });
    const rows = Array.from({ length: guess.length + 1 }, (_, i) => row(logits, i, guess.length + 1));

    // 3. Accept the model's choices as long as the guess agrees. The first choice that differs still counts; what was
    // computed after it does not.
    for (const [i, logits] of rows.entries()) {
      const id = sample(logits);
      answer.push(id);
      const isAgreed = id === guess[i];
      const isStop = stopIds.includes(id);
      const isLast = isStop || answer.length === maxNewTokens || start + i === maxPositions;
      if (!isAgreed || isLast) session.truncate(start + i);
      yield { id, logits, pass };
      if (isLast) return isStop ? "stop" : "length";
      if (isAgreed) continue;
      refused = rows.slice(i + 1);
      break;
    }
    certain = [answer[answer.length - 1]];

    if (performance.now() - turnStarted > TURN_MS) {
      await turn();
      turnStarted = performance.now();
    }
    signal?.throwIfAborted();
  }
}

function noDraft(): readonly number[] {
  return [];
}

function row(logits: Float32Array, index: number, rows: number): Float32Array {
  const size = logits.length / rows;
  return logits.subarray(index * size, (index + 1) * size);
}
