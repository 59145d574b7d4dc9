/** The checkpoints that tests run, each loaded once per test file. */

import { Guard } from "../src/guard/guard.ts";
import { Qwen3 } from "../src/model/qwen3.ts";
import type { EngineOptions } from "../src/tensor/engine-choice.ts";
import { projectPath } from "./helpers.ts";

export const GEN: string = projectPath("models/tiny-guard-gen");
export const STREAM: string = projectPath("test/fixtures/tiny-guard-stream");
export const ODD: string = projectPath("test/fixtures/odd");

const models = new Map<string, Promise<Qwen3>>();
let guard: Promise<Guard> | undefined;

/** On the engine that a user gets, unless the options say otherwise. */
export function loadModel(folder: string, options: EngineOptions = {}): Promise<Qwen3> {
  const key = JSON.stringify([folder, options]);
  const model = models.get(key) ?? Qwen3.load(folder, options);
  models.set(key, model);
  return model;
}

export function loadGuard(): Promise<Guard> {
  guard ??= Guard.load();
  return guard;
}
