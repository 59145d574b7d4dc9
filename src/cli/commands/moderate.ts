/** `qwen3guard moderate`: one verdict, as a card or as JSON; with --jsonl, one verdict for each line. */

import { type Command, Option } from "commander";
import { type ModerationInput, toConversation } from "../../guard/conversation.ts";
import type { Explanation } from "../../guard/explanation.ts";
import { Guard } from "../../guard/guard.ts";
import type { ModerateOptions } from "../../guard/moderate-options.ts";
import type { Mode } from "../../guard/verdict.ts";
import type { EngineOptions } from "../../tensor/engine-choice.ts";
import { MemoryError } from "../../tensor/memory-error.ts";
import { judgeHash } from "../batch/judge-hash.ts";
import { moderateLines } from "../batch/lines.ts";
import { checkOutput } from "../batch/output.ts";
import { lockOutput } from "../batch/output-lock.ts";
import {
  type CommandContext,
  EXIT_FAILED,
  EXIT_FLAGGED,
  EXIT_INTERRUPTED,
  example,
  integer,
  modeOption,
  number,
  withJson,
} from "../command.ts";
import { readMessages } from "../conversation-input.ts";
import { explanationCard } from "../explanation-card.ts";
import { checkpointFiles, engineOptions, type ModelOptions, withModel } from "../model-options.ts";
import { inFile, textArgument } from "../reading.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { verdictCard } from "../verdict-card.ts";
import { removeOnSignal } from "../writing.ts";

export function specify(command: Command, { terminal, setStatus }: CommandContext): void {
  withJson(withModel(command))
    .description("the verdict on a prompt, or on the answer to it")
    .argument("[text]")
    .option("--response <text>", "judge this answer to the prompt")
    .option(
      "--messages <file>",
      "judge the last message of a conversation: a JSON array of {role, content}; - is stdin",
    )
    .addOption(modeOption("strict (default) flags Unsafe and Controversial, loose Unsafe alone"))
    .option("--threshold <t>", "flag by score instead: where 1 - P(Safe) is at least t (0 to 1)", number)
    .addOption(
      new Option("--scores <scores>", "full: also the categories that an unsafe reading would have")
        .choices(["basic", "full"])
        .default("basic"),
    )
    .option(
      "--window <n>",
      "judge the text in windows of n tokens (default: only if it exceeds the context)",
      integer(1),
    )
    .option("--overlap <n>", "tokens by which windows overlap (default: an eighth of the window)", integer(0))
    .option("--explain", "show for each word how P(Safe) changes when it is left out")
    .option(
      "--jsonl <file>",
      "a batch: each line is {text}, {prompt, response} or {messages}, with or without an id; - is stdin",
    )
    .option("--out <file>", "with --jsonl: write to a new file; - is stdout, the default")
    .option("--resume", "with --jsonl and --out: continue where the file ends")
    .option("--fail-on", "exit with status 3 if anything is flagged")
    .addHelpText(
      "after",
      example(
        'qwen3guard moderate "How do I kill a process?" --json',
        "echo some text | qwen3guard moderate",
        "qwen3guard moderate --jsonl chats.jsonl --out verdicts.jsonl --resume",
      ),
    )
    .action(async (text, options) => {
      const { flagged, failed, isInterrupted, output } = await moderate(text, options, terminal);
      // Before the output: if its reader has gone, the status must be set already.
      if (isInterrupted) setStatus(EXIT_INTERRUPTED);
      else if (failed > 0) {
        if (!options.quiet)
          terminal.err(`qwen3guard: ${failed} ${failed === 1 ? "line" : "lines"} could not be judged\n`);
        setStatus(EXIT_FAILED);
      } else if (flagged && options.failOn) setStatus(EXIT_FLAGGED);
      await terminal.out(output);
    });
}

interface ModerateCommandOptions extends ModelOptions {
  readonly response?: string;
  readonly messages?: string;
  readonly mode?: Mode;
  readonly threshold?: number;
  readonly scores: "basic" | "full";
  readonly window?: number;
  readonly overlap?: number;
  readonly explain?: boolean;
  readonly json?: boolean;
  readonly jsonl?: string;
  readonly out?: string;
  readonly resume?: boolean;
}

interface ModerateOutcome {
  readonly flagged: boolean;
  /** Lines of a batch that could not be judged. */
  readonly failed: number;
  readonly isInterrupted: boolean;
  /** Text that is still to be printed. */
  readonly output: string;
}

async function moderate(
  text: string | undefined,
  options: ModerateCommandOptions,
  terminal: Terminal,
): Promise<ModerateOutcome> {
  checkCombinations(text, options);
  const engine = engineOptions(options);
  const { mode, threshold, scores, window, overlap, jsonl } = options;
  const given = Object.entries({ mode, threshold, scores, window, overlap }).filter(([, value]) => value !== undefined);
  const moderateOptions: ModerateOptions = Object.fromEntries(given);

  if (jsonl !== undefined) {
    const batch = { ...options, jsonl };
    const run = (own: Terminal) => moderateBatch(batch, engine, moderateOptions, own);
    const { out } = options;
    return isFile(out) ? withOutput(out, options, terminal, run) : run(terminal);
  }

  const input = await readInput(text, options, terminal);
  const guard = await Guard.load(await checkpointFiles(options, terminal), engine);
  const verdict = await guard.moderate(input, moderateOptions);
  const explanation = options.explain ? await explain(guard, input, terminal) : undefined;
  const output = options.json
    ? `${JSON.stringify(explanation ? { ...verdict, explanation } : verdict)}\n`
    : verdictCard(verdict, input, terminal) + (explanation ? explanationCard(explanation, input, terminal) : "");
  return { flagged: verdict.flagged, failed: 0, isInterrupted: false, output };
}

function isFile(out: string | undefined): out is string {
  return out !== undefined && out !== "-";
}

async function moderateBatch(
  options: ModerateCommandOptions & { readonly jsonl: string },
  engine: EngineOptions,
  moderateOptions: ModerateOptions,
  terminal: Terminal,
): Promise<ModerateOutcome> {
  const files = await checkpointFiles(options, terminal);
  const guard = await Guard.load(files, engine);
  try {
    const hash = isFile(options.out) ? await judgeHash(files, engine.weights, moderateOptions) : "";
    const { flagged, failed, isInterrupted } = await moderateLines(
      guard,
      { ...options, judgeHash: hash },
      moderateOptions,
      terminal,
    );
    return { flagged: flagged > 0, failed, isInterrupted, output: "" };
  } finally {
    guard.close();
  }
}

/**
 * Runs a batch as the only one on its output. A signal removes the lock; while the batch itself listens for Ctrl-C,
 * that one is left to it.
 */
async function withOutput<T>(
  out: string,
  options: ModerateCommandOptions,
  terminal: Terminal,
  run: (terminal: Terminal) => Promise<T>,
): Promise<T> {
  await checkOutput(out, options.resume === true);
  const never = (): (() => void) => () => {};
  const taken: string[] = [];
  const listen = (): (() => void) => removeOnSignal(taken, { ...terminal, onTerminate: never });
  let stopInterrupt = listen();
  const stopTerminate = removeOnSignal(taken, { ...terminal, onInterrupt: never });
  const onInterrupt: Terminal["onInterrupt"] = listener => {
    stopInterrupt();
    const stop = terminal.onInterrupt(listener);
    return () => {
      stop();
      stopInterrupt = listen();
    };
  };
  try {
    const lock = await lockOutput(out, {
      onTaken: file => taken.push(file),
      onWait: () => {
        if (!options.quiet)
          terminal.err(`qwen3guard: ${out}: waiting to see whether the run that holds its lock is still there\n`);
      },
    });
    try {
      return await run({ ...terminal, onInterrupt });
    } finally {
      await lock.release();
    }
  } finally {
    stopInterrupt();
    stopTerminate();
  }
}

/** A text with too many words, or one that had to be judged in windows, is too long to explain. Its verdict stands. */
async function explain(guard: Guard, input: ModerationInput, terminal: Terminal): Promise<Explanation | undefined> {
  try {
    return await guard.explain(input);
  } catch (error) {
    if (!(error instanceof RangeError) || error instanceof MemoryError) throw error;
    terminal.err(`qwen3guard: --explain: ${error.message}\n`);
    return undefined;
  }
}

/** Options that contradict each other are wrong usage; this is found before a model is loaded. */
function checkCombinations(text: string | undefined, options: ModerateCommandOptions): void {
  const { jsonl, messages, response, threshold, mode, window, overlap, explain } = options;
  if (mode !== undefined && threshold !== undefined)
    throw new UsageError("moderate: expected --mode or --threshold, got both");
  if (overlap !== undefined && window === undefined)
    throw new UsageError("moderate: expected a --window with --overlap, got none");
  if (threshold !== undefined && !(threshold >= 0 && threshold <= 1)) {
    throw new UsageError(`--threshold: expected a number from 0 to 1, got ${threshold}`);
  }
  if (jsonl !== undefined) {
    const single = Object.entries({ TEXT: text, "--response": response, "--messages": messages, "--explain": explain });
    const other = single.find(([, value]) => value !== undefined);
    if (other) throw new UsageError(`moderate: expected --jsonl or ${other[0]}, got both`);
    if (options.resume && options.out === undefined)
      throw new UsageError("--resume: expected an --out FILE to continue, got none");
    if (options.resume && options.out === "-")
      throw new UsageError("--resume: expected an --out FILE to continue, got stdout");
    return;
  }
  if (options.out !== undefined) throw new UsageError("--out: expected it with --jsonl, got no --jsonl");
  if (options.resume) throw new UsageError("--resume: expected it with --jsonl, got no --jsonl");
  if (messages !== undefined && text !== undefined)
    throw new UsageError("moderate: expected a text or --messages, got both");
  if (messages !== undefined && response !== undefined)
    throw new UsageError("moderate: expected --response or --messages, got both");
}

async function readInput(
  text: string | undefined,
  options: ModerateCommandOptions,
  terminal: Terminal,
): Promise<ModerationInput> {
  if (options.messages !== undefined) {
    const messages = await readMessages(options.messages, terminal);
    return inFile(options.messages, () => toConversation(messages));
  }
  const prompt = await textArgument(text, terminal, "moderate");
  return options.response === undefined ? prompt : { prompt, response: options.response };
}
