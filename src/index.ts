/** `import ... from "qwen3guard"`: the guard, and the parts it is made of. */

export type { AnswerStream, StreamUpdate } from "./guard/answer-stream.ts";
export type { ModerationInput } from "./guard/conversation.ts";
export { answerRisk, type CutRule, type TokenVerdict, TwoInARow, type Violation } from "./guard/cut-rule.ts";
export type { ExplainedWord, Explanation } from "./guard/explanation.ts";
export { extractLabelAndCategories, extractLabelCategoriesRefusal } from "./guard/extraction.ts";
export { type BatchResult, Guard, type ModerateOptions } from "./guard/guard.ts";
export type { HeadReading } from "./guard/head-reading.ts";
export type { SafetyLevel } from "./guard/policy.ts";
export { StreamGuard, type StreamInput, type StreamModeration, type StreamOptions, type StreamState } from "./guard/stream-guard.ts";
export type { Mode, Verdict, VerdictUsage, VerdictWindow } from "./guard/verdict.ts";
export { type CheckpointFiles, filesFromBlobs } from "./model/checkpoint-files.ts";
export type { CheckpointSource } from "./model/open-checkpoint.ts";
export { Qwen3 } from "./model/qwen3.ts";
export type { ChatMessage } from "./tokenizer/chat-template.ts";
export { Tokenizer } from "./tokenizer/tokenizer.ts";
