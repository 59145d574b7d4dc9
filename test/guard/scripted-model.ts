/** A model that writes what a test says: what a guard makes of an answer, without a transformer. */

import { Guard } from "../../src/guard/guard.ts";
import type { FinishReason, GenerateOptions, GenerationStep } from "../../src/model/generate.ts";
import type { Qwen3 } from "../../src/model/qwen3.ts";
import type { Session } from "../../src/model/session.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { loadGuard } from "../checkpoints.ts";

/** How much the logit of what is written stands above the others, which are 0. */
const MARGIN = 5;

/** Holds ids, as a session does, and knows nothing of them. */
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

  commonPrefix(ids: ArrayLike<number>): number {
    let common = 0;
    while (common < ids.length && common < this.ids.length && ids[common] === this.ids[common]) common++;
    return common;
  }

  truncate(position: number): void {
    this.ids.length = position;
  }

  /** Logits in which nothing stands out. */
  forward(ids: ArrayLike<number>): Float32Array {
    this.#model.forwards.push(Array.from(ids));
    this.ids.push(...Array.from(ids));
    return this.#model.logits();
  }

  async prefill(ids: ArrayLike<number>): Promise<Float32Array> {
    return this.forward(ids);
  }

  close(): void {
    this.isClosed = true;
  }
}

export class ScriptedModel {
  readonly config: Qwen3["config"];
  readonly sessions: ScriptedSession[] = [];
  /** What `generateSteps` and `forward` were asked for, in order. */
  readonly generations: { readonly ids: readonly number[]; readonly options: GenerateOptions }[] = [];
  readonly forwards: number[][] = [];
  readonly #tokenizer: Tokenizer;
  readonly #answer: (prompt: string) => string;

  constructor(config: Qwen3["config"], tokenizer: Tokenizer, answer: (prompt: string) => string) {
    this.config = config;
    this.#tokenizer = tokenizer;
    this.#answer = answer;
  }

  newSession(): ScriptedSession {
    const session = new ScriptedSession(this);
    this.sessions.push(session);
    return session;
  }

  logits(id?: number): Float32Array {
    const logits = new Float32Array(this.config.vocabSize);
    if (id !== undefined) logits[id] = MARGIN;
    return logits;
  }

  async *generateSteps(
    ids: ArrayLike<number>,
    options: GenerateOptions,
    session: ScriptedSession,
  ): AsyncGenerator<GenerationStep, FinishReason, undefined> {
    this.generations.push({ ids: Array.from(ids), options });
    session.ids.push(...Array.from(ids));
    const prompt = this.#tokenizer.decode(Int32Array.from(session.ids));
    const stop = this.#tokenizer.tokenToId("<|im_end|>")!;
    const answer = [...this.#tokenizer.encode(this.#answer(prompt), { literal: true }), stop];
    for (const [i, id] of answer.entries()) {
      if (i === (options.maxNewTokens ?? 128)) return "length";
      yield { id, logits: this.logits(id), pass: i + 1 };
      session.ids.push(id);
    }
    return "stop";
  }

  close(): void {}
}

/** `answer`: what the model writes to a prompt's text. `context`: how many tokens fit, the demo guard's number by default. */
export async function scriptedGuard(
  answer: (prompt: string) => string,
  context?: number,
): Promise<{ readonly guard: Guard; readonly model: ScriptedModel; readonly tokenizer: Tokenizer }> {
  const { model: real, tokenizer } = await loadGuard();
  const config = { ...real.config, maxPositionEmbeddings: context ?? real.config.maxPositionEmbeddings };
  const model = new ScriptedModel(config, tokenizer, answer);
  return { guard: new Guard(model as unknown as Qwen3, tokenizer, "scripted"), model, tokenizer };
}

/** The session as the guard's own functions take it. */
export function asSession(session: ScriptedSession): Session {
  return session as unknown as Session;
}
