/**
 * Either guard with one queue in front of it, for many streams at once.
 *
 * In: questions, and answers in pieces or whole. Out: readings. Each piece is a job in the queue for the engine
 * (../queue.ts), so streams take turns, and a long piece lets shorter ones go first.
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

/** Estimates for the queue. */
const CHARS_OF_TOKEN = 3;
/** The guard's prompt, with the template after an answer. */
const TOKENS_OF_PROMPT = 128;

/** A question on which every guard has a verdict. */
const ANY_QUESTION: readonly ChatMessage[] = [{ role: "user", content: "-" }];

export interface JudgeOptions {
  readonly mode: Mode;
  /** For a Gen guard only. */
  readonly every?: number | undefined;
  /** How many streams may be open. */
  readonly maxStreams: number;
  /** Receives a line for each failure that is not the text's fault. */
  readonly log: (line: string) => void;
}

/** Why there is no verdict: the text, too little memory for it, or a guard that can judge no text at all. */
export type Fault = "text" | "memory" | "guard";

/** The error of a text without a verdict. */
export class Unjudged extends ApiError {
  readonly fault: Fault;

  constructor(fault: Fault, status: number, message: string, details: ConstructorParameters<typeof ApiError>[2]) {
    super(status, message, details);
    this.fault = fault;
  }
}

/** OpenAI's clients would try again, with the same result. */
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
    this.queue = new Queue(maxStreams); // never full, since a stream has at most one operation at a time
    this.open(ANY_QUESTION, new AbortController().signal).close(); // refuses options out of range
  }

  /** Whether the guard could judge nothing when it was last asked, or its engine has ended since. */
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
   * Judges a whole answer, a Gen guard in one verdict. `spare` is a stream that was opened for the question. Returns
   * null if there is no violation.
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
   * Why a guard threw instead of judging a text. A guard that still judges another text has not failed, whatever its
   * error was. If the error decided, a text that makes the guard fail in an unexpected way would pass a proxy that
   * fails open.
   */
  async failureOf(error: unknown): Promise<Unjudged> {
    const message = error instanceof Error ? error.message : String(error);
    // Anyone can cause this by sending long texts at once, so nothing passes. Later there may be memory again.
    if (error instanceof MemoryError) {
      const headers = { "retry-after": "1" };
      return new Unjudged("memory", 503, `guard: ${message}`, { code: "guard_out_of_memory", headers });
    }
    if (!(await this.#judgesOthers())) {
      this.#isFailing = true;
      this.#log(`qwen3guard: the guard failed: ${message}`);
      const told = "the guard failed; the proxy's log says more";
      return new Unjudged("guard", 500, told, { code: "guard_failed", headers: NO_RETRY });
    }
    if (error instanceof ContextLengthError) {
      return new Unjudged("text", 400, `guard: ${message}`, { code: "guard_context_exceeded", headers: NO_RETRY });
    }
    const isTold = isInputError(error);
    if (!isTold) this.#log(`qwen3guard: the guard cannot judge a text: ${message}`);
    const told = isTold ? `guard: ${message}` : "the guard cannot judge this text; the proxy's log says more";
    return new Unjudged("text", 400, told, { code: "guard_cannot_judge", headers: NO_RETRY });
  }

  /** Whether the guard gives a verdict on a text that is known to have one. */
  async #judgesOthers(): Promise<boolean> {
    try {
      const stream = this.open(ANY_QUESTION, new AbortController().signal);
      await stream.query().finally(() => stream.close());
      return true;
    } catch (error) {
      return error instanceof MemoryError || error instanceof QueueFullError; // it is busy with others
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
