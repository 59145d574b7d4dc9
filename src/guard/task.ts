/**
 * The two kinds of judgement: on a user's message, and on an assistant's. Each has a prompt, and so a policy and
 * labels, of its own.
 *
 * In: a checkpoint's config and tokenizer. Out: both tasks, or an Error where the checkpoint is not a Gen guard's.
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

/** By the role of the last message. */
export interface Tasks {
  readonly user: Task;
  readonly assistant: Task;
}

/**
 * What the checkpoint may be asked and may answer. Throws Error or RangeError where it is not a Gen guard's; `name`
 * stands in the message.
 */
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
  // Any conversation shows the policy; these two take the template's two branches.
  const user = [{ role: "user", content: "-" }];
  return { user: readTask(user), assistant: readTask([...user, { role: "assistant", content: "-" }]) };
}
