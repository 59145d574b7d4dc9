/** `qwen3guard generate`: text from a raw prompt or a conversation, printed as it comes. */

import type { Command } from "commander";
import type { GenerateOptions } from "../../model/generate.ts";
import { Qwen3 } from "../../model/qwen3.ts";
import { Tokenizer } from "../../tokenizer/tokenizer.ts";
import { type CommandContext, example, integer, number, withJson } from "../command.ts";
import { readMessages } from "../conversation-input.ts";
import { checkpointFiles, engineOptions, type ModelOptions, withModel } from "../model-options.ts";
import { textArgument } from "../reading.ts";
import { type Terminal, UsageError } from "../terminal.ts";

export function specify(command: Command, { terminal }: CommandContext): void {
  withJson(withModel(command))
    .description("text from a prompt or a conversation")
    .option("--prompt <text>", "raw prompt, control tokens recognised (else stdin)")
    .option("--messages <file>", "a conversation for the checkpoint's chat template; - is stdin")
    .option("--max-new-tokens <n>", "at most this many tokens", integer(1), 128)
    .option("--temperature <t>", "0 is greedy", number, 0)
    .option("--top-p <p>", "draw from the likeliest tokens whose probabilities together reach p", number)
    .option("--top-k <k>", "draw from the k likeliest tokens", integer(1))
    .option("--seed <n>", "seed of the random generator (default: 0)", integer(0))
    .addHelpText("after", example("qwen3guard generate --messages conversation.json --json"))
    .action(options => generate(options, terminal));
}

interface GenerateCommandOptions extends ModelOptions {
  readonly prompt?: string;
  readonly messages?: string;
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly seed?: number;
  readonly json?: boolean;
}

async function generate(options: GenerateCommandOptions, terminal: Terminal): Promise<void> {
  if (options.prompt !== undefined && options.messages !== undefined)
    throw new UsageError("generate: expected --prompt or --messages, got both");
  checkSampling(options);
  const messages = options.messages === undefined ? undefined : await readMessages(options.messages, terminal);
  const raw = messages ? "" : await textArgument(options.prompt, terminal, "generate");

  const engine = engineOptions(options);
  const files = await checkpointFiles(options, terminal);
  const tokenizer = await Tokenizer.load(files);
  if (!messages && raw === "") throw new RangeError("generate: expected a prompt, got an empty text");
  const prompt = messages ? tokenizer.encodeChat(messages) : tokenizer.encode(raw);
  const model = await Qwen3.load(files, engine);

  const { maxNewTokens, temperature, topP, topK, seed } = options;
  const given = Object.entries({ maxNewTokens, temperature, topP, topK, seed }).filter(
    ([, value]) => value !== undefined,
  );
  const sampling: GenerateOptions = Object.fromEntries(given);
  const ids: number[] = [];
  const decoder = tokenizer.decodeStream({ skipSpecialTokens: true });
  const steps = model.generateSteps(prompt, sampling);
  let step = await steps.next();
  for (; !step.done; step = await steps.next()) {
    ids.push(step.value.id);
    const text = decoder.push(step.value.id);
    if (!options.json && text) await terminal.out(text);
  }
  if (options.json) {
    const text = tokenizer.decode(ids, { skipSpecialTokens: true });
    await terminal.out(`${JSON.stringify({ text, ids, promptTokens: prompt.length, finishReason: step.value })}\n`);
  } else {
    await terminal.out(`${decoder.end()}\n`);
  }
}

/** Values outside an option's range are wrong usage; this is found before a model is loaded. */
function checkSampling({ temperature, topP, topK, seed }: GenerateCommandOptions): void {
  for (const [option, value] of Object.entries({ "--top-p": topP, "--top-k": topK, "--seed": seed })) {
    if (temperature === 0 && value !== undefined)
      throw new UsageError(`${option}: expected a --temperature above 0 with it, got none`);
  }
  if (temperature < 0) throw new UsageError(`--temperature: expected a number of at least 0, got ${temperature}`);
  if (topP !== undefined && !(topP > 0 && topP <= 1))
    throw new UsageError(`--top-p: expected a number above 0 and at most 1, got ${topP}`);
  if (seed !== undefined && seed >= 2 ** 32)
    throw new UsageError(`--seed: expected an integer below ${2 ** 32}, got ${seed}`);
}
