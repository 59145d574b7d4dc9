import { describe, expect, test } from "vitest";
import { f32, f32x4, i32, i32x4, ModuleBuilder, sleb, uleb, v128 } from "../../../src/tensor/wasm/assembler.ts";

/** Builds, compiles and instantiates a module over one page of memory. */
function instantiate(build: (module: ModuleBuilder) => void): {
  exports: Record<string, (...args: number[]) => number>;
  memory: WebAssembly.Memory;
} {
  const module = new ModuleBuilder();
  build(module);
  const memory = new WebAssembly.Memory({ initial: 1 });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), { env: { memory } });
  return { exports: instance.exports as Record<string, (...args: number[]) => number>, memory };
}

describe("LEB128", () => {
  test("the examples of the specification and the ends of the range", () => {
    expect(uleb(0)).toEqual([0]);
    expect(uleb(624485)).toEqual([0xe5, 0x8e, 0x26]);
    expect(uleb(2 ** 32 - 1)).toEqual([0xff, 0xff, 0xff, 0xff, 0x0f]);
    expect(sleb(-123456)).toEqual([0xc0, 0xbb, 0x78]);
    expect(sleb(63)).toEqual([63]);
    expect(sleb(64)).toEqual([0xc0, 0]);
    expect(sleb(-64)).toEqual([0x40]);
    expect(sleb(-(2 ** 31))).toEqual([0x80, 0x80, 0x80, 0x80, 0x78]);
  });
});

describe("functions", () => {
  test("arithmetic of integers and floats is WebAssembly's", () => {
    const { exports } = instantiate(module => {
      module.func("triple", { x: "f32" }, "f32", (f, { x }) => f.return(f32.mul(x.get, f32.const(3))));
      module.func("hypotenuse", { a: "f32", b: "f32" }, "f32", (f, { a, b }) => {
        f.return(f32.sqrt(f32.add(f32.mul(a.get, a.get), f32.mul(b.get, b.get))));
      });
      module.func("bits", { x: "i32" }, "i32", (f, { x }) =>
        f.return(i32.or(i32.shl(x.get, i32.const(4)), i32.shrU(x.get, i32.const(28)))),
      );
    });
    expect(exports.triple(0.1)).toBe(Math.fround(Math.fround(0.1) * 3));
    expect(exports.hypotenuse(3, 4)).toBe(5);
    expect(exports.bits(0xf0000001 | 0)).toBe(0x1f);
  });

  test("repeat runs its body as often as it counts, even zero times, and if takes either branch", () => {
    const { exports } = instantiate(module => {
      module.func("sum", { n: "i32" }, "i32", (f, { n }) => {
        const total = f.local("i32", i32.const(0));
        f.repeat(n, () => total.set(i32.add(total.get, n.get)));
        f.return(total.get);
      });
      module.func("sign", { x: "i32" }, "i32", (f, { x }) => {
        const result = f.local("i32");
        f.if(
          i32.gtU(x.get, i32.const(10)),
          () => result.set(i32.const(1)),
          () => result.set(i32.const(-1)),
        );
        f.return(result.get);
      });
    });
    expect([0, 1, 4, 100].map(n => exports.sum(n))).toEqual([0, 1, 10, 5050]);
    expect([10, 11].map(n => exports.sign(n))).toEqual([-1, 1]);
  });

  test("vectors load, shuffle, compute and store, at offsets", () => {
    const { exports, memory } = instantiate(module => {
      module.func("work", { from: "i32", to: "i32" }, null, (f, { from, to }) => {
        const reversed = v128.shuffle(
          v128.load(from.get, 16),
          v128.load(from.get, 16),
          [12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3],
        );
        f.storeV128(to.get, f32x4.add(reversed, v128.load32Splat(from.get, 4)), 16);
        f.storeF32(to.get, f32x4.extractLane(v128.load(from.get), 2), 4);
        f.storeV128(to.get, i32x4.shl(v128.load16x4U(from.get, 32), 16), 48);
      });
    });
    const floats = new Float32Array(memory.buffer);
    floats.set([1, 2, 3, 4, 10, 20, 30, 40]);
    new Uint16Array(memory.buffer, 32).set([0x3f80, 0xc000, 0x7f80, 1]);
    exports.work(0, 1024);
    expect(Array.from(floats.slice(256, 264))).toEqual([0, 3, 0, 0, 42, 32, 22, 12]);
    expect(Array.from(floats.slice(268, 272))).toEqual([
      1,
      -2,
      Infinity,
      new Float32Array(Uint32Array.of(65536).buffer)[0],
    ]);
  });

  test("a wrong function does not compile: validation finds what the types let through", () => {
    const module = new ModuleBuilder();
    module.func("broken", {}, "i32", f => f.emit([0x6a])); // an addition with nothing to add
    expect(() => new WebAssembly.Module(module.bytes())).toThrow(WebAssembly.CompileError);
  });
});
