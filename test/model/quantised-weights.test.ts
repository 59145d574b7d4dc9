/**
 * Saved quantised weights: what a file says about itself, which tensors it has for a matrix, and that they are read to
 * the bit.
 */

import { describe, expect, test } from "vitest";
import { bytesFromBuffer } from "../../src/checkpoint/bytes.ts";
import { SafetensorsCheckpoint } from "../../src/checkpoint/safetensors-sharded.ts";
import { serializeSafetensors } from "../../src/checkpoint/safetensors-writer.ts";
import type { Qwen3Config } from "../../src/model/config.ts";
import { savedScheme, savedTensors, schemeFor, schemeText, schemeToHold } from "../../src/model/quantised-weights.ts";
import { checkShapes, expectedTensors, loadWeights } from "../../src/model/weights.ts";
import { MemoryError } from "../../src/tensor/memory-error.ts";
import {
  packInt4,
  QUANTISED_SCHEMES,
  type QuantisedScheme,
  type QuantisedTensor,
  quantiseTensor,
} from "../../src/tensor/quantised.ts";
import { ReferenceEngine, ReferenceMatrix } from "../../src/tensor/reference-engine.ts";
import { Tensor } from "../../src/tensor/tensor.ts";
import { expectSameBits, noise } from "../helpers.ts";

/** Inputs that fill neither a block of 256, nor a sub-block of 32, nor (302 / 2 = 151) a word. */
const CONFIG: Qwen3Config = {
  architecture: "Qwen3ForGuardModel",
  vocabSize: 9,
  hiddenSize: 302,
  intermediateSize: 5,
  numHiddenLayers: 1,
  numHeads: 2,
  numKvHeads: 1,
  headDim: 4,
  rmsNormEps: 1e-6,
  ropeTheta: 1e4,
  maxPositionEmbeddings: 16,
  tieWordEmbeddings: false,
  stopIds: [],
  guardHeads: {
    innerSize: 3,
    responseRiskLevels: ["a"],
    responseCategories: ["b"],
    queryRiskLevels: ["c"],
    queryCategories: ["d"],
  },
};

const originals = Array.from(expectedTensors(CONFIG), ([name, shape], i) => {
  const length = shape.reduce((product, size) => product * size, 1);
  return new Tensor(name, "F32", shape, noise(length, i));
});

type Change = (tensors: Map<string, Tensor>, metadata: Map<string, string>) => void;

/** A checkpoint of random weights in memory, as it is or saved under a scheme. */
async function checkpointOf(scheme?: QuantisedScheme, change: Change = () => {}): Promise<SafetensorsCheckpoint> {
  const tensors = new Map<string, Tensor>();
  for (const tensor of originals) {
    const held = scheme && schemeFor(tensor.name, tensor.shape, scheme);
    const [outputs, inputs] = tensor.shape;
    if (!held) tensors.set(tensor.name, tensor);
    else {
      const { values, scales, subScales } = quantiseTensor(tensor.name, held, [outputs, inputs], tensor.toFloat32());
      const data = [held === "int8" ? values : packInt4(values, outputs, inputs), scales, subScales];
      for (const [i, { name, dtype, shape }] of savedTensors(tensor.name, tensor.shape, held).entries()) {
        tensors.set(name, new Tensor(name, dtype, shape, data[i]));
      }
    }
  }
  const metadata = new Map<string, string>(scheme && [["qwen3guard.weights", `${scheme}/1`]]);
  change(tensors, metadata);
  const file = serializeSafetensors(tensors.values(), metadata);
  return SafetensorsCheckpoint.open({
    name: "saved",
    open: async name => (name === "model.safetensors" ? bytesFromBuffer(file, `saved/${name}`) : undefined),
  });
}

describe("which matrices are quantised, and how", () => {
  test.each<[string, number[], QuantisedScheme | undefined, QuantisedScheme | undefined]>([
    ["model.layers.0.self_attn.q_proj.weight", [4, 4], "int8", "int4"],
    ["model.embed_tokens.weight", [4, 4], "int8", "int8"],
    ["lm_head.weight", [4, 4], "int8", "int8"],
    ["model.norm.weight", [4], undefined, undefined],
    ["risk_level_head.weight", [4, 4], undefined, undefined],
    ["query_category_head.weight", [4, 4], undefined, undefined],
    ["query_risk_level_category_pre.weight", [4, 4], undefined, undefined],
  ])("%s %j", (name, shape, int8, int4) => {
    expect([schemeFor(name, shape, "int8"), schemeFor(name, shape, "int4")]).toEqual([int8, int4]);
  });

  test("the tensors of a matrix: integers, scales for 256 inputs, and for int4 sub-scales for 32", () => {
    const scales = { name: "w.scales", dtype: "F32", shape: [3, 2] };
    expect(savedTensors("w", [3, 257], "int8")).toEqual([{ name: "w", dtype: "I8", shape: [3, 257] }, scales]);
    expect(savedTensors("w", [3, 257], "int4")).toEqual([
      { name: "w", dtype: "U8", shape: [3, 129] },
      scales,
      { name: "w.sub_scales", dtype: "I8", shape: [3, 9] },
    ]);
  });
});

describe("the scheme that a file was saved with", () => {
  const saved = (text?: string) => ({
    name: "m",
    tensors: new Map(),
    metadata: new Map(text === undefined ? [] : [["qwen3guard.weights", text]]),
  });

  test("is in its metadata, with a version", () => {
    expect(QUANTISED_SCHEMES.map(scheme => savedScheme(saved(schemeText(scheme))))).toEqual(QUANTISED_SCHEMES);
    expect(schemeText("int4")).toBe("int4/1");
    expect(savedScheme(saved())).toBeUndefined();
    for (const text of ["int8/2", "int8", "", "x".repeat(41)]) {
      const message = `m: metadata qwen3guard.weights: expected int8/1 or int4/1, got "${text.slice(0, 40)}"`;
      expect(() => savedScheme(saved(text))).toThrow(new RangeError(message));
    }
  });

  test("is the one its matrices are held in; an original's are held in the one asked for", () => {
    expect(schemeToHold(saved())).toBeUndefined();
    for (const weights of ["auto", "checkpoint"] as const) {
      expect([schemeToHold(saved(), weights), schemeToHold(saved("int8/1"), weights)]).toEqual([undefined, "int8"]);
    }
    expect([
      schemeToHold(saved(), "int4"),
      schemeToHold(saved("int4/1"), "int4"),
      schemeToHold(saved("int4/1")),
    ]).toEqual(Array(3).fill("int4"));
    expect(() => schemeToHold(saved("int4/1"), "int8")).toThrow(
      new RangeError("m: weights: expected int4, as they were saved, got int8"),
    );
  });
});

describe.each(QUANTISED_SCHEMES)("%s", scheme => {
  test("a saved matrix holds the integers and scales of quantising at load, in every place", async () => {
    const [original, saved] = [await checkpointOf(), await checkpointOf(scheme)];
    checkShapes(saved, CONFIG);
    const [expected, got] = await Promise.all(
      [original, saved].map(one => loadWeights(one, CONFIG, new ReferenceEngine(), scheme)),
    );
    const matrices = (weights: typeof got): ReferenceMatrix[] =>
      [
        weights.embedTokens,
        weights.lmHead,
        ...weights.layers.flatMap(layer => Object.values(layer)),
        ...Object.values(weights.guardHeads!.query),
      ].filter(matrix => matrix instanceof ReferenceMatrix);
    const pairs = matrices(got).map((matrix, i) => [matrix.tensor, matrices(expected)[i].tensor] as const);
    expect(pairs).toHaveLength(12);
    for (const [one, other] of pairs) {
      expect(one.name.replace(/\.weight$/, "")).toBe(other.name.replace(/\.weight$/, ""));
      if (other instanceof Tensor) expectSameBits((one as Tensor).toFloat32(), other.toFloat32());
      else {
        const { values, subScales, scales } = one as QuantisedTensor;
        expect([(one as QuantisedTensor).scheme, values, subScales]).toEqual([
          other.scheme,
          other.values,
          other.subScales,
        ]);
        expectSameBits(scales, other.scales);
      }
    }
  });

  const q = "model.layers.0.self_attn.q_proj.weight";

  test("invalid scales are refused by name", async () => {
    for (const bad of [Number.NaN, Infinity, -1]) {
      const checkpoint = await checkpointOf(scheme, tensors => {
        (tensors.get(`${q}.scales`)!.data as Float32Array)[15] = bad;
      });
      const loading = loadWeights(checkpoint, CONFIG, new ReferenceEngine(), scheme);
      await expect(loading).rejects.toThrow(`tensor "${q}.scales": expected finite scales of at least 0, got ${bad}`);
    }
  });

  test("a tensor that is missing, or has another shape or dtype, is refused by name", async () => {
    const parts = savedTensors(q, [8, 302], scheme);
    for (const { name, dtype, shape } of parts) {
      const without = await checkpointOf(scheme, tensors => void tensors.delete(name));
      expect(() => checkShapes(without, CONFIG)).toThrow(
        `saved: tensor "${name}": expected shape [${shape}], got no such tensor`,
      );
      const longer = await checkpointOf(scheme, tensors => {
        tensors.set(name, new Tensor(name, "U8", [9, shape[1]], new Uint8Array(9 * shape[1])));
      });
      expect(() => checkShapes(longer, CONFIG)).toThrow(
        `saved: tensor "${name}": expected shape [${shape}], got [9,${shape[1]}]`,
      );
      const other = await checkpointOf(scheme, tensors => {
        tensors.set(name, new Tensor(name, "F16", shape, new Uint16Array(8 * shape[1])));
      });
      expect(() => checkShapes(other, CONFIG)).toThrow(`saved: tensor "${name}": expected dtype ${dtype}, got F16`);
    }
    const unnamed = await checkpointOf(scheme, (_, metadata) => metadata.clear());
    expect(() => checkShapes(unnamed, CONFIG)).toThrow(
      'tensor "model.embed_tokens.weight": expected dtype BF16, F16, F32, got I8',
    );
  });

  test("no lighter form is offered when saved weights do not fit", async () => {
    const checkpoint = await checkpointOf(scheme);
    const engine = new ReferenceEngine();
    engine.checkRoom = (): void => {
      throw new MemoryError("no room");
    };
    await expect(loadWeights(checkpoint, CONFIG, engine, scheme)).rejects.toThrow(/^no room$/);
  });
});

test("sub-scales that no writer makes are refused by name; the largest valid ones are not", async () => {
  const name = "model.layers.0.mlp.down_proj.weight.sub_scales";
  const load = async (value: number, at = 301) => {
    const checkpoint = await checkpointOf("int4", tensors => {
      (tensors.get(name)!.data as Int8Array)[at] = value;
    });
    return loadWeights(checkpoint, CONFIG, new ReferenceEngine(), "int4");
  };
  for (const bad of [32, -32, -128]) {
    await expect(load(bad)).rejects.toThrow(
      new RangeError(`tensor "${name}": expected integers from -31 to 31, got ${bad}`),
    );
  }
  await expect(load(32, 0)).rejects.toThrow("expected integers from -31 to 31, got 32");
  for (const good of [31, -31, 0]) await load(good);
});
