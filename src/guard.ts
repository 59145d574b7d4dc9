/** `import ... from "qwen3guard/guard"`: messages -> verdict, and an answer in pieces -> verdicts. */

export { type Answer, parseAnswer, writeAnswer } from "./guard/answer.ts";
export type { AnswerStream, StreamUpdate } from "./guard/answer-stream.ts";
export { type ModerationInput, toConversation } from "./guard/conversation.ts";
export { answerRisk, type CutRule, type TokenVerdict, TwoInARow, type Violation } from "./guard/cut-rule.ts";
export { DEMO_GUARD } from "./guard/demo-guard.ts";
export { extractLabelAndCategories, extractLabelCategoriesRefusal } from "./guard/extraction.ts";
export { Guard, isFlagged, type Mode, type ModerateOptions, type Verdict } from "./guard/guard.ts";
export { type Policy, readPolicy, SAFETY_LEVELS, type SafetyLevel } from "./guard/policy.ts";
export type { Reading } from "./guard/readings.ts";
export { StreamGuard, type StreamInput, type StreamModeration, type StreamOptions, type StreamState } from "./guard/stream-guard.ts";
