/** `qwen3guard moderate`: one verdict, as a card or as JSON; or, with --jsonl, one a line. */

import { type ModerationInput, toConversation } from "../../guard/conversation.ts";
import type { Explanation } from "../../guard/explanation.ts";
import { Guard } from "../../guard/guard.ts";
import type { ModerateOptions } from "../../guard/moderate-options.ts";
import type { Mode } from "../../guard/verdict.ts";
import type { EngineOptions } from "../../tensor/engine-choice.ts";
import { checkpointFiles, engineOptions, type ModelOptions } from "../checkpoint-option.ts";
import { explanationCard } from "../explanation-card.ts";
import { inFile, removeOnSignal, type Terminal, textArgument, UsageError } from "../io.ts";
import { judgeHash } from "../judge-hash.ts";
import { readMessages } from "../messages.ts";
import { lockOutput } from "../output-lock.ts";
import { verdictCard } from "../verdict-card.ts";
import { moderateLines } from "./moderate-lines.ts";
import { checkOutput } from "./moderate-output.ts";

export interface ModerateCommandOptions extends ModelOptions {
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

export interface ModerateOutcome {
  readonly flagged: boolean;
  /** Lines of a batch that could not be judged. */
  readonly failed: number;
  readonly isInterrupted: boolean;
  /** What is still to be printed. */
  readonly output: string;
}

export async function moderateCommand(
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
 * Runs a batch as the only one on its output. A signal takes the lock away; while the batch itself listens, Ctrl-C is
 * its own.
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

/** A text that was judged in windows is too long to be explained, but its verdict stands. */
async function explain(guard: Guard, input: ModerationInput, terminal: Terminal): Promise<Explanation | undefined> {
  try {
    return await guard.explain(input);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    terminal.err(`qwen3guard: --explain: ${error.message}\n`);
    return undefined;
  }
}

/** What makes no sense together is wrong usage, found before a model is loaded. */
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
      throw new UsageError("--resume: expected an --out FILE to go on with, got none");
    if (options.resume && options.out === "-")
      throw new UsageError("--resume: expected an --out FILE to go on with, got stdout");
    return;
  }
  if (options.out !== undefined) throw new UsageError("--out: expected --jsonl, which it is for, got none");
  if (options.resume) throw new UsageError("--resume: expected --jsonl, which it is for, got none");
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
