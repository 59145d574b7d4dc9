/** Verdicts on many inputs, in their order: the one place of an evaluation that knows how they are obtained. */

import type { ModerationInput } from "../../guard/conversation.ts";
import type { Guard, Verdict } from "../../guard/guard.ts";

export async function* judge(guard: Pick<Guard, "moderate">, inputs: readonly ModerationInput[]): AsyncGenerator<Verdict> {
  for (const input of inputs) yield await guard.moderate(input);
}
