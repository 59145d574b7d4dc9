/**
 * Kernels that work along one row: RMSNorm, rotation, softmax, activation, residual, spreading. Each repeats its
 * readable twin in reference.ts operation by operation; lanes run over indices, and where an index is summed over, lane
 * l holds the partial sum of index % 4 = l, which is the order that ARITHMETIC.md states.
 *
 * Lengths are multiples of 4 unless stated otherwise; for other sizes the engine calls the reference operations.
 */

import { exp32Constants } from "../elementary.ts";
import {
  type FunctionBuilder,
  f32,
  f32x4,
  i32,
  i32x4,
  type Local,
  type ModuleBuilder,
  type V128,
  v128,
} from "./assembler.ts";
import { LANES, SWAP_HALVES, SWAP_NEIGHBOURS, sumLanes, unitsOf, VECTOR_BYTES, vectorLocals } from "./kernel-parts.ts";
import { FLOAT_BYTES } from "./panel-layout.ts";

export function addRowKernels(module: ModuleBuilder): void {
  addRmsNorm(module);
  addRope(module);
  addSoftmax(module);
  addDivide(module);
  addSiluMul(module);
  addAdd(module);
  addSpread(module);
}

/** rms_norm: one row of `size`. */
function addRmsNorm(module: ModuleBuilder): void {
  module.func(
    "rms_norm",
    { out: "i32", x: "i32", gain: "i32", size: "i32", eps: "f32", sizeF32: "f32" },
    null,
    (f, p) => {
      const sums = f.local("v128", f32x4.const(0));
      const value = f.local("v128");
      const scale = f.local("v128");
      const row = f.local("i32", p.x.get);
      const left = f.local("i32", unitsOf(p.size.get, LANES));
      f.repeat(left, () => {
        value.set(v128.load(row.get));
        sums.set(f32x4.add(sums.get, f32x4.mul(value.get, value.get)));
        f.advance(row, VECTOR_BYTES);
      });
      const mean = f32.div(sumLanes(sums.get), p.sizeF32.get);
      scale.set(f32x4.splat(f32.div(f32.const(1), f32.sqrt(f32.add(mean, p.eps.get)))));
      left.set(unitsOf(p.size.get, LANES));
      f.repeat(left, () => {
        f.storeV128(p.out.get, f32x4.mul(f32x4.mul(v128.load(p.x.get), scale.get), v128.load(p.gain.get)));
        for (const pointer of [p.out, p.x, p.gain]) f.advance(pointer, VECTOR_BYTES);
      });
    },
  );
}

/** rope: one head of one row, in place; `half` values in each half. */
function addRope(module: ModuleBuilder): void {
  module.func("rope", { x: "i32", cos: "i32", sin: "i32", half: "i32" }, null, (f, p) => {
    const second = f.local("i32", i32.add(p.x.get, i32.mul(p.half.get, i32.const(FLOAT_BYTES))));
    const [a, b, c, s] = vectorLocals(f, 4);
    const left = f.local("i32", unitsOf(p.half.get, LANES));
    f.repeat(left, () => {
      a.set(v128.load(p.x.get));
      b.set(v128.load(second.get));
      c.set(v128.load(p.cos.get));
      s.set(v128.load(p.sin.get));
      f.storeV128(p.x.get, f32x4.sub(f32x4.mul(a.get, c.get), f32x4.mul(b.get, s.get)));
      f.storeV128(second.get, f32x4.add(f32x4.mul(b.get, c.get), f32x4.mul(a.get, s.get)));
      for (const pointer of [p.x, second, p.cos, p.sin]) f.advance(pointer, VECTOR_BYTES);
    });
  });
}

/** exp32 of four lanes, operation by operation as in elementary.ts. */
class VectorExp {
  readonly #constants: Readonly<Record<keyof typeof exp32Constants, Local<"v128">>>;
  readonly #one: Local<"v128">;
  readonly #bias: Local<"v128">;
  readonly #infinity: Local<"v128">;
  readonly #x: Local<"v128">;
  readonly #n: Local<"v128">;
  readonly #r: Local<"v128">;
  readonly #p: Local<"v128">;

  /** Loads the constants into locals of the function, before its loops. */
  constructor(f: FunctionBuilder) {
    this.#constants = Object.fromEntries(
      Object.entries(exp32Constants).map(([name, value]) => [name, f.local("v128", f32x4.const(value))]),
    ) as Record<keyof typeof exp32Constants, Local<"v128">>;
    this.#one = f.local("v128", f32x4.const(1));
    this.#bias = f.local("v128", i32x4.const(127));
    this.#infinity = f.local("v128", f32x4.const(Infinity));
    [this.#x, this.#n, this.#r, this.#p] = vectorLocals(f, 4);
  }

  apply(value: V128): V128 {
    const c = this.#constants;
    const [x, n, r, p] = [this.#x, this.#n, this.#r, this.#p];
    x.set(value);
    n.set(f32x4.nearest(f32x4.mul(x.get, c.log2E.get)));
    r.set(f32x4.sub(f32x4.sub(x.get, f32x4.mul(n.get, c.ln2High.get)), f32x4.mul(n.get, c.ln2Low.get)));
    p.set(c.p0.get);
    for (const coefficient of [c.p1, c.p2, c.p3, c.p4, c.p5])
      p.set(f32x4.add(f32x4.mul(p.get, r.get), coefficient.get));
    p.set(f32x4.add(f32x4.add(f32x4.mul(p.get, f32x4.mul(r.get, r.get)), r.get), this.#one.get));
    n.set(i32x4.truncSat(n.get)); // the power as an integer, in two factors
    r.set(i32x4.shrS(n.get, 1));
    const factor = (power: V128): V128 => i32x4.shl(i32x4.add(power, this.#bias.get), 23);
    p.set(f32x4.mul(f32x4.mul(p.get, factor(r.get)), factor(i32x4.sub(n.get, r.get))));
    p.set(v128.bitselect(this.#infinity.get, p.get, f32x4.gt(x.get, c.high.get)));
    // Tested as below, not as above, so that NaN, which is neither, is kept.
    return v128.bitselect(f32x4.const(0), p.get, f32x4.lt(x.get, c.low.get));
  }
}

/**
 * softmax: x[i] becomes exp(x[i] * scale - max) for i < length, and 0 from there to `padded` (a multiple of 4, at least
 * length); the result is their sum.
 */
function addSoftmax(module: ModuleBuilder): void {
  module.func("softmax", { x: "i32", length: "i32", padded: "i32", scale: "f32" }, "f32", (f, p) => {
    const exp = new VectorExp(f);
    const scale = f.local("v128", f32x4.splat(p.scale.get));
    const lowest = f.local("v128", f32x4.const(-Infinity));
    const max = f.local("v128", lowest.get);
    const sums = f.local("v128", f32x4.const(0));
    const value = f.local("v128");
    const inside = f.local("v128");
    const index = f.local("v128");
    const length = f.local("v128", i32x4.splat(p.length.get));
    const [pointer, left] = [f.local("i32"), f.local("i32")];
    const vectors = unitsOf(p.padded.get, LANES);
    const forEachVector = (body: () => void): void => {
      pointer.set(p.x.get);
      left.set(vectors);
      index.set(i32x4.const(0, 1, 2, 3));
      f.repeat(left, () => {
        inside.set(i32x4.ltS(index.get, length.get));
        body();
        index.set(i32x4.add(index.get, i32x4.const(LANES)));
        f.advance(pointer, VECTOR_BYTES);
      });
    };
    forEachVector(() => {
      value.set(f32x4.mul(v128.load(pointer.get), scale.get));
      f.storeV128(pointer.get, value.get);
      max.set(f32x4.max(max.get, v128.bitselect(value.get, lowest.get, inside.get)));
    });
    for (const swapped of [SWAP_HALVES, SWAP_NEIGHBOURS])
      max.set(f32x4.max(max.get, v128.shuffle(max.get, max.get, swapped)));
    forEachVector(() => {
      value.set(v128.and(exp.apply(f32x4.sub(v128.load(pointer.get), max.get)), inside.get));
      f.storeV128(pointer.get, value.get);
      sums.set(f32x4.add(sums.get, value.get));
    });
    f.return(sumLanes(sums.get));
  });
}

/** divide: out[i] = x[i] / denominator, `vectors` of 4. */
function addDivide(module: ModuleBuilder): void {
  module.func("divide", { out: "i32", x: "i32", denominator: "f32", vectors: "i32" }, null, (f, p) => {
    const denominator = f.local("v128", f32x4.splat(p.denominator.get));
    f.repeat(p.vectors, () => {
      f.storeV128(p.out.get, f32x4.div(v128.load(p.x.get), denominator.get));
      f.advance(p.out, VECTOR_BYTES);
      f.advance(p.x, VECTOR_BYTES);
    });
  });
}

/** silu_mul: gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i], `vectors` of 4. */
function addSiluMul(module: ModuleBuilder): void {
  module.func("silu_mul", { gate: "i32", up: "i32", vectors: "i32" }, null, (f, p) => {
    const exp = new VectorExp(f);
    const one = f.local("v128", f32x4.const(1));
    const gate = f.local("v128");
    const sigmoidBelow = f.local("v128");
    f.repeat(p.vectors, () => {
      gate.set(v128.load(p.gate.get));
      sigmoidBelow.set(exp.apply(f32x4.neg(gate.get)));
      f.storeV128(
        p.gate.get,
        f32x4.mul(f32x4.div(gate.get, f32x4.add(one.get, sigmoidBelow.get)), v128.load(p.up.get)),
      );
      f.advance(p.gate, VECTOR_BYTES);
      f.advance(p.up, VECTOR_BYTES);
    });
  });
}

/** add: x[i] += y[i], `vectors` of 4. */
function addAdd(module: ModuleBuilder): void {
  module.func("add", { x: "i32", y: "i32", vectors: "i32" }, null, (f, p) => {
    f.repeat(p.vectors, () => {
      f.storeV128(p.x.get, f32x4.add(v128.load(p.x.get), v128.load(p.y.get)));
      f.advance(p.x, VECTOR_BYTES);
      f.advance(p.y, VECTOR_BYTES);
    });
  });
}

/** spread: `count` values (any number), at least one, to places `stride` bytes apart. */
function addSpread(module: ModuleBuilder): void {
  module.func("spread", { x: "i32", out: "i32", count: "i32", stride: "i32" }, null, (f, p) => {
    f.repeat(p.count, () => {
      f.storeLane32(p.out.get, v128.load32Splat(p.x.get), 0);
      f.advance(p.x, FLOAT_BYTES);
      f.advance(p.out, p.stride.get);
    });
  });
}
