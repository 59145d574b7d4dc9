/** What the endpoints share: the guard and its names, the queue to its engine, and what is counted. */

import { parseAnswer } from "../guard/answer.ts";
import type { Guard } from "../guard/guard.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import { ApiError, describe } from "./api-error.ts";
import type { Fields } from "./fields.ts";
import type { Usage } from "./generation.ts";
import { Metrics } from "./metrics.ts";
import { Pace } from "./pace.ts";
import { Queue, QueueFullError, type Work } from "./queue.ts";

export class Service {
  readonly guard: Guard;
  /** Answers carry the first. */
  readonly modelNames: readonly string[];
  readonly queue: Queue;
  readonly metrics: Metrics = new Metrics();
  /** Seconds since 1970. */
  readonly created: number = Math.floor(Date.now() / 1000);
  readonly #pace = new Pace();
  readonly #countRefused: (labels: Readonly<Record<string, never>>, by?: number) => void;
  readonly #countTokens: (labels: { readonly kind: "prompt" | "cached" | "completion" }, by: number) => void;
  readonly #countVerdict: (labels: { readonly safety: string }) => void;

  constructor(guard: Guard, modelNames: readonly string[], maxQueue: number) {
    this.guard = guard;
    this.modelNames = [...new Set([...modelNames, guard.name])];
    this.queue = new Queue(maxQueue);
    this.metrics.gauge("qwen3guard_queue_waiting", "Requests that wait for their turn.", () => this.queue.waiting);
    this.metrics.gauge("qwen3guard_queue_begun", "Requests that the engine has begun.", () => this.queue.begun);
    this.#countRefused = this.metrics.counter("qwen3guard_queue_refused_total", "Requests that found the queue full.");
    this.#countTokens = this.metrics.counter(
      "qwen3guard_tokens_total",
      "Tokens by kind; cached: those of the prompts that were in the cache.",
    );
    this.#countVerdict = this.metrics.counter(
      "qwen3guard_verdicts_total",
      "Verdicts by level; unparsed: the answer could not be parsed.",
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

  /** Throws 404 if the request names another model. Without a name, it means this one. */
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

  /** Puts a job into the queue. Throws 503 if the queue is full. */
  async run<T>(work: Work<T>): Promise<T> {
    const { run } = work;
    try {
      return await this.queue.run({
        ...work,
        run: async turn => {
          const started = performance.now();
          const result = await run(turn);
          this.#pace.noteSince(started);
          return result;
        },
      });
    } catch (error) {
      if (!(error instanceof QueueFullError)) throw error;
      this.#countRefused({});
      throw this.#pace.queueFull(this.queue.waiting, 1);
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

  /** Counts the guard's answer to a conversation as a verdict. */
  countAnswer(messages: readonly ChatMessage[], text: string): void {
    this.countVerdict(parseAnswer(text, this.guard.policyOf(messages))?.safety ?? null);
  }
}
