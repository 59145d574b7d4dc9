/**
 * Kernels of the linear layer: y = x W^T, for many rows and for one.
 *
 * Weights lie in *panels* of 16 outputs, input by input: [outputs / 16][inputs][16], in the checkpoint's own dtype.
 * Activations of many rows are *packed* in tiles of four rows, block by block of SUM_BLOCK inputs: [blocks][rows /
 * 4][inputs of the block][4]. A panel's block is widened to float32 into a scratch that stays in the first-level cache
 * (16 KiB) and serves all row tiles.
 *
 * The tile (kernel-parts.ts) only stores: blocks after the first go to a scratch, and a second small kernel adds them.
 * Adding in the tile's own epilogue keeps V8 from widening the loop to 256 bits (half the speed under --wide).
 */

import type { WeightDtype } from "../dtype.ts";
import {
  type F32,
  type FunctionBuilder,
  f32,
  f32x4,
  type I32,
  i32,
  i32x4,
  type Local,
  type ModuleBuilder,
  type V128,
  v128,
} from "./assembler.ts";
import {
  emitTiles,
  LANES,
  PANEL_VECTORS,
  panelPointers,
  repeatUnrolled,
  storeOrAdd,
  unitsOf,
  VECTOR_BYTES,
  vectorLocals,
} from "./kernel-parts.ts";
import { FLOAT_BYTES, PANEL, PANEL_ROW_BYTES, TILE_ROWS, WEIGHT_BYTES } from "./panel-layout.ts";

/**
 * Inputs that a turn of the loop over one row takes. Fewer loop instructions let the processor prefetch further; see
 * addRow for figures.
 */
const ROW_UNROLL = 8;

export function addLinearKernels(module: ModuleBuilder): void {
  addPack(module);
  addTile(module);
  addAddPanel(module);
  for (const dtype of ["BF16", "F16"] as const) {
    addWiden(module, dtype);
    addWidenRow(module, dtype);
  }
  for (const dtype of ["BF16", "F16", "F32"] as const) {
    addRow(module, dtype, 1);
    addRow(module, dtype, 2);
    addEmbed(module, dtype);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// widening

/**
 * Widens the 16 weights of an input to float32, in the order of outputs. A value must be used in the call that it is
 * given to, because the next one reuses its locals.
 */
class Widening {
  readonly #dtype: WeightDtype;
  readonly #bits: Local<"v128">;
  readonly #low: Local<"v128">;
  readonly #constants: readonly Local<"v128">[];

  /** Loads the constants into locals: V8 on Node 24 rebuilds a v128.const at each use inside a loop. */
  constructor(f: FunctionBuilder, dtype: WeightDtype) {
    this.#dtype = dtype;
    this.#bits = f.local("v128");
    this.#low = f.local("v128");
    const masks = { BF16: [0xffff0000], F16: [0xffff, 0x7fff, 0x7c00, 0x8000, 0x7f800000], F32: [] }[dtype];
    this.#constants = masks.map(mask => f.local("v128", i32x4.const(mask)));
    if (dtype === "F16") this.#constants = [...this.#constants, f.local("v128", f32x4.const(2 ** 112))];
  }

  /** Calls back with the number of the vector (0..3) and its value. */
  forEachVector(pointer: I32, use: (index: number, value: V128) => void): void {
    if (this.#dtype === "F32") {
      for (let i = 0; i < PANEL_VECTORS; i++) use(i, v128.load(pointer, VECTOR_BYTES * i));
      return;
    }
    for (let i = 0; i < PANEL_VECTORS; i += 2) {
      this.#bits.set(v128.load(pointer, 8 * i));
      if (this.#dtype === "BF16") {
        use(i, i32x4.shl(this.#bits.get, 16));
        use(i + 1, v128.and(this.#bits.get, this.#constants[0].get));
      } else {
        use(i, this.#widenF16(v128.and(this.#bits.get, this.#constants[0].get)));
        use(i + 1, this.#widenF16(i32x4.shrU(this.#bits.get, 16)));
      }
    }
  }

  /** Eight 16-bit weights that are not interleaved: two vectors, 0 and 1, in their order. */
  inOrder(pointer: I32, use: (index: number, value: V128) => void): void {
    for (const i of [0, 1]) {
      const raw = v128.load16x4U(pointer, 8 * i);
      use(i, this.#dtype === "BF16" ? i32x4.shl(raw, 16) : this.#widenF16(raw));
    }
  }

  /**
   * Exponent and fraction, shifted to float32's places, are the value times 2^-112, denormals included. Infinity and
   * NaN get float32's exponent for them instead.
   */
  #widenF16(raw: V128): V128 {
    const [, magnitudeMask, exponentMask, signMask, infinity, scale] = this.#constants.map(c => c.get);
    this.#low.set(raw);
    const bits = this.#low.get;
    const shifted = i32x4.shl(v128.and(bits, magnitudeMask), 13);
    const special = i32x4.eq(v128.and(bits, exponentMask), exponentMask);
    const magnitude = v128.bitselect(v128.or(shifted, infinity), f32x4.mul(shifted, scale), special);
    return v128.or(magnitude, i32x4.shl(v128.and(bits, signMask), 16));
  }
}

/** widen_*: `count` inputs of a panel, 16 weights each, to float32 in the order of outputs. */
function addWiden(module: ModuleBuilder, dtype: "BF16" | "F16"): void {
  module.func(`widen_${dtype}`, { weights: "i32", out: "i32", count: "i32" }, null, (f, { weights, out, count }) => {
    const widening = new Widening(f, dtype);
    f.repeat(count, () => {
      widening.forEachVector(weights.get, (i, value) => f.storeV128(out.get, value, VECTOR_BYTES * i));
      f.advance(weights, WEIGHT_BYTES[dtype] * PANEL);
      f.advance(out, PANEL_ROW_BYTES);
    });
  });
}

/** widen_row_*: `vectors` of eight weights of a row, as a checkpoint stores them, to float32. */
function addWidenRow(module: ModuleBuilder, dtype: "BF16" | "F16"): void {
  module.func(
    `widen_row_${dtype}`,
    { weights: "i32", out: "i32", vectors: "i32" },
    null,
    (f, { weights, out, vectors }) => {
      const widening = new Widening(f, dtype);
      f.repeat(vectors, () => {
        widening.inOrder(weights.get, (i, value) => f.storeV128(out.get, value, VECTOR_BYTES * i));
        f.advance(weights, VECTOR_BYTES);
        f.advance(out, 2 * VECTOR_BYTES);
      });
    },
  );
}

/** embed_*: one row of a matrix in panels, widened: `weights` points at its first weight, `count` inputs. */
function addEmbed(module: ModuleBuilder, dtype: WeightDtype): void {
  module.func(`embed_${dtype}`, { weights: "i32", out: "i32", count: "i32" }, null, (f, { weights, out, count }) => {
    const bits = f.local("i32");
    f.repeat(count, () => {
      f.storeF32(out.get, widenOne(f, dtype, weights.get, bits));
      f.advance(weights, WEIGHT_BYTES[dtype] * PANEL);
      f.advance(out, FLOAT_BYTES);
    });
  });
}

function widenOne(f: FunctionBuilder, dtype: WeightDtype, pointer: I32, bits: Local<"i32">): F32 {
  if (dtype === "F32") return f32.load(pointer);
  if (dtype === "BF16") return f32.fromBits(i32.shl(i32.load16U(pointer), i32.const(16)));
  bits.set(i32.load16U(pointer));
  const shifted = i32.shl(i32.and(bits.get, i32.const(0x7fff)), i32.const(13));
  const value = f.local("f32", f32.mul(f32.fromBits(shifted), f32.const(2 ** 112)));
  f.if(i32.eq(i32.and(bits.get, i32.const(0x7c00)), i32.const(0x7c00)), () =>
    value.set(f32.fromBits(i32.or(shifted, i32.const(0x7f800000)))),
  );
  f.if(i32.and(bits.get, i32.const(0x8000)), () => {
    value.set(f32.mul(value.get, f32.const(-1)));
  });
  return value.get;
}

// ---------------------------------------------------------------------------------------------------------------------
// packing

/**
 * pack: four rows, `count` values each, to [count][4]. In place of a missing row the caller gives another again, and
 * does not read its results.
 */
function addPack(module: ModuleBuilder): void {
  const params = { row0: "i32", row1: "i32", row2: "i32", row3: "i32", out: "i32", count: "i32" } as const;
  module.func("pack", params, null, (f, { row0, row1, row2, row3, out, count }) => {
    const rows = [row0, row1, row2, row3];
    const vectors = f.local("i32", unitsOf(count.get, LANES));
    const rest = f.local("i32", i32.and(count.get, i32.const(LANES - 1)));
    const [loaded, low, high] = [vectorLocals(f, TILE_ROWS), vectorLocals(f, 2), vectorLocals(f, 2)];
    f.repeat(vectors, () => {
      for (const [i, row] of rows.entries()) loaded[i].set(v128.load(row.get));
      f.storeVectors(out.get, transpose(loaded, low, high));
      for (const row of rows) f.advance(row, VECTOR_BYTES);
      f.advance(out, TILE_ROWS * VECTOR_BYTES);
    });
    f.repeat(rest, () => {
      rows.forEach((row, i) => {
        f.storeF32(out.get, f32.load(row.get), FLOAT_BYTES * i);
        f.advance(row, FLOAT_BYTES);
      });
      f.advance(out, TILE_ROWS * FLOAT_BYTES);
    });
  });
}

/** The columns of four rows of four. */
function transpose(
  rows: readonly Local<"v128">[],
  low: readonly Local<"v128">[],
  high: readonly Local<"v128">[],
): V128[] {
  const words = (...indices: number[]): number[] => indices.flatMap(i => [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3]);
  for (const half of [0, 1]) {
    const [a, b] = [rows[2 * half].get, rows[2 * half + 1].get];
    low[half].set(v128.shuffle(a, b, words(0, 4, 1, 5)));
    high[half].set(v128.shuffle(a, b, words(2, 6, 3, 7)));
  }
  return [low, high].flatMap(([a, b]) => [
    v128.shuffle(a.get, b.get, words(0, 1, 4, 5)),
    v128.shuffle(a.get, b.get, words(2, 3, 6, 7)),
  ]);
}

// ---------------------------------------------------------------------------------------------------------------------
// many rows

/**
 * tile: packed rows [tiles][count][4] times float32 weights of 16 outputs, each `weightStride` bytes after the one
 * before -> out, 16 outputs for each row, rows `outStride` bytes apart, four rows for each tile. count at least 1.
 */
function addTile(module: ModuleBuilder): void {
  const params = {
    packed: "i32",
    weights: "i32",
    weightStride: "i32",
    out: "i32",
    outStride: "i32",
    count: "i32",
    tiles: "i32",
  } as const;
  module.func("tile", params, null, (f, { packed, weights, weightStride, out, outStride, count, tiles }) => {
    const zero = f.local("v128", f32x4.const(0));
    const row = f.local("i32");
    emitTiles(
      f,
      { packed, weights, steps: count, tiles },
      weightStride.get,
      zero,
      (sum, x, weight) => f32x4.add(sum, f32x4.mul(x, weight)),
      (sums, half) => {
        row.set(i32.add(out.get, i32.const(half)));
        for (const [s0, s1] of sums) {
          f.storeVectors(row.get, [s0.get, s1.get]);
          f.advance(row, outStride.get);
        }
      },
      () => f.advance(out, i32.mul(outStride.get, i32.const(TILE_ROWS))),
    );
  });
}

/** add_panel: adds [rows][16] to rows of 16 that lie `outStride` bytes apart. */
function addAddPanel(module: ModuleBuilder): void {
  module.func(
    "add_panel",
    { out: "i32", outStride: "i32", values: "i32", rows: "i32" },
    null,
    (f, { out, outStride, values, rows }) => {
      f.repeat(rows, () => {
        for (let i = 0; i < PANEL_ROW_BYTES; i += VECTOR_BYTES)
          f.storeV128(out.get, f32x4.add(v128.load(out.get, i), v128.load(values.get, i)), i);
        f.advance(out, outStride.get);
        f.advance(values, PANEL_ROW_BYTES);
      });
    },
  );
}

// ---------------------------------------------------------------------------------------------------------------------
// one row

/**
 * row_*: one row of x, `count` inputs of a block, times a panel -> 16 sums. Where `first` is 1 they are stored, else
 * added to what is there. The weights of an input lie `stride` bytes after those of the one before.
 *
 * row2_*: the same for two panels, `panelBytes` apart, into 32 sums. A single row waits for memory. The processor looks
 * a number of instructions ahead, so every instruction less in the loop makes it faster. Share of the speed of plain
 * reading in the same run (one thread, Sapphire Rapids): one panel 0.55, two panels 0.85, two panels and eight inputs a
 * turn 0.90. Before 16-bit weights were interleaved (two 8-byte loads for each 8 weights instead of one vector that is
 * split), two panels reached 0.70.
 */
function addRow(module: ModuleBuilder, dtype: WeightDtype, panels: 1 | 2): void {
  const params = {
    x: "i32",
    weights: "i32",
    stride: "i32",
    out: "i32",
    count: "i32",
    first: "i32",
    panelBytes: "i32",
  } as const;
  module.func(`row${panels === 1 ? "" : panels}_${dtype}`, params, null, (f, p) => {
    const sums = Array.from({ length: PANEL_VECTORS * panels }, () => f.local("v128", f32x4.const(0)));
    const splat = f.local("v128");
    const widening = new Widening(f, dtype);
    const sources = panelPointers(f, panels, p.weights.get, p.panelBytes.get);
    const step = (k: number): void => {
      splat.set(v128.load32Splat(p.x.get, FLOAT_BYTES * k));
      for (const [panel, source] of sources.entries()) {
        widening.forEachVector(source.get, (i, weight) => {
          const sum = sums[PANEL_VECTORS * panel + i];
          sum.set(f32x4.add(sum.get, f32x4.mul(weight, splat.get)));
        });
        f.advance(source, p.stride.get);
      }
    };
    repeatUnrolled(f, p.count, ROW_UNROLL, step, steps => f.advance(p.x, FLOAT_BYTES * steps));
    storeOrAdd(
      f,
      p.first.get,
      p.out.get,
      sums.map(sum => sum.get),
    );
  });
}
