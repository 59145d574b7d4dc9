/**
 * `qwen3guard stream`: an answer from stdin, moderated as it arrives.
 *
 * Out: the cleared text up to the first violation, coloured by risk where the terminal takes colours. With --json it is
 * a line for each token (with a Gen guard, for each stretch), then a summary. Text that a later verdict may still cut
 * is held back, so that nothing after the cut is ever shown.
 */

import type { Command } from "commander";
import pc from "picocolors";
import type { TokenVerdict, TokenViolation } from "../../guard/cut-rule.ts";
import { Guard } from "../../guard/guard.ts";
import type { ModerationStream, StreamUpdate, StretchVerdict, Violation } from "../../guard/moderation-stream.ts";
import type { SafetyLevel } from "../../guard/policy.ts";
import type { Mode } from "../../guard/verdict.ts";
import { type CommandContext, EXIT_FLAGGED, everyOption, example, modeOption, withJson } from "../command.ts";
import { loadEitherGuard } from "../either-guard.ts";
import { type ModelOptions, withModel } from "../model-options.ts";
import { inputChunks, textChunks } from "../reading.ts";
import { printable, type Terminal, UsageError } from "../terminal.ts";

export function specify(command: Command, { terminal, setStatus }: CommandContext): void {
  withJson(withModel(command), "one JSON object for each token (with a Gen guard, for each stretch), then a summary")
    .description("moderate an answer from stdin as it arrives, and cut it where it offends")
    .option("--prompt <text>", "the question that it answers", "")
    .addOption(modeOption("strict cuts at Unsafe and Controversial, loose at Unsafe alone", "strict"))
    .addOption(everyOption())
    .addHelpText("after", example('some-llm "$Q" | qwen3guard stream --prompt "$Q" --model ./Qwen3Guard-Stream-0.6B'))
    .action(options => moderateStdin(options, terminal, () => setStatus(EXIT_FLAGGED)));
}

interface StreamOptions extends ModelOptions {
  readonly prompt: string;
  readonly mode: Mode;
  readonly every?: number;
  readonly json?: boolean;
}

/** UTF-16 units to push at once. With more, text after a cut would be judged in vain, and cleared text shown late. */
const MOST_UNITS = 256;

/** `onCut` is called before the cut is reported, since the report may find no reader. */
async function moderateStdin(options: StreamOptions, terminal: Terminal, onCut: () => void): Promise<void> {
  if (terminal.stdin.isTTY) throw new UsageError("stream: expected the answer on stdin, got a terminal");
  const stream = await startStream(options, terminal);
  const query = await stream.query();
  if (!options.json && !options.quiet && query.risk !== "Safe") {
    terminal.err(`qwen3guard: the question is ${describe(query)}\n`);
  }

  const printer = options.json ? undefined : new TextPrinter(terminal);
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
  await printer?.end(violation);
  if (violation && !options.quiet) {
    terminal.err(`qwen3guard: cut at character ${violation.at}: ${describe(violation)}\n`);
  }
}

async function startStream(options: StreamOptions, terminal: Terminal): Promise<ModerationStream> {
  const { prompt, mode, every } = options;
  const guard = await loadEitherGuard(options, terminal);
  return guard instanceof Guard
    ? guard.stream({ prompt }, { mode, ...(every === undefined ? {} : { every }) })
    : guard.stream({ prompt }, { mode });
}

function describe({ risk, category }: { readonly risk: SafetyLevel | null; readonly category: string | null }): string {
  return `${risk ?? "unparsed"}${category === null ? "" : ` (${category})`}`;
}

/** Pushes stdin into the stream, then ends it. `text` is the text that was pushed. */
async function* moderated(
  stream: ModerationStream,
  terminal: Terminal,
): AsyncGenerator<{ text: string; update: StreamUpdate }> {
  for await (const chunk of textChunks(inputChunks("-", terminal), "stdin")) {
    for (let at = 0; at < chunk.length; at += MOST_UNITS) {
      const text = chunk.slice(at, at + MOST_UNITS);
      yield { text, update: await stream.push(text) };
    }
  }
  yield { text: "", update: await stream.end() };
}

/** Prints a line for each token or stretch, up to the last one of the violation. */
async function printLines({ verdicts, violation }: StreamUpdate, terminal: Terminal): Promise<void> {
  const tokens = (violation as TokenViolation | null)?.tokens;
  const last = tokens ? tokens[tokens.length - 1].start : (violation?.at ?? Infinity);
  const lines = (verdicts as readonly (StretchVerdict & Partial<TokenVerdict>)[])
    .filter(({ start }) => start <= last)
    .map(({ position, id, start, end, risk, riskProbs, category, categoryProb }) =>
      JSON.stringify({ position, id, start, end, risk, riskProbs, category, categoryProb }),
    );
  if (lines.length > 0) await terminal.out(`${lines.join("\n")}\n`);
}

/** Prints the cleared text, each stretch in the colour of its risk. */
class TextPrinter {
  readonly #terminal: Terminal;
  readonly #tint: Readonly<Record<SafetyLevel, (text: string) => string>>;
  #answer = "";
  #shown = 0;
  /** Verdicts on text that is not shown yet. */
  #held: StretchVerdict[] = [];

  constructor(terminal: Terminal) {
    const color = pc.createColors(terminal.colors);
    this.#terminal = terminal;
    this.#tint = { Safe: text => text, Controversial: color.yellow, Unsafe: color.red };
  }

  /** `text` is the text that was pushed to get the update. */
  async print(text: string, { verdicts, clearedTo }: StreamUpdate): Promise<void> {
    this.#answer += text;
    this.#held.push(...verdicts);
    await this.#show(clearedTo);
  }

  /** Without a violation all of the answer is shown: a single offending token at its end does not make one. */
  async end(violation: Violation | null): Promise<void> {
    await this.#show(violation?.at ?? Infinity);
    if (this.#terminal.isTTY) await this.#terminal.out("\n");
  }

  async #show(limit: number): Promise<void> {
    let output = "";
    while (this.#held.length > 0 && this.#shown < limit) {
      const { end, risk } = this.#held[0];
      const text = this.#answer.slice(this.#shown, Math.min(end, limit));
      this.#shown += text.length;
      if (this.#shown >= end) this.#held.shift();
      // A pipe gets exactly the text. On a terminal, control characters in it must have no effect.
      if (text !== "")
        output += this.#tint[risk ?? "Unsafe"](this.#terminal.isTTY ? text.replace(/[^\n\t]+/g, printable) : text);
    }
    if (output !== "") await this.#terminal.out(output);
  }
}
