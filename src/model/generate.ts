/**
 * Generation: prompt ids -> answer ids.
 *
 * In: a session (usually fresh), prompt ids, options. Out: a step for each id, with the logits it was chosen from,
 * until a stop id, the length limit or the end of the context.
 *
 * One id at a time, or several in one pass: a `draft` guesses how the answer goes on, the guess is run behind what is
 * certain, and each of its ids that the model would have chosen itself is accepted (the greedy case of speculative
 * decoding, Leviathan et al. 2023, arXiv:2211.17192, with a guess that costs nothing). A draft changes how many passes
 * an answer takes and nothing else.
 */

import { checkOptions } from "../tensor/options.ts";
import { createSampler, type SamplingOptions } from "./sampling.ts";
import { nextTurn, type Session } from "./session.ts";

/**
 * Guesses the ids behind `answer`, the ids chosen so far; none is a good guess, too. `refused`: the logits of the last
 * pass behind the first id that was guessed wrong, as if it had been right: they belong to another answer, but may tell
 * something about this one.
 */
export type Draft = (answer: readonly number[], refused: readonly Float32Array[]) => readonly number[];

export interface GenerateOptions extends SamplingOptions {
  /** At most this many ids, the stop id included; 128 by default, as the model card has it. */
  readonly maxNewTokens?: number;
  /** Ids that end the answer; the checkpoint's own by default. */
  readonly stopIds?: readonly number[];
  /** Heard between passes and between the pieces of a long prompt; generation then throws the signal's reason. */
  readonly signal?: AbortSignal;
  /** Awaited between passes and between pieces in place of a turn of the event loop: see PrefillOptions. */
  readonly turn?: () => Promise<void>;
  /** Guesses ids, so that one pass may give several. */
  readonly draft?: Draft;
}

/**
 * One chosen id. `logits` [vocab] is what it was chosen from; `pass` says which pass over the weights gave it, from 1.
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
 * After so long without one, the event loop gets a turn between two passes. (A long prompt gives it one between its
 * pieces.)
 */
const TURN_MS = 20;

/**
 * Runs the prompt, then pass after pass. The last id of a pass is yielded before it is fed back, so an answer of n ids
 * costs n passes without a draft, and the session holds all but the last. Throws RangeError for options out of range, a
 * prompt that does not fit, or logits that are not finite.
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
  let certain: ArrayLike<number> = prompt; // what the session has not seen yet
  let refused: Float32Array[] = [];
  let turnStarted = performance.now();
  for (let pass = 1; ; pass++) {
    // 1. Guess, as far as there is room: each guessed id may give an id of the answer, and the last of them one more.
    const room = Math.min(maxNewTokens - answer.length - 1, maxPositions - session.position - certain.length);
    const guess = draft(answer, refused).slice(0, Math.max(0, room));

    // 2. One pass over what is certain and the guess. Row i of the logits chooses the id in the place of guess[i].
    const start = session.position + certain.length;
    const ids = guess.length === 0 ? certain : Int32Array.from([...Array.from(certain), ...guess]);
    const logits = await session.prefill(ids, { logits: guess.length + 1, turn, ...(signal ? { signal } : {}) });
    const rows = Array.from({ length: guess.length + 1 }, (_, i) => row(logits, i, guess.length + 1));

    // 3. Accept the model's choices as long as the guess agrees; the first that differs is right, and what follows it
    //    is void.
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
