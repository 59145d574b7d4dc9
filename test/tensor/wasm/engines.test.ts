/**
 * Every thread count of the fast engine against the reference operations: equal bits at ragged sizes, in every form of
 * weights, at the awkward values of float32.
 */

import { Float16Array } from "@petamoriken/float16";
import { afterAll, describe, expect, test } from "vitest";
import { float32ToBf16, type WeightDtype } from "../../../src/tensor/dtype.ts";
import type { Engine, FloatBuffer, Matrix } from "../../../src/tensor/engine.ts";
import { createEngine } from "../../../src/tensor/engine-choice.ts";
import {
  INT8_MAX,
  packInt4,
  QUANTISED_SCHEMES,
  type QuantisedScheme,
  type QuantisedTensor,
  quantiseTensor,
} from "../../../src/tensor/quantised.ts";
import { ReferenceEngine } from "../../../src/tensor/reference-engine.ts";
import { Tensor } from "../../../src/tensor/tensor.ts";
import { FEW_ROWS } from "../../../src/tensor/wasm/linear-jobs.ts";
import { WasmEngine } from "../../../src/tensor/wasm/wasm-engine.ts";
import type { WasmMatrix } from "../../../src/tensor/wasm/wasm-matrix.ts";
import { startNodeWorker } from "../../../src/tensor/wasm/worker-start.node.ts";
import { inScope, noise } from "../../helpers.ts";

const SIZES = [1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 255, 256, 257, 1000];
const ROWS = [1, 2, 3, 5, FEW_ROWS, FEW_ROWS + 1, 33];

const reference = new ReferenceEngine();
const engines: Engine[] = await Promise.all([1, 2, 3].map(threads => createEngine({ engine: "wasm", threads })));
afterAll(() => {
  for (const engine of engines) engine.close();
});

/** Equal bits; NaN equals NaN, whatever its payload. */
function expectSame(got: Float32Array, expected: Float32Array): void {
  const at = expected.findIndex((value, i) => !Object.is(got[i], value));
  if (at >= 0 || got.length !== expected.length)
    expect.fail(`first difference at ${at} of ${expected.length}: got ${got[at]}, expected ${expected[at]}`);
}

/** Noise with the values that break kernels: zeros of both signs, denormals, the largest and the smallest numbers. */
function awkward(length: number, seed: number, scale: number = 1): Float32Array {
  const special = [0, -0, 1e-42, -1e-44, 1.1754944e-38, 3e30, -3e30, 1, -1];
  return noise(length, seed, scale).map((x, i) => (i % 13 === 5 ? special[(i + seed) % special.length] : x));
}

function bufferOf(engine: Engine, rows: number, values: Float32Array): FloatBuffer {
  const buffer = engine.buffer(rows, rows === 0 ? 1 : values.length / rows);
  buffer.data.set(values);
  return buffer;
}

function matrixOf(engine: Engine, tensor: Tensor, scheme?: QuantisedScheme): Promise<Matrix> {
  const bytes = tensor.bytes();
  const [outputs, inputs] = tensor.shape;
  const readInto = async (target: Uint8Array, offset: number): Promise<void> =>
    target.set(bytes.subarray(offset, offset + target.length));
  return engine.loadMatrix(
    { name: tensor.name, dtype: tensor.dtype as WeightDtype, shape: [outputs, inputs], readInto },
    scheme,
  );
}

/** A matrix that was quantised and saved. */
function savedOf(engine: Engine, { name, scheme, shape, values, scales, subScales }: QuantisedTensor): Promise<Matrix> {
  const bytes = scheme === "int8" ? new Uint8Array(values.buffer) : packInt4(values, ...shape);
  const readInto = async (target: Uint8Array, offset: number): Promise<void> =>
    target.set(bytes.subarray(offset, offset + target.length));
  return engine.loadQuantised({ name, scheme, shape, scales, subScales, readInto });
}

function weights(dtype: "BF16" | "F16" | "F32", outputs: number, inputs: number): Tensor {
  const values = awkward(outputs * inputs, outputs + inputs);
  if (dtype === "F32") return new Tensor("w", dtype, [outputs, inputs], values);
  // All kinds of 16-bit floats, denormals among them, except infinities and NaN.
  const finite = (bits: number): number =>
    dtype === "F16" ? (bits % 0x7c00) | (bits & 0x8000) : (bits % 0x4500) | (bits & 0x8000);
  return new Tensor(
    "w",
    dtype,
    [outputs, inputs],
    Uint16Array.from(values, (_, i) => finite((i * 40503 + outputs) & 0xffff)),
  );
}

/** The same at the size of real weights, with rows of zeros and outliers. */
function quantisable(dtype: "BF16" | "F16" | "F32", outputs: number, inputs: number): Tensor {
  const values = noise(outputs * inputs, outputs + inputs, 0.1).map((x, i) =>
    i % 211 === 7 ? 9 * x : Math.floor(i / inputs) % 6 === 4 ? 0 : x,
  );
  if (dtype === "F32") return new Tensor("w", dtype, [outputs, inputs], values);
  const bits = dtype === "BF16" ? float32ToBf16 : (x: number): number => new Uint16Array(Float16Array.of(x).buffer)[0];
  return new Tensor("w", dtype, [outputs, inputs], Uint16Array.from(values, bits));
}

describe.each(engines.map(engine => [engine.threads, engine] as const))("wasm, %i thread(s)", (_, engine) => {
  /** Runs the same on both engines, in a scope of the tested one, and compares what comes out. */
  function same(run: (e: Engine) => FloatBuffer, length?: number): void {
    const expected = run(reference).data.slice(0, length);
    inScope(engine, () => expectSame(run(engine).data.slice(0, length), expected));
  }

  describe.each(["BF16", "F16", "F32"] as const)("linear layer, %s", dtype => {
    test.each(SIZES)("%i inputs", async inputs => {
      for (const outputs of [1, 5, 16, 17, 100]) {
        const tensor = weights(dtype, outputs, inputs);
        const [ours, theirs] = [await matrixOf(engine, tensor), await matrixOf(reference, tensor)];
        for (const rows of ROWS) {
          const x = awkward((rows + 2) * inputs, rows, 3);
          same(e => {
            const out = e.buffer(rows, outputs);
            e.linearInto(out, bufferOf(e, rows + 2, x).tail(2), e === engine ? ours : theirs);
            return out;
          });
        }
      }
    });
  });

  describe.each(QUANTISED_SCHEMES)("linear layer, %s", scheme => {
    test.each(SIZES)("%i inputs, quantised on the way and saved", async inputs => {
      for (const [dtype, outputs] of [
        ["BF16", 1],
        ["F32", 5],
        ["F16", 16],
        ["BF16", 17],
        ["F16", 33],
        ["BF16", 100],
      ] as const) {
        const tensor = quantisable(dtype, outputs, inputs);
        const theirs = await matrixOf(reference, tensor, scheme);
        const saved = quantiseTensor("w", scheme, [outputs, inputs], tensor.toFloat32());
        const ours = [await matrixOf(engine, tensor, scheme), await savedOf(engine, saved)];
        expect(ours.map(matrix => matrix.byteLength)).toEqual([theirs.byteLength, theirs.byteLength]);
        for (const rows of ROWS) {
          const x = noise((rows + 2) * inputs, rows, 3).map((value, i) =>
            i % 97 === 5 ? value * 40 : i % 31 === 3 ? 0 : value,
          );
          const run = (e: Engine, matrix: Matrix): FloatBuffer => {
            const out = e.buffer(rows, outputs);
            e.linearInto(out, bufferOf(e, rows + 2, x).tail(2), matrix);
            return out;
          };
          for (const matrix of ours) same(e => run(e, e === engine ? matrix : theirs));
        }
      }
    });

    test("weights and activations at the ends of float32's range", async () => {
      const inputs = 300;
      for (const scale of [1e-45, 1e-38, 1e-30, 1, 1e15]) {
        const values = noise(20 * inputs, 1, scale).map((x, i) => (i % (7 * inputs) < 32 ? 0 : x));
        const tensor = new Tensor("w", "F32", [20, inputs], values);
        const [ours, theirs] = [await matrixOf(engine, tensor, scheme), await matrixOf(reference, tensor, scheme)];
        for (const reach of [1e-44, 1e-36, 1, 1e20]) {
          for (const rows of [1, 5, FEW_ROWS + 1]) {
            const x = noise(rows * inputs, 3, reach);
            x[0] = rows > 1 ? 3.4e38 : x[0];
            same(e => {
              const out = e.buffer(rows, 20);
              e.linearInto(out, bufferOf(e, rows, x), e === engine ? ours : theirs);
              return out;
            });
          }
        }
      }
    });

    test("the largest possible sums are exact", async () => {
      const inputs = 512;
      const values = Float32Array.from({ length: 16 * inputs }, (_, i) => (Math.floor(i / 256) % 2 === 0 ? -1 : 1));
      const tensor = new Tensor("w", "F32", [16, inputs], values);
      const [ours, theirs] = [await matrixOf(engine, tensor, scheme), await matrixOf(reference, tensor, scheme)];
      for (const rows of [1, 4, FEW_ROWS + 1]) {
        same(e => {
          const out = e.buffer(rows, 16);
          e.linearInto(out, bufferOf(e, rows, new Float32Array(rows * inputs).fill(-7)), e === engine ? ours : theirs);
          return out;
        });
      }
    });

    test("a row with NaN or infinity gives NaN, and only that row", async () => {
      const tensor = quantisable("BF16", 20, 256);
      const [ours, theirs] = [await matrixOf(engine, tensor, scheme), await matrixOf(reference, tensor, scheme)];
      const x = noise(12 * 256, 1);
      x[300] = Number.NaN;
      x[700] = -Infinity;
      for (const [first, rows] of [
        [0, 12],
        [0, 6],
        [1, 1],
        [2, 1],
      ] as const) {
        same(e => {
          const out = e.buffer(rows, 20);
          e.linearInto(
            out,
            bufferOf(e, rows, x.slice(first * 256, (first + rows) * 256)),
            e === engine ? ours : theirs,
          );
          if (first === 0)
            expect(Array.from({ length: 6 }, (_, t) => Number.isNaN(out.data[20 * t + 3]))).toEqual([
              false,
              true,
              true,
              false,
              false,
              false,
            ]);
          return out;
        });
      }
    });

    test.each([1, 2, 33])("saved scales of -0 leave no sign, in %i rows", async rows => {
      for (const inputs of [256, 300, 512]) {
        const saved = quantiseTensor("w", scheme, [20, inputs], quantisable("F32", 20, inputs).toFloat32());
        const zeroed = { ...saved, scales: saved.scales.map((scale, i) => (i % 3 === 0 ? scale : -0)) };
        const [ours, theirs] = [await savedOf(engine, zeroed), await savedOf(reference, zeroed)];
        const x = noise(rows * inputs, 5);
        same(e => {
          const out = e.buffer(rows, 20);
          e.linearInto(out, bufferOf(e, rows, x), e === engine ? ours : theirs);
          return out;
        });
      }
    });

    test("weights that are not finite are refused", async () => {
      for (const bad of [Number.NaN, Infinity, -Infinity]) {
        for (const [inputs, at] of [
          [512, 16 * 512 + 300],
          [100, 1999],
        ]) {
          const values = noise(20 * inputs, 1);
          values[at] = bad;
          await expect(matrixOf(engine, new Tensor("w", "F32", [20, inputs], values), scheme)).rejects.toThrow(
            'tensor "w": expected finite weights',
          );
        }
      }
    });

    test("embedding rows", async () => {
      for (const inputs of [1, 5, 17, 64, 300, 512]) {
        const tensor = quantisable("BF16", 37, inputs);
        const [ours, theirs] = [await matrixOf(engine, tensor, scheme), await matrixOf(reference, tensor, scheme)];
        same(e => {
          const out = e.buffer(5, inputs);
          e.embedInto(out, e === engine ? ours : theirs, [0, 36, 15, 16, 36]);
          return out;
        });
      }
    });
  });

  test("infinities and NaN stay in their row or output", async () => {
    const tensor = new Tensor(
      "w",
      "F16",
      [20, 40],
      Uint16Array.from({ length: 800 }, (_, i) => [0x3c00, 0x7c00, 0xfc00, 0x7e00][i % 41 === 3 ? (i % 3) + 1 : 0]),
    );
    const [ours, theirs] = [await matrixOf(engine, tensor), await matrixOf(reference, tensor)];
    const x = awkward(6 * 40, 1);
    x[45] = Infinity;
    x[99] = Number.NaN;
    x[130] = -Infinity;
    same(e => {
      const out = e.buffer(6, 20);
      e.linearInto(out, bufferOf(e, 6, x), e === engine ? ours : theirs);
      return out;
    });
  });

  test.each(["BF16", "F16", "F32"] as const)("embedding rows, %s", async dtype => {
    for (const inputs of [1, 5, 17, 64]) {
      const tensor = weights(dtype, 37, inputs);
      const [ours, theirs] = [await matrixOf(engine, tensor), await matrixOf(reference, tensor)];
      same(e => {
        const out = e.buffer(5, inputs);
        e.embedInto(out, e === engine ? ours : theirs, [0, 36, 15, 16, 36]);
        return out;
      });
    }
  });

  test.each(SIZES)("RMSNorm of size %i, also in place", size => {
    for (const rows of [0, ...ROWS]) {
      const [x, gain] = [awkward(rows * size, size, 2), noise(size, rows)];
      same(e => {
        const out = e.buffer(rows, size);
        e.rmsNormInto(out, bufferOf(e, rows, x), bufferOf(e, 1, gain), 1e-6);
        return out;
      });
      same(e => {
        const out = bufferOf(e, rows, x);
        e.rmsNormInto(out, out, bufferOf(e, 1, gain), 1e-6);
        return out;
      });
    }
  });

  test.each([2, 6, 8, 22, 64, 128])("rotation of heads of %i", headDim => {
    const angles = noise(40 * (headDim / 2), 1, 3);
    for (const rows of [0, ...ROWS]) {
      same(e => {
        const x = e.buffer(rows, 3, headDim);
        x.data.set(awkward(rows * 3 * headDim, rows));
        e.ropeInto(x, { cos: bufferOf(e, 40, angles.map(Math.cos)), sin: bufferOf(e, 40, angles.map(Math.sin)) }, 5);
        return x;
      });
    }
  });

  test.each([0, 1, 3, 4, 5, 31, 1000, 4099])("activation and residual of %i values", length => {
    const gate = Float32Array.from(
      { length },
      (_, i) => [88.7, -88.7, -87.3, 0, -0, Infinity, -200, 1e-40][i % 17] ?? (i % 200) - 100,
    );
    same(e => {
      const out = bufferOf(e, 1, gate);
      e.siluMulInto(out, bufferOf(e, 1, awkward(length, 1)));
      return out;
    });
    same(e => {
      const out = bufferOf(e, 1, awkward(length, 2));
      e.addInto(out, bufferOf(e, 1, awkward(length, 3)));
      return out;
    });
  });

  test.each([
    [1, 1, 2],
    [4, 2, 64],
    [6, 2, 22],
    [2, 1, 128],
    [2, 2, 300],
  ])(
    "attention with %i query and %i key/value heads of %i, in any pieces, as the cache grows",
    (numHeads, numKvHeads, headDim) => {
      const total = 340;
      const shape = { numLayers: 2, numHeads, numKvHeads, headDim, maxPositions: 400 };
      const [q, keys, values] = [
        noise(total * numHeads * headDim, 1, 2),
        noise(total * numKvHeads * headDim, 2, 2),
        awkward(total * numKvHeads * headDim, 3),
      ];
      const run = (e: Engine, pieces: readonly number[]): Float32Array => {
        const cache = e.newCache(shape);
        const out = new Float32Array(q.length);
        let start = 0;
        for (const rows of pieces) {
          cache.reserve(start + rows);
          inScope(e, () => {
            const slice = (data: Float32Array, size: number): FloatBuffer =>
              bufferOf(e, rows, data.slice(start * size, (start + rows) * size));
            cache.store(1, start, slice(keys, numKvHeads * headDim), slice(values, numKvHeads * headDim));
            const attended = e.buffer(rows, numHeads * headDim);
            cache.attentionInto(attended, slice(q, numHeads * headDim), 1, start);
            out.set(attended.data.subarray(0, rows * numHeads * headDim), start * numHeads * headDim);
          });
          start += rows;
        }
        cache.free();
        return out;
      };
      const expected = run(reference, [total]);
      for (const pieces of [[340], [1, 1, 1, 2, 3, 4, 5, 15, 16, 17, 33, 60, 1, 100, 81], [255, 1, 1, 83]])
        expectSame(run(engine, pieces), expected);
    },
  );

  test("memory is given back: a thousand sequences take no more than one", () => {
    const shape = { numLayers: 3, numHeads: 2, numKvHeads: 1, headDim: 16, maxPositions: 4096 };
    const use = (): number => {
      const cache = engine.newCache(shape);
      for (const positions of [1, 100, 1000]) cache.reserve(positions);
      const bytes = (engine as unknown as { usedBytes: number }).usedBytes;
      cache.free();
      return bytes;
    };
    const first = use();
    for (let i = 0; i < 1000; i++) use();
    expect(use()).toBe(first);
  });

  test("what belongs to another engine is refused", async () => {
    const matrix = await matrixOf(reference, weights("F32", 4, 4));
    const buffer = engine.buffer(1, 4);
    expect(() => engine.linearInto(buffer, buffer, matrix)).toThrow(
      "w: expected a matrix of this engine, got one of another",
    );
    expect(() => engine.addInto(buffer, reference.buffer(1, 4))).toThrow(
      "buffer: expected one of this engine, got one of another",
    );
  });
});

describe("several memories", () => {
  test("a cache that does not fit the first memory goes to another, and gives the same bits", async () => {
    // Layers of 1 MB each fill what the first memory of 16 MB leaves to caches, and then the others.
    const shape = { numLayers: 40, numHeads: 2, numKvHeads: 1, headDim: 64, maxPositions: 4096 };
    const [rows, positions] = [FEW_ROWS + 2, 2048];
    const [q, keys, values] = [noise(rows * 128, 1, 2), noise(rows * 64, 2, 2), noise(rows * 64, 3)];
    for (const threads of [1, 2]) {
      const engine = WasmEngine.create({ threads, startWorker: startNodeWorker, memoryBytes: 16 * 2 ** 20 });
      const cache = engine.newCache(shape);
      cache.reserve(positions);
      const last = reference.newCache({ ...shape, numLayers: 1 });
      last.reserve(rows);
      const attend = (e: Engine, c: typeof cache, layer: number): Float32Array =>
        inScope(e, () => {
          const out = e.buffer(rows, 128);
          c.store(layer, 0, bufferOf(e, rows, keys), bufferOf(e, rows, values));
          c.attentionInto(out, bufferOf(e, rows, q), layer, 0);
          const whole = out.data.slice(0, rows * 128);
          // And the step of one row, after the others.
          c.store(layer, rows - 1, bufferOf(e, 1, keys.slice(-64)), bufferOf(e, 1, values.slice(-64)));
          c.attentionInto(out, bufferOf(e, 1, q.slice(-128)), layer, rows - 1);
          expectSame(out.data.slice(0, 128), whole.slice(-128));
          return whole;
        });
      const expected = attend(reference, last, 0);
      for (const layer of [0, 20, 39]) expectSame(attend(engine, cache, layer), expected);
      expect(() => engine.newCache({ ...shape, numLayers: 100 }).reserve(positions)).toThrow("all 8 memories are full");
      cache.free();
      engine.close();
    }
  });

  test("matrices that do not fit the first memory go to others, and give the same bits", async () => {
    const [outputs, inputs] = [700, 1400];
    const bf16 = quantisable("BF16", outputs, inputs);
    const sources = await Promise.all(
      (["BF16", "F32", "int8", "int4"] as const).map(async form => {
        const tensor = form === "F32" ? quantisable("F32", outputs, inputs) : bf16;
        const scheme = form === "int8" || form === "int4" ? form : undefined;
        return { tensor, scheme, theirs: await matrixOf(reference, tensor, scheme) };
      }),
    );
    for (const threads of [1, 2]) {
      const engine = WasmEngine.create({ threads, startWorker: startNodeWorker, memoryBytes: 8 * 2 ** 20 });
      // Four rounds of 8.9 MB together.
      const matrices: (readonly [ours: Matrix, theirs: Matrix])[] = [];
      for (let round = 0; round < 4; round++) {
        for (const { tensor, scheme, theirs } of sources)
          matrices.push([await matrixOf(engine, tensor, scheme), theirs]);
      }
      expect(new Set(matrices.map(([ours]) => (ours as WasmMatrix).memory)).size).toBeGreaterThan(2);
      for (const rows of [1, 30]) {
        const x = noise(rows * inputs, rows);
        for (const [ours, theirs] of [...matrices.slice(0, 4), ...matrices.slice(-4)]) {
          const run = (e: Engine, matrix: Matrix): Float32Array =>
            inScope(e, () => {
              const out = e.buffer(rows, outputs);
              e.linearInto(out, bufferOf(e, rows, x), matrix);
              const looked = e.buffer(2, inputs);
              e.embedInto(looked, matrix, [3, 699]);
              return Float32Array.from([...out.data, ...looked.data]);
            });
          expectSame(run(engine, ours), run(reference, theirs));
        }
      }
      const more = async (): Promise<void> => {
        for (let i = 0; i < 60; i++) await matrixOf(engine, bf16);
      };
      await expect(more()).rejects.toThrow("memory: no room for 2 MB of w: all 8 memories are full");
      engine.close();
    }
  });

  test.each(QUANTISED_SCHEMES)(
    "%s rows, saved or quantised on the way, are read in several batches, each to its place",
    async scheme => {
      const [outputs, inputs] = [1300, 300];
      const tensor = quantisable("BF16", outputs, inputs);
      const theirs = await matrixOf(reference, tensor, scheme);
      const saved = quantiseTensor("w", scheme, [outputs, inputs], tensor.toFloat32());
      const x = noise(inputs, 6);
      const run = (e: Engine, matrix: Matrix): Float32Array =>
        inScope(e, () => {
          const out = e.buffer(1, outputs);
          e.linearInto(out, bufferOf(e, 1, x), matrix);
          return out.data.slice(0, outputs);
        });
      const expected = run(reference, theirs);
      for (const threads of [1, 2]) {
        // A 32nd of the memory is read at once: 64 kB.
        const engine = WasmEngine.create({ threads, startWorker: startNodeWorker, memoryBytes: 2 * 2 ** 20 });
        for (const matrix of [await matrixOf(engine, tensor, scheme), await savedOf(engine, saved)])
          expectSame(run(engine, matrix), expected);
        engine.close();
      }
    },
  );

  test("a limit is an error before anything is done, with both numbers", async () => {
    const engine = WasmEngine.create({ memoryLimit: 10 * 2 ** 20 });
    const cache = engine.newCache({ numLayers: 2, numHeads: 2, numKvHeads: 2, headDim: 64, maxPositions: 32768 });
    cache.reserve(1000);
    const used = engine.usedBytes;
    expect(() => cache.reserve(32768)).toThrow("memory: expected 63 MB for the key/value cache, got 9 MB left");
    expect(engine.usedBytes).toBe(used);
    await expect(matrixOf(engine, new Tensor("big", "BF16", [4000, 2000], new Uint16Array(8_000_000)))).rejects.toThrow(
      "memory: expected 16 MB for big, got 9 MB left",
    );
    engine.close();
  });
});

test("saved int8 rows up to the end of a memory: nothing looks for sub-scales beyond it", async () => {
  const [outputs, inputs] = [16_400, 256];
  const saved: QuantisedTensor = {
    name: "w",
    scheme: "int8",
    shape: [outputs, inputs],
    values: Int8Array.from(noise(outputs * inputs, 1, INT8_MAX)),
    subScales: new Int8Array(0),
    scales: noise(outputs, 2).map(Math.abs),
  };
  const x = noise(inputs, 3);
  const run = async (e: Engine): Promise<Float32Array> => {
    const matrix = await savedOf(e, saved);
    return inScope(e, () => {
      const out = e.buffer(1, outputs);
      e.linearInto(out, bufferOf(e, 1, x), matrix);
      return out.data.slice(0, outputs);
    });
  };
  const expected = await run(reference);
  for (const threads of [1, 2]) {
    // A new memory, in which nothing was freed: the last allocation ends where the memory does.
    const engine = await createEngine({ engine: "wasm", threads });
    expectSame(await run(engine), expected);
    engine.close();
  }
});

test("a closed engine says so, even through a buffer that is still held, and may be closed again", () => {
  const closed = WasmEngine.create({ threads: 2, startWorker: startNodeWorker });
  const buffer = closed.buffer(1, 4);
  closed.close();
  closed.close();
  expect(() => buffer.data).toThrow("the engine is closed");
  expect(() => closed.buffer(1, 4)).toThrow("the engine is closed");
});
