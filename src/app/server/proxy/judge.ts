/**
 * Either guard behind one queue, for many streams at once.
 *
 * In: questions, and answers in pieces or whole. Out: readings. Each piece is a job of its own in the queue to the engine (../queue.ts), so that streams take
 * turns, and where a piece is long it gives way to shorter ones.
 */

import { Guard } from "../../../guard/guard.ts";
import type { ModerationStream, RiskReading, StreamUpdate, Violation } from "../../../guard/moderation-stream.ts";
import type { StreamGuard } from "../../../guard/stream-guard.ts";
import type { Mode } from "../../../guard/verdict.ts";
import type { ChatMessage } from "../../../tokenizer/chat-template.ts";
import { ApiError } from "../api-error.ts";
import { watchEngine } from "../engine-watch.ts";
import { Queue, type Turn } from "../queue.ts";

/** About, for what a queue needs. */
const CHARS_OF_TOKEN = 3;
/** The guard's prompt and the template behind an answer. */
const TOKENS_OF_PROMPT = 128;

/** A stream whose operations wait for their turn. One at a time. */
export interface JudgedStream {
  query(): Promise<RiskReading>;
  push(text: string): Promise<StreamUpdate>;
  end(): Promise<StreamUpdate>;
  close(): void;
}

export interface JudgeOptions {
  readonly mode: Mode;
  /** Of a Gen guard. */
  readonly every?: number | undefined;
  /** Streams that may be open. */
  readonly maxStreams: number;
  /** Told of failures that are not the text's. */
  readonly log: (line: string) => void;
}

/** The failure of a verdict that does not follow the format, where that is not taken for the worst. */
export function unreadVerdict(): ApiError {
  return new ApiError(500, "guard: expected a verdict in its format, got another text", { code: "guard_unparsed" });
}

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
    this.open([{ role: "user", content: "-" }], new AbortController().signal).close(); // refuses options that are out of range
  }

  /** Whether the last operation failed for want of an engine, or the engine has ended since. */
  get isFailing(): boolean {
    return this.#isFailing || !this.#isComputing();
  }

  /** Begins to moderate an answer. Throws RangeError for a question that is longer than the context. */
  open(question: readonly ChatMessage[], signal: AbortSignal): JudgedStream {
    let turn: Turn = async () => {};
    const options = { mode: this.mode, signal, turn: () => turn() };
    const every = this.#every === undefined ? {} : { every: this.#every };
    const input = { messages: question };
    const stream: ModerationStream =
      this.#guard instanceof Guard ? this.#guard.stream(input, { ...options, ...every }) : this.#guard.stream(input, options);
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

  /** Judges an answer that is there as a whole: a Gen guard in one verdict. `spare`: a stream that was opened for the question. */
  async judgeWhole(
    question: readonly ChatMessage[],
    text: string,
    spare: JudgedStream | undefined,
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
    const verdict = await this.#run(charsOf(messages), signal, turn => guard.moderate(messages, { mode: this.mode, signal, turn }));
    return verdict.flagged ? { risk: verdict.safety, category: verdict.categories[0] ?? null, at: 0 } : null;
  }

  /** What clients are told of an error that a guard threw. What is no fault of the text's is told to the log. */
  failureOf(error: unknown): ApiError {
    if (error instanceof ApiError) return error;
    const message = error instanceof Error ? error.message : String(error);
    const headers = { "x-should-retry": "false" }; // OpenAI's clients would try again, to the same end
    if (/^(conversation|answer|prompt) too long: /.test(message)) {
      return new ApiError(500, `guard: ${message}`, { code: "guard_context_exceeded", headers });
    }
    this.#isFailing = true;
    this.#log(`qwen3guard: the guard failed: ${message}`);
    return new ApiError(500, "guard: expected a verdict, got a failure; the proxy's log says more", { code: "guard_failed", headers });
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
