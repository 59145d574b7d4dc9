/**
 * The jobs of attention: keys and values into the cache, and queries over them. With many rows each query head is an
 * item of its own. With a few, all query heads that share a key/value head are one item, because reading the cache is
 * what takes the time.
 *
 * In and out: as job.ts says.
 */

import { SUM_BLOCK } from "../reference.ts";
import { roundUp } from "./heap.ts";
import { defineJob, floatsUpTo, type JobArgs } from "./job.ts";
import { LANES } from "./kernel-parts.ts";
import type { Kernels } from "./kernels.ts";
import { FLOAT_BYTES, PANEL, PANEL_ROW_BYTES, TILE_ROWS, tilesOf } from "./panel-layout.ts";
import { packRows, panelsAtOnce, rowTimesPanels, tilesTimesPanel } from "./tiles.ts";

/** Query rows of one item: their scores stay in the second-level cache while a head's keys pass by. */
export const ATTENTION_ROWS = 32;

/** Where an item of `attentionMany` works, over `positions` keys. */
function manyPlaces(scratch: number, positions: number, headDim: number) {
  const [paddedBytes, dimsBytes] = [positions, headDim].map(count => roundUp(count, PANEL) * FLOAT_BYTES);
  const scores = scratch; // [rows][positions, padded]
  const packedScores = scores + ATTENTION_ROWS * paddedBytes; // [positions, padded][4], one tile at a time
  const packedQuery = packedScores + TILE_ROWS * paddedBytes; // [tiles][headDim][4]
  const result = packedQuery + ATTENTION_ROWS * headDim * FLOAT_BYTES; // [4][headDim, padded]
  const sums = result + TILE_ROWS * dimsBytes; // [rows][16], of blocks after the first
  const end = sums + ATTENTION_ROWS * PANEL_ROW_BYTES;
  return { scores, packedScores, packedQuery, result, sums, end, paddedBytes, dimsBytes };
}

/** Scratch that an item of `attentionMany` takes, with `positions` keys in all. */
export function attentionManyScratchBytes(positions: number, headDim: number): number {
  return manyPlaces(0, positions, headDim).end;
}

/** Scratch that an item of `attentionFew` takes: scores and results of the queries that share a key/value head. */
export function attentionFewScratchBytes(positions: number, headDim: number, queries: number): number {
  return FLOAT_BYTES * queries * (roundUp(positions, PANEL) + roundUp(headDim, PANEL));
}

/**
 * Keys and values of `rows` positions from `start` on into the cache. Keys lie in panels of 16 positions, [capacity /
 * 16][head size][16]; values in panels of 16 of the head's values, [head size / 16][capacity][16], so that what is read
 * together lies together. Items: `share` key/value heads.
 */
export const storeKeysAndValues = defineJob(
  ["keys", "values", "cachedKeys", "cachedValues", "numKvHeads", "headDim", "capacity", "start", "rows", "share"],
  ({ kernels }, args) => {
    const { keys, values, cachedKeys, cachedValues, numKvHeads, headDim, capacity, start, rows, share } = args;
    const headBytes = headDim * FLOAT_BYTES;
    return item => {
      for (let head = item * share; head < Math.min(numKvHeads, (item + 1) * share); head++) {
        const keyBase = cachedKeys + head * capacity * headBytes;
        const valueBase = cachedValues + head * capacity * roundUp(headDim, PANEL) * FLOAT_BYTES;
        for (let t = 0; t < rows; t++) {
          const position = start + t;
          const from = (t * numKvHeads + head) * headBytes;
          const panel = keyBase + Math.floor(position / PANEL) * PANEL * headBytes;
          kernels.spread(keys + from, panel + (position % PANEL) * FLOAT_BYTES, headDim, PANEL_ROW_BYTES);
          for (let d = 0; d < headDim; d += PANEL) {
            const target = valueBase + d * capacity * FLOAT_BYTES + position * PANEL_ROW_BYTES;
            kernels.spread(values + from + d * FLOAT_BYTES, target, Math.min(PANEL, headDim - d), FLOAT_BYTES);
          }
        }
      }
    };
  },
);

/** The arguments of both attention jobs. `scale` is 1 / sqrt(headDim). */
const ATTENTION_FIELDS = [
  "out",
  "q",
  "keys",
  "values",
  "numHeads",
  "numKvHeads",
  "headDim",
  "capacity",
  "start",
  "rows",
  "scale",
] as const;
type AttentionArgs = JobArgs<(typeof ATTENTION_FIELDS)[number]>;

/** Addresses of one key/value head's keys and values. */
function kvAddresses(a: AttentionArgs, kvHead: number): { keys: number; values: number } {
  return {
    keys: a.keys + kvHead * a.capacity * a.headDim * FLOAT_BYTES,
    values: a.values + kvHead * a.capacity * roundUp(a.headDim, PANEL) * FLOAT_BYTES,
  };
}

/** ATTENTION_ROWS rows of one query head. Items: heads times groups of rows. */
export const attentionMany = defineJob(ATTENTION_FIELDS, ({ kernels, memory, scratch }, a) => item => {
  const groups = Math.ceil(a.rows / ATTENTION_ROWS);
  const head = Math.floor(item / groups);
  const first = (item % groups) * ATTENTION_ROWS;
  const rows = Math.min(ATTENTION_ROWS, a.rows - first);
  const tiles = tilesOf(rows);
  const { keys, values } = kvAddresses(a, Math.floor((head * a.numKvHeads) / a.numHeads));
  const positions = a.start + first + rows; // what the last of these rows sees
  const places = manyPlaces(scratch, positions, a.headDim);
  const { scores, packedScores, packedQuery, result, sums, paddedBytes, dimsBytes } = places;
  const rowBytes = a.numHeads * a.headDim * FLOAT_BYTES;
  const query = a.q + first * rowBytes + head * a.headDim * FLOAT_BYTES;
  const widened = 0; // keys and values are float32

  // Scores: the queries times panels of keys, as in a linear layer whose weights are the keys.
  const queries = { x: query, out: packedQuery, inputs: a.headDim, rows, stride: rowBytes, blockSize: SUM_BLOCK };
  for (let t = 0; t < tiles; t++) packRows(kernels, queries, t);
  for (let panel = 0; panel < paddedBytes / PANEL_ROW_BYTES; panel++) {
    tilesTimesPanel(kernels, "F32", {
      packed: packedQuery,
      rows,
      inputs: a.headDim,
      weights: keys + panel * a.headDim * PANEL_ROW_BYTES,
      widened,
      target: scores + panel * PANEL_ROW_BYTES,
      targetStride: paddedBytes,
      sums,
    });
  }

  for (let t = 0; t < tiles; t++) {
    // Softmax of each row over what it sees. What a later row of the tile sees beyond that weighs 0, which adds
    // nothing.
    const tileRows = Math.min(TILE_ROWS, rows - t * TILE_ROWS);
    const seen = a.start + first + t * TILE_ROWS + tileRows;
    const row = (i: number): number => scores + (t * TILE_ROWS + i) * paddedBytes;
    const denominators: number[] = [];
    for (let i = 0; i < tileRows; i++)
      denominators.push(kernels.softmax(row(i), seen - tileRows + i + 1, roundUp(seen, LANES), a.scale));
    const stride = paddedBytes;
    packRows(kernels, { x: row(0), out: packedScores, inputs: seen, rows: tileRows, stride, blockSize: SUM_BLOCK }, 0);

    // The weighted sum of values: a linear layer whose inputs are the positions.
    for (let panel = 0; panel < dimsBytes / PANEL_ROW_BYTES; panel++) {
      tilesTimesPanel(kernels, "F32", {
        packed: packedScores,
        rows: tileRows,
        inputs: seen,
        weights: values + panel * a.capacity * PANEL_ROW_BYTES,
        widened,
        target: result + panel * PANEL_ROW_BYTES,
        targetStride: dimsBytes,
        sums,
      });
    }
    for (let i = 0; i < tileRows; i++) {
      const target = a.out + (first + t * TILE_ROWS + i) * rowBytes + head * a.headDim * FLOAT_BYTES;
      divideRow(kernels, memory, target, result + i * dimsBytes, denominators[i], a.headDim);
    }
  }
});

/**
 * A few rows of all query heads that share a key/value head: the step of decoding. Each piece of the cache is read from
 * memory for the first query, and lies in the processor's cache for the others. Items: key/value heads.
 */
export const attentionFew = defineJob(ATTENTION_FIELDS, ({ kernels, memory, scratch }, a) => kvHead => {
  const { keys, values } = kvAddresses(a, kvHead);
  const group = a.numHeads / a.numKvHeads;
  const queries = group * a.rows;
  /** The address of a query's row in q or out. */
  const rowOf = (base: number, query: number): number =>
    base + (Math.floor(query / group) * a.numHeads + kvHead * group + (query % group)) * a.headDim * FLOAT_BYTES;
  const seenBy = (query: number): number => a.start + Math.floor(query / group) + 1;

  const dimsBytes = roundUp(a.headDim, PANEL) * FLOAT_BYTES;
  const paddedBytes = roundUp(a.start + a.rows, PANEL) * FLOAT_BYTES;
  const scores = scratch; // [queries][padded]
  const results = scores + queries * paddedBytes; // [queries][dims]
  const keyPanelBytes = a.headDim * PANEL_ROW_BYTES;
  const valuePanelBytes = a.capacity * PANEL_ROW_BYTES;

  const keyPanels = paddedBytes / PANEL_ROW_BYTES;
  for (let panel = 0; panel < keyPanels; panel += 2) {
    const panels = panelsAtOnce(panel, keyPanels);
    const scoring = { panels, panelBytes: keyPanelBytes, inputs: a.headDim, weights: keys + panel * keyPanelBytes };
    for (let i = 0; i < queries; i++) {
      const out = scores + i * paddedBytes + panel * PANEL_ROW_BYTES;
      rowTimesPanels(kernels, "F32", { ...scoring, x: rowOf(a.q, i), out });
    }
  }
  const denominators: number[] = [];
  for (let i = 0; i < queries; i++)
    denominators.push(kernels.softmax(scores + i * paddedBytes, seenBy(i), roundUp(seenBy(i), LANES), a.scale));
  const valuePanels = dimsBytes / PANEL_ROW_BYTES;
  for (let panel = 0; panel < valuePanels; panel += 2) {
    const panels = panelsAtOnce(panel, valuePanels);
    const weighing = { panels, panelBytes: valuePanelBytes, weights: values + panel * valuePanelBytes };
    for (let i = 0; i < queries; i++) {
      const out = results + i * dimsBytes + panel * PANEL_ROW_BYTES;
      rowTimesPanels(kernels, "F32", { ...weighing, x: scores + i * paddedBytes, out, inputs: seenBy(i) });
    }
  }
  for (let i = 0; i < queries; i++)
    divideRow(kernels, memory, rowOf(a.out, i), results + i * dimsBytes, denominators[i], a.headDim);
});

/**
 * Divides a head's row by its denominator. The next head's row follows it, so a size that is not a multiple of 4 must
 * not be written in vectors.
 */
function divideRow(
  kernels: Kernels,
  memory: WebAssembly.Memory,
  out: number,
  x: number,
  denominator: number,
  size: number,
): void {
  if (size % LANES === 0) return kernels.divide(out, x, denominator, size / LANES);
  const floats = floatsUpTo(memory, Math.max(out, x) + size * FLOAT_BYTES);
  for (let d = 0; d < size; d++) floats[out / FLOAT_BYTES + d] = floats[x / FLOAT_BYTES + d] / denominator;
}
