/**
 * The guard: messages -> verdict.
 *
 * In: a text, a prompt with its response, or a conversation. Out: a `Verdict` with the model's exact greedy answer,
 * parsed, and the probabilities it was chosen from.
 *
 *     messages --chat template--> prompt ids --model--> answer ids --tokenizer--> text --parser--> verdict
 *
 * Text that a user typed cannot become a control token on the way (Tokenizer.encodeChat). An answer that does not
 * follow the format is "unparsed": flagged, never Safe.
 */

import { type CheckpointFiles, shortName } from "../checkpoint/files.ts";
import { type CheckpointSource, openCheckpointFiles } from "../checkpoint/open.ts";
import type { Qwen3Config } from "../model/config.ts";
import { ContextLengthError } from "../model/context-length-error.ts";
import { type FinishReason, type GenerateOptions, type GenerationStep, generateSteps } from "../model/generate.ts";
import { loadQwen3, type Qwen3, readConfig } from "../model/qwen3.ts";
import type { Session } from "../model/session.ts";
import { SessionPool } from "../model/session-pool.ts";
import type { EngineOptions } from "../tensor/engine-choice.ts";
import { MemoryError } from "../tensor/memory-error.ts";
import { checkOptions } from "../tensor/options.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type AnswerReading, readAnswer } from "./answer-reading.ts";
import { type ModerationInput, toConversation } from "./conversation.ts";
import { DEMO_GUARD } from "./demo-guard.ts";
import { type Explanation, explain } from "./explanation.ts";
import { GenStream } from "./gen-stream.ts";
import { checkModerateOptions, type GenStreamOptions, type ModerateOptions } from "./moderate-options.ts";
import { type StreamInput, toQuestion } from "./moderation-stream.ts";
import type { Policy } from "./policy.ts";
import { readTasks, type Task, type Tasks } from "./task.ts";
import { compareVerdicts, isAboveThreshold, isFlagged, type Verdict, type VerdictWindow } from "./verdict.ts";
import { cutIntoWindows } from "./windows.ts";

/** One id of an answer, with the size of its prompt. */
export interface AnswerStep extends GenerationStep {
  readonly promptTokens: number;
  /** How many of the prompt's tokens were still in the cache from an earlier prompt. */
  readonly cachedTokens: number;
}

/** The last message, or a window of it. */
interface Part {
  readonly prompt: () => Int32Array;
  readonly window: VerdictWindow | undefined;
}

/** One for each of the two policies, and one for raw prompts. */
const IDLE_SESSIONS = 3;

/** The outcome of one input in `moderateMany`: a verdict, or what `moderate` would have thrown. */
export type BatchResult =
  | { readonly index: number; readonly verdict: Verdict; readonly error: null }
  | { readonly index: number; readonly verdict: null; readonly error: Error };

/** Loads the rest of a checkpoint whose config has been read. Throws as `Guard.load` does. */
export async function loadGuard(files: CheckpointFiles, config: Qwen3Config, options: EngineOptions): Promise<Guard> {
  const name = shortName(files);
  const tokenizer = await Tokenizer.load(files);
  const tasks = readTasks(config, tokenizer, name); // before the weights, so that other models fail early
  return new Guard(await loadQwen3(files, config, options), tokenizer, name, tasks);
}

export class Guard {
  readonly tokenizer: Tokenizer;
  readonly model: Qwen3;
  readonly name: string;
  readonly #sessions: SessionPool;
  readonly #tasks: Tasks;

  /**
   * `name` appears in verdicts and messages. `tasks` is for a loader that has already derived them from this config and
   * tokenizer. Throws Error where model or tokenizer are not those of a Gen guard.
   */
  constructor(
    model: Qwen3,
    tokenizer: Tokenizer,
    name: string,
    tasks: Tasks = readTasks(model.config, tokenizer, name),
  ) {
    this.#tasks = tasks;
    this.model = model;
    this.#sessions = new SessionPool(() => model.newSession(), IDLE_SESSIONS);
    this.tokenizer = tokenizer;
    this.name = name;
  }

  /**
   * Loads a checkpoint: a folder's path (Node), a Hub id, a URL, or files that are open already. Without a source it
   * loads the embedded demo guard, which is for trying out and testing, not for protection. Throws Error, TypeError or
   * RangeError, `<file>: expected ..., got ...`.
   */
  static async load(source: CheckpointSource = DEMO_GUARD, options: EngineOptions = {}): Promise<Guard> {
    const files = await openCheckpointFiles(source);
    return loadGuard(files, await readConfig(files), options);
  }

  /**
   * Judges the last message of `input`; one that does not fit the context is judged in windows. Throws TypeError or
   * ConversationError for malformed input, ContextLengthError, with both numbers, if the context has no room
   * for it, MemoryError if the engine has none, RangeError for options out of range, and the signal's reason when
   * aborted. An unparsable answer does not throw; its verdict is flagged.
   */
  async moderate(input: ModerationInput, options: ModerateOptions = {}): Promise<Verdict> {
    const started = performance.now();
    checkModerateOptions(options);
    const messages = toConversation(input);
    const parts = this.#parts(messages, options);
    const verdicts: Verdict[] = [];
    for (const { prompt, window } of parts) {
      const verdict = await this.#judge(prompt(), this.#taskOf(messages), options);
      verdicts.push(window ? { ...verdict, window } : verdict);
    }

    const sum = (what: keyof Verdict["usage"]): number => verdicts.reduce((total, { usage }) => total + usage[what], 0);
    const usage = {
      promptTokens: sum("promptTokens"),
      cachedTokens: sum("cachedTokens"),
      completionTokens: sum("completionTokens"),
      passes: sum("passes"),
    };
    // Of equally bad verdicts, the first.
    const worst = verdicts.reduce((worst, verdict) => (compareVerdicts(verdict, worst) > 0 ? verdict : worst));
    return { ...worst, usage, ms: performance.now() - started };
  }

  /**
   * Judges inputs one after the other, as the caller asks for results; only the current one is held. An input that
   * cannot be judged gives a result with its error, and the batch goes on. An error that is not the input's fault (an
   * abort, an engine that failed) is thrown.
   */
  async *moderateMany(
    inputs: Iterable<ModerationInput> | AsyncIterable<ModerationInput>,
    options: ModerateOptions = {},
  ): AsyncGenerator<BatchResult, void, undefined> {
    checkModerateOptions(options);
    let index = 0;
    for await (const input of inputs) {
      options.signal?.throwIfAborted();
      let result: BatchResult;
      try {
        result = { index, verdict: await this.moderate(input, options), error: null };
      } catch (error) {
        if (!isInputError(error)) throw error;
        result = { index, verdict: null, error };
      }
      yield result;
      index++;
    }
  }

  /**
   * Begins to moderate an answer to `input` while it is being written: the answer so far is judged every `every`
   * tokens, running only the new ones (gen-stream.ts). Throws TypeError or ConversationError for an input of the
   * wrong form and RangeError for options out of range. The model runs only when the stream's methods are called.
   */
  stream(input: StreamInput, options: GenStreamOptions = {}): GenStream {
    checkOptions(options, ["every", "mode", "threshold", "maxNewTokens", "signal", "turn"], "stream");
    const { every = 32, ...moderateOptions } = options;
    checkModerateOptions(moderateOptions);
    if (!Number.isInteger(every) || every < 1)
      throw new RangeError(`every: expected an integer of at least 1, got ${every}`);
    const messages = toQuestion(input);
    let session: Session | undefined; // kept between verdicts; it holds the answer so far
    return new GenStream({
      every,
      encoder: this.tokenizer.encodeStream(),
      judgeQuestion: () => this.moderate(messages, moderateOptions),
      judgeAnswer: async answer => {
        const started = performance.now();
        const conversation = [...messages, { role: "assistant", content: answer }];
        const prompt = this.encode(conversation);
        const { maxPositionEmbeddings } = this.model.config;
        // If the guard's own answer were cut short, there would be no verdict.
        if (prompt.length + this.#taskOf(conversation).draft.longest > maxPositionEmbeddings) {
          throw tooLong(maxPositionEmbeddings, `${prompt.length} and no room for the verdict`);
        }
        session ??= this.#sessions.acquire(prompt);
        session.truncate(Math.min(session.commonPrefix(prompt), prompt.length - 1));
        const reading = await readAnswer(session, this.tokenizer, prompt, this.#taskOf(conversation), moderateOptions);
        return this.#toVerdict(reading, moderateOptions, started);
      },
      close: () => {
        if (session) this.#sessions.release(session);
      },
    });
  }

  /**
   * The answer to a conversation, or to a raw prompt's ids: id by id, with the logits each was chosen from. It reuses
   * what an earlier prompt left in the cache, and guesses the answer to a conversation as `moderate` does. Neither
   * changes an id, sampled ones included. Throws like `encode` and `generateSteps`.
   */
  async *answer(
    input: ModerationInput | Int32Array,
    options: Omit<GenerateOptions, "draft"> = {},
  ): AsyncGenerator<AnswerStep, FinishReason, undefined> {
    const task = input instanceof Int32Array ? undefined : this.#taskOf(toConversation(input));
    const prompt = input instanceof Int32Array ? input : this.encode(input);
    const session = this.#sessions.acquire(prompt);
    const cachedTokens = session.position;
    try {
      const generation = task ? { ...options, draft: task.draft.start() } : options;
      const steps = generateSteps(session, prompt.subarray(cachedTokens), generation);
      for (;;) {
        const step = await steps.next();
        if (step.done) return step.value;
        yield { ...step.value, promptTokens: prompt.length, cachedTokens };
      }
    } finally {
      this.#sessions.release(session);
    }
  }

  /**
   * How P(Safe) changes when a word of the last message is left out, for each of its words. Each word costs one pass
   * over what follows it. Throws RangeError for more than 1,000 words, and what `encode` throws.
   */
  async explain(input: ModerationInput, options: { readonly signal?: AbortSignal } = {}): Promise<Explanation> {
    checkOptions(options, ["signal"], "explain");
    const messages = toConversation(input);
    const task = this.#taskOf(messages);
    const session = this.#sessions.acquire(this.encode(messages));
    try {
      return await explain(messages, changed => this.encode(changed), session, task, options.signal);
    } finally {
      this.#sessions.release(session);
    }
  }

  /**
   * The prompt's ids for a conversation by the guard's own template; control tokens in message contents stay text.
   * Throws TypeError or ConversationError for malformed input, and ContextLengthError, with both numbers,
   * for one that does not fit the context.
   */
  encode(input: ModerationInput): Int32Array {
    const messages = toConversation(input);
    const { maxPositionEmbeddings } = this.model.config;
    // A text far beyond the context is refused by its length: tokenising megabytes just to refuse them takes seconds.
    const chars = messages.reduce((sum, { content }) => sum + content.length, 0);
    const least = this.tokenizer.leastIds(chars);
    if (least >= maxPositionEmbeddings) throw tooLong(maxPositionEmbeddings, `at least ${least}`);
    const ids = this.tokenizer.encodeChat(messages);
    if (ids.length >= maxPositionEmbeddings) throw tooLong(maxPositionEmbeddings, String(ids.length));
    return ids;
  }

  /**
   * Throws RangeError for options with which no input can be judged. What depends on the input, such as whether the
   * window leaves room for its other messages, is not checked.
   */
  checkOptions(options: ModerateOptions): void {
    checkModerateOptions(options);
    if (options.window === undefined) return;
    const rooms = [toConversation(""), toConversation({ prompt: "", response: "" })].map(empty => this.#room(empty));
    cutIntoWindows("", this.tokenizer, Math.max(...rooms), options);
  }

  /** What the guard may answer to a conversation: that depends on the role of its last message. */
  policyOf(messages: readonly ChatMessage[]): Policy {
    return this.#taskOf(messages).policy;
  }

  /** Ends the threads and frees the memory. The guard cannot be used afterwards. */
  close(): void {
    this.model.close();
  }

  #taskOf(messages: readonly ChatMessage[]): Task {
    return messages[messages.length - 1].role === "user" ? this.#tasks.user : this.#tasks.assistant;
  }

  /** What to judge: the last message as a whole, or windows of it. The prompts of windows are made one at a time. */
  #parts(messages: readonly ChatMessage[], options: ModerateOptions): readonly Part[] {
    const { maxPositionEmbeddings } = this.model.config;
    const last = messages[messages.length - 1];
    const withContent = (content: string): ChatMessage[] => [...messages.slice(0, -1), { ...last, content }];
    const answer = this.#taskOf(messages).draft.longest;
    const unitsBefore = messages.slice(0, -1).reduce((sum, { content }) => sum + content.length, 0);
    // If the messages before the last are too long already, nothing is encoded.
    if (this.tokenizer.leastIds(unitsBefore) >= maxPositionEmbeddings) {
      throw tooLong(
        maxPositionEmbeddings,
        `at least ${this.tokenizer.leastIds(unitsBefore)} before the message to judge`,
      );
    }
    const isShort = this.tokenizer.leastIds(last.content.length) < maxPositionEmbeddings;
    if (options.window === undefined && isShort) {
      const whole = this.tokenizer.encodeChat(messages);
      if (whole.length + answer <= maxPositionEmbeddings) return [{ prompt: () => whole, window: undefined }];
    }
    const windows = cutIntoWindows(last.content, this.tokenizer, this.#room(withContent("")), options);
    if (windows === undefined) return [{ prompt: () => this.encode(messages), window: undefined }];
    return windows.map(window => ({
      prompt: () => this.encode(withContent(last.content.slice(window.start, window.end))),
      window,
    }));
  }

  /** How many more tokens the context holds besides a conversation and the verdict on it. */
  #room(messages: readonly ChatMessage[]): number {
    return (
      this.model.config.maxPositionEmbeddings -
      this.tokenizer.encodeChat(messages).length -
      this.#taskOf(messages).draft.longest
    );
  }

  /** The verdict on one part of the last message. */
  async #judge(prompt: Int32Array, task: Task, options: ModerateOptions): Promise<Verdict> {
    const started = performance.now();
    for (let isRetry = false; ; isRetry = true) {
      const session = this.#sessions.acquire(prompt);
      let failure: unknown;
      try {
        return this.#toVerdict(await readAnswer(session, this.tokenizer, prompt, task, options), options, started);
      } catch (error) {
        failure = error;
      } finally {
        this.#sessions.release(session);
      }
      // Whether a text can be judged must not depend on earlier texts, so the sessions kept from them are freed.
      if (isRetry || !(failure instanceof MemoryError) || !this.#sessions.closeIdle()) throw failure;
    }
  }

  #toVerdict(
    { answer, unsafeCategoryScores, ...reading }: AnswerReading,
    options: ModerateOptions,
    started: number,
  ): Verdict {
    const { mode = "strict", threshold } = options;
    const safety = answer?.safety ?? null;
    const score = reading.scores ? 1 - reading.scores.Safe : null;
    return {
      safety,
      categories: answer?.categories ?? [],
      refusal: answer?.refusal ?? null,
      flagged: threshold === undefined ? isFlagged(safety, mode) : isAboveThreshold(safety, score, threshold),
      mode,
      ...(threshold === undefined ? {} : { threshold }),
      score,
      scores: reading.scores,
      categoryScores: reading.categoryScores,
      ...(unsafeCategoryScores ? { unsafeCategoryScores } : {}),
      refusalScore: reading.refusalScore,
      text: reading.text,
      model: this.name,
      usage: reading.usage,
      ms: performance.now() - started,
      ...(answer ? {} : { error: "unparsed" as const }),
    };
  }
}

/** Whether `moderate` threw because of its input. Otherwise the engine failed, or the caller aborted. */
export function isInputError(error: unknown): error is TypeError | RangeError {
  return (error instanceof TypeError || error instanceof RangeError) && !(error instanceof MemoryError);
}

function tooLong(maxPositions: number, got: string): ContextLengthError {
  return new ContextLengthError(
    `conversation too long: expected fewer than ${maxPositions} tokens with the guard's prompt, got ${got}`,
  );
}
