/** `import ... from "qwen3guard/model"`: ids -> logits, ids -> ids. */

export { type CheckpointFiles, filesFromBlobs, filesFromUrl } from "./checkpoint/files.ts";
export type { HubOptions, HubProgress } from "./checkpoint/hub/id.ts";
export { type CheckpointSource, openCheckpointFiles } from "./checkpoint/open.ts";
export { type GuardHeadsConfig, parseConfig, type Qwen3Config } from "./model/config.ts";
export { ContextLengthError } from "./model/context-length-error.ts";
export type { GuardScores, TapListener } from "./model/forward.ts";
export type { Draft, FinishReason, GenerateOptions, Generation, GenerationStep } from "./model/generate.ts";
export { Qwen3 } from "./model/qwen3.ts";
export { createSampler, type Sampler, type SamplingOptions } from "./model/sampling.ts";
export type { ForwardOptions, Session } from "./model/session.ts";
export type { GuardHeadWeights, LayerWeights, Qwen3Weights } from "./model/weights.ts";
export { MemoryError } from "./tensor/memory-error.ts";
