/**
 * What a guard may answer, read from its own prompt.
 *
 * In: a prompt rendered by the checkpoint's chat template. Out: its categories, and whether it asks for a refusal line.
 * The prompt spells them out, so there is no list here that could disagree with the checkpoint.
 */

/** The three levels, spelled as the model writes them. */
export type SafetyLevel = "Safe" | "Unsafe" | "Controversial";
export const SAFETY_LEVELS: readonly SafetyLevel[] = ["Safe", "Unsafe", "Controversial"];

/** What the model writes if there is no category. */
export const NO_CATEGORY = "None";

/** The answers that one kind of prompt allows: about a user's message, or about an assistant's. */
export interface Policy {
  /** Category names as the model writes them, in the prompt's order, without "None". */
  readonly categories: readonly string[];
  /** Whether the answer has a third line, "Refusal: Yes" or "Refusal: No". */
  readonly hasRefusal: boolean;
}

/** Throws Error if the text is not a guard's prompt. `name`, the checkpoint's, begins the message. */
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
