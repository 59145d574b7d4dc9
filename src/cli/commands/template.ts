/** `qwen3guard template`: the prompt that the checkpoint's own chat template renders. Needs no weights. */

import { Tokenizer } from "../../tokenizer/tokenizer.ts";
import { checkpointFiles, type ModelOptions } from "../checkpoint-option.ts";
import type { Terminal } from "../io.ts";
import { readMessages } from "../messages.ts";

export async function templateCommand(
  options: ModelOptions & { messages: string; json?: boolean },
  terminal: Terminal,
): Promise<void> {
  const messages = await readMessages(options.messages, terminal);
  const tokenizer = await Tokenizer.load(await checkpointFiles(options, terminal));
  const text = tokenizer.applyChatTemplate(messages);
  // In a pipe exactly the prompt; on a terminal the shell's next line should not stick to it.
  await terminal.out(options.json ? `${JSON.stringify({ text })}\n` : terminal.isTTY ? `${text}\n` : text);
}
