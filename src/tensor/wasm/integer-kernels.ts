/**
 * Kernels of the linear layer over quantised weights: exact sums of 16-bit products inside a block of 256 inputs,
 * float32 between the blocks (tensor/quantised.ts is the readable twin).
 *
 * Weights lie in panels of 16 outputs, block by block, as panel-layout.ts says. Inputs go in pairs, because
 * `i32x4.dot_i16x8_s` adds two products. A load of eight bytes of int8 widens to four outputs' pairs; for int4, two
 * shifts of 16 bytes give them.
 *
 * Activations are rows of 16-bit integers. Many rows are packed in tiles of four: [blocks][rows / 4][pairs of the
 * block][4 rows][2].
 *
 * For many rows a block of a panel is expanded to 16 bits, times its sub-scales, into a scratch of 8 KiB that serves
 * all row tiles; only there do the two schemes differ. For one row int4 is multiplied as it is, and each sub-block's
 * sum by its sub-scale: the integers are the same.
 */

import { SUB_BLOCK } from "../quantised.ts";
import { SUM_BLOCK } from "../reference.ts";
import {
  type FunctionBuilder,
  f32x4,
  type I32,
  i16x8,
  i32,
  i32x4,
  type Local,
  type ModuleBuilder,
  type V128,
  v128,
} from "./assembler.ts";
import {
  emitTiles,
  PANEL_VECTORS,
  panelPointers,
  repeatUnrolled,
  storeOrAdd,
  unitsOf,
  VECTOR_BYTES,
  vectorLocals,
} from "./kernel-parts.ts";
import {
  FLOAT_BYTES,
  INT4_FLIPPED,
  INT4_PAIR_BYTES,
  INT8_PAIR_BYTES,
  PAIR_BYTES,
  PANEL,
  PANEL_ROW_BYTES,
  TILE_ROWS,
} from "./panel-layout.ts";

/** Inputs come in pairs. */
const BLOCK_PAIRS = SUM_BLOCK / 2;
const SUB_BLOCK_PAIRS = SUB_BLOCK / 2;
/**
 * Pairs that a turn of the loop over a row of int8 takes. Share of the speed of plain reading: 2 or 4 pairs 0.78, 8
 * pairs 0.86, 16 pairs 0.90.
 */
const ROW_UNROLL = 16;
/** The same for int4, whose sub-blocks have 16 pairs. */
const INT4_UNROLL = 8;
/**
 * int4 takes about as long to compute as to read, so the processor looks too few bytes ahead; a load this many bytes
 * ahead of the weights makes it fetch their line in time. 1.16 times the speed on one thread; 1 and 4 KiB bring as
 * much, 512 bytes and 8 KiB less. int8 gains nothing.
 */
export const READ_AHEAD_BYTES = 2048;
/** Pairs of int4 in a cache line. */
const LINE_PAIRS = 4;

export function addIntegerKernels(module: ModuleBuilder): void {
  addExpandInt8(module);
  addExpandInt4(module);
  addTile(module);
  addScaled(module, "store");
  addScaled(module, "add");
  addScaleRows(module);
  for (const panels of [1, 2] as const) {
    addRowInt8(module, panels);
    addRowInt4(module, panels);
  }
}

/**
 * The sub-scales of 16 outputs, 8 bits each, from `pointer` on, as 16-bit integers, each twice, for both inputs of a
 * pair.
 */
function subScalePairs(pointer: I32, halves: readonly Local<"v128">[]): V128[] {
  const twice = (first: number): number[] =>
    [0, 1, 2, 3].flatMap(i => [0, 1, 0, 1].map(byte => 2 * (first + i) + byte));
  for (const [i, half] of halves.entries()) half.set(v128.load8x8S(pointer, 8 * i));
  return halves.flatMap(({ get }) => [v128.shuffle(get, get, twice(0)), v128.shuffle(get, get, twice(4))]);
}

// ---------------------------------------------------------------------------------------------------------------------
// many rows

/** expand_int8: `pairs` of a panel to 16 bits. */
function addExpandInt8(module: ModuleBuilder): void {
  module.func("expand_int8", { weights: "i32", out: "i32", pairs: "i32" }, null, (f, { weights, out, pairs }) => {
    f.repeat(pairs, () => {
      for (let j = 0; j < PANEL_VECTORS; j++) f.storeV128(out.get, v128.load8x8S(weights.get, 8 * j), VECTOR_BYTES * j);
      f.advance(weights, INT8_PAIR_BYTES);
      f.advance(out, PANEL_ROW_BYTES);
    });
  });
}

/** expand_int4: `pairs` of a panel to 16 bits, times their sub-scales. */
function addExpandInt4(module: ModuleBuilder): void {
  module.func("expand_int4", { weights: "i32", subScales: "i32", out: "i32", pairs: "i32" }, null, (f, p) => {
    const bits = f.local("v128");
    const [halves, scales] = [vectorLocals(f, 2), vectorLocals(f, PANEL_VECTORS)];
    const flipped = f.local("v128", i32x4.const(INT4_FLIPPED * 0x10001));
    forEachSubBlock(f, p.pairs, left => {
      for (const [j, pairs] of subScalePairs(p.subScales.get, halves).entries()) scales[j].set(pairs);
      f.advance(p.subScales, PANEL);
      f.repeat(left, () => {
        bits.set(v128.xor(v128.load(p.weights.get), flipped.get));
        for (let j = 0; j < PANEL_VECTORS; j++) {
          const pairs = i16x8.shrS(j === PANEL_VECTORS - 1 ? bits.get : i16x8.shl(bits.get, 12 - 4 * j), 12);
          f.storeV128(p.out.get, i16x8.mul(pairs, scales[j].get), VECTOR_BYTES * j);
        }
        f.advance(p.weights, INT4_PAIR_BYTES);
        f.advance(p.out, PANEL_ROW_BYTES);
      });
    });
  });
}

/**
 * Runs `body` for each sub-block of `pairs`. `left` holds the pairs of the sub-block, 16 or, in the last, fewer.
 * Consumes `pairs`.
 */
function forEachSubBlock(f: FunctionBuilder, pairs: Local<"i32">, body: (left: Local<"i32">) => void): void {
  const left = f.local("i32");
  const count = f.local("i32", unitsOf(i32.add(pairs.get, i32.const(SUB_BLOCK_PAIRS - 1)), SUB_BLOCK_PAIRS));
  f.repeat(count, () => {
    left.set(i32.select(i32.ltU(pairs.get, i32.const(SUB_BLOCK_PAIRS)), pairs.get, i32.const(SUB_BLOCK_PAIRS)));
    pairs.set(i32.sub(pairs.get, left.get));
    body(left);
  });
}

/**
 * tile_integer: packed rows [tiles][pairs][4][2] times expanded weights [pairs][16][2] -> integer sums [tiles * 4][16].
 * pairs at least 1. The inner loop is the float32 tile's with a dot in place of the product, so a step takes two inputs
 * instead of one.
 */
function addTile(module: ModuleBuilder): void {
  module.func(
    "tile_integer",
    { packed: "i32", weights: "i32", out: "i32", pairs: "i32", tiles: "i32" },
    null,
    (f, p) => {
      const zero = f.local("v128", i32x4.const(0));
      emitTiles(
        f,
        { packed: p.packed, weights: p.weights, steps: p.pairs, tiles: p.tiles },
        PANEL_ROW_BYTES,
        zero,
        (sum, x, weights) => i32x4.add(sum, i32x4.dot(x, weights)),
        (sums, half) =>
          sums.forEach(([s0, s1], row) => {
            f.storeVectors(p.out.get, [s0.get, s1.get], half + row * PANEL_ROW_BYTES);
          }),
        () => f.advance(p.out, TILE_ROWS * PANEL_ROW_BYTES),
      );
    },
  );
}

/**
 * store_scaled, add_scaled: integer sums [rows][16], as float32 times the 16 `scales`, to rows of 16 that lie
 * `outStride` bytes apart.
 */
function addScaled(module: ModuleBuilder, what: "store" | "add"): void {
  module.func(
    `${what}_scaled`,
    { out: "i32", outStride: "i32", sums: "i32", rows: "i32", scales: "i32" },
    null,
    (f, p) => {
      const scales = Array.from({ length: PANEL_VECTORS }, (_, j) =>
        f.local("v128", v128.load(p.scales.get, VECTOR_BYTES * j)),
      );
      const zero = f.local("v128", f32x4.const(0));
      f.repeat(p.rows, () => {
        scales.forEach((scale, j) => {
          const scaled = f32x4.mul(f32x4.convert(v128.load(p.sums.get, VECTOR_BYTES * j)), scale.get);
          // The first is added to 0, because a scale of -0 would otherwise leave its sign.
          const value = f32x4.add(what === "store" ? zero.get : v128.load(p.out.get, VECTOR_BYTES * j), scaled);
          f.storeV128(p.out.get, value, VECTOR_BYTES * j);
        });
        f.advance(p.out, p.outStride.get);
        f.advance(p.sums, PANEL_ROW_BYTES);
      });
    },
  );
}

/** scale_rows: rows of 16, `outStride` bytes apart, each times its scale. */
function addScaleRows(module: ModuleBuilder): void {
  module.func("scale_rows", { out: "i32", outStride: "i32", scales: "i32", rows: "i32" }, null, (f, p) => {
    const scale = f.local("v128");
    f.repeat(p.rows, () => {
      scale.set(v128.load32Splat(p.scales.get));
      for (let j = 0; j < PANEL_VECTORS; j++)
        f.storeV128(p.out.get, f32x4.mul(v128.load(p.out.get, VECTOR_BYTES * j), scale.get), VECTOR_BYTES * j);
      f.advance(p.out, p.outStride.get);
      f.advance(p.scales, FLOAT_BYTES);
    });
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// one row

const ROW_PARAMS = {
  x: "i32",
  weights: "i32",
  panelBytes: "i32",
  pairs: "i32",
  out: "i32",
  scale: "i32",
  subBlockSums: "i32",
} as const;
type RowLocals = { readonly [name in keyof typeof ROW_PARAMS]: Local<"i32"> };

/**
 * row_int8, row2_int8, row_int4, row2_int4: a row of `pairs` 16-bit pairs times one panel or two, `panelBytes` apart ->
 * 16 or 32 outputs. `scale` is the address of the row's scale, and `subBlockSums` that of its sub-blocks' sums, which
 * int4 needs. `blockSums` emits code that adds a block's products to `sums` and moves the pointers on to the block's
 * scales.
 */
function addRow(
  module: ModuleBuilder,
  name: string,
  panels: 1 | 2,
  blockSums: (
    f: FunctionBuilder,
    p: RowLocals,
    sources: readonly Local<"i32">[],
    pairs: Local<"i32">,
    sums: readonly Local<"v128">[],
  ) => void,
): void {
  module.func(name, ROW_PARAMS, null, (f: FunctionBuilder, p: RowLocals) => {
    const sums = vectorLocals(f, PANEL_VECTORS * panels);
    const zero = f.local("v128", i32x4.const(0));
    const sources = panelPointers(f, panels, p.weights.get, p.panelBytes.get);
    const isFirst = f.local("i32", i32.const(1));
    const [blocks, inBlock] = [f.local("i32"), f.local("i32")];
    const scaled = (i: number): V128 =>
      f32x4.mul(
        f32x4.convert(sums[i].get),
        v128.load(sources[Math.floor(i / PANEL_VECTORS)].get, VECTOR_BYTES * (i % PANEL_VECTORS)),
      );
    blocks.set(unitsOf(i32.add(p.pairs.get, i32.const(BLOCK_PAIRS - 1)), BLOCK_PAIRS));
    f.repeat(blocks, () => {
      inBlock.set(i32.select(i32.ltU(p.pairs.get, i32.const(BLOCK_PAIRS)), p.pairs.get, i32.const(BLOCK_PAIRS)));
      p.pairs.set(i32.sub(p.pairs.get, inBlock.get));
      for (const sum of sums) sum.set(zero.get);
      blockSums(f, p, sources, inBlock, sums);
      const products = sums.map((_, i) => scaled(i));
      const first = products.map(product => f32x4.add(zero.get, product)); // as in store_scaled
      storeOrAdd(f, isFirst.get, p.out.get, first, products);
      isFirst.set(i32.const(0));
      for (const source of sources) f.advance(source, PANEL_ROW_BYTES); // past the scales
    });
    const scale = f.local("v128", v128.load32Splat(p.scale.get));
    f.storeVectors(
      p.out.get,
      sums.map((_, i) => f32x4.mul(v128.load(p.out.get, VECTOR_BYTES * i), scale.get)),
    );
  });
}

function addRowInt8(module: ModuleBuilder, panels: 1 | 2): void {
  addRow(module, `row${panels === 1 ? "" : 2}_int8`, panels, (f, { x }, sources, pairs, sums) => {
    const splat = f.local("v128");
    const step = (k: number): void => {
      splat.set(v128.load32Splat(x.get, PAIR_BYTES * k));
      sums.forEach((sum, i) => {
        const weights = v128.load8x8S(
          sources[Math.floor(i / PANEL_VECTORS)].get,
          k * INT8_PAIR_BYTES + 8 * (i % PANEL_VECTORS),
        );
        sum.set(i32x4.add(sum.get, i32x4.dot(splat.get, weights)));
      });
    };
    const advance = (count: number): void => {
      f.advance(x, PAIR_BYTES * count);
      for (const source of sources) f.advance(source, count * INT8_PAIR_BYTES);
    };
    repeatUnrolled(f, pairs, panels === 2 ? ROW_UNROLL : 1, step, advance);
  });
}

/**
 * A lane of 16 bits holds four 4-bit integers. The first three are stored with 8 added, and are masked without being
 * shifted down, so their sums come out 1, 16 and 256 times too large, plus 8 times the activations' sum. Each sum
 * therefore begins with that excess subtracted, and its factor is shifted out at the end of the sub-block. This takes
 * four instructions for the pairs of 16 outputs, where shifting each of them to its place takes seven. Nothing
 * overflows: the largest sum is 256 * 8 * 32 * 32767 = 2^31 - 2^16, and sums on the way there may wrap around.
 */
function addRowInt4(module: ModuleBuilder, panels: 1 | 2): void {
  addRow(module, `row${panels === 1 ? "" : 2}_int4`, panels, (f, p, sources, pairs, sums) => {
    const [splat, bits, half, start] = vectorLocals(f, 4);
    const masks = [0xf, 0xf0, 0xf00].map(mask => f.local("v128", i32x4.const(mask * 0x10001)));
    const inner = vectorLocals(f, sums.length);
    const ahead = f.local("i32"); // never read: the load is what fetches the line
    const zero = f.local("v128", i32x4.const(0));
    // The sub-scales begin after the block's integers.
    const subScales = sources.map(source =>
      f.local("i32", i32.add(source.get, i32.shl(pairs.get, i32.const(Math.log2(INT4_PAIR_BYTES))))),
    );
    const step = (k: number): void => {
      splat.set(v128.load32Splat(p.x.get, PAIR_BYTES * k));
      for (const [panel, source] of sources.entries()) {
        bits.set(v128.load(source.get, k * INT4_PAIR_BYTES));
        if (k % LINE_PAIRS === 0) ahead.set(i32.load(source.get, k * INT4_PAIR_BYTES + READ_AHEAD_BYTES));
        for (let j = 0; j < PANEL_VECTORS; j++) {
          const weights = j < masks.length ? v128.and(bits.get, masks[j].get) : i16x8.shrS(bits.get, 12);
          const sum = inner[PANEL_VECTORS * panel + j];
          sum.set(i32x4.add(sum.get, i32x4.dot(splat.get, weights)));
        }
      }
    };
    const advance = (count: number): void => {
      f.advance(p.x, PAIR_BYTES * count);
      for (const source of sources) f.advance(source, count * INT4_PAIR_BYTES);
    };
    forEachSubBlock(f, pairs, left => {
      start.set(v128.load32Splat(p.subBlockSums.get));
      f.advance(p.subBlockSums, FLOAT_BYTES);
      for (const [i, sum] of inner.entries()) {
        const j = i % PANEL_VECTORS;
        sum.set(j < masks.length ? i32x4.sub(zero.get, i32x4.shl(start.get, 3 + 4 * j)) : zero.get);
      }
      repeatUnrolled(f, left, panels === 2 ? INT4_UNROLL : 1, step, advance);
      for (const [panel, pointer] of subScales.entries()) {
        for (let j = 0; j < PANEL_VECTORS; j++) {
          if (j % 2 === 0) half.set(v128.load8x8S(pointer.get, 4 * j));
          const factor = j % 2 === 0 ? i32x4.extendLowS(half.get) : i32x4.extendHighS(half.get);
          const i = PANEL_VECTORS * panel + j;
          const exact = j < masks.length ? i32x4.shrS(inner[i].get, 4 * j) : inner[i].get;
          sums[i].set(i32x4.add(sums[i].get, i32x4.mul(exact, factor)));
        }
        f.advance(pointer, PANEL);
      }
    });
    for (const [panel, source] of sources.entries()) source.set(subScales[panel].get);
  });
}
