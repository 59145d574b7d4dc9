/**
 * Code that several kernels share: sums over the lanes of a vector, loops unrolled by hand, and the tile that both
 * linear layers are made of.
 *
 * In: a function under construction. Out: instructions appended to it, or expressions.
 */

import { type F32, type FunctionBuilder, f32, f32x4, type I32, i32, type Local, type V128, v128 } from "./assembler.ts";
import { FLOAT_BYTES, PANEL, TILE_ROWS } from "./panel-layout.ts";

export const VECTOR_BYTES = 16;
/** float32 values, or 32-bit integers, in a vector. */
export const LANES = 4;
/** Vectors that hold the 16 outputs of a panel. */
export const PANEL_VECTORS = PANEL / LANES;

/**
 * For shuffles of a vector with itself: its two halves in turn, and the neighbours within each half. One after the
 * other, they combine all lanes.
 */
export const SWAP_HALVES: readonly number[] = [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7];
export const SWAP_NEIGHBOURS: readonly number[] = [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11];

export function lanesOf(value: V128): F32[] {
  return Array.from({ length: LANES }, (_, lane) => f32x4.extractLane(value, lane));
}

/** The sum of the lanes, as (s0 + s1) + (s2 + s3). */
export function sumLanes(sums: V128): F32 {
  const [s0, s1, s2, s3] = lanesOf(sums);
  return f32.add(f32.add(s0, s1), f32.add(s2, s3));
}

export function vectorLocals(f: FunctionBuilder, count: number): Local<"v128">[] {
  return Array.from({ length: count }, () => f.local("v128"));
}

/** How many whole units `count` has. `unit` is a power of two. */
export function unitsOf(count: I32, unit: number): I32 {
  return i32.shrU(count, i32.const(Math.log2(unit)));
}

/** The operands of a tile: packed rows, weights of 16 outputs a step, and how many steps and tiles there are. */
export interface TileOperands {
  readonly packed: Local<"i32">;
  readonly weights: Local<"i32">;
  readonly steps: Local<"i32">;
  readonly tiles: Local<"i32">;
}

/**
 * For each tile of 4 rows x 16 outputs, in two halves of 8 outputs: 8 vectors of sums that stay in registers, and an
 * inner loop with one splat for each row and no other work. A step of the packed rows is 4 bytes for each row; one of
 * the weights is `weightStride`. Lanes run over outputs, so each output is one ascending chain. `steps` is at least 1.
 *
 * `add` is a sum with a product added. `storeHalf` stores the sums [row][vector of the half], from byte `half` of a row
 * of outputs on. `next` moves on by a tile. Unrolling the inner loop: slower on Node 20, no gain on 24.
 */
export function emitTiles(
  f: FunctionBuilder,
  { packed, weights, steps, tiles }: TileOperands,
  weightStride: number | I32,
  zero: Local<"v128">,
  add: (sum: V128, rows: V128, weights: V128) => V128,
  storeHalf: (sums: readonly (readonly Local<"v128">[])[], half: number) => void,
  next: () => void,
): void {
  const sums = Array.from({ length: TILE_ROWS }, () => vectorLocals(f, 2));
  const [w0, w1, splat] = vectorLocals(f, 3);
  const [a, w, left] = [f.local("i32"), f.local("i32"), f.local("i32")];
  f.repeat(tiles, () => {
    for (const half of [0, 2 * VECTOR_BYTES]) {
      a.set(packed.get);
      w.set(i32.add(weights.get, i32.const(half)));
      for (const sum of sums.flat()) sum.set(zero.get);
      left.set(steps.get);
      f.repeat(left, () => {
        w0.set(v128.load(w.get));
        w1.set(v128.load(w.get, VECTOR_BYTES));
        sums.forEach(([s0, s1], row) => {
          splat.set(v128.load32Splat(a.get, FLOAT_BYTES * row));
          s0.set(add(s0.get, splat.get, w0.get));
          s1.set(add(s1.get, splat.get, w1.get));
        });
        f.advance(a, FLOAT_BYTES * TILE_ROWS);
        f.advance(w, weightStride);
      });
      storeHalf(sums, half);
    }
    packed.set(a.get);
    next();
  });
}

/** `count` steps, `unroll` of them (a power of two) in a turn of the loop and the rest one by one. Consumes `count`. */
export function repeatUnrolled(
  f: FunctionBuilder,
  count: Local<"i32">,
  unroll: number,
  step: (k: number) => void,
  advance: (steps: number) => void,
): void {
  const turn = (steps: number) => (): void => {
    for (let k = 0; k < steps; k++) step(k);
    advance(steps);
  };
  if (unroll > 1) {
    const turns = f.local("i32");
    turns.set(unitsOf(count.get, unroll));
    f.repeat(turns, turn(unroll));
    count.set(i32.and(count.get, i32.const(unroll - 1)));
  }
  f.repeat(count, turn(1));
}

/** Pointers to one panel, or to two that lie `panelBytes` apart. */
export function panelPointers(f: FunctionBuilder, panels: 1 | 2, weights: I32, panelBytes: I32): Local<"i32">[] {
  return Array.from({ length: panels }, (_, i) => f.local("i32", i === 0 ? weights : i32.add(weights, panelBytes)));
}

/** Stores `first` where `isFirst`, else adds `more` to what is there. */
export function storeOrAdd(
  f: FunctionBuilder,
  isFirst: I32,
  out: I32,
  first: readonly V128[],
  more: readonly V128[] = first,
): void {
  f.if(
    isFirst,
    () => f.storeVectors(out, first),
    () =>
      f.storeVectors(
        out,
        more.map((value, i) => f32x4.add(v128.load(out, VECTOR_BYTES * i), value)),
      ),
  );
}
