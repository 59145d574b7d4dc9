/** `import ... from "qwen3guard"`: the guard, and the parts it is made of. */

export type { ModerationInput } from "./guard/conversation.ts";
export type { ExplainedWord, Explanation } from "./guard/explanation.ts";
export { extractLabelAndCategories, extractLabelCategoriesRefusal } from "./guard/extraction.ts";
export { type BatchResult, Guard, type ModerateOptions } from "./guard/guard.ts";
export type { SafetyLevel } from "./guard/policy.ts";
export type { Mode, Verdict, VerdictUsage, VerdictWindow } from "./guard/verdict.ts";
export { type CheckpointFiles, filesFromBlobs } from "./model/checkpoint-files.ts";
export type { CheckpointSource } from "./model/open-checkpoint.ts";
export { Qwen3 } from "./model/qwen3.ts";
export type { ChatMessage } from "./tokenizer/chat-template.ts";
export { Tokenizer } from "./tokenizer/tokenizer.ts";
