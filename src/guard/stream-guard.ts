/**
 * The Stream guard: a model with classification heads that judges an answer token by token, while it is being written.
 *
 * In: text in pieces (`stream`), or ids as the model card passes them (`streamModerateFromIds`). Out: level, category
 * and probabilities at each token.
 *
 * The protocol: the ordinary chat template turns the conversation into ids. The query heads read the user's turn at its
 * last position, `<|im_end|>`; the response heads read each later id. A session keeps the keys and values, so a token
 * costs one pass however long the conversation is. (The model card's own code runs the whole again for each token.)
 */

import { type CheckpointFiles, shortName } from "../checkpoint/files.ts";
import { type CheckpointSource, openCheckpointFiles } from "../checkpoint/open.ts";
import type { Qwen3Config } from "../model/config.ts";
import { ContextLengthError } from "../model/context-length-error.ts";
import { loadQwen3, type Qwen3, readConfig } from "../model/qwen3.ts";
import type { Session } from "../model/session.ts";
import type { EngineOptions } from "../tensor/engine-choice.ts";
import { checkOptions } from "../tensor/options.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import { AnswerStream } from "./answer-stream.ts";
import { type CutRule, TwoInARow } from "./cut-rule.ts";
import { type HeadLabels, type HeadReading, likeliest, readLabels, toReadings } from "./head-reading.ts";
import { type StreamInput, toQuestion } from "./moderation-stream.ts";
import type { SafetyLevel } from "./policy.ts";
import type { Mode } from "./verdict.ts";

export interface StreamOptions {
  /** strict, the default, cuts at Unsafe and Controversial; loose at Unsafe only. */
  readonly mode?: Mode;
  /** Decides instead of the mode's `TwoInARow`; each stream needs its own object. */
  readonly rule?: CutRule;
  readonly signal?: AbortSignal;
  /** Awaited between passes instead of yielding; a scheduler uses it to choose which stream continues. */
  readonly turn?: () => Promise<void>;
}

/** The sequence so far, which `streamModerateFromIds` passes from call to call. */
export type StreamState = Session;

/** The model card's result, under its names: one entry for each position. A Safe position has a category too. */
export interface StreamModeration {
  readonly risk_level: readonly SafetyLevel[];
  readonly risk_prob: readonly number[];
  readonly category: readonly string[];
  readonly category_prob: readonly number[];
}

/** Ends a turn. The user's turn is read there. */
const TURN_END = "<|im_end|>";

/** Loads the rest of a checkpoint whose config has been read. Throws as `StreamGuard.load` does. */
export async function loadStreamGuard(
  files: CheckpointFiles,
  config: Qwen3Config,
  options: EngineOptions,
): Promise<StreamGuard> {
  const name = shortName(files);
  const tokenizer = await Tokenizer.load(files);
  const labels = readStreamLabels(config, tokenizer, name); // before the weights, so that other models fail early
  return new StreamGuard(await loadQwen3(files, config, options), tokenizer, name, labels);
}

export class StreamGuard {
  readonly tokenizer: Tokenizer;
  readonly model: Qwen3;
  readonly name: string;
  readonly #labels: StreamLabels;

  /**
   * `name` appears in messages. `labels` is for a loader that has already derived them from this config and tokenizer.
   * Throws Error or RangeError where model or tokenizer are not those of a Stream guard.
   */
  constructor(
    model: Qwen3,
    tokenizer: Tokenizer,
    name: string,
    labels: StreamLabels = readStreamLabels(model.config, tokenizer, name),
  ) {
    this.#labels = labels;
    this.model = model;
    this.tokenizer = tokenizer;
    this.name = name;
  }

  /**
   * Loads a checkpoint: a folder's path (Node), a Hub id, a URL, or files that are open already. Throws Error,
   * TypeError or RangeError, `<file>: expected ..., got ...`.
   */
  static async load(source: CheckpointSource, options: EngineOptions = {}): Promise<StreamGuard> {
    const files = await openCheckpointFiles(source);
    return loadStreamGuard(files, await readConfig(files), options);
  }

  /**
   * Begins to moderate an answer to `input`. Throws TypeError or ConversationError for malformed input and
   * ContextLengthError, with both numbers, for one that does not fit the context. The model runs only when `query`,
   * `push` or `end` is called.
   */
  stream(input: StreamInput, options: StreamOptions = {}): AnswerStream {
    checkOptions(options, ["mode", "rule", "signal", "turn"], "stream");
    const { mode, rule, signal, turn } = options;
    if (mode !== undefined && mode !== "strict" && mode !== "loose") {
      throw new RangeError(`mode: expected "strict" or "loose", got ${JSON.stringify(mode)}`);
    }
    if (mode !== undefined && rule !== undefined) throw new RangeError("stream: expected a mode or a rule, got both");
    const messages = toQuestion(input);
    const maxTokens = this.model.config.maxPositionEmbeddings;
    const checkLength = (tokens: number, bound: string): void => {
      if (tokens >= maxTokens)
        throw new ContextLengthError(
          `conversation too long: expected fewer than ${maxTokens} tokens, got ${bound}${tokens}`,
        );
    };
    // A text far beyond the context is refused by its length: tokenising megabytes just to refuse them takes seconds.
    checkLength(this.tokenizer.leastIds(messages.reduce((sum, { content }) => sum + content.length, 0)), "at least ");
    const chat = this.tokenizer.chatStream(messages);
    checkLength(chat.before.length, "");
    return new AnswerStream({
      session: this.model.newSession(),
      chat,
      questionIds: questionLength(chat.before, this.tokenizer),
      labels: this.#labels,
      rule: rule ?? new TwoInARow(mode),
      maxTokens,
      leastIds: units => this.tokenizer.leastIds(units),
      signal,
      turn,
    });
  }

  /**
   * The model card's own call: runs one or more ids after those of `state` and returns, under the card's names, what
   * the role's heads say at each. A null `state` begins a sequence. Pass the returned state to the next call, and in
   * the end to `closeStream`.
   */
  async streamModerateFromIds(
    ids: number | ArrayLike<number>,
    role: "user" | "assistant",
    state: StreamState | null,
  ): Promise<[StreamModeration, StreamState]> {
    const [readings, next] = await this.readIds(ids, role, state);
    const categories = readings.map(({ categoryProbs }) => likeliest(categoryProbs));
    const moderation = {
      risk_level: readings.map(({ risk }) => risk),
      risk_prob: readings.map(({ risk, riskProbs }) => riskProbs[risk]),
      category: categories,
      category_prob: readings.map(({ categoryProbs }, i) => categoryProbs[categories[i]]),
    };
    return [moderation, next];
  }

  /** The same, with all probabilities. */
  async readIds(
    ids: number | ArrayLike<number>,
    role: "user" | "assistant",
    state: StreamState | null,
  ): Promise<[HeadReading[], StreamState]> {
    if (role !== "user" && role !== "assistant")
      throw new RangeError(`role: expected "user" or "assistant", got ${JSON.stringify(role)}`);
    const head = role === "user" ? "query" : "response";
    const session = state ?? this.model.newSession();
    const scores = await session.classify(typeof ids === "number" ? [ids] : ids, head);
    return [toReadings(scores, this.#labels[head]), session];
  }

  /** Frees the memory of a sequence. */
  closeStream(state: StreamState): void {
    state.close();
  }

  /** Ends the threads and frees the memory. The guard cannot be used afterwards. */
  close(): void {
    this.model.close();
  }
}

/** The labels of both pairs of heads. */
interface StreamLabels {
  readonly query: HeadLabels;
  readonly response: HeadLabels;
}

/** The labels of the heads. Throws Error or RangeError where config and tokenizer are not a Stream guard's. */
function readStreamLabels(config: Qwen3Config, tokenizer: Tokenizer, name: string): StreamLabels {
  const { architecture, guardHeads } = config;
  if (guardHeads === undefined) {
    throw new Error(
      `${name}: expected a Stream guard (Qwen3ForGuardModel), got ${architecture} (a Gen guard writes its verdict)`,
    );
  }
  if (tokenizer.vocabSize > config.vocabSize) {
    throw new RangeError(
      `${name}: tokenizer: expected at most ${config.vocabSize} ids, the model's vocabulary, got ${tokenizer.vocabSize}`,
    );
  }
  // Any conversation will do to see whether answers can be streamed into the template.
  const { before } = tokenizer.chatStream([{ role: "user", content: "-" }]);
  if (questionLength(before, tokenizer) === 0) {
    throw new Error(
      `${name}: expected a chat template that ends the user's turn with ${TURN_END}, got one that does not`,
    );
  }
  return readLabels(guardHeads, name);
}

/**
 * How many of the ids before an answer belong to the question, up to the end of the user's turn; 0 if it has no end.
 */
function questionLength(before: Int32Array, tokenizer: Tokenizer): number {
  const id = tokenizer.tokenToId(TURN_END);
  return id === undefined ? 0 : before.lastIndexOf(id) + 1;
}
