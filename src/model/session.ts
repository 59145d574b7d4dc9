/**
 * One running sequence: the only owner of the position.
 *
 * In: ids. Out: logits, or what the heads of a Stream guard say. A session holds the key/value cache of the ids it has
 * seen; weights and rotary table are the model's and shared by all its sessions.
 */

import type { KvCache } from "../tensor/engine.ts";
import { checkOptions } from "../tensor/options.ts";
import type { Qwen3Config } from "./config.ts";
import { ContextLengthError } from "./context-length-error.ts";
import { classify, type ForwardModel, forward, type GuardScores, type Pass, type TapListener } from "./forward.ts";

/**
 * A prompt is run in pieces of about this long. Between them the event loop gets a turn, and an abort is heard. Pieces
 * of fewer rows than MIN_PIECE cost more than they gain, since every piece reads all weights; pieces of more than
 * MAX_PIECE take too much scratch memory. Any pieces give the same bits.
 */
const PIECE_MS = 250;
/** Yielding costs about 1 ms, a lot next to a small model's piece, so yield at most this often. */
export const TURN_MS = 20;
const MIN_PIECE = 64;
const MAX_PIECE = 512;

export interface TurnOptions {
  /** Heard between pieces. */
  readonly signal?: AbortSignal | undefined;
  /** Called instead of yielding; a scheduler uses it to choose which sequence continues. */
  readonly turn?: (() => Promise<void>) | undefined;
}

export interface PrefillOptions extends TurnOptions {
  /** How many of the last ids to give logits of: 1 by default. They are computed in one piece. */
  readonly logits?: number;
}

export interface ForwardOptions {
  /** How many of the last ids to give logits of: 1 by default, "all", or 0, which leaves out the output head. */
  readonly logits?: number | "all";
  /** Receives every named intermediate (docs/HOW-IT-WORKS.md) as it is computed. */
  readonly tap?: TapListener;
}

/** Gives a cache's memory back when its session is garbage-collected without `close`. */
const forgotten = new FinalizationRegistry<KvCache>(cache => cache.free());

export class Session {
  readonly #model: ForwardModel;
  readonly #cache: KvCache;
  /** The ids that the cache holds, as far as `position`. */
  readonly #ids: number[] = [];
  /** Rows of the next piece of a prompt, judged by how long the last one took. */
  #pieceRows = MIN_PIECE;
  /** True while a prompt is run: nothing may come between its pieces. */
  #isBusy = false;
  #isClosed = false;

  constructor(model: ForwardModel) {
    const {
      numHiddenLayers: numLayers,
      numHeads,
      numKvHeads,
      headDim,
      maxPositionEmbeddings: maxPositions,
    } = model.config;
    this.#model = model;
    this.#cache = model.engine.newCache({ numLayers, numHeads, numKvHeads, headDim, maxPositions });
    forgotten.register(this, this.#cache, this);
  }

  /** How many ids the cache holds: the position of the next id. */
  get position(): number {
    return this.#ids.length;
  }

  /** The model's sizes, which limit ids and positions. */
  get config(): Qwen3Config {
    return this.#model.config;
  }

  /**
   * Runs T ids at the session's position, a prompt or a single step, and moves the position by T. Returns [wanted,
   * vocab] logits. Throws RangeError for an empty list, an id outside the vocabulary, a sequence beyond the context, or
   * logits that are not finite.
   */
  forward(ids: ArrayLike<number>, options: ForwardOptions = {}): Float32Array {
    checkOptions(options, ["logits", "tap"], "forward");
    this.#checkFree();
    checkIds(ids, this.config, this.position);
    const wanted = options.logits === "all" ? ids.length : (options.logits ?? 1);
    checkWanted(wanted, ids.length);
    this.#reserve(ids.length);
    const logits = forward(this.#model, this.#pass(ids, wanted, options.tap));
    this.#append(ids);
    return logits;
  }

  /**
   * Runs a prompt in pieces, giving the event loop a turn between them so that `signal` is heard, and returns the last
   * ids' logits [wanted, vocab]. The same bits as one `forward`. Throws the signal's reason when it is aborted; the
   * session then stands where the last piece ended.
   */
  async prefill(ids: ArrayLike<number>, options: PrefillOptions = {}): Promise<Float32Array> {
    checkOptions(options, ["logits", "signal", "turn"], "prefill");
    const { logits: wanted = 1 } = options;
    if (ids.length > 0) checkWanted(wanted, ids.length);
    let logits: Float32Array = new Float32Array(0);
    for await (const { piece, isLast } of this.#pieces(ids, wanted, options)) {
      logits = forward(this.#model, this.#pass(piece, isLast ? wanted : 0));
      this.#append(piece);
    }
    return logits;
  }

  /**
   * Runs ids as `prefill` does, and returns what one pair of a Stream guard's heads says at each of them: [T, risk
   * levels] and [T, categories]. Throws Error where the checkpoint has no such heads.
   */
  async classify(ids: ArrayLike<number>, head: "query" | "response", options: TurnOptions = {}): Promise<GuardScores> {
    checkOptions(options, ["signal", "turn"], "classify");
    const weights = this.#model.weights.guardHeads?.[head];
    if (!weights) throw new Error("classify: expected a Stream guard's checkpoint, got one without guard heads");
    const [levels, categories] = [weights.riskLevel.shape[0], weights.category.shape[0]];
    const scores = {
      riskLevel: new Float32Array(ids.length * levels),
      category: new Float32Array(ids.length * categories),
    };
    let done = 0;
    for await (const { piece } of this.#pieces(ids, 0, options)) {
      const { riskLevel, category } = classify(this.#model, this.#pass(piece, piece.length), weights);
      scores.riskLevel.set(riskLevel, done * levels);
      scores.category.set(category, done * categories);
      done += piece.length;
      this.#append(piece);
    }
    return scores;
  }

  /**
   * Cuts ids into pieces that take about PIECE_MS, the last `whole` ids all in one piece, and makes room for each piece
   * before it is run. Between pieces the event loop gets a turn, and the signal is heard.
   */
  async *#pieces(
    ids: ArrayLike<number>,
    whole: number,
    { signal, turn = nextTurn }: TurnOptions,
  ): AsyncGenerator<{ readonly piece: Int32Array; readonly isLast: boolean }, void, undefined> {
    this.#checkFree();
    checkIds(ids, this.config, this.position);
    this.#isBusy = true;
    try {
      // Reserve for all ids first, so that too small a memory is an error before any work.
      this.#cache.reserve(this.position + ids.length);
      const all = Int32Array.from(ids);
      let turnStarted = performance.now();
      for (let start = 0; ; ) {
        signal?.throwIfAborted();
        const isLast = start + this.#pieceRows > all.length - Math.max(1, whole);
        const piece = all.subarray(start, isLast ? all.length : start + this.#pieceRows);
        start += piece.length;
        this.#reserve(piece.length);
        const started = performance.now();
        yield { piece, isLast };
        const ended = performance.now();
        if (piece.length >= MIN_PIECE) {
          const rows = piece.length * Math.min(PIECE_MS / (ended - started), 4);
          this.#pieceRows = Math.round(Math.min(MAX_PIECE, Math.max(MIN_PIECE, rows)));
        }
        if (isLast) return;
        if (ended - turnStarted > TURN_MS) {
          await turn();
          turnStarted = performance.now();
        }
      }
    } finally {
      this.#isBusy = false;
    }
  }

  /** One call of the model, at the session's position. */
  #pass(ids: ArrayLike<number>, wanted: number, tap?: TapListener): Pass {
    return { cache: this.#cache, start: this.position, ids, wanted, tap };
  }

  /** Makes room for `count` more ids. */
  #reserve(count: number): void {
    this.#model.rope.ensure(this.position + count);
    this.#cache.reserve(this.position + count);
  }

  /** The cache holds these ids now. */
  #append(ids: ArrayLike<number>): void {
    for (let i = 0; i < ids.length; i++) this.#ids.push(ids[i]);
  }

  /** Forgets everything from `position` on. */
  truncate(position: number): void {
    this.#checkFree();
    if (!Number.isInteger(position) || position < 0 || position > this.position) {
      throw new RangeError(`truncate: expected a position from 0 to ${this.position}, got ${position}`);
    }
    this.#ids.length = position;
  }

  /** How many of the first ids are the same in the session and in `ids`. */
  commonPrefix(ids: ArrayLike<number>): number {
    let i = 0;
    while (i < this.#ids.length && ids[i] === this.#ids[i]) i++;
    return i;
  }

  /**
   * Gives the cache's memory back at once; the session must not be used afterwards. A session that is never closed
   * gives it back when it is garbage-collected.
   */
  close(): void {
    if (this.#isClosed) return;
    this.#checkFree();
    this.#isClosed = true;
    forgotten.unregister(this);
    this.#cache.free();
  }

  #checkFree(): void {
    if (this.#isClosed) throw new Error("the session is closed");
    if (this.#isBusy) throw new Error("the session is busy: a prompt is being run");
  }
}

function checkIds(ids: ArrayLike<number>, config: Qwen3Config, position: number): void {
  if (ids.length === 0) throw new RangeError("ids: expected at least one id, got none");
  if (position + ids.length > config.maxPositionEmbeddings) {
    throw new ContextLengthError(
      `prompt too long: expected at most ${config.maxPositionEmbeddings} tokens, got ${position + ids.length}`,
    );
  }
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (!Number.isInteger(id) || id < 0 || id >= config.vocabSize) {
      throw new RangeError(`ids: expected integers from 0 to ${config.vocabSize - 1}, got ${id} at index ${i}`);
    }
  }
}

function checkWanted(wanted: number, rows: number): void {
  if (!Number.isInteger(wanted) || wanted < 0 || wanted > rows) {
    throw new RangeError(`logits: expected "all" or an integer from 0 to ${rows}, got ${wanted}`);
  }
}

/** Resolves in a later turn of the event loop (a resolved promise alone would not let timers and signals run). */
export function nextTurn(): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, 0));
}
