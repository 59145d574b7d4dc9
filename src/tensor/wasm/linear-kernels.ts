/**
 * Kernels of the linear layer: y = x W^T, for many rows and for one.
 *
 * Weights lie in *panels* of 16 outputs, input by input: [outputs / 16][inputs][16], in the checkpoint's own dtype. Activations of many rows
 * are *packed* in tiles of four rows, block by block of SUM_BLOCK inputs: [blocks][rows / 4][inputs of the block][4]. A panel's block is widened to
 * float32 into a scratch that stays in the first-level cache (16 KiB) and serves all row tiles.
 *
 * The tile (4 rows x 8 outputs) keeps its 8 vectors of sums in registers, and its inner loop has one splat for each row and no other work. Lanes
 * run over outputs, so each output is the one ascending chain that ARITHMETIC.md defines. What was measured on the way there:
 *  - the tile only stores; blocks after the first go to a scratch and are added by a second small kernel. Adding in the tile's own epilogue
 *    keeps V8 from widening the loop to 256 bits (half the speed under --wide);
 *  - unrolling the inner loop: slower on Node 20, no gain on 24.
 */

import {
  type Expr,
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

export const PANEL = 16;
export const TILE_ROWS = 4;
const VECTOR_BYTES = 16;
const PANEL_F32_BYTES = 4 * PANEL;
/** Inputs of one turn of the loop over one row; a power of two. By the memory that a turn's few instructions less let the processor look ahead. */
const ROW_UNROLL = 8;

export type WeightDtype = "BF16" | "F16" | "F32";
export const WEIGHT_BYTES: { readonly [dtype in WeightDtype]: number } = { BF16: 2, F16: 2, F32: 4 };

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

// --------------------------------------------------------------------------------------------------------------------------------- widening

/**
 * Where in a panel's row of 16 the weight of an output stands. 16-bit weights are interleaved, 0 4 1 5 2 6 3 7 and so on, so that one vector of
 * eight widens to outputs 0..3 (its even elements) and 4..7 (its odd ones) with an operation each.
 */
export function placeInPanel(dtype: WeightDtype, output: number): number {
  return dtype === "F32" ? output : (output & 8) + 2 * (output & 3) + ((output >> 2) & 1);
}

/** The 16 weights of one input, from `pointer` on, as float32 in the order of outputs; each call may be used once. */
class Widening {
  readonly #dtype: WeightDtype;
  readonly #bits: Local<"v128">;
  readonly #low: Local<"v128">;
  readonly #constants: readonly Local<"v128">[];

  /** Loads what it needs into locals: V8 on Node 24 rebuilds a v128.const at each use inside a loop. */
  constructor(f: FunctionBuilder, dtype: WeightDtype) {
    this.#dtype = dtype;
    this.#bits = f.local("v128");
    this.#low = f.local("v128");
    const masks = { BF16: [0xffff0000], F16: [0xffff, 0x7fff, 0x7c00, 0x8000, 0x7f800000], F32: [] }[dtype];
    this.#constants = masks.map(mask => f.local("v128", i32x4.const(mask, mask, mask, mask)));
    if (dtype === "F16") this.#constants = [...this.#constants, f.local("v128", f32x4.const(2 ** 112))];
  }

  /** Calls back with the number of the vector (0..3) and its value. */
  forEachVector(pointer: I32, use: (index: number, value: V128) => void): void {
    if (this.#dtype === "F32") {
      for (let i = 0; i < PANEL / 4; i++) use(i, v128.load(pointer, VECTOR_BYTES * i));
      return;
    }
    for (let i = 0; i < PANEL / 4; i += 2) {
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

  /** Exponent and fraction in float32's place are the value times 2^-112, denormals included; infinity and NaN keep their exponent instead. */
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
      f.advance(out, PANEL_F32_BYTES);
    });
  });
}

/** widen_row_*: `vectors` of eight weights of a row, as a checkpoint has them, to float32. */
function addWidenRow(module: ModuleBuilder, dtype: "BF16" | "F16"): void {
  module.func(`widen_row_${dtype}`, { weights: "i32", out: "i32", vectors: "i32" }, null, (f, { weights, out, vectors }) => {
    const widening = new Widening(f, dtype);
    f.repeat(vectors, () => {
      widening.inOrder(weights.get, (i, value) => f.storeV128(out.get, value, VECTOR_BYTES * i));
      f.advance(weights, VECTOR_BYTES);
      f.advance(out, 2 * VECTOR_BYTES);
    });
  });
}

/** embed_*: one row of a matrix in panels, widened: `weights` points at its first weight, `count` inputs. */
function addEmbed(module: ModuleBuilder, dtype: WeightDtype): void {
  module.func(`embed_${dtype}`, { weights: "i32", out: "i32", count: "i32" }, null, (f, { weights, out, count }) => {
    const bits = f.local("i32");
    f.repeat(count, () => {
      f.storeF32(out.get, widenOne(f, dtype, weights.get, bits));
      f.advance(weights, WEIGHT_BYTES[dtype] * PANEL);
      f.advance(out, 4);
    });
  });
}

function widenOne(f: FunctionBuilder, dtype: WeightDtype, pointer: I32, bits: Local<"i32">): Expr<"f32"> {
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

// ---------------------------------------------------------------------------------------------------------------------------------- packing

/** pack: four rows, `count` values each, to [count][4]. A missing row is given as a repetition of another; what comes of it is not read. */
function addPack(module: ModuleBuilder): void {
  const params = { row0: "i32", row1: "i32", row2: "i32", row3: "i32", out: "i32", count: "i32" } as const;
  module.func("pack", params, null, (f, { row0, row1, row2, row3, out, count }) => {
    const rows = [row0, row1, row2, row3];
    const vectors = f.local("i32", i32.shrU(count.get, i32.const(2)));
    const rest = f.local("i32", i32.and(count.get, i32.const(3)));
    const loaded = rows.map(() => f.local("v128"));
    const low = [f.local("v128"), f.local("v128")];
    const high = [f.local("v128"), f.local("v128")];
    f.repeat(vectors, () => {
      for (const [i, row] of rows.entries()) loaded[i].set(v128.load(row.get));
      f.storeVectors(out.get, transpose(loaded, low, high));
      for (const row of rows) f.advance(row, VECTOR_BYTES);
      f.advance(out, 4 * VECTOR_BYTES);
    });
    f.repeat(rest, () => {
      rows.forEach((row, i) => {
        f.storeF32(out.get, f32.load(row.get), 4 * i);
        f.advance(row, 4);
      });
      f.advance(out, VECTOR_BYTES);
    });
  });
}

/** The columns of four rows of four. */
function transpose(rows: readonly Local<"v128">[], low: readonly Local<"v128">[], high: readonly Local<"v128">[]): V128[] {
  const words = (...indices: number[]): number[] => indices.flatMap(i => [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3]);
  for (const half of [0, 1]) {
    const [a, b] = [rows[2 * half].get, rows[2 * half + 1].get];
    low[half].set(v128.shuffle(a, b, words(0, 4, 1, 5)));
    high[half].set(v128.shuffle(a, b, words(2, 6, 3, 7)));
  }
  return [low, high].flatMap(([a, b]) => [v128.shuffle(a.get, b.get, words(0, 1, 4, 5)), v128.shuffle(a.get, b.get, words(2, 3, 6, 7))]);
}

// ------------------------------------------------------------------------------------------------------------------------------- many rows

/**
 * tile: packed rows [tiles][count][4] times float32 weights of 16 outputs, each `weightStride` bytes after the one before -> out, 16 outputs
 * for each row, rows `outStride` bytes apart, four rows for each tile. count at least 1.
 */
function addTile(module: ModuleBuilder): void {
  const params = { packed: "i32", weights: "i32", weightStride: "i32", out: "i32", outStride: "i32", count: "i32", tiles: "i32" } as const;
  module.func("tile", params, null, (f, p) => {
    const sums = Array.from({ length: TILE_ROWS }, () => [f.local("v128"), f.local("v128")]);
    const zero = f.local("v128", f32x4.const(0));
    const [w0, w1, splat] = [f.local("v128"), f.local("v128"), f.local("v128")];
    const [a, w, left, row] = [f.local("i32"), f.local("i32"), f.local("i32"), f.local("i32")];
    f.repeat(p.tiles, () => {
      for (const half of [0, 2 * VECTOR_BYTES]) {
        a.set(p.packed.get);
        w.set(i32.add(p.weights.get, i32.const(half)));
        for (const sum of sums.flat()) sum.set(zero.get);
        left.set(p.count.get);
        f.repeat(left, () => {
          w0.set(v128.load(w.get));
          w1.set(v128.load(w.get, VECTOR_BYTES));
          sums.forEach(([s0, s1], i) => {
            splat.set(v128.load32Splat(a.get, 4 * i));
            s0.set(f32x4.add(s0.get, f32x4.mul(splat.get, w0.get)));
            s1.set(f32x4.add(s1.get, f32x4.mul(splat.get, w1.get)));
          });
          f.advance(a, VECTOR_BYTES);
          f.advance(w, p.weightStride.get);
        });
        row.set(i32.add(p.out.get, i32.const(half)));
        for (const [s0, s1] of sums) {
          f.storeV128(row.get, s0.get);
          f.storeV128(row.get, s1.get, VECTOR_BYTES);
          f.advance(row, p.outStride.get);
        }
      }
      p.packed.set(a.get);
      f.advance(p.out, i32.mul(p.outStride.get, i32.const(TILE_ROWS)));
    });
  });
}

/** add_panel: adds [rows][16] to rows of 16 that lie `outStride` bytes apart. */
function addAddPanel(module: ModuleBuilder): void {
  module.func("add_panel", { out: "i32", outStride: "i32", values: "i32", rows: "i32" }, null, (f, { out, outStride, values, rows }) => {
    f.repeat(rows, () => {
      for (let i = 0; i < PANEL_F32_BYTES; i += VECTOR_BYTES)
        f.storeV128(out.get, f32x4.add(v128.load(out.get, i), v128.load(values.get, i)), i);
      f.advance(out, outStride.get);
      f.advance(values, PANEL_F32_BYTES);
    });
  });
}

// --------------------------------------------------------------------------------------------------------------------------------- one row

/**
 * row_*: one row of x, `count` inputs of a block, times a panel -> 16 sums. `first`: they are stored; else added to what is there. float32
 * weights lie `stride` bytes apart (a panel's 64, or a row of the value cache).
 *
 * row2_*: the same for two panels, `panelBytes` apart, into 32 sums. One row's step waits for memory, and how far the processor looks ahead is a
 * number of instructions, so each one less in the loop is speed. Share of what plain reading reaches in the same run (one thread, Sapphire Rapids):
 * one panel 0.55, two panels 0.85, two panels and eight inputs a turn 0.90. Before 16-bit weights were interleaved (two 8-byte loads for each
 * 8 weights instead of one vector that is split), two panels reached 0.70.
 */
function addRow(module: ModuleBuilder, dtype: WeightDtype, panels: 1 | 2): void {
  const params = { x: "i32", weights: "i32", stride: "i32", out: "i32", count: "i32", first: "i32", panelBytes: "i32" } as const;
  module.func(`row${panels === 1 ? "" : panels}_${dtype}`, params, null, (f, p) => {
    const sums = Array.from({ length: 4 * panels }, () => f.local("v128", f32x4.const(0)));
    const splat = f.local("v128");
    const widening = new Widening(f, dtype);
    const sources = Array.from({ length: panels }, (_, i) =>
      f.local("i32", i === 0 ? p.weights.get : i32.add(p.weights.get, p.panelBytes.get)),
    );
    const step = (k: number): void => {
      splat.set(v128.load32Splat(p.x.get, 4 * k));
      for (const [panel, source] of sources.entries()) {
        widening.forEachVector(source.get, (i, weight) => {
          const sum = sums[4 * panel + i];
          sum.set(f32x4.add(sum.get, f32x4.mul(weight, splat.get)));
        });
        f.advance(source, p.stride.get);
      }
    };
    const rounds = f.local("i32", i32.shrU(p.count.get, i32.const(Math.log2(ROW_UNROLL))));
    f.repeat(rounds, () => {
      for (let k = 0; k < ROW_UNROLL; k++) step(k);
      f.advance(p.x, 4 * ROW_UNROLL);
    });
    rounds.set(i32.and(p.count.get, i32.const(ROW_UNROLL - 1)));
    f.repeat(rounds, () => {
      step(0);
      f.advance(p.x, 4);
    });
    f.if(
      p.first.get,
      () =>
        f.storeVectors(
          p.out.get,
          sums.map(sum => sum.get),
        ),
      () =>
        f.storeVectors(
          p.out.get,
          sums.map((sum, i) => f32x4.add(v128.load(p.out.get, VECTOR_BYTES * i), sum.get)),
        ),
    );
  });
}
