import { describe, expect, test } from "vitest";
import { parseConfig } from "../../src/model/config.ts";
import { readJson } from "../helpers.ts";

const gen = readJson<Record<string, unknown>>("models/tiny-guard-gen/config.json");
const stream = readJson<Record<string, unknown>>("test/fixtures/tiny-guard-stream/config.json");

describe("a good config", () => {
  test("is read under the config's own names, and frozen", () => {
    const config = parseConfig(gen, readJson("models/tiny-guard-gen/generation_config.json"), "m");
    expect(config).toEqual({
      architecture: "Qwen3ForCausalLM",
      vocabSize: 4160,
      hiddenSize: 192,
      intermediateSize: 512,
      numHiddenLayers: 4,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 64,
      rmsNormEps: 1e-6,
      ropeTheta: 1000000,
      maxPositionEmbeddings: 2048,
      tieWordEmbeddings: true,
      stopIds: [4098, 4096],
    });
    expect(Object.isFrozen(config)).toBe(true);
  });

  test("takes its stop ids from config.json if generation_config.json names none", () => {
    expect(parseConfig(gen, undefined, "m").stopIds).toEqual([4098]);
    expect(parseConfig(gen, {}, "m").stopIds).toEqual([4098]);
    expect(parseConfig(gen, { eos_token_id: 7 }, "m").stopIds).toEqual([7]);
    expect(parseConfig({ ...gen, eos_token_id: undefined }, undefined, "m").stopIds).toEqual([]);
  });

  test("an empty list in generation_config.json names none; an id named twice counts once; the list is frozen", () => {
    expect(parseConfig(gen, { eos_token_id: [] }, "m").stopIds).toEqual([4098]);
    expect(parseConfig(gen, { eos_token_id: null }, "m").stopIds).toEqual([4098]);
    expect(parseConfig(gen, { eos_token_id: [0] }, "m").stopIds).toEqual([0]);
    expect(parseConfig({ ...gen, eos_token_id: null }, undefined, "m").stopIds).toEqual([]);
    const { stopIds } = parseConfig(gen, { eos_token_id: [4159, 0, 4159] }, "m");
    expect(stopIds).toEqual([4159, 0]);
    expect(Object.isFrozen(stopIds)).toBe(true);
    expect(Object.isFrozen(parseConfig({ ...gen, eos_token_id: null }, undefined, "m").stopIds)).toBe(true);
  });

  test("takes the rotary base from rope_parameters, where transformers 5 writes it", () => {
    const { rope_theta: _, ...rest } = gen;
    const base = (change: Record<string, unknown>): number =>
      parseConfig({ ...rest, ...change }, undefined, "m").ropeTheta;
    expect(base({ rope_parameters: { rope_type: "default", rope_theta: 5 } })).toBe(5);
    expect(base({ rope_parameters: { type: "default", rope_theta: 5 }, rope_theta: 7 })).toBe(7);
    expect(base({ rope_parameters: null, rope_scaling: { type: "default" }, rope_theta: 7 })).toBe(7);
  });

  test("may leave out what has only one meaning", () => {
    const bare = { ...gen };
    for (const key of [
      "architectures",
      "hidden_act",
      "attention_bias",
      "layer_types",
      "rms_norm_eps",
      "tie_word_embeddings",
    ])
      delete bare[key];
    const { architecture, rmsNormEps, tieWordEmbeddings } = parseConfig(bare, undefined, "m");
    expect([architecture, rmsNormEps, tieWordEmbeddings]).toEqual(["Qwen3ForCausalLM", 1e-6, false]);
    const written = {
      quantization_config: null,
      layer_types: ["full_attention", "full_attention"],
      use_sliding_window: false,
    };
    expect(parseConfig({ ...gen, ...written }, undefined, "m")).toEqual(parseConfig(gen, undefined, "m"));
    expect("guardHeads" in parseConfig(gen, undefined, "m")).toBe(false);
    // Written by `quantize`; the weights' file says how.
    parseConfig({ ...gen, quantization_config: { quant_method: "qwen3guard", bits: 4 } }, undefined, "m");
  });

  test.each<[string, number]>([
    ["vocab_size", 2 ** 24],
    ["num_hidden_layers", 4096],
    ["max_position_embeddings", 2 ** 20],
    ["rms_norm_eps", 1],
    ["rope_theta", 1e12],
    ["hidden_size", 1],
  ])("may have the largest %s, or the smallest: %d", (key, value) => {
    expect(Object.values(parseConfig({ ...gen, [key]: value }, undefined, "m"))).toContain(value);
  });

  test("of a Stream checkpoint holds its label maps in class order", () => {
    const heads = parseConfig(stream, undefined, "m").guardHeads;
    expect(heads?.innerSize).toBe(64);
    expect(heads?.responseRiskLevels).toEqual(["Safe", "Unsafe", "Controversial"]);
    expect(heads?.queryCategories).toHaveLength(9);
    expect(heads?.queryCategories[8]).toBe("Jailbreak");
    expect([heads, ...Object.values(heads!)].every(Object.isFrozen)).toBe(true);
  });

  test("of a Stream checkpoint may leave out the number of labels, which may be 1 to 1024", () => {
    const bare = { ...stream };
    for (const key of ["num_risk_level", "num_category", "num_query_risk_level", "num_query_category"])
      delete bare[key];
    const many = Object.fromEntries(Array.from({ length: 1024 }, (_, i) => [i, `${i}`]));
    const heads = parseConfig(
      { ...bare, response_category_map: many, query_category_map: { 0: "one" } },
      undefined,
      "m",
    ).guardHeads;
    expect([heads?.responseCategories[1023], heads?.responseCategories.length, heads?.queryCategories]).toEqual([
      "1023",
      1024,
      ["one"],
    ]);
  });
});

describe("anything not implemented is refused by name", () => {
  test.each<[string, Record<string, unknown>, string]>([
    ["another model", { model_type: "llama" }, 'm/config.json: model_type: expected "qwen3", got "llama"'],
    ["no model type", { model_type: undefined }, 'model_type: expected "qwen3", got nothing'],
    [
      "scaled rotary embeddings",
      { rope_scaling: { type: "yarn", factor: 4 } },
      'rope_scaling: expected null or rope_type "default"',
    ],
    [
      "scaled rotary parameters",
      { rope_parameters: { rope_type: "yarn" } },
      'rope_parameters: expected null or rope_type "default"',
    ],
    [
      "attention biases",
      { attention_bias: true },
      "attention_bias: expected false (biases are not implemented), got true",
    ],
    [
      "a sliding window in use",
      { use_sliding_window: true },
      "use_sliding_window: expected false (sliding windows are not implemented), got true",
    ],
    [
      "sliding layers",
      { layer_types: ["full_attention", "sliding_attention"] },
      'layer_types: expected only "full_attention", got "sliding_attention"',
    ],
    ["another activation", { hidden_act: "gelu" }, 'hidden_act: expected "silu", got "gelu"'],
    [
      "quantised weights",
      { quantization_config: { quant_method: "awq", bits: 4 } },
      'quantization_config: expected none, or quant_method "qwen3guard" (others are not implemented), got {"quant_method":"awq","bits":4}',
    ],
    [
      "a quantisation that is no object",
      { quantization_config: "int4" },
      'quantization_config: expected a JSON object, got "int4"',
    ],
    [
      "another architecture",
      { architectures: ["Qwen3ForSequenceClassification"] },
      'architectures: expected "Qwen3ForCausalLM" or "Qwen3ForGuardModel", got "Qwen3ForSequenceClassification"',
    ],
    ["no architecture in the list", { architectures: [] }, "architectures: expected"],
    [
      "scaled rotary embeddings beside parameters that are not",
      { rope_scaling: { rope_type: "yarn", type: "default" }, rope_parameters: { rope_type: "default" } },
      'm/config.json: rope_scaling: expected null or rope_type "default" (scaled rotary embeddings are not implemented), got {',
    ],
    ["rotary parameters that are a list", { rope_parameters: [1] }, "rope_parameters: expected a JSON object, got [1]"],
    [
      "no rotary base",
      { rope_theta: undefined },
      "rope_theta: expected a number above 0 and at most 1000000000000, got nothing",
    ],
  ])("%s", (_, change, message) => {
    expect(() => parseConfig({ ...gen, ...change }, undefined, "m")).toThrow(message);
  });
});

describe("hostile numbers are refused before anything is allocated", () => {
  test.each<[string, Record<string, unknown>, string]>([
    [
      "a vocabulary of 1e12 rows",
      { vocab_size: 1e12 },
      "vocab_size: expected an integer from 1 to 16777216, got 1000000000000",
    ],
    ["a negative size", { hidden_size: -192 }, "hidden_size: expected an integer from 1"],
    ["a fraction", { intermediate_size: 1.5 }, "intermediate_size: expected an integer from 1"],
    ["a size as text", { hidden_size: "192" }, 'hidden_size: expected an integer from 1 to 16777216, got "192"'],
    ["no layers", { num_hidden_layers: 0 }, "num_hidden_layers: expected an integer from 1 to 4096, got 0"],
    ["a million layers", { num_hidden_layers: 1e6 }, "num_hidden_layers: expected an integer from 1 to 4096"],
    ["a missing head size", { head_dim: undefined }, "head_dim: expected an integer from 1 to 16777216, got nothing"],
    ["an odd head size", { head_dim: 63 }, "head_dim: expected an even number"],
    [
      "heads that do not group",
      { num_key_value_heads: 3 },
      "num_key_value_heads: expected a divisor of num_attention_heads (4), got 3",
    ],
    [
      "an endless context",
      { max_position_embeddings: 2 ** 40 },
      "max_position_embeddings: expected an integer from 1 to 1048576",
    ],
    ["a negative epsilon", { rms_norm_eps: -1 }, "rms_norm_eps: expected a number above 0 and at most 1, got -1"],
    [
      "an epsilon beyond float32",
      { rms_norm_eps: 1e300 },
      "rms_norm_eps: expected a number above 0 and at most 1, got 1e+300",
    ],
    ["an endless rotary base", { rope_theta: 1e308 }, "rope_theta: expected a number above 0"],
    [
      "a tie that is no boolean",
      { tie_word_embeddings: "yes" },
      'tie_word_embeddings: expected true or false, got "yes"',
    ],
    [
      "a size just above",
      { vocab_size: 2 ** 24 + 1 },
      "vocab_size: expected an integer from 1 to 16777216, got 16777217",
    ],
    [
      "layers just above",
      { num_hidden_layers: 4097 },
      "num_hidden_layers: expected an integer from 1 to 4096, got 4097",
    ],
    [
      "a context just above",
      { max_position_embeddings: 2 ** 20 + 1 },
      "expected an integer from 1 to 1048576, got 1048577",
    ],
    ["an epsilon of 0", { rms_norm_eps: 0 }, "rms_norm_eps: expected a number above 0 and at most 1, got 0"],
    [
      "an epsilon just above",
      { rms_norm_eps: 1.01 },
      "rms_norm_eps: expected a number above 0 and at most 1, got 1.01",
    ],
    ["an epsilon as text", { rms_norm_eps: "1" }, 'rms_norm_eps: expected a number above 0 and at most 1, got "1"'],
    ["a negative stop id", { eos_token_id: -1 }, "m/config.json: eos_token_id: expected ids from 0 to 4159, got -1"],
    ["a stop id between two", { eos_token_id: [1.5] }, "eos_token_id: expected ids from 0 to 4159, got 1.5"],
    [
      "a stop id outside the vocabulary",
      { eos_token_id: [5, 4160] },
      "eos_token_id: expected ids from 0 to 4159, got 4160",
    ],
  ])("%s", (_, change, message) => {
    expect(() => parseConfig({ ...gen, ...change }, undefined, "m")).toThrow(message);
  });

  test.each([null, [], "text", 3])("a config that is %j", value => {
    expect(() => parseConfig(value, undefined, "m")).toThrow("m/config.json: expected a JSON object");
    expect(() => parseConfig(gen, value, "m")).toThrow(
      `m/generation_config.json: expected a JSON object, got ${JSON.stringify(value)}`,
    );
  });

  test("a bad stop id in generation_config.json is refused under that file's name", () => {
    expect(() => parseConfig(gen, { eos_token_id: 4160 }, "m")).toThrow(
      "m/generation_config.json: eos_token_id: expected ids from 0",
    );
  });

  test("a message shortens a long value, and says when a value is nested too deep", () => {
    const got = (value: unknown): string => {
      try {
        parseConfig({ ...gen, model_type: value }, undefined, "m");
      } catch (error) {
        return (error as Error).message.replace('m/config.json: model_type: expected "qwen3", got ', "");
      }
      return "";
    };
    expect(got("a".repeat(78))).toBe(`"${"a".repeat(78)}"`);
    expect(got("a".repeat(79))).toBe(`"${"a".repeat(76)}...`);
    let deep: unknown = 0;
    for (let i = 0; i < 100_000; i++) deep = [deep];
    expect(got(deep)).toBe("a value that is nested too deep");
  });

  test("label maps with holes, other values or another count", () => {
    const map = (change: unknown): unknown => parseConfig({ ...stream, response_category_map: change }, undefined, "m");
    expect(() => map({ "0": "Violent", "2": "PII" })).toThrow("response_category_map.1: expected a label, got nothing");
    expect(() => map({ "0": 7 })).toThrow("response_category_map.0: expected a label, got 7");
    expect(() => map({ "0": "Violent" })).toThrow(
      "num_category: expected the size of response_category_map (1), got 8",
    );
    expect(() => map(null)).toThrow("response_category_map: expected a JSON object, got null");
    expect(() => map({})).toThrow("response_category_map: expected 1 to 1024 labels, got 0");
    const many = Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [i, `${i}`]));
    expect(() => map(many)).toThrow("response_category_map: expected 1 to 1024 labels, got 1025");
  });

  test.each([
    ["response_risk_level_map", "num_risk_level"],
    ["response_category_map", "num_category"],
    ["query_risk_level_map", "num_query_risk_level"],
    ["query_category_map", "num_query_category"],
  ])("%s has its own count", (key, count) => {
    const change = { [key]: { "0": "a", "1": "b" }, [count]: 1 };
    const message = `m/config.json: ${count}: expected the size of ${key} (2), got 1`;
    expect(() => parseConfig({ ...stream, ...change }, undefined, "m")).toThrow(message);
  });
});
