/**
 * What the endpoints share: the guard and its names, the queue to its engine, what is counted, and the request at hand.
 */

import { parseAnswer } from "../guard/answer.ts";
import type { Guard } from "../guard/guard.ts";
import { type Policy, readPolicy } from "../guard/policy.ts";
import { ContextLengthError } from "../model/context-length-error.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import { ConversationError } from "../tokenizer/conversation-error.ts";
import { ApiError, describe, invalid, unavailable } from "./api-error.ts";
import type { Fields } from "./fields.ts";
import type { Usage } from "./generation.ts";
import { Metrics } from "./metrics.ts";
import { Queue, QueueFullError, type Work } from "./queue.ts";

/** Of a job's time, in the running mean. */
const RECENCY = 0.1;
const MAX_RETRY_AFTER = 60;

/** A request on its way: its signal also tells of the time limit. */
export interface Exchange {
  /** Of the route table, so that nothing a client chose gets into metrics and logs. */
  route: string;
  readonly signal: AbortSignal;
  /** Ends the work on it as if the client had gone. */
  readonly abort: (reason: Error) => void;
  /** What the client is told of a failure; one that is the server's own is logged. */
  readonly failed: (error: unknown) => ApiError;
  /** Texts to moderate, for the log that shows them. */
  texts: readonly string[];
  /** The work that goes on behind a response that streams. */
  ended: Promise<void> | undefined;
}

export class Service {
  readonly guard: Guard;
  /** The first is the one that answers carry. */
  readonly modelNames: readonly string[];
  readonly queue: Queue;
  readonly metrics: Metrics = new Metrics();
  /** Seconds since 1970. */
  readonly created: number = Math.floor(Date.now() / 1000);
  readonly policies: Readonly<Record<"user" | "assistant", Policy>>;
  /** How long a job takes, lately. */
  #jobSeconds = 0;
  readonly #countRefused: (labels: Readonly<Record<string, never>>, by?: number) => void;
  readonly #countTokens: (labels: { readonly kind: "prompt" | "cached" | "completion" }, by: number) => void;
  readonly #countVerdict: (labels: { readonly safety: string }) => void;

  constructor(guard: Guard, modelNames: readonly string[], maxQueue: number) {
    this.guard = guard;
    this.modelNames = [...new Set([...modelNames, guard.name])];
    this.queue = new Queue(maxQueue);
    const policy = (roles: readonly string[]): Policy =>
      readPolicy(guard.tokenizer.applyChatTemplate(roles.map(role => ({ role, content: "-" }))), guard.name);
    this.policies = { user: policy(["user"]), assistant: policy(["user", "assistant"]) };
    this.metrics.gauge("qwen3guard_queue_waiting", "Requests that wait for their turn.", () => this.queue.waiting);
    this.metrics.gauge("qwen3guard_queue_begun", "Requests that the engine has begun.", () => this.queue.begun);
    this.#countRefused = this.metrics.counter("qwen3guard_queue_refused_total", "Requests that found the queue full.");
    this.#countTokens = this.metrics.counter(
      "qwen3guard_tokens_total",
      "Tokens by kind; cached ones are among those of the prompts.",
    );
    this.#countVerdict = this.metrics.counter(
      "qwen3guard_verdicts_total",
      "Verdicts by level; what could not be parsed is unparsed.",
    );
    this.#countRefused({}, 0);
    for (const kind of ["prompt", "cached", "completion"] as const) this.#countTokens({ kind }, 0);
  }

  get model(): string {
    return this.modelNames[0];
  }

  get maxPositions(): number {
    return this.guard.model.config.maxPositionEmbeddings;
  }

  /** 404 where the request names a model that is not here. None at all means the one that is. */
  checkModel(fields: Fields): void {
    const name = fields.string("model");
    if (name !== undefined && !this.modelNames.includes(name)) throw this.noSuchModel(name);
  }

  noSuchModel(name: string): ApiError {
    return new ApiError(404, `model: expected ${this.modelNames.join(" or ")}, got ${describe(name)}`, {
      param: "model",
      code: "model_not_found",
    });
  }

  /** Puts a job into the queue; 503 where that is full. */
  async run<T>(work: Work<T>): Promise<T> {
    const { run } = work;
    try {
      return await this.queue.run({
        ...work,
        run: async turn => {
          const started = performance.now();
          const result = await run(turn);
          this.#jobSeconds += ((performance.now() - started) / 1000 - this.#jobSeconds) * RECENCY;
          return result;
        },
      });
    } catch (error) {
      if (!(error instanceof QueueFullError)) throw error;
      this.#countRefused({});
      const seconds = Math.min(MAX_RETRY_AFTER, Math.max(1, Math.ceil(this.queue.waiting * this.#jobSeconds)));
      throw unavailable(`the queue is full (${this.queue.waiting} waiting)`, seconds, "queue_full");
    }
  }

  countUsage({ prompt_tokens, completion_tokens, prompt_tokens_details }: Usage): void {
    this.#countTokens({ kind: "prompt" }, prompt_tokens);
    this.#countTokens({ kind: "cached" }, prompt_tokens_details.cached_tokens);
    this.#countTokens({ kind: "completion" }, completion_tokens);
  }

  countVerdict(safety: string | null): void {
    this.#countVerdict({ safety: safety ?? "unparsed" });
  }

  /** An answer that the guard wrote is a verdict as well. */
  countAnswer(messages: readonly ChatMessage[], text: string): void {
    const role = messages[messages.length - 1].role === "user" ? "user" : "assistant";
    this.countVerdict(parseAnswer(text, this.policies[role])?.safety ?? null);
  }
}

/** Runs a step of the guard's on what is in `param`; an input that the guard refuses becomes a 400 that names it. */
export function checked<T>(param: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw refusedInput(param, error);
  }
}

/** What the client is told where the guard refuses an input; any other error is returned as it is. */
export function refusedInput(param: string, error: unknown): unknown {
  if (error instanceof ContextLengthError)
    return new ApiError(400, error.message, { param, code: "context_length_exceeded" });
  if (error instanceof ConversationError) return new ApiError(400, error.message, { param, code: "invalid_value" });
  return error;
}

/** A field that must be an array with something in it. */
export function requireArray(fields: Fields, name: string): unknown[] {
  const value = fields.get(name);
  if (!Array.isArray(value)) throw invalid(name, "an array", describe(value));
  if (value.length === 0) throw invalid(name, "at least one entry", "none");
  return value;
}

/** An identifier as OpenAI's look: a prefix and 24 hexadecimal digits. */
export function newId(prefix: string): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `${prefix}-${Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("")}`;
}
