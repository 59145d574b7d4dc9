/**
 * `qwen3guard quantize`: writes a checkpoint with its matrices quantised, so that it loads faster and takes less disk.
 * It works tensor by tensor, some rows at a time, so the checkpoint is never in memory as a whole.
 *
 * In: a folder with the original. Out: a folder with `model.safetensors` (quantised-weights.ts describes it),
 * config.json and the tokenizer's files.
 */

import { type FileHandle, mkdir, open, readdir, rename, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { type Command, Option } from "commander";
import { type CheckpointFiles, readJson, TEXT_FILES } from "../../checkpoint/files.ts";
import { SafetensorsCheckpoint, SINGLE_FILE } from "../../checkpoint/safetensors-sharded.ts";
import { safetensorsHeader } from "../../checkpoint/safetensors-writer.ts";
import { QUANT_METHOD } from "../../model/config.ts";
import { SCHEME_KEY, savedScheme, savedTensors, schemeFor, schemeText } from "../../model/quantised-weights.ts";
import { readConfig } from "../../model/qwen3.ts";
import { checkShapes, expectedTensors, storedDtype } from "../../model/weights.ts";
import type { Dtype } from "../../tensor/dtype.ts";
import { blocksOf, QUANTISED_SCHEMES, type QuantisedScheme, subBlocksOf } from "../../tensor/quantised.ts";
import { tensorByteLength } from "../../tensor/tensor.ts";
import { RowQuantiser } from "../../tensor/wasm/row-quantiser.ts";
import { type CommandContext, example, required, withJson } from "../command.ts";
import { fileError } from "../file-error.ts";
import { checkpointFiles } from "../model-options.ts";
import { StatusLine } from "../status-line.ts";
import type { Terminal } from "../terminal.ts";
import { removeOnSignal, removeWritten } from "../writing.ts";

export function specify(command: Command, { terminal }: CommandContext): void {
  withJson(command)
    .description("write a checkpoint with quantised weights, which loads faster")
    .argument("<from>")
    .argument("<to>")
    .addOption(new Option("--weights <form>", "the form to write (required)").choices(QUANTISED_SCHEMES))
    .option("--quiet", "no progress on stderr")
    .addHelpText(
      "after",
      example("qwen3guard quantize ./Qwen3Guard-Gen-0.6B ./Qwen3Guard-Gen-0.6B-int8 --weights int8"),
    )
    .action((from, to, options) =>
      quantize(
        from,
        to,
        { ...options, weights: required(options.weights, "quantize", "--weights int8|int4") },
        terminal,
      ),
    );
}

/** Bytes of rows, as stored, that are quantised at once. */
const BATCH_BYTES = 8 * 2 ** 20;
const CONFIG_FILE = "config.json";
/** Copied to stand beside the weights, where the original has them. The last four are for other programs. */
const COPIED_FILES = [
  ...TEXT_FILES.filter(name => name !== CONFIG_FILE),
  "vocab.json",
  "merges.txt",
  "special_tokens_map.json",
  "added_tokens.json",
];

async function quantize(
  from: string,
  to: string,
  options: { weights: QuantisedScheme; json?: boolean; quiet?: boolean },
  terminal: Terminal,
): Promise<void> {
  const started = performance.now();
  const files = await checkpointFiles({ model: from }, terminal);
  const config = await readConfig(files);
  const checkpoint = await SafetensorsCheckpoint.open(files);
  try {
    const saved = savedScheme(checkpoint);
    if (saved !== undefined)
      throw new Error(`${files.name}: expected a checkpoint that is not quantised, got ${saved}`);
    checkShapes(checkpoint, config);
    const made = await makeEmptyFolder(to);
    // A run that fails, or that Ctrl-C ends, removes what it has made. Otherwise the next one would find a folder in
    // use.
    const weights = join(to, SINGLE_FILE);
    const written = [weights, partialOf(weights), ...[...COPIED_FILES, CONFIG_FILE].map(name => join(to, name))];
    const stopListening = removeOnSignal(written, terminal, made);
    const line = new StatusLine(options.quiet, terminal);
    let bytes: number;
    try {
      bytes = await writeWeights(checkpoint, expectedTensors(config), options.weights, weights, line);
      await copyTexts(files, options.weights, to);
    } catch (error) {
      removeWritten(written, made);
      throw error;
    } finally {
      line.clear();
      stopListening();
    }
    const report = {
      from: files.name,
      to,
      weights: options.weights,
      bytes,
      ms: Math.round(performance.now() - started),
    };
    const summary = `${to}: ${options.weights}, ${(bytes / 2 ** 20).toFixed(1)} MB of weights, in ${(report.ms / 1000).toFixed(1)} s\n`;
    await terminal.out(options.json ? `${JSON.stringify(report)}\n` : summary);
  } finally {
    await checkpoint.close();
  }
}

function partialOf(path: string): string {
  return `${path}.partial`;
}

/** Never overwrites a checkpoint. Returns the folders that it has made, the innermost first. */
async function makeEmptyFolder(path: string): Promise<string[]> {
  try {
    const first = await mkdir(path, { recursive: true });
    if ((await readdir(path)).length > 0)
      throw new Error(`${path}: expected a new or empty folder, got one with files in it`);
    if (first === undefined) return [];
    const made: string[] = [];
    for (let at = resolve(path); ; at = dirname(at)) {
      made.push(at);
      if (at === resolve(first) || at === dirname(at)) return made;
    }
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code
      ? fileError(path, error as NodeJS.ErrnoException, "a folder to write to")
      : error;
  }
}

/**
 * Writes under a temporary name first, so that half a file is never taken for a whole one. Returns the size of the
 * file.
 */
async function writeWeights(
  checkpoint: SafetensorsCheckpoint,
  shapes: ReadonlyMap<string, readonly number[]>,
  scheme: QuantisedScheme,
  path: string,
  line: StatusLine,
): Promise<number> {
  const specs: { name: string; dtype: Dtype; shape: readonly number[] }[] = [];
  for (const [name, shape] of shapes) {
    const held = schemeFor(name, shape, scheme);
    specs.push(
      ...(held ? savedTensors(name, shape, held) : [{ name, dtype: checkpoint.tensors.get(name)!.dtype, shape }]),
    );
  }
  const { header, order } = safetensorsHeader(
    specs,
    new Map([
      ["format", "pt"],
      [SCHEME_KEY, schemeText(scheme)],
    ]),
  );
  const offsets = new Map<string, number>();
  let size = header.length;
  for (const { name, dtype, shape } of order) {
    offsets.set(name, size);
    size += tensorByteLength(dtype, shape)!;
  }
  const partial = partialOf(path);
  const file = await open(partial, "w");
  try {
    await file.write(header, 0, header.length, 0);
    const quantiser = new RowQuantiser();
    for (const [name, shape] of shapes) {
      line.show(name);
      await writeTensor(checkpoint, name, shape, schemeFor(name, shape, scheme), quantiser, file, offsets);
    }
    await file.sync();
    await file.close();
    await rename(partial, path);
  } catch (error) {
    await file.close().catch(() => {});
    throw error;
  }
  return size;
}

async function writeTensor(
  checkpoint: SafetensorsCheckpoint,
  name: string,
  shape: readonly number[],
  scheme: QuantisedScheme | undefined,
  quantiser: RowQuantiser,
  file: FileHandle,
  offsets: ReadonlyMap<string, number>,
): Promise<void> {
  const dtype = storedDtype(checkpoint, name);
  const { byteLength } = checkpoint.tensors.get(name)!;
  const rowBytes = byteLength / shape[0];
  const rowsAtOnce = Math.max(1, Math.floor(BATCH_BYTES / rowBytes));
  const write = async (tensor: string, bytes: Uint8Array | Int8Array, offset: number): Promise<void> => {
    const at = offsets.get(tensor)! + offset;
    for (let done = 0; done < bytes.byteLength; ) {
      done += (await file.write(bytes, done, bytes.byteLength - done, at + done)).bytesWritten;
    }
  };
  for (let row = 0; row < shape[0]; row += rowsAtOnce) {
    const rows = Math.min(rowsAtOnce, shape[0] - row);
    const bytes = new Uint8Array(rows * rowBytes);
    await checkpoint.readInto(name, bytes, row * rowBytes);
    if (!scheme) {
      await write(name, bytes, row * rowBytes);
      continue;
    }
    const inputs = shape[1];
    const { integers, scales, subScales } = quantiser.quantise(name, scheme, dtype, inputs, bytes);
    await write(name, integers, (integers.byteLength / rows) * row);
    await write(`${name}.scales`, new Uint8Array(scales.buffer), row * blocksOf(inputs) * 4);
    if (scheme === "int4") await write(`${name}.sub_scales`, subScales, row * subBlocksOf(inputs));
  }
}

async function copyTexts(files: CheckpointFiles, scheme: QuantisedScheme, to: string): Promise<void> {
  for (const name of COPIED_FILES) {
    const text = await files.readText(name);
    if (text !== undefined) await writeFile(join(to, name), text);
  }
  const config = (await readJson(files, CONFIG_FILE)) as Record<string, unknown>;
  const quantised = { ...config, quantization_config: { quant_method: QUANT_METHOD, weights: schemeText(scheme) } };
  await writeFile(join(to, CONFIG_FILE), `${JSON.stringify(quantised, null, 2)}\n`);
}
