/** `import ... from "qwen3guard/guard"`: messages -> verdict. */

export { type Answer, parseAnswer, writeAnswer } from "./guard/answer.ts";
export { type ModerationInput, toConversation } from "./guard/conversation.ts";
export { DEMO_GUARD } from "./guard/demo-guard.ts";
export { extractLabelAndCategories, extractLabelCategoriesRefusal } from "./guard/extraction.ts";
export { Guard, isFlagged, type Mode, type ModerateOptions, type Verdict } from "./guard/guard.ts";
export { type Policy, readPolicy, SAFETY_LEVELS, type SafetyLevel } from "./guard/policy.ts";
