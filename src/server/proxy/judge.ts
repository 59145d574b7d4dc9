/**
 * Either guard behind one queue, for many streams at once.
 *
 * In: questions, and answers in pieces or whole. Out: readings. Each piece is a job of its own in the queue to the
 * engine (../queue.ts), so that streams take turns, and where a piece is long it gives way to shorter ones.
 */

import { Guard, isInputError } from "../../guard/guard.ts";
import type { ModerationStream, Violation } from "../../guard/moderation-stream.ts";
import type { StreamGuard } from "../../guard/stream-guard.ts";
import type { Mode } from "../../guard/verdict.ts";
import { ContextLengthError } from "../../model/context-length-error.ts";
import { MemoryError } from "../../tensor/memory-error.ts";
import type { ChatMessage } from "../../tokenizer/chat-template.ts";
import { ApiError } from "../api-error.ts";
import { watchEngine } from "../engine-watch.ts";
import { Queue, QueueFullError, type Turn } from "../queue.ts";

/** About, for what a queue needs. */
const CHARS_OF_TOKEN = 3;
/** The guard's prompt and the template behind an answer. */
const TOKENS_OF_PROMPT = 128;

/** Every guard has a verdict on it. */
const ANY_QUESTION: readonly ChatMessage[] = [{ role: "user", content: "-" }];

export interface JudgeOptions {
  readonly mode: Mode;
  /** Of a Gen guard. */
  readonly every?: number | undefined;
  /** Streams that may be open. */
  readonly maxStreams: number;
  /** Told of failures that are not the text's. */
  readonly log: (line: string) => void;
}

/**
 * What makes a guard give no verdict: the text, too little memory for it, or the guard, which then judges no text at
 * all.
 */
export type Fault = "text" | "memory" | "guard";

/** Why a text has no verdict. */
export class Unjudged extends ApiError {
  readonly fault: Fault;

  constructor(fault: Fault, status: number, message: string, details: ConstructorParameters<typeof ApiError>[2]) {
    super(status, message, details);
    this.fault = fault;
  }
}

/** OpenAI's clients would try again, to the same end. */
const NO_RETRY = { "x-should-retry": "false" };

export class Judge {
  readonly name: string;
  readonly mode: Mode;
  readonly queue: Queue;
  readonly #guard: Guard | StreamGuard;
  readonly #every: number | undefined;
  readonly #log: (line: string) => void;
  readonly #isComputing: () => boolean;
  #isFailing = false;

  constructor(guard: Guard | StreamGuard, { mode, every, maxStreams, log }: JudgeOptions) {
    if (every !== undefined && !(guard instanceof Guard)) {
      throw new RangeError("every: expected a Gen guard, got a Stream guard, which judges every token");
    }
    this.#guard = guard;
    this.#every = every;
    this.#log = log;
    this.#isComputing = watchEngine(guard.model.engine, log);
    this.name = guard.name;
    this.mode = mode;
    this.queue = new Queue(maxStreams); // a stream has at most one operation at a time, so it is never full
    this.open(ANY_QUESTION, new AbortController().signal).close(); // refuses options that are out of range
  }

  /** Whether the guard judged nothing any more when it was last asked, or its engine has ended since. */
  get isFailing(): boolean {
    return this.#isFailing || !this.#isComputing();
  }

  /**
   * Begins to moderate an answer. The stream's operations wait for the engine; call one at a time. Throws
   * ContextLengthError for a question that is longer than the context.
   */
  open(question: readonly ChatMessage[], signal: AbortSignal): ModerationStream {
    let turn: Turn = async () => {};
    const options = { mode: this.mode, signal, turn: () => turn() };
    const every = this.#every === undefined ? {} : { every: this.#every };
    const input = { messages: question };
    const stream: ModerationStream =
      this.#guard instanceof Guard
        ? this.#guard.stream(input, { ...options, ...every })
        : this.#guard.stream(input, options);
    const run = <T>(chars: number, work: () => Promise<T>): Promise<T> =>
      this.#run(chars, signal, given => {
        turn = given;
        return work();
      });
    const questionChars = charsOf(question);
    return {
      query: () => run(questionChars, () => stream.query()),
      push: text => run(text.length, () => stream.push(text)),
      end: () => run(1, () => stream.end()),
      close: () => stream.close(),
    };
  }

  /**
   * Judges an answer that is there as a whole: a Gen guard in one verdict. `spare`: a stream that was opened for the
   * question.
   */
  async judgeWhole(
    question: readonly ChatMessage[],
    text: string,
    spare: ModerationStream | undefined,
    signal: AbortSignal,
  ): Promise<Violation | null> {
    if (!(this.#guard instanceof Guard)) {
      const stream = spare ?? this.open(question, signal);
      try {
        const { violation } = await stream.push(text);
        return violation ?? (await stream.end()).violation;
      } finally {
        stream.close();
      }
    }
    const guard = this.#guard;
    const messages = [...question, { role: "assistant", content: text }];
    const verdict = await this.#run(charsOf(messages), signal, turn =>
      guard.moderate(messages, { mode: this.mode, signal, turn }),
    );
    return verdict.flagged ? { risk: verdict.safety, category: verdict.categories[0] ?? null, at: 0 } : null;
  }

  /**
   * Why a guard threw instead of judging a text. A guard that still judges another text has not failed, whatever the
   * error looks like: were that decided by its class, a text that finds an unexpected way to fail would open a proxy
   * that fails open.
   */
  async failureOf(error: unknown): Promise<Unjudged> {
    const message = error instanceof Error ? error.message : String(error);
    // Who sends long texts at once can cause it, so it lets nothing pass; it may do at another time.
    if (error instanceof MemoryError) {
      const headers = { "retry-after": "1" };
      return new Unjudged("memory", 503, `guard: ${message}`, { code: "guard_out_of_memory", headers });
    }
    if (!(await this.#judgesOthers())) {
      this.#isFailing = true;
      this.#log(`qwen3guard: the guard failed: ${message}`);
      const told = "guard: expected a verdict, got a failure; the proxy's log says more";
      return new Unjudged("guard", 500, told, { code: "guard_failed", headers: NO_RETRY });
    }
    if (error instanceof ContextLengthError) {
      return new Unjudged("text", 400, `guard: ${message}`, { code: "guard_context_exceeded", headers: NO_RETRY });
    }
    const isTold = isInputError(error);
    if (!isTold) this.#log(`qwen3guard: the guard cannot judge a text: ${message}`);
    const told = isTold
      ? `guard: ${message}`
      : "guard: expected a text that can be judged, got another; the proxy's log says more";
    return new Unjudged("text", 400, told, { code: "guard_cannot_judge", headers: NO_RETRY });
  }

  /** Whether it gives a verdict on a text that is known to have one. */
  async #judgesOthers(): Promise<boolean> {
    try {
      const stream = this.open(ANY_QUESTION, new AbortController().signal);
      await stream.query().finally(() => stream.close());
      return true;
    } catch (error) {
      return error instanceof MemoryError || error instanceof QueueFullError; // it is at work on others
    }
  }

  async #run<T>(chars: number, signal: AbortSignal, run: (turn: Turn) => Promise<T>): Promise<T> {
    const result = await this.queue.run({ size: TOKENS_OF_PROMPT + chars / CHARS_OF_TOKEN, signal, run });
    this.#isFailing = false;
    return result;
  }
}

function charsOf(messages: readonly ChatMessage[]): number {
  return messages.reduce((sum, { content }) => sum + content.length, 0);
}
