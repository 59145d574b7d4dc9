/**
 * The jobs of attention: keys and values into the cache, and queries over them. A query head is an item of its own where there are many rows; with a few,
 * all query heads that share a key/value head are one item, because reading the cache is what costs.
 *
 * In and out: as jobs.ts says.
 */

import { SUM_BLOCK } from "../reference.ts";
import { roundUp } from "./heap.ts";
import { FLOAT_BYTES, floatsUpTo, type JobContext } from "./job-context.ts";
import type { Kernels } from "./kernels.ts";
import { PANEL, TILE_ROWS } from "./linear-kernels.ts";
import { forEachPair, PANEL_ROW_BYTES, packTile, rowTimesPanels, tilesOf, tilesTimesPanel } from "./tiles.ts";

/** Query rows that one item of attention takes: their scores stay in the second-level cache while a head's keys pass by. */
export const ATTENTION_ROWS = 32;

/** Scratch that an item of `attentionMany` takes, `positions` keys in all. */
export function attentionScratchBytes(positions: number, headDim: number): number {
  const padded = roundUp(positions, PANEL);
  const [rows, dims] = [ATTENTION_ROWS, roundUp(headDim, PANEL)];
  return FLOAT_BYTES * (rows * padded + TILE_ROWS * padded + rows * headDim + TILE_ROWS * dims * 2 + rows * PANEL + PANEL);
}

/** Scratch that an item of `attentionFew` takes: scores and results of the queries that share a key/value head. */
export function attentionFewScratchBytes(positions: number, headDim: number, queries: number): number {
  return FLOAT_BYTES * queries * (roundUp(positions, PANEL) + roundUp(headDim, PANEL));
}

/**
 * Keys and values of some key/value heads into the cache. Args: keys, values, cached keys, cached values, kv heads, head size, capacity, start, rows,
 * heads of an item. Keys lie in panels of 16 positions, [capacity / 16][head size][16]; values in panels of 16 of the head's values, [head size /
 * 16][capacity][16], so that what is read together lies together.
 */
export function storeKeysAndValues({ kernels }: JobContext, args: readonly number[], item: number): void {
  const [keys, values, cachedKeys, cachedValues, numKvHeads, headDim, capacity, start, rows, share] = args;
  const headBytes = headDim * FLOAT_BYTES;
  for (let head = item * share; head < Math.min(numKvHeads, (item + 1) * share); head++) {
    const keyBase = cachedKeys + head * capacity * headBytes;
    const valueBase = cachedValues + head * capacity * roundUp(headDim, PANEL) * FLOAT_BYTES;
    for (let t = 0; t < rows; t++) {
      const position = start + t;
      const from = (t * numKvHeads + head) * headBytes;
      kernels.spread(keys + from, keyBase + (position >> 4) * PANEL * headBytes + (position & 15) * FLOAT_BYTES, headDim, PANEL_ROW_BYTES);
      for (let d = 0; d < headDim; d += PANEL) {
        const target = valueBase + d * capacity * FLOAT_BYTES + position * PANEL_ROW_BYTES;
        kernels.spread(values + from + d * FLOAT_BYTES, target, Math.min(PANEL, headDim - d), FLOAT_BYTES);
      }
    }
  }
}

interface AttentionArgs {
  readonly out: number;
  readonly q: number;
  readonly keys: number;
  readonly values: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly capacity: number;
  readonly start: number;
  readonly rows: number;
  /** 1 / sqrt(headDim) */
  readonly scale: number;
}

/** Args of both attention jobs, in this order. */
function attentionArgs(args: readonly number[]): AttentionArgs {
  const [out, q, keys, values, numHeads, numKvHeads, headDim, capacity, start, rows, scale] = args;
  return { out, q, keys, values, numHeads, numKvHeads, headDim, capacity, start, rows, scale };
}

/** Addresses of one key/value head's keys and values. */
function kvAddresses(a: AttentionArgs, kvHead: number): { keys: number; values: number } {
  return {
    keys: a.keys + kvHead * a.capacity * a.headDim * FLOAT_BYTES,
    values: a.values + kvHead * a.capacity * roundUp(a.headDim, PANEL) * FLOAT_BYTES,
  };
}

/** ATTENTION_ROWS rows of one query head. Items: heads times groups of rows. */
export function attentionMany({ kernels, memory, scratch }: JobContext, args: readonly number[], item: number): void {
  const a = attentionArgs(args);
  const groups = Math.ceil(a.rows / ATTENTION_ROWS);
  const head = Math.floor(item / groups);
  const first = (item % groups) * ATTENTION_ROWS;
  const rows = Math.min(ATTENTION_ROWS, a.rows - first);
  const tiles = tilesOf(rows);
  const { keys, values } = kvAddresses(a, Math.floor((head * a.numKvHeads) / a.numHeads));
  const dims = roundUp(a.headDim, PANEL);
  const positions = a.start + first + rows; // what the last of these rows sees
  const padded = roundUp(positions, PANEL);
  const rowBytes = a.numHeads * a.headDim * FLOAT_BYTES;
  const query = a.q + first * rowBytes + head * a.headDim * FLOAT_BYTES;

  const scores = scratch; // [rows][padded]
  const packedScores = scores + ATTENTION_ROWS * padded * FLOAT_BYTES; // [positions][4], one tile at a time
  const packedQuery = packedScores + TILE_ROWS * padded * FLOAT_BYTES; // [tiles][headDim][4]
  const result = packedQuery + ATTENTION_ROWS * a.headDim * FLOAT_BYTES; // [4][dims]
  const sums = result + TILE_ROWS * dims * FLOAT_BYTES; // blocks after the first

  // Scores: the queries times panels of keys, as in a linear layer whose weights are the keys.
  for (let t = 0; t < tiles; t++) packTile({ kernels, memory, scratch }, [query, packedQuery, a.headDim, rows, rowBytes, SUM_BLOCK], t);
  const scoring = {
    packed: packedQuery,
    tiles,
    rows,
    inputs: a.headDim,
    weightStride: PANEL_ROW_BYTES,
    targetStride: padded * FLOAT_BYTES,
    sums,
  };
  for (let panel = 0; panel < padded / PANEL; panel++) {
    const target = scores + panel * PANEL_ROW_BYTES;
    tilesTimesPanel(kernels, { ...scoring, target }, block => keys + (panel * a.headDim + block) * PANEL_ROW_BYTES);
  }

  for (let t = 0; t < tiles; t++) {
    // Softmax, each row over what it sees; what the tile's last row sees beyond that weighs 0, which adds nothing.
    const tileRows = Math.min(TILE_ROWS, rows - t * TILE_ROWS);
    const seen = a.start + first + t * TILE_ROWS + tileRows;
    const row = (i: number): number => scores + (t * TILE_ROWS + i) * padded * FLOAT_BYTES;
    const denominators: number[] = [];
    for (let i = 0; i < tileRows; i++) denominators.push(kernels.softmax(row(i), seen - tileRows + i + 1, roundUp(seen, 4), a.scale));
    packTile({ kernels, memory, scratch }, [row(0), packedScores, seen, tileRows, padded * FLOAT_BYTES, SUM_BLOCK], 0);

    // The weighted sum of values: a linear layer whose inputs are the positions.
    const dimsBytes = dims * FLOAT_BYTES;
    const weighing = {
      packed: packedScores,
      tiles: 1,
      rows: tileRows,
      inputs: seen,
      weightStride: PANEL_ROW_BYTES,
      targetStride: dimsBytes,
      sums,
    };
    for (let panel = 0; panel < dims / PANEL; panel++) {
      const target = result + panel * PANEL_ROW_BYTES;
      tilesTimesPanel(kernels, { ...weighing, target }, block => values + (panel * a.capacity + block) * PANEL_ROW_BYTES);
    }
    for (let i = 0; i < tileRows; i++) {
      const target = a.out + (first + t * TILE_ROWS + i) * rowBytes + head * a.headDim * FLOAT_BYTES;
      divideRow(kernels, memory, target, result + i * dimsBytes, denominators[i], a.headDim);
    }
  }
}

/**
 * A few rows of all query heads that share a key/value head: the step of decoding. Each piece of the cache is read from memory for the first query, and
 * lies in the processor's cache for the others. Items: key/value heads.
 */
export function attentionFew({ kernels, memory, scratch }: JobContext, args: readonly number[], kvHead: number): void {
  const a = attentionArgs(args);
  const { keys, values } = kvAddresses(a, kvHead);
  const group = a.numHeads / a.numKvHeads;
  const queries = group * a.rows;
  /** Of a query: the address of its row in q and out. */
  const rowOf = (base: number, query: number): number =>
    base + (Math.floor(query / group) * a.numHeads + kvHead * group + (query % group)) * a.headDim * FLOAT_BYTES;
  const seenBy = (query: number): number => a.start + Math.floor(query / group) + 1;

  const dimsBytes = roundUp(a.headDim, PANEL) * FLOAT_BYTES;
  const paddedBytes = roundUp(a.start + a.rows, PANEL) * FLOAT_BYTES;
  const scores = scratch; // [queries][padded]
  const results = scores + queries * paddedBytes; // [queries][dims]
  const keyPanelBytes = a.headDim * PANEL_ROW_BYTES;
  const valuePanelBytes = a.capacity * PANEL_ROW_BYTES;

  forEachPair(paddedBytes / PANEL_ROW_BYTES, (panel, panels) => {
    for (let i = 0; i < queries; i++) {
      const target = scores + i * paddedBytes + panel * PANEL_ROW_BYTES;
      rowTimesPanels(
        kernels,
        "F32",
        panels,
        rowOf(a.q, i),
        keys + panel * keyPanelBytes,
        PANEL_ROW_BYTES,
        keyPanelBytes,
        target,
        a.headDim,
      );
    }
  });
  const denominators: number[] = [];
  for (let i = 0; i < queries; i++) denominators.push(kernels.softmax(scores + i * paddedBytes, seenBy(i), roundUp(seenBy(i), 4), a.scale));
  forEachPair(dimsBytes / PANEL_ROW_BYTES, (panel, panels) => {
    const weights = values + panel * valuePanelBytes;
    for (let i = 0; i < queries; i++) {
      const target = results + i * dimsBytes + panel * PANEL_ROW_BYTES;
      rowTimesPanels(kernels, "F32", panels, scores + i * paddedBytes, weights, PANEL_ROW_BYTES, valuePanelBytes, target, seenBy(i));
    }
  });
  for (let i = 0; i < queries; i++) divideRow(kernels, memory, rowOf(a.out, i), results + i * dimsBytes, denominators[i], a.headDim);
}

/** Rows of a head lie beside those of others, so a size that is no multiple of 4 must not be written in vectors. */
function divideRow(kernels: Kernels, memory: WebAssembly.Memory, out: number, x: number, denominator: number, size: number): void {
  if (size % 4 === 0) return kernels.divide(out, x, denominator, size / 4);
  const floats = floatsUpTo(memory, Math.max(out, x) + size * FLOAT_BYTES);
  for (let d = 0; d < size; d++) floats[out / FLOAT_BYTES + d] = floats[x / FLOAT_BYTES + d] / denominator;
}
