/**
 * `qwen3guard stream`: an answer from stdin, moderated as it arrives.
 *
 * Out: the text that is cleared, coloured by risk where the terminal takes colours, up to the first violation; with --json a line a token, then one on the
 * whole. A token that alone would offend is held back until the next one has cleared it, so that nothing behind the cut is ever shown.
 */

import pc from "picocolors";
import type { AnswerStream, StreamUpdate } from "../../guard/answer-stream.ts";
import type { TokenVerdict } from "../../guard/cut-rule.ts";
import type { SafetyLevel } from "../../guard/policy.ts";
import { StreamGuard } from "../../guard/stream-guard.ts";
import { isFlagged, type Mode } from "../../guard/verdict.ts";
import { checkpointFiles, engineOptions, type ModelOptions } from "../checkpoint-option.ts";
import { printable, type Terminal, textChunks, UsageError } from "../io.ts";

export interface StreamCommandOptions extends ModelOptions {
  readonly prompt: string;
  readonly mode: Mode;
  readonly json?: boolean;
}

/** More at once would be judged in vain behind a cut, and shown late. */
const MOST_UNITS = 256;

/** `onCut` is called before anything is written about it, as there may be nobody to read it. */
export async function streamCommand(options: StreamCommandOptions, terminal: Terminal, onCut: () => void): Promise<void> {
  if (terminal.stdin.isTTY) throw new UsageError("stream: expected the answer on stdin, got a terminal");
  if (options.model === undefined && !terminal.env.QWEN3GUARD_MODEL) {
    throw new UsageError("stream: expected a Stream checkpoint, --model DIR or QWEN3GUARD_MODEL (none is embedded), got none");
  }
  const engine = engineOptions(options);
  const guard = await StreamGuard.load(await checkpointFiles(options, terminal), engine);
  const stream = guard.stream({ prompt: options.prompt }, { mode: options.mode });
  const query = await stream.query();
  if (!options.json && !options.quiet && query.risk !== "Safe") {
    terminal.err(`qwen3guard: the question is ${query.risk} (${query.category})\n`);
  }

  const printer = options.json ? undefined : new TextPrinter(options.mode, terminal);
  let violation: StreamUpdate["violation"] = null;
  for await (const { text, update } of moderated(stream, terminal)) {
    violation = update.violation;
    if (violation) onCut();
    if (printer) await printer.print(text, update);
    else await printLines(update, terminal);
    if (violation) break;
  }
  stream.close();

  if (options.json) {
    const { risk, riskProbs, category } = query;
    const summary = { query: { risk, riskProbs, category }, cut: violation !== null, at: violation?.at ?? null };
    await terminal.out(`${JSON.stringify(summary)}\n`);
    return;
  }
  await printer?.end();
  if (violation && !options.quiet) {
    terminal.err(`qwen3guard: cut at character ${violation.at}: ${violation.risk} (${violation.category})\n`);
  }
}

/** Pushes stdin into the stream, and ends it; `text` is what was pushed. */
async function* moderated(stream: AnswerStream, terminal: Terminal): AsyncGenerator<{ text: string; update: StreamUpdate }> {
  for await (const chunk of textChunks(terminal.stdin, "stdin")) {
    for (let at = 0; at < chunk.length; at += MOST_UNITS) {
      const text = chunk.slice(at, at + MOST_UNITS);
      yield { text, update: await stream.push(text) };
    }
  }
  yield { text: "", update: await stream.end() };
}

/** A line for each token, up to the last one of the violation. */
async function printLines({ verdicts, violation }: StreamUpdate, terminal: Terminal): Promise<void> {
  const last = violation?.tokens.at(-1)?.position ?? Infinity;
  const lines = verdicts
    .filter(({ position }) => position <= last)
    .map(({ position, id, start, end, risk, riskProbs, category, categoryProb }) =>
      JSON.stringify({ position, id, start, end, risk, riskProbs, category, categoryProb }),
    );
  if (lines.length > 0) await terminal.out(`${lines.join("\n")}\n`);
}

/** Prints the text of cleared tokens. */
class TextPrinter {
  readonly #mode: Mode;
  readonly #terminal: Terminal;
  readonly #tint: Readonly<Record<SafetyLevel, (text: string) => string>>;
  #answer = "";
  #shown = 0;
  /** Tokens that offend alone, at the end of what was judged. */
  #held: TokenVerdict[] = [];

  constructor(mode: Mode, terminal: Terminal) {
    const color = pc.createColors(terminal.colors);
    this.#mode = mode;
    this.#terminal = terminal;
    this.#tint = { Safe: text => text, Controversial: color.yellow, Unsafe: color.red };
  }

  /** `text` is what was pushed to get the update. */
  async print(text: string, { verdicts, violation }: StreamUpdate): Promise<void> {
    this.#answer += text;
    const cut = violation?.at ?? Infinity;
    let output = "";
    for (const [i, verdict] of verdicts.entries()) {
      this.#held.push(verdict);
      // Several tokens may share a character, which is cleared with the last of them.
      if (!isFlagged(verdict.risk, this.#mode)) output += this.#release(Math.min(cut, verdicts[i + 1]?.start ?? Infinity));
    }
    if (violation) output += this.#release(cut);
    if (output !== "") await this.#terminal.out(output);
  }

  /** What is still held when the answer ends: one token that alone is no violation. */
  async end(): Promise<void> {
    await this.#terminal.out(this.#release(Infinity) + (this.#terminal.isTTY ? "\n" : ""));
  }

  /** The text of the tokens that are held, up to `limit`. */
  #release(limit: number): string {
    let output = "";
    for (const { end, risk } of this.#held.splice(0)) {
      const text = this.#answer.slice(this.#shown, Math.min(end, limit));
      this.#shown += text.length;
      // To a pipe exactly the text; a terminal must not do what it says.
      if (text !== "") output += this.#tint[risk](this.#terminal.isTTY ? text.replace(/[^\n\t]+/g, printable) : text);
    }
    return output;
  }
}
