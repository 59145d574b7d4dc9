/**
 * The two kinds of judgement: of a user's message, and of an assistant's. Each has its own prompt, and therefore its
 * own policy and labels.
 *
 * In: a checkpoint's config and tokenizer. Out: both tasks, or an Error if the checkpoint is not a Gen guard's.
 */

import type { Qwen3Config } from "../model/config.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { AnswerDraft } from "./answer-draft.ts";
import { deriveLabels, type Labels } from "./labels.ts";
import { type Policy, readPolicy } from "./policy.ts";

export interface Task {
  readonly policy: Policy;
  readonly labels: Labels;
  readonly draft: AnswerDraft;
}

/** The tasks, by the role of the last message. */
export interface Tasks {
  readonly user: Task;
  readonly assistant: Task;
}

/** Throws Error or RangeError if the checkpoint is not a Gen guard's; `name`, the checkpoint's, begins the message. */
export function readTasks(config: Qwen3Config, tokenizer: Tokenizer, name: string): Tasks {
  if (config.architecture !== "Qwen3ForCausalLM") {
    throw new Error(
      `${name}: expected a Gen guard (Qwen3ForCausalLM), got ${config.architecture} (a Stream guard has other heads)`,
    );
  }
  if (!tokenizer.hasChatTemplate)
    throw new Error(`${name}: expected a guard's chat template, got a tokenizer without any`);
  if (tokenizer.vocabSize > config.vocabSize) {
    throw new RangeError(
      `${name}: tokenizer: expected at most ${config.vocabSize} ids, the model's vocabulary, got ${tokenizer.vocabSize}`,
    );
  }
  const readTask = (messages: readonly ChatMessage[]): Task => {
    const policy = readPolicy(tokenizer.applyChatTemplate(messages), name);
    const labels = deriveLabels(tokenizer, policy, name);
    return { policy, labels, draft: new AnswerDraft(tokenizer, policy, labels) };
  };
  // Any conversation shows the policy. These two take the template's two branches.
  const user = [{ role: "user", content: "-" }];
  return { user: readTask(user), assistant: readTask([...user, { role: "assistant", content: "-" }]) };
}
