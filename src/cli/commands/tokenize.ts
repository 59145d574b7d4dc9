/** `qwen3guard tokenize`: text to ids and back, for one text or for each line. It needs no weights. */

import type { Command } from "commander";
import { Tokenizer } from "../../tokenizer/tokenizer.ts";
import { type CommandContext, example, withJson } from "../command.ts";
import { jsonLines } from "../json-lines.ts";
import { checkpointFiles, type ModelOptions, withModel } from "../model-options.ts";
import { inputChunks, parseJson, textArgument } from "../reading.ts";
import { type Terminal, UsageError } from "../terminal.ts";

export function specify(command: Command, { terminal }: CommandContext): void {
  withJson(withModel(command))
    .description("the ids of a text, or the text of ids")
    .argument("[text]")
    .option("--literal", "treat all of it as ordinary text: control tokens are not recognised")
    .option("--pieces", "show the text of each id")
    .option("--decode", "the other way round: TEXT (or stdin) holds ids")
    .option("--jsonl", "read lines of {text} from stdin and write lines of {ids}; with --decode the other way round")
    .addHelpText(
      "after",
      example('qwen3guard tokenize "How can I help?" --pieces', 'qwen3guard tokenize --decode "727 402 312"'),
    )
    .action((text, options) => tokenize(text, options, terminal));
}

interface TokenizeOptions extends ModelOptions {
  readonly literal?: boolean;
  readonly pieces?: boolean;
  readonly decode?: boolean;
  readonly jsonl?: boolean;
  readonly json?: boolean;
}

async function tokenize(text: string | undefined, options: TokenizeOptions, terminal: Terminal): Promise<void> {
  if (options.decode && options.literal) throw new UsageError("tokenize: expected --decode or --literal, got both");
  if (options.jsonl && text !== undefined && text !== "-")
    throw new UsageError("tokenize: expected a text or --jsonl (lines on stdin), got both");
  const tokenizer = await Tokenizer.load(await checkpointFiles(options, terminal));
  if (options.jsonl) return tokenizeLines(tokenizer, options, terminal);

  const input = await textArgument(text, terminal, "tokenize");
  if (options.decode) {
    const ids = parseIds(input);
    const decoded = tokenizer.decode(ids);
    await terminal.out(options.json ? `${JSON.stringify({ ids, text: decoded })}\n` : `${decoded}\n`);
    return;
  }
  const ids = Array.from(tokenizer.encode(input, { literal: options.literal === true }));
  const pieces = tokenizer.pieces(ids);
  if (options.json) await terminal.out(`${JSON.stringify({ ids, pieces })}\n`);
  else if (options.pieces)
    await terminal.out(ids.map((id, i) => `${String(id).padStart(6)}  ${JSON.stringify(pieces[i])}\n`).join(""));
  else await terminal.out(`${ids.join(" ")}\n`);
}

async function tokenizeLines(tokenizer: Tokenizer, options: TokenizeOptions, terminal: Terminal): Promise<void> {
  for await (const { line, name } of jsonLines(inputChunks("-", terminal), "stdin")) {
    const value = parseJson(line, name) as { text?: unknown; ids?: unknown } | null;
    if (options.decode) {
      await terminal.out(`${JSON.stringify({ text: tokenizer.decode(checkIds(value?.ids, name)) })}\n`);
      continue;
    }
    const text = value?.text;
    if (typeof text !== "string") throw new TypeError(`${name}: expected {"text": ...}, got ${line.slice(0, 60)}`);
    const ids = Array.from(tokenizer.encode(text, { literal: options.literal === true }));
    await terminal.out(`${JSON.stringify(options.pieces ? { ids, pieces: tokenizer.pieces(ids) } : { ids })}\n`);
  }
}

/** Ids as people write them: numbers separated by white space or commas, with or without brackets. */
function parseIds(text: string): number[] {
  const words = text
    .replace(/^\s*\[|\]\s*$/g, "")
    .split(/[\s,]+/)
    .filter(word => word !== "");
  return checkIds(
    words.map(word => (/^\d+$/.test(word) ? Number(word) : word)),
    "ids",
  );
}

export function checkIds(value: unknown, name: string): number[] {
  if (!Array.isArray(value))
    throw new TypeError(`${name}: expected {"ids": [...]}, got ${JSON.stringify(value)?.slice(0, 60) ?? "nothing"}`);
  for (const id of value) {
    if (!Number.isSafeInteger(id) || id < 0)
      throw new RangeError(`${name}: expected ids that are integers of at least 0, got ${JSON.stringify(id)}`);
  }
  return value;
}
