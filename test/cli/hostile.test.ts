/**
 * Checkpoints made to do harm, through the command line: one clear line, status 1, and less than 200 MB of memory.
 * (What the reader itself accepts and refuses is tested to the byte in test/checkpoint/.)
 */

import { spawnSync } from "node:child_process";
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { GEN, ODD } from "../checkpoints.ts";
import { projectPath } from "../helpers.ts";
import { temporaryFolder } from "./harness.ts";

const MAX_RSS_BYTES = 200e6;

/**
 * Makes a process print its peak memory as the last line of stderr. It reads /proc if there is one, since the figure of
 * getrusage starts from the memory of the process that forked it, which is this test.
 */
const TELL_RSS = `data:text/javascript,${encodeURIComponent(`
  import { existsSync, readFileSync } from "node:fs";
  process.on("exit", () => {
    const status = existsSync("/proc/self/status") ? readFileSync("/proc/self/status", "utf8") : "";
    const kilobytes = /VmHWM:\\s+(\\d+)/.exec(status)?.[1] ?? process.resourceUsage().maxRSS;
    process.stderr.write("\\npeak " + kilobytes * 1024 + "\\n");
  });`)}`;

function refused(args: readonly string[], message: string | RegExp): void {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["--import", TELL_RSS, projectPath("src/cli/main.ts"), ...args],
    {
      encoding: "utf8",
    },
  );
  const [line, , peak, ...rest] = stderr.split("\n");
  expect(line).toMatch(/^qwen3guard: /);
  if (typeof message === "string") expect(line).toContain(message);
  else expect(line).toMatch(message);
  expect(line.length).toBeLessThan(600);
  expect(rest).toEqual([""]);
  expect([status, stdout]).toEqual([1, ""]);
  const bytes = Number(/^peak (\d+)$/.exec(peak)?.[1]);
  if (!(bytes < MAX_RSS_BYTES)) expect.fail(`peak memory: expected below ${MAX_RSS_BYTES} bytes, got ${peak}`);
}

/** A copy of a checkpoint with some files replaced (undefined: removed). */
function changed(source: string, files: Readonly<Record<string, string | Uint8Array | undefined>>): string {
  const folder = temporaryFolder();
  cpSync(source, folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    if (content === undefined) rmSync(join(folder, name));
    else writeFileSync(join(folder, name), content);
  }
  return folder;
}

/** A safetensors file with this header, followed by this many bytes of data. `length` is what the file claims. */
function safetensors(header: string | Uint8Array, dataBytes: number = 0, length?: bigint): Uint8Array {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  file.set(json, 8);
  return file;
}

const withWeights = (file: Uint8Array): string => changed(GEN, { "model.safetensors": file });
const tensor = (dtype: string, shape: unknown, offsets: readonly number[]): string =>
  `{"dtype":"${dtype}","shape":${JSON.stringify(shape)},"data_offsets":[${offsets}]}`;
const weights = readFileSync(join(GEN, "model.safetensors"));
const headerLength = Number(weights.readBigUInt64LE());
const goodHeader = weights.subarray(8, 8 + headerLength).toString();
const withHeader = (header: string): string =>
  withWeights(Buffer.concat([safetensors(header), weights.subarray(8 + headerLength)]));

describe("weights", () => {
  test.each<[string, () => string, string | RegExp]>([
    ["an empty file", () => withWeights(new Uint8Array(0)), "model.safetensors"],
    ["a header longer than the file", () => withWeights(safetensors("{}", 0, 1000n)), "1000"],
    ["a header of 2^63 bytes", () => withWeights(safetensors("{}", 0, 2n ** 63n)), "9223372036854775808"],
    ["a header of 2^64 - 1 bytes", () => withWeights(safetensors("{}", 0, 2n ** 64n - 1n)), "18446744073709551615"],
    ["a header just above 100 MB", () => withWeights(safetensors("{}", 0, 100_000_001n)), "100000000"],
    ["a truncated file", () => withWeights(weights.subarray(0, weights.length - 1)), "model.safetensors"],
    ["a byte too many", () => withWeights(Buffer.concat([weights, Buffer.of(0)])), "model.safetensors"],
    [
      "a header that is not UTF-8",
      () => withWeights(safetensors(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d))),
      "UTF-8",
    ],
    ["a header that is not JSON", () => withWeights(safetensors("{x}")), "model.safetensors"],
    ["an unknown dtype", () => withWeights(safetensors(`{"a":${tensor("F12", [1], [0, 4])}}`, 4)), "F12"],
    [
      "a shape whose bytes do not match",
      () => withWeights(safetensors(`{"a":${tensor("F32", [3], [0, 8])}}`, 8)),
      '"a"',
    ],
    [
      "a shape whose product overflows",
      () => withWeights(safetensors(`{"a":${tensor("F32", [2 ** 40, 2 ** 40], [0, 8])}}`, 8)),
      '"a"',
    ],
    [
      "overlapping tensors",
      () => withWeights(safetensors(`{"a":${tensor("U8", [4], [0, 4])},"b":${tensor("U8", [4], [2, 6])}}`, 6)),
      '"b"',
    ],
    [
      "a gap",
      () => withWeights(safetensors(`{"a":${tensor("U8", [4], [0, 4])},"b":${tensor("U8", [4], [5, 9])}}`, 9)),
      '"b"',
    ],
    ["a range outside the file", () => withWeights(safetensors(`{"a":${tensor("U8", [1e12], [0, 1e12])}}`, 8)), '"a"'],
    [
      "the same name twice",
      () => withWeights(safetensors(`{"a":${tensor("U8", [4], [0, 4])},"a":${tensor("U8", [4], [4, 8])}}`, 8)),
      '"a"',
    ],
    ["100 MB of white space", () => withWeights(safetensors(Buffer.alloc(99_000_000, " "))), "model.safetensors"],
    [
      "one name of 99 MB",
      () =>
        withWeights(safetensors(Buffer.concat([Buffer.from('{"'), Buffer.alloc(98_000_000, "n"), Buffer.from('":')]))),
      "model.safetensors",
    ],
    ["deep nesting", () => withWeights(safetensors(`{"a":${"[".repeat(5_000_000)}`)), "model.safetensors"],
    [
      "a million small tensors, then nonsense",
      () =>
        withWeights(
          safetensors(
            `{${Array.from({ length: 1_000_000 }, (_, i) => `"t${i}":${tensor("U8", [], [i, i + 1])}`).join(",")},?}`,
            10,
          ),
        ),
      "model.safetensors",
    ],
    [
      "a tensor missing",
      () => withHeader(goodHeader.replace("model.norm.weight", "model.norn.weight")),
      'tensor "model.norm.weight": expected shape [192], got no such tensor',
    ],
    [
      "a tensor misshapen",
      () =>
        withHeader(
          goodHeader.replace(
            /("model\.layers\.2\.self_attn\.k_proj\.weight":\{"dtype":"BF16","shape":)\[128,192\]/,
            "$1[192,128]",
          ),
        ),
      'tensor "model.layers.2.self_attn.k_proj.weight": expected shape [128,192], got [192,128]',
    ],
    [
      "a tensor of an unusable dtype",
      () => withHeader(goodHeader.replace(/("model\.norm\.weight":\{"dtype":)"BF16"/, '$1"I16"')),
      'tensor "model.norm.weight": expected dtype BF16, F16, F32, got I16',
    ],
    ["no weights at all", () => changed(GEN, { "model.safetensors": undefined }), "model.safetensors"],
  ])("%s", (_, folder, message) => {
    refused(["moderate", "hi", "--model", folder()], message);
  });
});

describe("an index", () => {
  const index = JSON.parse(readFileSync(join(ODD, "model.safetensors.index.json"), "utf8"));
  const withIndex = (change: (map: Record<string, unknown>) => unknown): string =>
    changed(ODD, {
      "model.safetensors.index.json": JSON.stringify({ ...index, weight_map: change({ ...index.weight_map }) }),
    });
  const withMap = (entries: readonly [string, string][]): string =>
    changed(ODD, { "model.safetensors.index.json": JSON.stringify({ weight_map: Object.fromEntries(entries) }) });

  test.each<[string, () => string, string]>([
    [
      "names a shard that does not exist",
      () => changed(ODD, { "model-00002-of-00003.safetensors": undefined }),
      "model-00002-of-00003.safetensors",
    ],
    [
      "climbs out of the folder",
      () => withIndex(map => ({ ...map, "lm_head.weight": "../model.safetensors" })),
      "../model.safetensors",
    ],
    ["names an absolute path", () => withIndex(map => ({ ...map, "lm_head.weight": "/etc/passwd" })), "/etc/passwd"],
    [
      "names a shard by a number",
      () => withIndex(map => ({ ...map, "lm_head.weight": 3 })),
      "model.safetensors.index.json",
    ],
    [
      "puts a tensor into the wrong shard",
      () => withIndex(map => ({ ...map, "lm_head.weight": "model-00003-of-00003.safetensors" })),
      "lm_head.weight",
    ],
    [
      "names half a million shards",
      () => withMap(Array.from({ length: 500_000 }, (_, i) => [`t${i.toString(36)}`, `${i.toString(36)}.s`])),
      "expected names, shapes and metadata that fit 48 MiB of memory, got more",
    ],
    [
      "names as many tensors as the largest known model, in 27 MB, and shards that do not exist",
      () =>
        withMap(
          Array.from({ length: 222_747 }, (_, i) => [
            `${i}`.padEnd(75, "n"),
            `model-${String(i % 160).padStart(5, "0")}-of-00160`,
          ]),
        ),
      'expected the shard "model-00000-of-00160"',
    ],
    ["has no map", () => changed(ODD, { "model.safetensors.index.json": "{}" }), "weight_map"],
    ["is no JSON", () => changed(ODD, { "model.safetensors.index.json": "nonsense" }), "model.safetensors.index.json"],
  ])("%s", (_, folder, message) => {
    refused(["inspect", folder()], message);
  });
});

describe("config and tokenizer", () => {
  const config = JSON.parse(readFileSync(join(GEN, "config.json"), "utf8"));
  const tokenizer = JSON.parse(readFileSync(join(GEN, "tokenizer.json"), "utf8"));
  const withConfig = (change: object): string =>
    changed(GEN, { "config.json": JSON.stringify({ ...config, ...change }) });
  const withKeys = (count: number): string =>
    changed(GEN, {
      "tokenizer.json": `{${Array.from({ length: count }, (_, i) => `"${`k${i}`.padEnd(36, "x")}":0`)}}`,
    });
  const withAdded = (count: number, units: number): string => {
    const first = Object.keys(tokenizer.model.vocab).length;
    const options = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
    const added = Array.from({ length: count }, (_, i) => ({
      id: first + i,
      content: `${i}`.padStart(8, "0").padEnd(units, "x"),
      ...options,
    }));
    return withTokenizer({ added_tokens: added });
  };
  const withTokenizer = (change: object): string =>
    changed(GEN, { "tokenizer.json": JSON.stringify({ ...tokenizer, ...change }) });

  test.each<[string, () => string, string]>([
    ["a config that is no JSON", () => changed(GEN, { "config.json": "{" }), "config.json: expected JSON"],
    [
      "a config of another model",
      () => withConfig({ model_type: "llama" }),
      'model_type: expected "qwen3", got "llama"',
    ],
    [
      "a config that asks for a petabyte",
      () => withConfig({ vocab_size: 2 ** 24, hidden_size: 2 ** 24 }),
      "model.embed_tokens.weight",
    ],
    ["a config of a hundred million layers", () => withConfig({ num_hidden_layers: 1e8 }), "num_hidden_layers"],
    ["scaled rotary embeddings", () => withConfig({ rope_scaling: { rope_type: "yarn" } }), "rope_scaling"],
    ["a tokenizer that is no JSON", () => changed(GEN, { "tokenizer.json": "[[[" }), "tokenizer.json"],
    [
      "a tokenizer with a million values",
      () => changed(GEN, { "tokenizer.json": `[${"0,".repeat(1e6)}0]` }),
      "expected at most 800000 values",
    ],
    [
      "a tokenizer with nearly as many values as are accepted",
      () => changed(GEN, { "tokenizer.json": `[${"[],".repeat(399_000)}0]` }),
      "expected an object",
    ],
    ["a tokenizer of many keys", () => withKeys(399_000), "expected at most 250000 keys, got 399000"],
    ["a tokenizer of as many keys as are read, in 16 MB", () => withKeys(249_000), "top level"],
    ["45,457 added tokens, in 16 MB", () => withAdded(45_457, 256), "expected at most 250000 keys"],
    [
      "added tokens whose tree would take gigabytes",
      () => withAdded(35_000, 256),
      "added_tokens: expected at most 65536 UTF-16 units in all, got more",
    ],
    [
      "as many added tokens as are accepted",
      () => withAdded(256, 256),
      "expected at most 4160 ids, the model's vocabulary, got 4352",
    ],
    [
      "a tokenizer nested deep",
      () => changed(GEN, { "tokenizer.json": "[".repeat(700_000) }),
      "expected JSON at most 100 deep",
    ],
    ["a tokenizer of null", () => changed(GEN, { "tokenizer.json": "null" }), "tokenizer.json"],
    ["another kind of tokenizer", () => withTokenizer({ model: { type: "Unigram", vocab: [] } }), "Unigram"],
    [
      "a vocabulary with an id of a billion",
      () => withTokenizer({ model: { ...tokenizer.model, vocab: { ...tokenizer.model.vocab, x: 1e9 } } }),
      "1000000000",
    ],
    ["another pre-tokenizer", () => withTokenizer({ pre_tokenizer: { type: "Whitespace" } }), "pre_tokenizer"],
    [
      "a template that does not parse",
      () => changed(GEN, { "tokenizer_config.json": JSON.stringify({ chat_template: "{% for x in %}" }) }),
      "chat_template",
    ],
    [
      "a template of a megabyte",
      () => changed(GEN, { "chat_template.jinja": "{{a}}".repeat(200_000) }),
      "chat_template.jinja: expected at most 131072 characters, got 1000000",
    ],
    [
      "a template with as many values as are accepted",
      () => changed(GEN, { "chat_template.jinja": `{{[${"1,".repeat(65_000)}1]}}` }),
      "expected a guard's chat template",
    ],
    [
      "a template that is not a guard's",
      () => changed(GEN, { "tokenizer_config.json": JSON.stringify({ chat_template: "{{ messages[0].content }}" }) }),
      "expected a guard's chat template",
    ],
  ])("%s", (_, folder, message) => {
    refused(["moderate", "hi", "--model", folder()], message);
  });
});
