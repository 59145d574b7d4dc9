/**
 * What the package exports, values and types, name by name: a name that goes or comes is a change that users see.
 *
 * A new name is a new line here, and a line in CHANGELOG.md.
 */

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { projectPath, readJson } from "./helpers.ts";

/** By entry point, in alphabetical order; types are marked, as in the entry files. */
const EXPORTS: Readonly<Record<string, readonly string[]>> = {
  ".": [
    "type AnswerStream",
    "type BatchResult",
    "type ChatMessage",
    "type CheckpointFiles",
    "type CheckpointSource",
    "ContextLengthError",
    "ConversationError",
    "type CutRule",
    "type ExplainedWord",
    "type Explanation",
    "type GenStream",
    "type GenStreamOptions",
    "type GenStreamUpdate",
    "type GenStretchVerdict",
    "Guard",
    "type HeadReading",
    "MemoryError",
    "type Mode",
    "type ModerateOptions",
    "type ModerationInput",
    "type ModerationStream",
    "Qwen3",
    "type RiskReading",
    "type SafetyLevel",
    "StreamGuard",
    "type StreamInput",
    "type StreamModeration",
    "type StreamOptions",
    "type StreamState",
    "type StreamUpdate",
    "type StretchVerdict",
    "type TokenUpdate",
    "type TokenVerdict",
    "type TokenViolation",
    "Tokenizer",
    "TwoInARow",
    "type Verdict",
    "type VerdictUsage",
    "type VerdictWindow",
    "type Violation",
    "answerRisk",
    "extractLabelAndCategories",
    "extractLabelCategoriesRefusal",
    "filesFromBlobs",
  ],
  "./tensor": [
    "type ByteSource",
    "type Dtype",
    "type NamedSources",
    "SUM_BLOCK",
    "SafetensorsCheckpoint",
    "SafetensorsError",
    "SafetensorsFile",
    "Tensor",
    "type TensorData",
    "type TensorInfo",
    "addInto",
    "argmax",
    "attentionInto",
    "bf16ToFloat32",
    "bytesFromBlob",
    "bytesFromBuffer",
    "embedInto",
    "exp32",
    "f16ToFloat32",
    "float32ToBf16",
    "linearInto",
    "rmsNormInto",
    "ropeInto",
    "safetensorsHeader",
    "serializeSafetensors",
    "siluMulInto",
    "softmaxInto",
  ],
  "./tokenizer": [
    "type ChatMessage",
    "type ChatStream",
    "ConversationError",
    "type DecodeStream",
    "type EncodeStream",
    "type Encoding",
    "type TextFiles",
    "Tokenizer",
  ],
  "./model": [
    "type CheckpointFiles",
    "type CheckpointSource",
    "ContextLengthError",
    "type Draft",
    "type FinishReason",
    "type ForwardOptions",
    "type GenerateOptions",
    "type Generation",
    "type GenerationStep",
    "type GuardHeadWeights",
    "type GuardHeadsConfig",
    "type GuardScores",
    "type HubOptions",
    "type HubProgress",
    "type LayerWeights",
    "MemoryError",
    "Qwen3",
    "type Qwen3Config",
    "type Qwen3Weights",
    "type Sampler",
    "type SamplingOptions",
    "type Session",
    "type TapListener",
    "createSampler",
    "filesFromBlobs",
    "filesFromUrl",
    "openCheckpointFiles",
    "parseConfig",
  ],
  "./guard": [
    "type Answer",
    "type AnswerStep",
    "type AnswerStream",
    "type BatchResult",
    "ContextLengthError",
    "ConversationError",
    "type CutRule",
    "DEMO_GUARD",
    "type ExplainedWord",
    "type Explanation",
    "type GenStream",
    "type GenStreamOptions",
    "type GenStreamUpdate",
    "type GenStretchVerdict",
    "Guard",
    "type HeadReading",
    "MemoryError",
    "type Mode",
    "type ModerateOptions",
    "type ModerationInput",
    "type ModerationStream",
    "type Policy",
    "type RiskReading",
    "SAFETY_LEVELS",
    "type SafetyLevel",
    "StreamGuard",
    "type StreamInput",
    "type StreamModeration",
    "type StreamOptions",
    "type StreamState",
    "type StreamUpdate",
    "type StretchVerdict",
    "type TokenUpdate",
    "type TokenVerdict",
    "type TokenViolation",
    "TwoInARow",
    "type Verdict",
    "type VerdictUsage",
    "type VerdictWindow",
    "type Violation",
    "answerRisk",
    "extractLabelAndCategories",
    "extractLabelCategoriesRefusal",
    "isFlagged",
    "parseAnswer",
    "readPolicy",
    "toConversation",
    "writeAnswer",
  ],
  "./server": [
    "type Action",
    "type Handler",
    "type HandlerOptions",
    "type ProxyOptions",
    "createHandler",
    "createProxy",
  ],
};

const entries = readJson<{ exports: Record<string, string | { "qwen3guard-source": string }> }>("package.json").exports;
const nameOf = (line: string): string => line.replace(/^type /, "");

test("these are all the entry points", () => {
  expect(Object.keys(entries).filter(entry => entry !== "./package.json")).toEqual(Object.keys(EXPORTS));
});

describe.each(Object.keys(EXPORTS))("qwen3guard %s", entry => {
  const target = entries[entry];
  const path = projectPath(typeof target === "string" ? target : target["qwen3guard-source"]);

  test("exports these names and no others", () => {
    const code = readFileSync(path, "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
    const statements = [...code.matchAll(/^export (type )?\{([^}]*)\} from "[^"]+";$/gm)];
    // Every export is of that form, so none is overlooked.
    expect(code.match(/^\s*export\b/gm)).toHaveLength(statements.length);
    const names = statements.flatMap(([, isType, list]) =>
      list
        .split(",")
        .map(name => name.trim().replace(/^(type )?.* as /, "$1"))
        .filter(name => name !== "")
        .map(name => (isType ? `type ${name}` : name)),
    );
    expect(names.sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1))).toEqual(EXPORTS[entry]);
  });

  test("has those at run time that are no types", async () => {
    expect(Object.keys(await import(path)).sort()).toEqual(EXPORTS[entry].filter(line => line === nameOf(line)).sort());
  });
});
