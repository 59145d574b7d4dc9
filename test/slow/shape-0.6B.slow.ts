/**
 * The engine at the size of the real 0.6B guard: a seeded random checkpoint of that shape loads and gives correct
 * logits, and the full context has room. Takes two minutes, 1.2 GB of disk and 10 GB of memory; `npm run test:slow`.
 */

import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Qwen3 } from "../../src/model/qwen3.ts";
import type { Engine, FloatBuffer, KvCache } from "../../src/tensor/engine.ts";
import { createEngine } from "../../src/tensor/engine-choice.ts";
import { QUANTISED_SCHEMES, type QuantisedScheme } from "../../src/tensor/quantised.ts";
import { ReferenceEngine } from "../../src/tensor/reference-engine.ts";
import { expectAtMost, expectSameBits, inScope, nmse, noise, projectPath } from "../helpers.ts";
import { installPackage } from "../installed-package.ts";
import { float64Logits } from "../model/float64-forward.ts";

const IDS = [785, 6722, 315, 9625, 374, 12095, 13, 151644];

/**
 * NMSE of PyTorch 2.13's own float32 forward on this checkpoint and these ids, against float64
 * (tools/reference/truth.py). Ours may be four times that.
 */
const REFERENCE_NMSE = 1.77e-12;

/** Other runtimes to load on: paths of their binaries, which `npm run test:nodes` fetches. */
const RUNTIMES = (process.env.QWEN3GUARD_RUNTIMES ?? "").split(":").filter(path => path !== "");

const folder = mkdtempSync(join(tmpdir(), "qwen3guard-0.6B-"));

beforeAll(() => {
  execFileSync(process.execPath, [projectPath("tools/write-random-checkpoint.ts"), folder, "--shape", "0.6B"], {
    stdio: "inherit",
  });
});

/** The checkpoint, quantised and saved, once for all tests. */
function savedAs(weights: QuantisedScheme): string {
  const saved = join(folder, weights);
  if (!existsSync(saved)) {
    execFileSync(process.execPath, [projectPath("src/cli/main.ts"), "quantize", folder, saved, "--weights", weights]);
  }
  return saved;
}

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a 0.6B-shaped checkpoint gives correct logits for 8 ids, whole and one by one, the same bits on both engines", async () => {
  const reference = await Qwen3.load(folder, { engine: "reference" });
  expect(reference.config.numHiddenLayers).toBe(28);
  const logits = reference.newSession().forward(IDS);
  expect(logits.length).toBe(151_936);
  const error = nmse(logits, float64Logits(reference, IDS));
  console.log(
    `NMSE ${error.toExponential(2)}, ${(error / REFERENCE_NMSE).toFixed(2)} times the reference implementation's`,
  );
  expectAtMost(error, 4 * REFERENCE_NMSE, "NMSE of the logits");

  for (const threads of [1, 2]) {
    const fast = await Qwen3.load(folder, { engine: "wasm", threads });
    expectSameBits(fast.newSession().forward(IDS), logits);
    const session = fast.newSession();
    const steps = IDS.map(id => session.forward([id]));
    expectSameBits(steps[IDS.length - 1], logits);
    fast.close();
  }
});

test("quantised at load, the same bits on both engines, saved or not", async () => {
  const reference = await Qwen3.load(folder, { engine: "reference", weights: "int8" });
  const logits = reference.newSession().forward(IDS);
  for (const threads of [1, 2]) {
    const fast = await Qwen3.load(folder, { engine: "wasm", threads, weights: "int8" });
    expectSameBits(fast.newSession().forward(IDS), logits);
    fast.close();
  }
  for (const weights of QUANTISED_SCHEMES) {
    const bits = [];
    for (const options of [{ weights }, {}]) {
      const model = await Qwen3.load(options.weights ? folder : savedAs(weights), options);
      bits.push(model.newSession().forward(IDS));
      model.close();
    }
    expectSameBits(bits[1], bits[0]);
    if (weights === "int8") expectSameBits(bits[0], logits);
  }
});

test.runIf(RUNTIMES.length > 0)(
  "saved int8 and int4 load with the bits of quantising at load on every runtime: Node's versions, Deno, Bun",
  () => {
    const { user } = installPackage(folder);
    const program = join(user, "bits.js");
    writeFileSync(
      program,
      `import { createHash } from "node:crypto";
       import { Qwen3 } from "qwen3guard/model";
       const [folder, weights] = process.argv.slice(2);
       const model = await Qwen3.load(folder, { weights });
       const logits = model.newSession().forward(${JSON.stringify(IDS)});
       console.log(createHash("sha256").update(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength)).digest("hex"));
       model.close();`,
    );
    const bits = (runtime: string, checkpoint: string, weights: string): string => {
      const run = basename(runtime) === "deno" ? ["run", "--allow-all"] : [];
      return execFileSync(runtime, [...run, program, checkpoint, weights], { cwd: user, encoding: "utf8" });
    };
    for (const weights of QUANTISED_SCHEMES) {
      const expected = bits(process.execPath, folder, weights);
      for (const runtime of RUNTIMES) {
        expect([runtime, bits(runtime, folder, weights), bits(runtime, savedAs(weights), "auto")]).toEqual([
          runtime,
          expected,
          expected,
        ]);
      }
    }
  },
);

test("the cache of the full context, 7.5 GB, lies in several memories, and its last positions attend correctly", async () => {
  const shape = { numLayers: 28, numHeads: 16, numKvHeads: 8, headDim: 128, maxPositions: 32_768 };
  const rows = 4;
  const start = shape.maxPositions - rows;
  const [q, keys, values] = [noise(rows * 16 * 128, 1, 2), noise(rows * 8 * 128, 2, 2), noise(rows * 8 * 128, 3)];
  const attend = (engine: Engine, cache: KvCache, layer: number): Float32Array =>
    inScope(engine, () => {
      const buffer = (data: Float32Array): FloatBuffer => {
        const made = engine.buffer(rows, data.length / rows);
        made.data.set(data);
        return made;
      };
      const out = engine.buffer(rows, 16 * 128);
      cache.store(layer, start, buffer(keys), buffer(values));
      cache.attentionInto(out, buffer(q), layer, start);
      return out.data.slice(0, rows * 16 * 128);
    });
  const reference = new ReferenceEngine();
  const one = reference.newCache({ ...shape, numLayers: 1 });
  one.reserve(shape.maxPositions);
  const expected = attend(reference, one, 0);

  const engine = await createEngine({ engine: "wasm", threads: 2 });
  const cache = engine.newCache(shape);
  cache.reserve(shape.maxPositions);
  for (const layer of [0, 13, 27]) expectSameBits(attend(engine, cache, layer), expected);
  engine.close();
});
