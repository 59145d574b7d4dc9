/** A model that writes what a test says: what a guard makes of an answer, without a transformer. */

import { Guard } from "../../src/guard/guard.ts";
import type { Qwen3 } from "../../src/model/qwen3.ts";
import type { PrefillOptions } from "../../src/model/session.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { loadGuard } from "../checkpoints.ts";

/** How far the logit of what is written stands above the others, which are 0. */
export const MARGIN = 5;

/** Holds ids, as a session does. Its logits are those of the answer that the model's script gives to the prompt. */
class ScriptedSession {
  readonly ids: number[] = [];
  isClosed = false;
  readonly #model: ScriptedModel;

  constructor(model: ScriptedModel) {
    this.#model = model;
  }

  get position(): number {
    return this.ids.length;
  }

  get config(): Qwen3["config"] {
    return this.#model.config;
  }

  commonPrefix(ids: ArrayLike<number>): number {
    let common = 0;
    while (common < ids.length && ids[common] === this.ids[common]) common++;
    return common;
  }

  truncate(position: number): void {
    this.ids.length = position;
  }

  async prefill(ids: ArrayLike<number>, options: PrefillOptions = {}): Promise<Float32Array> {
    options.signal?.throwIfAborted();
    this.#model.beforePass();
    const first = this.position;
    this.ids.push(...Array.from(ids));
    return this.#model.answerTo(this.ids, first, options);
  }

  /** Logits in which nothing stands out. */
  forward(ids: ArrayLike<number>): Float32Array {
    this.#model.forwards.push(Array.from(ids));
    this.ids.push(...Array.from(ids));
    return new Float32Array(this.config.vocabSize);
  }

  close(): void {
    this.isClosed = true;
  }
}

/** A prompt that was run: the ids of it that the session did not hold, and how. */
interface PromptRun {
  readonly ids: readonly number[];
  readonly options: PrefillOptions;
}

export class ScriptedModel {
  readonly config: Qwen3["config"];
  readonly sessions: ScriptedSession[] = [];
  readonly prompts: PromptRun[] = [];
  /** Passes over single ids: the ids of each. */
  readonly forwards: number[][] = [];
  /** Called before each pass of an answer; what it throws is the engine's failure. */
  beforePass: () => void = () => {};
  readonly #tokenizer: Tokenizer;
  readonly #answer: (prompt: string) => string;
  readonly #stop: number;
  /** What the template puts between the messages and the answer. */
  readonly #opening: Int32Array;

  constructor(config: Qwen3["config"], tokenizer: Tokenizer, answer: (prompt: string) => string) {
    this.config = config;
    this.#tokenizer = tokenizer;
    this.#answer = answer;
    this.#stop = config.stopIds[0];
    const prompt = tokenizer.encodeChat([{ role: "user", content: "a" }]);
    this.#opening = prompt.subarray(prompt.lastIndexOf(tokenizer.tokenToId("<|im_start|>")!));
  }

  newSession(): ScriptedSession {
    const session = new ScriptedSession(this);
    this.sessions.push(session);
    return session;
  }

  /** Logits of the last `options.logits` ids of `ids`, of which those from `first` on have just been run. */
  answerTo(ids: readonly number[], first: number, options: PrefillOptions): Float32Array {
    const start = ids.lastIndexOf(this.#opening[0]) + this.#opening.length;
    if (first < start) this.prompts.push({ ids: ids.slice(first, start), options });
    const text = this.#tokenizer.decode(Int32Array.from(ids.slice(0, start)));
    const answer = [...this.#tokenizer.encode(this.#answer(text), { literal: true }), this.#stop];
    const { logits: rows = 1 } = options;
    const { vocabSize } = this.config;
    const logits = new Float32Array(rows * vocabSize);
    for (let row = 0; row < rows; row++) {
      const next = ids.length - rows + row + 1 - start; // which id of the answer this row chooses
      logits[row * vocabSize + (answer[next] ?? this.#stop)] = MARGIN;
    }
    return logits;
  }

  close(): void {}
}

/**
 * `answer`: what the model writes to a prompt's text. `context`: how many tokens fit, the demo guard's number by
 * default.
 */
export async function scriptedGuard(
  answer: (prompt: string) => string,
  context?: number,
): Promise<{ readonly guard: Guard; readonly model: ScriptedModel; readonly tokenizer: Tokenizer }> {
  const { model: real, tokenizer } = await loadGuard();
  const config = { ...real.config, maxPositionEmbeddings: context ?? real.config.maxPositionEmbeddings };
  const model = new ScriptedModel(config, tokenizer, answer);
  return { guard: new Guard(model as unknown as Qwen3, tokenizer, "scripted"), model, tokenizer };
}
