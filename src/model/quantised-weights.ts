/**
 * Quantised weights in a checkpoint: which matrices are quantised and how, and what a saved file holds for each.
 *
 * In: an open checkpoint, and the form that was asked for. Out: the checked scheme, so that nothing is read from a file
 * in an unknown format.
 *
 * A saved file names its scheme and version in its metadata, `qwen3guard.weights`: "int8/1" or "int4/1". A matrix
 * `<name>.weight` of the original becomes up to three tensors:
 *
 *     <name>.weight             int8: I8 [outputs, inputs]
 *                               int4: U8 [outputs, inputs / 2], two to a byte, the first in the lower half
 *     <name>.weight.scales      F32 [outputs, inputs / 256]
 *     <name>.weight.sub_scales  I8 [outputs, inputs / 32], only for int4
 *
 * (divisions rounded up). Its config.json has a `quantization_config` with `quant_method` "qwen3guard", which other
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
 * How a tensor of the original is held under `scheme`; undefined if it stays as it is stored. Under int4 the embedding
 * table and the output head stay int8: they are first and last, where an error shows most. They are a quarter of the
 * smallest guard and at most a sixth of the larger ones. The classification heads are small and decide the verdict, so
 * they are not quantised.
 */
export function schemeFor(
  name: string,
  shape: readonly number[],
  scheme: QuantisedScheme,
): QuantisedScheme | undefined {
  if (shape.length !== 2 || /risk_level|category/.test(name)) return undefined;
  return /embed_tokens|lm_head/.test(name) ? "int8" : scheme;
}

/** The tensors that a saved file holds for one quantised matrix. */
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
 * The scheme that a file was saved with; undefined for an original. Throws RangeError for a scheme or version that is
 * not known.
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
 * The scheme that matrices will be held in; undefined: as they are stored. Throws RangeError where the file was saved
 * with another scheme than the one asked for.
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

/**
 * A saved matrix, with its scales and sub-scales read and checked. Throws RangeError for values that cannot be scales.
 */
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
