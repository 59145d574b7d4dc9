/**
 * Qwen3, a loaded checkpoint: ids -> logits, ids -> ids. It knows nothing of text.
 *
 * In: where the checkpoint is. Out: a model whose sessions run it (`forward.ts` has the arithmetic, `session.ts` the
 * position).
 */

import { type NamedSources, readJson, type TextFiles } from "../checkpoint/files.ts";
import { type CheckpointSource, openCheckpointFiles } from "../checkpoint/open.ts";
import { SafetensorsCheckpoint } from "../checkpoint/safetensors-sharded.ts";
import type { Engine } from "../tensor/engine.ts";
import { createEngine, type EngineOptions } from "../tensor/engine-choice.ts";
import { parseConfig, type Qwen3Config } from "./config.ts";
import {
  type FinishReason,
  type GenerateOptions,
  type Generation,
  type GenerationStep,
  generateSteps,
} from "./generate.ts";
import { schemeToHold } from "./quantised-weights.ts";
import { RotaryTable } from "./rope.ts";
import { Session } from "./session.ts";
import { checkShapes, loadWeights, type Qwen3Weights } from "./weights.ts";

/**
 * Reads and checks config.json and, where it exists, generation_config.json. Throws Error where there is no
 * config.json, and as `parseConfig` does.
 */
export async function readConfig(files: TextFiles): Promise<Qwen3Config> {
  const configJson = await readJson(files, "config.json");
  if (configJson === undefined)
    throw new Error(`${files.name}: expected a checkpoint folder with a config.json, got none`);
  return parseConfig(configJson, await readJson(files, "generation_config.json"), files.name);
}

/** Loads the weights of a checkpoint whose config has been read, onto an engine of their own. */
export async function loadQwen3(files: NamedSources, config: Qwen3Config, options: EngineOptions): Promise<Qwen3> {
  const checkpoint = await SafetensorsCheckpoint.open(files);
  let engine: Engine | undefined;
  try {
    checkShapes(checkpoint, config);
    const scheme = schemeToHold(checkpoint, options.weights);
    engine = await createEngine(options);
    return new Qwen3(engine, config, await loadWeights(checkpoint, config, engine, scheme));
  } catch (error) {
    engine?.close();
    throw error;
  } finally {
    await checkpoint.close();
  }
}

export class Qwen3 {
  readonly engine: Engine;
  readonly config: Qwen3Config;
  readonly weights: Qwen3Weights;
  readonly rope: RotaryTable;

  /** The weights must have been loaded onto the engine. */
  constructor(engine: Engine, config: Qwen3Config, weights: Qwen3Weights) {
    this.engine = engine;
    this.config = config;
    this.weights = weights;
    this.rope = new RotaryTable(engine, config.ropeTheta, config.headDim, config.maxPositionEmbeddings);
  }

  /**
   * Loads config.json, generation_config.json (if there is one), and the safetensors file or shards. Throws what these
   * parts throw, each message with file, expected and got. Keeps no file open.
   */
  static async load(source: CheckpointSource, options: EngineOptions = {}): Promise<Qwen3> {
    const files = await openCheckpointFiles(source);
    return loadQwen3(files, await readConfig(files), options);
  }

  /** Ends the engine's threads and releases its memory. */
  close(): void {
    this.engine.close();
  }

  /** A new sequence, at position 0. Sessions share the weights and are otherwise independent of each other. */
  newSession(): Session {
    return new Session(this);
  }

  /** The answer to `prompt` as ids. Greedy unless a temperature is given. */
  async generate(prompt: ArrayLike<number>, options: GenerateOptions = {}): Promise<Generation> {
    const ids: number[] = [];
    const steps = this.generateSteps(prompt, options);
    for (;;) {
      const step = await steps.next();
      if (step.done) return { ids: Int32Array.from(ids), finishReason: step.value };
      ids.push(step.value.id);
    }
  }

  /**
   * The same, id by id, with the logits. The generator's return value is the finish reason. With a `session`, the
   * prompt runs after what the session already holds, and the session stays open.
   */
  async *generateSteps(
    prompt: ArrayLike<number>,
    options: GenerateOptions = {},
    session?: Session,
  ): AsyncGenerator<GenerationStep, FinishReason, undefined> {
    const used = session ?? this.newSession();
    try {
      return yield* generateSteps(used, prompt, options);
    } finally {
      if (!session) used.close();
    }
  }
}
