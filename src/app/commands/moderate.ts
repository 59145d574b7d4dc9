/** `qwen3guard moderate`: one verdict, as a card or as JSON. */

import { type ModerationInput, toConversation } from "../../guard/conversation.ts";
import { Guard } from "../../guard/guard.ts";
import type { Mode } from "../../guard/verdict.ts";
import { checkpointFiles, engineOptions, type ModelOptions } from "../checkpoint-option.ts";
import { inFile, type Terminal, textArgument, UsageError } from "../io.ts";
import { readMessages } from "../messages.ts";
import { verdictCard } from "../verdict-card.ts";

export interface ModerateCommandOptions extends ModelOptions {
  readonly response?: string;
  readonly messages?: string;
  readonly mode: Mode;
  readonly json?: boolean;
}

/** Returns whether it is flagged, and what is to be printed. */
export async function moderateCommand(
  text: string | undefined,
  options: ModerateCommandOptions,
  terminal: Terminal,
): Promise<{ flagged: boolean; output: string }> {
  const input = await readInput(text, options, terminal);
  const engine = engineOptions(options);
  const guard = await Guard.load(await checkpointFiles(options, terminal), engine);
  const verdict = await guard.moderate(input, { mode: options.mode });
  return { flagged: verdict.flagged, output: options.json ? `${JSON.stringify(verdict)}\n` : verdictCard(verdict, input, terminal) };
}

async function readInput(text: string | undefined, options: ModerateCommandOptions, terminal: Terminal): Promise<ModerationInput> {
  if (options.messages !== undefined) {
    if (text !== undefined) throw new UsageError("moderate: expected a text or --messages, got both");
    if (options.response !== undefined) throw new UsageError("moderate: expected --response or --messages, got both");
    const messages = await readMessages(options.messages, terminal);
    return inFile(options.messages, () => toConversation(messages));
  }
  const prompt = await textArgument(text, terminal, "moderate");
  return options.response === undefined ? prompt : { prompt, response: options.response };
}
