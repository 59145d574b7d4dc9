/** `import ... from "qwen3guard/guard"`: messages -> verdict, and an answer in pieces -> verdicts. */

export { type Answer, parseAnswer, writeAnswer } from "./guard/answer.ts";
export type { AnswerStream, StreamUpdate } from "./guard/answer-stream.ts";
export { type ModerationInput, toConversation } from "./guard/conversation.ts";
export { answerRisk, type CutRule, type TokenVerdict, TwoInARow, type Violation } from "./guard/cut-rule.ts";
export { DEMO_GUARD } from "./guard/demo-guard.ts";
export type { ExplainedWord, Explanation } from "./guard/explanation.ts";
export { extractLabelAndCategories, extractLabelCategoriesRefusal } from "./guard/extraction.ts";
export { type BatchResult, Guard, type ModerateOptions } from "./guard/guard.ts";
export type { HeadReading } from "./guard/head-reading.ts";
export { type Policy, readPolicy, SAFETY_LEVELS, type SafetyLevel } from "./guard/policy.ts";
export { StreamGuard, type StreamInput, type StreamModeration, type StreamOptions, type StreamState } from "./guard/stream-guard.ts";
export { isFlagged, type Mode, type Verdict, type VerdictUsage, type VerdictWindow } from "./guard/verdict.ts";
