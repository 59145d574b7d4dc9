/**
 * What a guard may answer, read from its own prompt.
 *
 * In: a rendered prompt of the checkpoint's chat template. Out: its levels, its categories, and whether a refusal line
 * is asked for. The prompt spells all of them out, so nothing here is a list that could disagree with the checkpoint.
 */

/** The three levels, spelled as the model writes them. */
export type SafetyLevel = "Safe" | "Unsafe" | "Controversial";
export const SAFETY_LEVELS: readonly SafetyLevel[] = ["Safe", "Unsafe", "Controversial"];

/** What the model writes where there is no category. */
export const NO_CATEGORY = "None";

/** The answers that one kind of prompt (on a user's message, or on an assistant's) allows. */
export interface Policy {
  /** Category names as the model writes them, in the prompt's order, without "None". */
  readonly categories: readonly string[];
  /** Whether the answer has a third line, "Refusal: Yes" or "Refusal: No". */
  readonly hasRefusal: boolean;
}

/** Throws Error where the text is not a guard's prompt. `name` (the checkpoint) stands in the message. */
export function readPolicy(prompt: string, name: string): Policy {
  const refuse = (missing: string): never => {
    throw new Error(
      `${name}: expected a guard's chat template, got one whose prompt has no ${missing} (is this a Qwen3Guard-Gen checkpoint?)`,
    );
  };
  for (const level of SAFETY_LEVELS) {
    if (!prompt.includes(`'Safety: ${level}'`)) refuse(`'Safety: ${level}'`);
  }
  const list =
    /<BEGIN UNSAFE CONTENT CATEGORIES>\n([\s\S]*?)<END UNSAFE CONTENT CATEGORIES>/.exec(prompt)?.[1] ??
    refuse("list of categories");
  const categories = list.split("\n").flatMap(line => (line.trim() === "" ? [] : [line.trim().replace(/\.$/, "")]));
  if (categories.length === 0 || new Set(categories).size !== categories.length) refuse("list of distinct categories");
  return { categories, hasRefusal: prompt.includes("'Refusal: Yes'") };
}
