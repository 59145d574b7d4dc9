import { describe, expect, test } from "vitest";
import { parseConfig } from "../../src/model/config.ts";
import { readJson } from "../helpers.ts";

const gen = readJson<Record<string, unknown>>("models/tiny-guard-gen/config.json");
const stream = readJson<Record<string, unknown>>("test/fixtures/tiny-guard-stream/config.json");

describe("a good config", () => {
  test("is read in the config's own words, and frozen", () => {
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

  test("takes its stop ids from config.json where generation_config.json names none", () => {
    expect(parseConfig(gen, undefined, "m").stopIds).toEqual([4098]);
    expect(parseConfig(gen, {}, "m").stopIds).toEqual([4098]);
    expect(parseConfig(gen, { eos_token_id: 7 }, "m").stopIds).toEqual([7]);
    expect(parseConfig({ ...gen, eos_token_id: undefined }, undefined, "m").stopIds).toEqual([]);
  });

  test("takes the rotary base from rope_parameters, where transformers 5 writes it", () => {
    const { rope_theta: _, ...rest } = gen;
    expect(parseConfig({ ...rest, rope_parameters: { rope_type: "default", rope_theta: 5 } }, undefined, "m").ropeTheta).toBe(5);
  });

  test("of a Stream checkpoint holds its label maps in class order", () => {
    const heads = parseConfig(stream, undefined, "m").guardHeads;
    expect(heads?.innerSize).toBe(64);
    expect(heads?.responseRiskLevels).toEqual(["Safe", "Unsafe", "Controversial"]);
    expect(heads?.queryCategories).toHaveLength(9);
    expect(heads?.queryCategories[8]).toBe("Jailbreak");
  });
});

describe("what is not implemented is refused by name", () => {
  test.each<[string, Record<string, unknown>, string]>([
    ["another model", { model_type: "llama" }, 'm/config.json: model_type: expected "qwen3", got "llama"'],
    ["no model type", { model_type: undefined }, 'model_type: expected "qwen3", got nothing'],
    ["scaled rotary embeddings", { rope_scaling: { type: "yarn", factor: 4 } }, 'rope_scaling: expected null or rope_type "default"'],
    ["scaled rotary parameters", { rope_parameters: { rope_type: "yarn" } }, 'rope_parameters: expected null or rope_type "default"'],
    ["attention biases", { attention_bias: true }, "attention_bias: expected false"],
    ["a sliding window in use", { use_sliding_window: true }, "use_sliding_window: expected false"],
    [
      "sliding layers",
      { layer_types: ["full_attention", "sliding_attention"] },
      'layer_types: expected only "full_attention", got "sliding_attention"',
    ],
    ["another activation", { hidden_act: "gelu" }, 'hidden_act: expected "silu", got "gelu"'],
    ["quantised weights", { quantization_config: { bits: 4 } }, "quantization_config: expected none"],
    ["another architecture", { architectures: ["Qwen3ForSequenceClassification"] }, "architectures: expected"],
    ["no rotary base", { rope_theta: undefined }, "rope_theta: expected a number above 0 and at most 1000000000000, got nothing"],
  ])("%s", (_, change, message) => {
    expect(() => parseConfig({ ...gen, ...change }, undefined, "m")).toThrow(message);
  });
});

describe("hostile numbers are refused before anything is allocated", () => {
  test.each<[string, Record<string, unknown>, string]>([
    ["a vocabulary of 1e12 rows", { vocab_size: 1e12 }, "vocab_size: expected an integer from 1 to 16777216, got 1000000000000"],
    ["a negative size", { hidden_size: -192 }, "hidden_size: expected an integer from 1"],
    ["a fraction", { intermediate_size: 1.5 }, "intermediate_size: expected an integer from 1"],
    ["a size as text", { hidden_size: "192" }, 'hidden_size: expected an integer from 1 to 16777216, got "192"'],
    ["no layers", { num_hidden_layers: 0 }, "num_hidden_layers: expected an integer from 1 to 4096, got 0"],
    ["a million layers", { num_hidden_layers: 1e6 }, "num_hidden_layers: expected an integer from 1 to 4096"],
    ["a missing head size", { head_dim: undefined }, "head_dim: expected an integer from 1 to 16777216, got nothing"],
    ["an odd head size", { head_dim: 63 }, "head_dim: expected an even number"],
    ["heads that do not group", { num_key_value_heads: 3 }, "num_key_value_heads: expected a divisor of num_attention_heads (4), got 3"],
    ["an endless context", { max_position_embeddings: 2 ** 40 }, "max_position_embeddings: expected an integer from 1 to 1048576"],
    ["a negative epsilon", { rms_norm_eps: -1 }, "rms_norm_eps: expected a number above 0 and at most 1, got -1"],
    ["an epsilon beyond float32", { rms_norm_eps: 1e300 }, "rms_norm_eps: expected a number above 0 and at most 1, got 1e+300"],
    ["an endless rotary base", { rope_theta: 1e308 }, "rope_theta: expected a number above 0"],
    ["a tie that is no boolean", { tie_word_embeddings: "yes" }, 'tie_word_embeddings: expected true or false, got "yes"'],
    ["a stop id outside the vocabulary", { eos_token_id: [5, 4160] }, "eos_token_id: expected ids from 0 to 4159, got 4160"],
  ])("%s", (_, change, message) => {
    expect(() => parseConfig({ ...gen, ...change }, undefined, "m")).toThrow(message);
  });

  test.each([null, [], "text", 3])("a config that is %j", value => {
    expect(() => parseConfig(value, undefined, "m")).toThrow("m/config.json: expected a JSON object");
    expect(() => parseConfig(gen, value, "m")).toThrow("m/generation_config.json: expected a JSON object");
  });

  test("label maps with holes, other values or another count", () => {
    const map = (change: unknown): unknown => parseConfig({ ...stream, response_category_map: change }, undefined, "m");
    expect(() => map({ "0": "Violent", "2": "PII" })).toThrow("response_category_map.1: expected a label, got nothing");
    expect(() => map({ "0": 7 })).toThrow("response_category_map.0: expected a label, got 7");
    expect(() => map({ "0": "Violent" })).toThrow("num_category: expected the size of response_category_map (1), got 8");
    expect(() => map(null)).toThrow("response_category_map: expected a JSON object, got null");
  });
});
