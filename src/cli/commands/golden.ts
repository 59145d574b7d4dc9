/**
 * `qwen3guard golden record` and `golden check`: outputs to the bit.
 *
 * Each recorded line has the prompt's ids, the greedy answer, the margin of each of its choices, the ten largest logits
 * at the prompt's last position, and the SHA-256 of all logits there. Every machine computes the same bits, so to check
 * is to compare for equality.
 */

import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { serializeSafetensors } from "../../checkpoint/safetensors-writer.ts";
import { Qwen3 } from "../../model/qwen3.ts";
import { Tensor } from "../../tensor/tensor.ts";
import type { ChatMessage } from "../../tokenizer/chat-template.ts";
import { Tokenizer } from "../../tokenizer/tokenizer.ts";
import {
  type CommandContext,
  EXIT_FAILED,
  example,
  expectSubcommand,
  integer,
  required,
  withJson,
} from "../command.ts";
import { fileError } from "../file-error.ts";
import { jsonLines } from "../json-lines.ts";
import { checkpointFiles, engineOptions, type ModelOptions, withModel } from "../model-options.ts";
import { Progress } from "../progress.ts";
import { inFile, inputChunks, parseJson } from "../reading.ts";
import type { Terminal } from "../terminal.ts";
import { wholeFile } from "../writing.ts";
import { checkIds } from "./tokenize.ts";

export function specify(command: Command, context: CommandContext): void {
  const { terminal, setStatus } = context;
  command.description("record outputs to the bit, and check them again");
  withModel(command.command("record"))
    .description("run each line and write what came out")
    .option("--input <file>", "JSONL: {ids}, {text} or {messages} a line; - is stdin (required)")
    .option("--out <file>", "JSONL to write; - is stdout (required)")
    .option("--max-new-tokens <n>", "at most this many greedy tokens a line", integer(1), 128)
    .option("--taps <dir>", "also write every intermediate as <dir>/<line>.safetensors")
    .addHelpText("after", example("qwen3guard golden record --input prompts.jsonl --out golden.jsonl"))
    .action(options => {
      const input = required(options.input, "golden record", "--input FILE");
      const out = required(options.out, "golden record", "--out FILE");
      return recordFile({ ...options, input, out }, terminal);
    });
  withJson(withModel(command.command("check")))
    .description("run a recorded file again and report each difference")
    .argument("<file>")
    .addHelpText("after", example("qwen3guard golden check golden.jsonl"))
    .action(async (file, options) => {
      if (!(await checkFile(file, options, terminal))) setStatus(EXIT_FAILED);
    });
  expectSubcommand(command, context, "golden ");
}

/** One line of a golden file. */
export interface GoldenLine {
  readonly ids: readonly number[];
  readonly greedy: readonly number[];
  readonly margins: readonly number[];
  readonly top: readonly (readonly [id: number, logit: number])[];
  readonly logitsSha256: string;
}

async function recordFile(
  options: ModelOptions & { input: string; out: string; maxNewTokens: number; taps?: string },
  terminal: Terminal,
): Promise<void> {
  const engine = engineOptions(options);
  const files = await checkpointFiles(options, terminal);
  const model = await Qwen3.load(files, engine);
  // A checkpoint without a tokenizer will do, as long as the lines hold ids.
  const hasTokenizer = (await files.readText("tokenizer.json")) !== undefined;
  const tokenizer = hasTokenizer ? await Tokenizer.load(files) : undefined;
  if (options.taps !== undefined) {
    await mkdir(options.taps, { recursive: true }).catch(error => {
      throw fileError(options.taps as string, error, "a folder for taps");
    });
  }

  // The output may be the input: it is replaced only when all is written.
  const out = options.out === "-" ? undefined : await wholeFile(options.out, terminal);
  try {
    const progress = new Progress(terminal, "lines", options.quiet);
    let count = 0;
    for await (const { line, name, number } of jsonLines(inputChunks(options.input, terminal), options.input)) {
      const ids = promptIds(parseJson(line, name), tokenizer, name);
      const text = `${JSON.stringify(await record(model, ids, options.maxNewTokens, name))}\n`;
      await (out ? out.write(text) : terminal.out(text));
      if (options.taps !== undefined)
        await writeTaps(join(options.taps, `${number}.safetensors`), recordTaps(model, ids));
      count++;
      progress.update(count);
    }
    progress.end();
    if (count === 0) throw new RangeError(`${options.input}: expected at least one line, got none`);
    await out?.done();
  } finally {
    await out?.discard();
    model.close();
  }
}

/** Returns true if nothing differs. */
async function checkFile(
  file: string,
  options: ModelOptions & { json?: boolean },
  terminal: Terminal,
): Promise<boolean> {
  const engine = engineOptions(options);
  const model = await Qwen3.load(await checkpointFiles(options, terminal), engine);
  const differ: { line: number; what: string; expected: unknown; got: unknown }[] = [];
  let checked = 0;
  for await (const { line, number, name } of jsonLines(inputChunks(file, terminal), file)) {
    const expected = checkGoldenLine(parseJson(line, name), name);
    const got = await record(model, expected.ids, expected.greedy.length, name);
    for (const what of ["greedy", "margins", "top", "logitsSha256"] as const) {
      if (JSON.stringify(expected[what]) !== JSON.stringify(got[what]))
        differ.push({ line: number, what, expected: expected[what], got: got[what] });
    }
    checked++;
  }
  if (checked === 0) throw new RangeError(`${file}: expected at least one recorded line, got none`);
  if (options.json) await terminal.out(`${JSON.stringify({ checked, differ })}\n`);
  else {
    for (const { line, what, expected, got } of differ) {
      await terminal.out(`line ${line}: ${what}: expected ${shorten(expected)}, got ${shorten(got)}\n`);
    }
    await terminal.out(
      `${checked} lines checked, ${differ.length === 0 ? "all the same" : `${differ.length} differences`}\n`,
    );
  }
  return differ.length === 0;
}

/** Runs one prompt greedily. */
async function record(model: Qwen3, ids: readonly number[], maxNewTokens: number, name: string): Promise<GoldenLine> {
  const greedy: number[] = [];
  const margins: number[] = [];
  let first: Float32Array | undefined;
  try {
    for await (const { id, logits } of model.generateSteps(ids, { maxNewTokens })) {
      first ??= logits;
      greedy.push(id);
      margins.push(margin(logits, id));
    }
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}`);
  }
  return { ids, greedy, margins, top: largest(first as Float32Array, 10), logitsSha256: sha256(first as Float32Array) };
}

function writeTaps(path: string, bytes: Uint8Array): Promise<void> {
  return writeFile(path, bytes).catch(error => {
    throw fileError(path, error, "a file to write");
  });
}

/** Every named intermediate of one pass over all ids, as a safetensors file. */
function recordTaps(model: Qwen3, ids: readonly number[]): Uint8Array {
  const taps: Tensor[] = [];
  model.newSession().forward(ids, {
    logits: "all",
    tap: (name, data, shape) =>
      taps.push(
        new Tensor(
          name,
          "F32",
          shape,
          data.slice(
            0,
            shape.reduce((a, b) => a * b),
          ),
        ),
      ),
  });
  return serializeSafetensors(taps);
}

function promptIds(value: unknown, tokenizer: Tokenizer | undefined, name: string): number[] {
  const line = (typeof value === "object" && value !== null ? value : {}) as {
    ids?: unknown;
    text?: unknown;
    messages?: unknown;
  };
  if ([line.ids, line.text, line.messages].filter(value => value !== undefined).length > 1) {
    throw new TypeError(`${name}: expected one of {ids}, {text} and {messages}, got several`);
  }
  if (line.ids !== undefined) return checkIds(line.ids, name);
  if (line.text === undefined && line.messages === undefined)
    throw new TypeError(`${name}: expected {ids}, {text} or {messages}, got none of them`);
  if (!tokenizer) throw new Error(`${name}: expected {ids}, since the checkpoint has no tokenizer.json`);
  if (line.messages !== undefined)
    return inFile(name, () => Array.from(tokenizer.encodeChat(line.messages as ChatMessage[])));
  if (typeof line.text !== "string") throw new TypeError(`${name}: text: expected a string, got ${typeof line.text}`);
  return Array.from(tokenizer.encode(line.text));
}

function checkGoldenLine(value: unknown, name: string): GoldenLine {
  const line = (typeof value === "object" && value !== null ? value : {}) as Partial<GoldenLine>;
  const ids = checkIds(line.ids, name);
  for (const key of ["greedy", "margins", "top"] as const) {
    if (!Array.isArray(line[key]) || line[key].length === 0)
      throw new TypeError(`${name}: ${key}: expected a recorded list, got ${shorten(line[key])}`);
  }
  if (typeof line.logitsSha256 !== "string")
    throw new TypeError(`${name}: logitsSha256: expected a string, got ${shorten(line.logitsSha256)}`);
  return { ...(line as GoldenLine), ids };
}

/** How far the chosen logit lies above the next largest. */
function margin(logits: Float32Array, chosen: number): number {
  let second = -Infinity;
  for (let i = 0; i < logits.length; i++) if (i !== chosen && logits[i] > second) second = logits[i];
  return logits[chosen] - second;
}

function largest(logits: Float32Array, count: number): [number, number][] {
  return Array.from(logits.keys())
    .sort((a, b) => logits[b] - logits[a] || a - b)
    .slice(0, count)
    .map(id => [id, logits[id]]);
}

/** Hashes the float32 values as little-endian bytes, the order on every machine that we run on. */
function sha256(values: Float32Array): string {
  return createHash("sha256")
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest("hex");
}

function shorten(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 100 ? `${text.slice(0, 97)}...` : text;
}
