/**
 * The Stream guard: a model with classification heads that judges an answer token by token, while it is being written.
 *
 * In: text in pieces (`stream`), or ids by the protocol of the model card (`streamModerateFromIds`). Out: level,
 * category and probabilities at each token.
 *
 * The protocol: the ids of a conversation by the ordinary chat template; the user's turn up to its `<|im_end|>` is read
 * with the query heads, at its last position; each later id with the response heads. A session keeps the keys and
 * values, so a token costs one pass however long the conversation is. (The model card's own code runs all of it again
 * for each token.)
 */

import { type CheckpointSource, openCheckpointFiles } from "../checkpoint/open.ts";
import type { Qwen3Config } from "../model/config.ts";
import { ContextLengthError } from "../model/context-length-error.ts";
import { Qwen3, readConfig } from "../model/qwen3.ts";
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
  /** strict (default): cut at Unsafe and Controversial; loose: at Unsafe alone. */
  readonly mode?: Mode;
  /** Decides instead of `TwoInARow` with the mode; one object for each stream. */
  readonly rule?: CutRule;
  readonly signal?: AbortSignal;
  /**
   * Awaited between passes in place of a turn of the event loop: who moderates several streams at once decides there
   * which goes on.
   */
  readonly turn?: () => Promise<void>;
}

/** What `streamModerateFromIds` keeps from call to call: the sequence so far. */
export type StreamState = Session;

/**
 * The model card's result, under its names: one entry a position. The category is given where the risk is Safe, too.
 */
export interface StreamModeration {
  readonly risk_level: readonly SafetyLevel[];
  readonly risk_prob: readonly number[];
  readonly category: readonly string[];
  readonly category_prob: readonly number[];
}

/** Ends a turn; the user's is read there. */
const TURN_END = "<|im_end|>";

export class StreamGuard {
  readonly tokenizer: Tokenizer;
  readonly model: Qwen3;
  readonly name: string;
  readonly #labels: { readonly query: HeadLabels; readonly response: HeadLabels };

  /** Throws Error or RangeError where model or tokenizer are not those of a Stream guard. `name` stands in messages. */
  constructor(model: Qwen3, tokenizer: Tokenizer, name: string) {
    this.#labels = readStreamLabels(model.config, tokenizer, name);
    this.model = model;
    this.tokenizer = tokenizer;
    this.name = name;
  }

  /**
   * Loads a checkpoint: a folder's path (Node), a URL, or files at hand. Throws Error, TypeError or RangeError,
   * `<file>: expected ..., got ...`.
   */
  static async load(source: CheckpointSource, options: EngineOptions = {}): Promise<StreamGuard> {
    const files = await openCheckpointFiles(source);
    const name = files.name.replace(/^.*[/\\]/, "") || files.name;
    const config = await readConfig(files);
    checkArchitecture(config, name); // before the tokenizer and the weights: what is no Stream guard is refused at the door
    const tokenizer = await Tokenizer.load(files);
    readStreamLabels(config, tokenizer, name);
    return new StreamGuard(await Qwen3.load(files, options), tokenizer, name);
  }

  /**
   * Begins to moderate an answer to `input`. Throws TypeError or RangeError for an input of the wrong form or too long
   * for the context (with both numbers). Nothing runs yet: the stream's `query`, `push` and `end` do.
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
    // A text far beyond the context is refused by its length: tokenising megabytes only to refuse them would take
    // seconds.
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
   * The model card's own call: runs ids (or one) behind those of `state` and says, under the card's names, what the
   * heads of the role say at each of them. `state` null begins a sequence. The state that comes back is for the next
   * call; end it with `closeStream`.
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

  /** The same with every probability. */
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

  /** Gives the memory of a sequence back. */
  closeStream(state: StreamState): void {
    state.close();
  }

  /** Ends the threads and gives the memory back; the guard must not be used afterwards. */
  close(): void {
    this.model.close();
  }
}

function checkArchitecture({ architecture }: Qwen3Config, name: string): void {
  if (architecture !== "Qwen3ForGuardModel") {
    throw new Error(
      `${name}: expected a Stream guard (Qwen3ForGuardModel), got ${architecture} (a Gen guard writes its verdict)`,
    );
  }
}

/** The labels of the heads. Throws Error or RangeError where config and tokenizer are not a Stream guard's. */
function readStreamLabels(
  config: Qwen3Config,
  tokenizer: Tokenizer,
  name: string,
): { readonly query: HeadLabels; readonly response: HeadLabels } {
  checkArchitecture(config, name);
  if (tokenizer.vocabSize > config.vocabSize) {
    throw new RangeError(
      `${name}: tokenizer: expected at most ${config.vocabSize} ids, the model's vocabulary, got ${tokenizer.vocabSize}`,
    );
  }
  // Any conversation shows whether the template is one that answers can be streamed into.
  const { before } = tokenizer.chatStream([{ role: "user", content: "-" }]);
  if (questionLength(before, tokenizer) === 0) {
    throw new Error(
      `${name}: expected a chat template that ends the user's turn with ${TURN_END}, got one that does not`,
    );
  }
  return readLabels(config.guardHeads!, name);
}

/**
 * How many of the ids before an answer are the question's: up to the end of the user's turn. 0: there is no such end.
 */
function questionLength(before: Int32Array, tokenizer: Tokenizer): number {
  const id = tokenizer.tokenToId(TURN_END);
  return id === undefined ? 0 : before.lastIndexOf(id) + 1;
}
