/**
 * Kernels that quantise, repeating tensor/quantised.ts operation by operation, and those that put integers into panels
 * at load.
 *
 * Blocks of weights are widened to float32 and filled up with zeros to whole sub-blocks, which changes neither extremes
 * nor sums. Where an index is summed over, lane l holds the partial sum of index % 4 = l.
 */

import {
  ACTIVATION_MAX,
  INT4_DIVISORS,
  INT4_MAX,
  INT4_MIN,
  INT8_MAX,
  SMALLEST_SCALE,
  SUB_BLOCK,
  SUB_SCALE_MAX,
} from "../quantised.ts";
import {
  type F32,
  type FunctionBuilder,
  f32,
  f32x4,
  i8x16,
  i16x8,
  i32,
  i32x4,
  type Local,
  type ModuleBuilder,
  type V128,
  v128,
} from "./assembler.ts";
import {
  LANES,
  lanesOf,
  SWAP_HALVES,
  SWAP_NEIGHBOURS,
  sumLanes,
  unitsOf,
  VECTOR_BYTES,
  vectorLocals,
} from "./kernel-parts.ts";
import { FLOAT_BYTES, INT4_FLIPPED, INT4_PAIR_BYTES, INT8_PAIR_BYTES, PANEL } from "./panel-layout.ts";

const SUB_BLOCK_VECTORS = SUB_BLOCK / LANES;

export function addQuantiseKernels(module: ModuleBuilder): void {
  addQuantise(module, "quantise_row", ACTIVATION_MAX);
  addQuantise(module, "quantise_int8", INT8_MAX);
  addQuantiseInt4(module);
  addSubBlockSums(module);
  addPackInt4(module);
  addPackRowInt4(module);
  addUnpackInt4(module);
}

const maxLane = (value: V128): F32 => lanesOf(value).reduce((a, b) => f32.max(a, b));
const minLane = (value: V128): F32 => lanesOf(value).reduce((a, b) => f32.min(a, b));

/**
 * The nearest 32-bit integers, ties to even, of values below 2^22: 1.5 * 2^23 is added, which leaves no fraction, and
 * taken off the bits. One instruction for each step, where truncation takes eight. NaN may give any integer.
 */
function toIntegers(f: FunctionBuilder): (value: V128) => V128 {
  const rounder = f.local("v128", f32x4.const(1.5 * 2 ** 23));
  return value => i32x4.sub(f32x4.add(value, rounder.get), rounder.get);
}

/**
 * quantise_row, quantise_int8: `count` float32 values, a multiple of 8 or of 16, to integers of at most `limit`, of 16
 * or 8 bits, and their scale, which is stored as float32 at `scaleOut`.
 */
function addQuantise(module: ModuleBuilder, name: string, limit: number): void {
  const bytes = limit > 127 ? 2 : 1;
  const perTurn = VECTOR_BYTES / bytes;
  module.func(name, { x: "i32", out: "i32", scaleOut: "i32", count: "i32" }, null, (f, p) => {
    const max = f.local("v128", f32x4.const(0));
    const magnitude = f.local("v128", i32x4.const(0x7fffffff));
    const divisor = f.local("v128");
    const integer = toIntegers(f);
    const pointer = f.local("i32", p.x.get);
    const turns = f.local("i32");
    const scale = f.local("f32");
    const forEachTurn = (body: () => void): void => {
      turns.set(unitsOf(p.count.get, perTurn));
      f.repeat(turns, body);
    };
    forEachTurn(() => {
      // Read as integers, the bits of magnitudes have the same order, with NaN above all. Their maximum is one
      // instruction, where float32's is several.
      for (let i = 0; i < perTurn / LANES; i++)
        max.set(i32x4.maxS(max.get, v128.and(v128.load(pointer.get, VECTOR_BYTES * i), magnitude.get)));
      f.advance(pointer, FLOAT_BYTES * perTurn);
    });
    scale.set(f32.div(maxLane(max.get), f32.const(limit)));
    scale.set(f32.add(f32.sub(scale.get, scale.get), scale.get)); // infinity becomes NaN, all else stays
    const integers = (i: number): V128 => integer(f32x4.div(v128.load(p.x.get, VECTOR_BYTES * i), divisor.get));
    const narrowed = (i: number): V128 => i16x8.narrow(integers(i), integers(i + 1));
    f.if(
      f32.lt(scale.get, f32.const(SMALLEST_SCALE)),
      () => {
        scale.set(f32.const(0));
        forEachTurn(() => {
          f.storeV128(p.out.get, f32x4.const(0));
          f.advance(p.out, VECTOR_BYTES);
        });
      },
      () => {
        divisor.set(f32x4.splat(scale.get));
        forEachTurn(() => {
          f.storeV128(p.out.get, bytes === 2 ? narrowed(0) : i8x16.narrow(narrowed(0), narrowed(2)));
          f.advance(p.x, FLOAT_BYTES * perTurn);
          f.advance(p.out, VECTOR_BYTES);
        });
      },
    );
    f.storeF32(p.scaleOut.get, scale.get);
  });
}

/**
 * The nearest integers to weights times an inverse, cut to four bits; float32 still. NaN may give any integer, since
 * its sums are NaN all the same.
 */
function int4Values(f: FunctionBuilder): (weights: V128, inverse: V128) => V128 {
  const [low, high] = [f.local("v128", f32x4.const(INT4_MIN)), f.local("v128", f32x4.const(INT4_MAX))];
  return (weights, inverse) => f32x4.pmin(f32x4.pmax(f32x4.nearest(f32x4.mul(weights, inverse)), low.get), high.get);
}

/**
 * quantise_int4: `subBlocks` times 32 float32 weights to values (a byte each) and sub-scales (a byte each, PANEL bytes
 * apart), and the block's scale, which is stored as float32 at `scaleOut`. `steps` is room for a float32 for each
 * sub-block.
 */
function addQuantiseInt4(module: ModuleBuilder): void {
  const params = { x: "i32", out: "i32", subScales: "i32", scaleOut: "i32", subBlocks: "i32", steps: "i32" } as const;
  module.func("quantise_int4", params, null, (f, p) => {
    const [a, b, w, q] = vectorLocals(f, 4);
    const [pointer, left, vectors, at] = [f.local("i32"), f.local("i32"), f.local("i32"), f.local("i32")];
    const inverse = f.local("v128");
    const [step, extreme, best, gain, product, square, rough] = Array.from({ length: 7 }, () => f.local("f32"));
    const zero = f.local("v128", f32x4.const(0));
    const values = int4Values(f);
    const integerOf = toIntegers(f);
    /** Runs `body` for each vector of the sub-block that begins at `from`. */
    const forEachVector = (from: Local<"i32">, body: () => void): void => {
      at.set(from.get);
      vectors.set(i32.const(SUB_BLOCK_VECTORS));
      f.repeat(vectors, () => {
        w.set(v128.load(at.get));
        body();
        f.advance(at, VECTOR_BYTES);
      });
    };

    // 1. The step of each sub-block.
    pointer.set(p.x.get);
    left.set(p.subBlocks.get);
    rough.set(f32.const(0));
    f.repeat(left, () => {
      a.set(zero.get);
      b.set(zero.get);
      forEachVector(pointer, () => {
        a.set(f32x4.max(a.get, w.get));
        b.set(f32x4.min(b.get, w.get));
      });
      gain.set(maxLane(a.get));
      extreme.set(minLane(b.get));
      f.if(f32.gt(gain.get, f32.neg(extreme.get)), () => extreme.set(gain.get));
      f.if(
        f32.lt(f32.abs(extreme.get), f32.const(8 * SMALLEST_SCALE)),
        () => step.set(f32.const(0)),
        () => {
          best.set(f32.const(-1));
          step.set(extreme.get);
          for (const divisor of INT4_DIVISORS) {
            inverse.set(f32x4.splat(f32.div(f32.const(divisor), extreme.get)));
            a.set(zero.get);
            b.set(zero.get);
            forEachVector(pointer, () => {
              q.set(values(w.get, inverse.get));
              a.set(f32x4.add(a.get, f32x4.mul(w.get, q.get)));
              b.set(f32x4.add(b.get, f32x4.mul(q.get, q.get)));
            });
            product.set(sumLanes(a.get));
            square.set(sumLanes(b.get));
            gain.set(f32.div(f32.mul(product.get, product.get), square.get));
            f.if(f32.gt(gain.get, best.get), () => {
              best.set(gain.get);
              step.set(f32.div(product.get, square.get));
            });
          }
        },
      );
      rough.set(f32.max(rough.get, f32.abs(step.get)));
      f.storeF32(p.steps.get, step.get);
      f.advance(p.steps, FLOAT_BYTES);
      f.advance(pointer, FLOAT_BYTES * SUB_BLOCK);
    });
    p.steps.set(i32.sub(p.steps.get, i32.shl(p.subBlocks.get, i32.const(Math.log2(FLOAT_BYTES)))));
    rough.set(f32.div(rough.get, f32.const(SUB_SCALE_MAX)));

    // 2. Values for the step that sub-scale and scale make, and 3. the scale that fits them best: a and b gather its
    //    sums.
    a.set(zero.get);
    b.set(zero.get);
    const integer = f.local("v128");
    left.set(p.subBlocks.get);
    f.repeat(left, () => {
      // Too small a scale leaves nothing but zeros.
      step.set(f32.const(0));
      f.if(i32.eqz(f32.lt(rough.get, f32.const(SMALLEST_SCALE))), () =>
        step.set(f32.nearest(f32.div(f32.load(p.steps.get), rough.get))),
      );
      f.store8(p.subScales.get, i32.truncSat(step.get));
      f.if(
        f32.ne(step.get, f32.const(0)),
        () => inverse.set(f32x4.splat(f32.div(f32.const(1), f32.mul(step.get, rough.get)))),
        () => inverse.set(zero.get),
      );
      const subScale = f.local("v128");
      subScale.set(f32x4.splat(step.get));
      forEachVector(p.x, () => {
        q.set(values(w.get, inverse.get));
        integer.set(f32x4.mul(q.get, subScale.get));
        a.set(f32x4.add(a.get, f32x4.mul(w.get, integer.get)));
        b.set(f32x4.add(b.get, f32x4.mul(integer.get, integer.get)));
        q.set(integerOf(q.get));
        q.set(i16x8.narrow(q.get, q.get));
        q.set(i8x16.narrow(q.get, q.get));
        f.storeLane32(p.out.get, q.get, 0);
        f.advance(p.out, LANES);
      });
      f.advance(p.x, FLOAT_BYTES * SUB_BLOCK);
      f.advance(p.steps, FLOAT_BYTES);
      f.advance(p.subScales, PANEL);
    });
    product.set(sumLanes(a.get));
    f.if(
      f32.lt(rough.get, f32.const(SMALLEST_SCALE)),
      () => product.set(f32.const(0)),
      () => product.set(f32.div(product.get, sumLanes(b.get))),
    );
    f.storeF32(p.scaleOut.get, product.get);
  });
}

/** pack_int4: `pairs` of a panel, 32 bytes of values each, to the 16 bytes that integer-kernels.ts describes. */
function addPackInt4(module: ModuleBuilder): void {
  module.func("pack_int4", { values: "i32", out: "i32", pairs: "i32" }, null, (f, { values, out, pairs }) => {
    const bits = f.local("v128");
    const masks = [0, 4, 8, 12].map(shift => f.local("v128", i32x4.const((0xf << shift) * 0x10001)));
    const flipped = f.local("v128", i32x4.const(INT4_FLIPPED * 0x10001));
    f.repeat(pairs, () => {
      const quarter = (j: number): V128 => v128.and(i16x8.shl(v128.load8x8S(values.get, 8 * j), 4 * j), masks[j].get);
      bits.set(quarter(0));
      for (const j of [1, 2, 3]) bits.set(v128.or(bits.get, quarter(j)));
      f.storeV128(out.get, v128.xor(bits.get, flipped.get));
      f.advance(values, INT8_PAIR_BYTES);
      f.advance(out, INT4_PAIR_BYTES);
    });
  });
}

/** sub_block_sums: the sums of `count` times 32 16-bit integers, as 32-bit integers. */
function addSubBlockSums(module: ModuleBuilder): void {
  module.func("sub_block_sums", { x: "i32", out: "i32", count: "i32" }, null, (f, { x, out, count }) => {
    const ones = f.local("v128", i32x4.const(0x10001));
    const sums = f.local("v128");
    f.repeat(count, () => {
      const parts = Array.from({ length: SUB_BLOCK / 8 }, (_, i) =>
        i32x4.dot(v128.load(x.get, VECTOR_BYTES * i), ones.get),
      );
      sums.set(parts.reduce((a, b) => i32x4.add(a, b)));
      sums.set(i32x4.add(sums.get, v128.shuffle(sums.get, sums.get, SWAP_HALVES)));
      sums.set(i32x4.add(sums.get, v128.shuffle(sums.get, sums.get, SWAP_NEIGHBOURS)));
      f.storeLane32(out.get, sums.get, 0);
      f.advance(x, SUB_BLOCK * 2);
      f.advance(out, FLOAT_BYTES);
    });
  });
}

/** pack_row_int4: `turns` times 32 values, a byte each, to 16 bytes with two in each, as they are saved. */
function addPackRowInt4(module: ModuleBuilder): void {
  const evenBytes = Array.from({ length: 16 }, (_, i) => 2 * i);
  module.func("pack_row_int4", { values: "i32", out: "i32", turns: "i32" }, null, (f, { values, out, turns }) => {
    const low = f.local("v128", i32x4.const(0x000f000f));
    const high = f.local("v128", i32x4.const(0x00f000f0));
    const halves = vectorLocals(f, 2);
    f.repeat(turns, () => {
      halves.forEach((half, i) => {
        half.set(v128.load(values.get, VECTOR_BYTES * i));
        half.set(v128.or(v128.and(half.get, low.get), v128.and(i16x8.shrS(half.get, 4), high.get)));
      });
      f.storeV128(out.get, v128.shuffle(halves[0].get, halves[1].get, evenBytes));
      f.advance(values, 2 * VECTOR_BYTES);
      f.advance(out, VECTOR_BYTES);
    });
  });
}

/** unpack_int4: `turns` times 16 bytes, two values in each, as saved, to 32 bytes. */
function addUnpackInt4(module: ModuleBuilder): void {
  const alternate = (first: number): number[] =>
    Array.from({ length: 16 }, (_, i) => (i % 2 === 0 ? 0 : 16) + first + (i >> 1));
  module.func("unpack_int4", { packed: "i32", out: "i32", turns: "i32" }, null, (f, { packed, out, turns }) => {
    const [low, high] = vectorLocals(f, 2);
    f.repeat(turns, () => {
      high.set(v128.load(packed.get));
      low.set(i8x16.shrS(i8x16.shl(high.get, 4), 4));
      high.set(i8x16.shrS(high.get, 4));
      f.storeV128(out.get, v128.shuffle(low.get, high.get, alternate(0)));
      f.storeV128(out.get, v128.shuffle(low.get, high.get, alternate(8)), VECTOR_BYTES);
      f.advance(packed, VECTOR_BYTES);
      f.advance(out, 2 * VECTOR_BYTES);
    });
  });
}
