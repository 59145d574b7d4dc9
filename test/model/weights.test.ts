/**
 * Weights: which tensors a config calls for, that each ends up in its place, and what is refused before any reading.
 */

import { describe, expect, onTestFinished, test } from "vitest";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import { SafetensorsCheckpoint } from "../../src/checkpoint/safetensors-sharded.ts";
import type { Qwen3Config } from "../../src/model/config.ts";
import { readConfig } from "../../src/model/qwen3.ts";
import { checkShapes, expectedTensors, loadWeights, weightBytes } from "../../src/model/weights.ts";
import type { FloatBuffer, Matrix } from "../../src/tensor/engine.ts";
import { MemoryError } from "../../src/tensor/memory-error.ts";
import { ReferenceEngine, ReferenceMatrix } from "../../src/tensor/reference-engine.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { WasmEngine } from "../../src/tensor/wasm/wasm-engine.ts";
import { GEN, ODD, STREAM } from "../checkpoints.ts";
import { expectSameBits } from "../helpers.ts";

async function opened(folder: string): Promise<{ checkpoint: SafetensorsCheckpoint; config: Qwen3Config }> {
  const files = await openCheckpointFiles(folder);
  const checkpoint = await SafetensorsCheckpoint.open(files);
  onTestFinished(() => checkpoint.close());
  return { checkpoint, config: await readConfig(files) };
}

describe.each([
  ["odd", ODD],
  ["tiny-guard-stream", STREAM],
  ["tiny-guard-gen", GEN],
])("%s", (_, folder) => {
  test("its config calls for the tensors that it has, with their shapes", async () => {
    const { checkpoint, config } = await opened(folder);
    const shapes = new Map([...checkpoint.tensors.values()].map(({ name, shape }) => [name, shape]));
    expect(expectedTensors(config)).toEqual(shapes);
    checkShapes(checkpoint, config);
  });

  test("each weight is the checkpoint's tensor of that name, to the bit", async () => {
    const { checkpoint, config } = await opened(folder);
    const weights = await loadWeights(checkpoint, config, new ReferenceEngine());
    const names: string[] = [];
    const expectTensor = async (weight: FloatBuffer | Matrix, name: string): Promise<void> => {
      names.push(`${name}.weight`);
      const expected = (await checkpoint.read(`${name}.weight`)).toFloat32();
      if (!(weight instanceof ReferenceMatrix)) return expectSameBits((weight as FloatBuffer).data, expected);
      expect(weight.name).toBe(name);
      expectSameBits((weight.tensor as Tensor).toFloat32(), expected);
    };
    await expectTensor(weights.embedTokens, "model.embed_tokens");
    expect(weights.layers).toHaveLength(config.numHiddenLayers);
    for (const [i, layer] of weights.layers.entries()) {
      for (const [key, name] of [
        ["inputLayernorm", "input_layernorm"],
        ["qProj", "self_attn.q_proj"],
        ["kProj", "self_attn.k_proj"],
        ["vProj", "self_attn.v_proj"],
        ["qNorm", "self_attn.q_norm"],
        ["kNorm", "self_attn.k_norm"],
        ["oProj", "self_attn.o_proj"],
        ["postAttentionLayernorm", "post_attention_layernorm"],
        ["gateProj", "mlp.gate_proj"],
        ["upProj", "mlp.up_proj"],
        ["downProj", "mlp.down_proj"],
      ] as const) {
        await expectTensor(layer[key], `model.layers.${i}.${name}`);
      }
    }
    await expectTensor(weights.norm, "model.norm");
    if (config.tieWordEmbeddings) expect(weights.lmHead).toBe(weights.embedTokens);
    else await expectTensor(weights.lmHead, "lm_head");
    expect("guardHeads" in weights).toBe(config.guardHeads !== undefined);
    for (const [prefix, heads] of [
      ["", weights.guardHeads?.response],
      ["query_", weights.guardHeads?.query],
    ] as const) {
      if (heads === undefined) continue;
      await expectTensor(heads.pre, `${prefix}risk_level_category_pre`);
      await expectTensor(heads.layernorm, `${prefix}risk_level_category_layernorm`);
      await expectTensor(heads.riskLevel, `${prefix}risk_level_head`);
      await expectTensor(heads.category, `${prefix}category_head`);
    }
    expect(names.sort()).toEqual([...checkpoint.tensors.keys()].sort());
  });
});

describe("a tensor that does not fit the config is refused before anything is read", () => {
  const norm = "model.norm.weight";
  const queries = "model.layers.3.self_attn.q_proj.weight";
  test.each([
    [norm, undefined, 'tensor "model.norm.weight": expected shape [192], got no such tensor'],
    [queries, { shape: [192, 256] }, `tensor "${queries}": expected shape [256,192], got [192,256]`],
    [queries, { dtype: "I16" }, `tensor "${queries}": expected dtype BF16, F16, F32, got I16`],
    [queries, { dtype: "F64" }, `tensor "${queries}": expected dtype BF16, F16, F32, got F64`],
  ] as const)("%s, changed to %j", async (name, change, message) => {
    const { checkpoint, config } = await opened(GEN);
    const tensors = new Map(checkpoint.tensors);
    if (change === undefined) tensors.delete(name);
    else tensors.set(name, { ...tensors.get(name)!, ...change });
    const changed = { name: "m", tensors, metadata: checkpoint.metadata };
    expect(() => checkShapes(changed, config)).toThrow(new RangeError(`m: ${message}`));
  });

  test("tensors that the config does not call for are ignored, as a tied checkpoint's own head; F16 and F32 work", async () => {
    const { checkpoint, config } = await opened(GEN);
    const tensors = new Map(
      [...checkpoint.tensors].map(([name, info], i) => [name, i % 2 ? info : { ...info, dtype: "F16" as const }]),
    );
    tensors.set("lm_head.weight", { ...tensors.get(norm)!, dtype: "F8_E4M3" });
    tensors.set(norm, { ...tensors.get(norm)!, dtype: "F32" });
    expect(config.tieWordEmbeddings).toBe(true);
    checkShapes({ name: "m", tensors, metadata: checkpoint.metadata }, config);
  });
});

test("weights take as much memory as in the file, except for widened gains and quantised matrices", async () => {
  const { checkpoint, config } = await opened(STREAM);
  const { held, bytes } = {
    held: { undefined: 0, int8: 0, int4: 0 },
    bytes: (scheme?: "int8" | "int4") => weightBytes(checkpoint, config, scheme),
  };
  for (const [name, { shape, byteLength }] of checkpoint.tensors) {
    const [outputs, inputs] = shape;
    const isHead = /risk_level|category/.test(name);
    const perRow = {
      int8: 4 * Math.ceil(inputs / 256) + inputs,
      int4: 4 * Math.ceil(inputs / 256) + Math.ceil(inputs / 32) + inputs / 2,
    };
    const isEmbedding = /embed_tokens|lm_head/.test(name);
    if (shape.length === 1) for (const scheme of ["undefined", "int8", "int4"] as const) held[scheme] += 4 * outputs;
    else {
      held.undefined += byteLength;
      held.int8 += isHead ? byteLength : outputs * perRow.int8;
      held.int4 += isHead ? byteLength : outputs * (isEmbedding ? perRow.int8 : perRow.int4);
    }
  }
  expect([bytes(), bytes("int8"), bytes("int4")]).toEqual([held.undefined, held.int8, held.int4]);
});

test.each([
  [
    undefined,
    4,
    "memory: expected 5 MB for the weights of tiny-guard-gen, got 4 MB left; 3 MB suffice with --weights int8",
  ],
  [
    "int8",
    2,
    "memory: expected 3 MB for the weights of tiny-guard-gen, got 2 MB left; 2 MB suffice with --weights int4",
  ],
  ["int4", 1, "memory: expected 2 MB for the weights of tiny-guard-gen, got 1 MB left"],
] as const)("%s weights in too little memory", async (scheme, megabytes, message) => {
  const files = { ...(await openCheckpointFiles(GEN)), name: "tiny-guard-gen" };
  const checkpoint = await SafetensorsCheckpoint.open(files);
  onTestFinished(() => checkpoint.close());
  const config = await readConfig(files);
  const engine = WasmEngine.create({ memoryLimit: megabytes * 2 ** 20 });
  expect(weightBytes(checkpoint, config, scheme)).toBeGreaterThan(megabytes * 2 ** 20);
  await expect(loadWeights(checkpoint, config, engine, scheme)).rejects.toThrow(new MemoryError(message));
  expect(engine.usedBytes).toBe(0);
  if (scheme === undefined) {
    await loadWeights(checkpoint, config, engine, "int8");
    expect(engine.usedBytes).toBeLessThan(2.7 * 2 ** 20);
  }
  engine.close();
});
