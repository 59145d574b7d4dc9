/**
 * Quantised weights in a checkpoint: which matrices are quantised and how, what a saved file holds for each, and what a
 * form of weights takes in memory.
 *
 * In: an open checkpoint, its config, the form that was asked for. Out: the scheme, checked, so that nothing is read
 * from a file that is not understood.
 *
 * A saved file names its scheme and version in its metadata, `qwen3guard.weights`: "int8/1" or "int4/1". A matrix
 * `<name>.weight` of the original becomes up to three tensors:
 *
 *     <name>.weight             int8: I8 [outputs, inputs]; int4: U8 [outputs, inputs / 2], two in a byte, the first in the lower half
 *     <name>.weight.scales      F32 [outputs, inputs / 256]
 *     <name>.weight.sub_scales  I8 [outputs, inputs / 32], int4 alone
 *
 * (divisions rounded up). Its config.json carries a `quantization_config` with `quant_method` "qwen3guard", which other
 * programs refuse by name.
 */

import type { SafetensorsCheckpoint } from "../checkpoint/safetensors-sharded.ts";
import type { Dtype } from "../tensor/dtype.ts";
import type { QuantisedSource } from "../tensor/engine.ts";
import type { EngineOptions } from "../tensor/engine-choice.ts";
import {
  blocksOf,
  checkScales,
  QUANTISED_SCHEMES,
  type QuantisedScheme,
  SUB_SCALE_MAX,
  subBlocksOf,
} from "../tensor/quantised.ts";

export const SCHEME_KEY = "qwen3guard.weights";
const VERSION = 1;

export function schemeText(scheme: QuantisedScheme): string {
  return `${scheme}/${VERSION}`;
}

/**
 * How a tensor of the original is held under `scheme`; undefined: as it is stored. The embedding table and the output
 * head stay int8 under int4: they are first and last, where an error is seen most, and a quarter of the smallest guard,
 * a sixth and less of the larger ones. Classification heads are small and decide.
 */
export function schemeFor(
  name: string,
  shape: readonly number[],
  scheme: QuantisedScheme,
): QuantisedScheme | undefined {
  if (shape.length !== 2 || /risk_level|category/.test(name)) return undefined;
  return /embed_tokens|lm_head/.test(name) ? "int8" : scheme;
}

/** Tensors that a saved file holds for one quantised matrix. */
export function savedTensors(
  name: string,
  [outputs, inputs]: readonly number[],
  scheme: QuantisedScheme,
): SavedTensor[] {
  const scales: SavedTensor = { name: `${name}.scales`, dtype: "F32", shape: [outputs, blocksOf(inputs)] };
  if (scheme === "int8") return [{ name, dtype: "I8", shape: [outputs, inputs] }, scales];
  return [
    { name, dtype: "U8", shape: [outputs, Math.ceil(inputs / 2)] },
    scales,
    { name: `${name}.sub_scales`, dtype: "I8", shape: [outputs, subBlocksOf(inputs)] },
  ];
}

interface SavedTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

type Opened = Pick<SafetensorsCheckpoint, "name" | "tensors" | "metadata">;

/**
 * The scheme that a file was saved with; undefined for an original. Throws RangeError for one that is not understood.
 */
export function savedScheme({ name, metadata }: Opened): QuantisedScheme | undefined {
  const text = metadata.get(SCHEME_KEY);
  if (text === undefined) return undefined;
  const known = QUANTISED_SCHEMES.find(scheme => schemeText(scheme) === text);
  if (known === undefined) {
    const expected = QUANTISED_SCHEMES.map(schemeText).join(" or ");
    throw new RangeError(
      `${name}: metadata ${SCHEME_KEY}: expected ${expected}, got ${JSON.stringify(text.slice(0, 40))}`,
    );
  }
  return known;
}

/**
 * The scheme that matrices will be held in. Throws RangeError where the file was saved with another one than was asked
 * for.
 */
export function schemeToHold(
  checkpoint: Opened,
  weights: EngineOptions["weights"] = "auto",
): QuantisedScheme | undefined {
  const saved = savedScheme(checkpoint);
  const wanted = QUANTISED_SCHEMES.find(scheme => scheme === weights);
  if (saved !== undefined && wanted !== undefined && saved !== wanted) {
    throw new RangeError(`${checkpoint.name}: weights: expected ${saved}, as they were saved, got ${wanted}`);
  }
  return saved ?? wanted;
}

/** A saved matrix, its scales and sub-scales read and checked. Throws RangeError for those that cannot be. */
export async function savedSource(
  checkpoint: SafetensorsCheckpoint,
  name: string,
  shape: readonly [number, number],
  scheme: QuantisedScheme,
): Promise<QuantisedSource> {
  const scales = (await checkpoint.read(`${name}.scales`)).data as Float32Array;
  checkScales(`${name}.scales`, scales, "scales");
  const subScales =
    scheme === "int4" ? ((await checkpoint.read(`${name}.sub_scales`)).data as Int8Array) : new Int8Array(0);
  const bad = subScales.findIndex(value => Math.abs(value) > SUB_SCALE_MAX);
  if (bad >= 0) {
    throw new RangeError(
      `tensor "${name}.sub_scales": expected integers from -${SUB_SCALE_MAX} to ${SUB_SCALE_MAX}, got ${subScales[bad]}`,
    );
  }
  const readInto = (target: Uint8Array, byteOffset: number): Promise<void> =>
    checkpoint.readInto(name, target, byteOffset);
  return { name, scheme, shape, scales, subScales, readInto };
}
