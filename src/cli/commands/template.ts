/** `qwen3guard template`: the prompt that the checkpoint's own chat template renders. It needs no weights. */

import type { Command } from "commander";
import { Tokenizer } from "../../tokenizer/tokenizer.ts";
import { type CommandContext, example, required, withJson } from "../command.ts";
import { readMessages } from "../conversation-input.ts";
import { checkpointFiles, type ModelOptions, withModel } from "../model-options.ts";
import type { Terminal } from "../terminal.ts";

export function specify(command: Command, { terminal }: CommandContext): void {
  withJson(withModel(command))
    .description("the prompt that the chat template renders from a conversation")
    .option("--messages <file>", "a JSON array of {role, content}; - is stdin (required)")
    .addHelpText("after", example("qwen3guard template --messages conversation.json"))
    .action(options =>
      renderTemplate({ ...options, messages: required(options.messages, "template", "--messages FILE") }, terminal),
    );
}

async function renderTemplate(
  options: ModelOptions & { messages: string; json?: boolean },
  terminal: Terminal,
): Promise<void> {
  const messages = await readMessages(options.messages, terminal);
  const tokenizer = await Tokenizer.load(await checkpointFiles(options, terminal));
  const text = tokenizer.applyChatTemplate(messages);
  // A pipe gets exactly the prompt. On a terminal the shell's next line should not stick to it.
  await terminal.out(options.json ? `${JSON.stringify({ text })}\n` : terminal.isTTY ? `${text}\n` : text);
}
