/** `qwen3guard moderate`: one verdict, as a card or as JSON. */

import type { ModerationInput } from "../../guard/conversation.ts";
import { Guard, type Mode } from "../../guard/guard.ts";
import { checkpointFiles, engineOptions, type ModelOptions } from "../checkpoint-option.ts";
import { type Terminal, textArgument, UsageError } from "../io.ts";
import { readMessages } from "../messages.ts";
import { verdictCard } from "../verdict-card.ts";

export interface ModerateCommandOptions extends ModelOptions {
  readonly response?: string;
  readonly messages?: string;
  readonly mode: Mode;
  readonly json?: boolean;
}

/** Returns whether it is flagged. */
export async function moderateCommand(text: string | undefined, options: ModerateCommandOptions, terminal: Terminal): Promise<boolean> {
  const input = await readInput(text, options, terminal);
  const engine = engineOptions(options);
  const guard = await Guard.load(await checkpointFiles(options, terminal), engine);
  const verdict = await guard.moderate(input, { mode: options.mode });
  await terminal.out(options.json ? `${JSON.stringify(verdict)}\n` : verdictCard(verdict, input, terminal));
  return verdict.flagged;
}

async function readInput(text: string | undefined, options: ModerateCommandOptions, terminal: Terminal): Promise<ModerationInput> {
  if (options.messages !== undefined) {
    if (text !== undefined) throw new UsageError("moderate: expected a text or --messages, got both");
    if (options.response !== undefined) throw new UsageError("moderate: expected --response or --messages, got both");
    return readMessages(options.messages, terminal);
  }
  const prompt = await textArgument(text, terminal, "moderate");
  return options.response === undefined ? prompt : { prompt, response: options.response };
}
