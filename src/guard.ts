/** `import ... from "qwen3guard/guard"`: messages -> verdict. */

export { type Answer, parseAnswer, writeAnswer } from "./guard/answer.ts";
export { type ModerationInput, toConversation } from "./guard/conversation.ts";
export { DEMO_GUARD } from "./guard/demo-guard.ts";
export type { ExplainedWord, Explanation } from "./guard/explanation.ts";
export { extractLabelAndCategories, extractLabelCategoriesRefusal } from "./guard/extraction.ts";
export { type AnswerStep, type BatchResult, Guard, type ModerateOptions } from "./guard/guard.ts";
export { type Policy, readPolicy, SAFETY_LEVELS, type SafetyLevel } from "./guard/policy.ts";
export { isFlagged, type Mode, type Verdict, type VerdictUsage, type VerdictWindow } from "./guard/verdict.ts";
