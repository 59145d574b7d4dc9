/** `import ... from "qwen3guard/guard"`: messages -> verdict, and an answer in pieces -> verdicts. */

export { type Answer, parseAnswer, writeAnswer } from "./guard/answer.ts";
export type { AnswerStream, TokenUpdate } from "./guard/answer-stream.ts";
export { type ModerationInput, toConversation } from "./guard/conversation.ts";
export { answerRisk, type CutRule, type TokenVerdict, type TokenViolation, TwoInARow } from "./guard/cut-rule.ts";
export { DEMO_GUARD } from "./guard/demo-guard.ts";
export type { ExplainedWord, Explanation } from "./guard/explanation.ts";
export { extractLabelAndCategories, extractLabelCategoriesRefusal } from "./guard/extraction.ts";
export type { GenStream, GenStreamUpdate, GenStretchVerdict } from "./guard/gen-stream.ts";
export { type AnswerStep, type BatchResult, Guard } from "./guard/guard.ts";
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
export { type Policy, readPolicy, SAFETY_LEVELS, type SafetyLevel } from "./guard/policy.ts";
export { StreamGuard, type StreamModeration, type StreamOptions, type StreamState } from "./guard/stream-guard.ts";
export { isFlagged, type Mode, type Verdict, type VerdictUsage, type VerdictWindow } from "./guard/verdict.ts";
export { ContextLengthError } from "./model/context-length-error.ts";
export { MemoryError } from "./tensor/memory-error.ts";
export { ConversationError } from "./tokenizer/conversation-error.ts";
