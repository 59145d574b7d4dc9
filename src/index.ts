/** `import ... from "qwen3guard"`: the guard, and the parts it is made of. */

export { type CheckpointFiles, filesFromBlobs } from "./checkpoint/files.ts";
export type { CheckpointSource } from "./checkpoint/open.ts";
export type { AnswerStream, TokenUpdate } from "./guard/answer-stream.ts";
export type { ModerationInput } from "./guard/conversation.ts";
export { answerRisk, type CutRule, type TokenVerdict, type TokenViolation, TwoInARow } from "./guard/cut-rule.ts";
export type { ExplainedWord, Explanation } from "./guard/explanation.ts";
export { extractLabelAndCategories, extractLabelCategoriesRefusal } from "./guard/extraction.ts";
export type { GenStream, GenStreamUpdate, GenStretchVerdict } from "./guard/gen-stream.ts";
export { type BatchResult, Guard } from "./guard/guard.ts";
export type { HeadReading } from "./guard/head-reading.ts";
export type { GenStreamOptions, ModerateOptions } from "./guard/moderate-options.ts";
export type {
  ModerationStream,
  RiskReading,
  StreamInput,
  StreamUpdate,
  StretchVerdict,
  Violation,
} from "./guard/moderation-stream.ts";
export type { SafetyLevel } from "./guard/policy.ts";
export { StreamGuard, type StreamModeration, type StreamOptions, type StreamState } from "./guard/stream-guard.ts";
export type { Mode, Verdict, VerdictUsage, VerdictWindow } from "./guard/verdict.ts";
export { ContextLengthError } from "./model/context-length-error.ts";
export { Qwen3 } from "./model/qwen3.ts";
export { MemoryError } from "./tensor/memory-error.ts";
export type { ChatMessage } from "./tokenizer/chat-template.ts";
export { ConversationError } from "./tokenizer/conversation-error.ts";
export { Tokenizer } from "./tokenizer/tokenizer.ts";
