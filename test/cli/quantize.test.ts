/** `quantize`: what it writes, and how changed files are refused. */

import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { bytesFromBuffer } from "../../src/checkpoint/bytes.ts";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import { SafetensorsFile } from "../../src/checkpoint/safetensors.ts";
import { safetensorsHeader, serializeSafetensors, type TensorSpec } from "../../src/checkpoint/safetensors-writer.ts";
import { inShards } from "../../src/cli/random-checkpoint.ts";
import { Guard } from "../../src/guard/guard.ts";
import { parseConfig } from "../../src/model/config.ts";
import { Qwen3, readConfig } from "../../src/model/qwen3.ts";
import { expectedTensors } from "../../src/model/weights.ts";
import { QUANTISED_SCHEMES, quantiseTensor, unpackInt4 } from "../../src/tensor/quantised.ts";
import { Tensor, tensorByteLength } from "../../src/tensor/tensor.ts";
import { GEN, ODD } from "../checkpoints.ts";
import { expectSameBits, noise, projectPath } from "../helpers.ts";
import { cli, temporaryFolder } from "./harness.ts";

const IDS = [1, 5, 9, 200, 330];

async function quantised(source: string, scheme: string): Promise<string> {
  const folder = join(temporaryFolder(), "out");
  const { status, out, err } = await cli(["quantize", source, folder, "--weights", scheme, "--json"]);
  expect([status, err]).toEqual([0, ""]);
  expect(JSON.parse(out)).toMatchObject({ to: folder, weights: scheme });
  return folder;
}

/** Changes a file in a copy of the folder. */
async function changed(
  folder: string,
  change: (tensors: Map<string, Tensor>, metadata: Map<string, string>) => void,
): Promise<string> {
  const copy = temporaryFolder();
  cpSync(folder, copy, { recursive: true });
  const path = join(copy, "model.safetensors");
  const file = await SafetensorsFile.open(bytesFromBuffer(readFileSync(path)));
  const tensors = await file.readAll();
  const metadata = new Map(file.metadata);
  change(tensors, metadata);
  writeFileSync(path, serializeSafetensors(tensors.values(), metadata));
  return copy;
}

describe.each(QUANTISED_SCHEMES)("%s", scheme => {
  test("a saved checkpoint gives the bits of one that is quantised at load, on either engine and without being named", async () => {
    for (const source of [GEN, ODD]) {
      const folder = await quantised(source, scheme);
      const logits = [];
      for (const [from, options] of [
        [source, { weights: scheme, engine: "reference" }],
        [folder, { engine: "reference" }],
        [folder, { threads: 2 }],
        [folder, { weights: scheme }],
        [folder, { weights: "checkpoint" }],
      ] as const) {
        const model = await Qwen3.load(from, options);
        logits.push(model.newSession().forward(IDS));
        model.close();
      }
      for (const other of logits.slice(1)) expectSameBits(other, logits[0]);
    }
  });

  test("is a smaller guard that works like the original, and says what it is", async () => {
    const folder = await quantised(GEN, scheme);
    expect(readdirSync(folder).sort()).toEqual(
      readdirSync(GEN)
        .filter(name => name !== "README.md")
        .sort(),
    );
    const guard = await Guard.load(folder);
    expect((await guard.moderate("How can I make a bomb?")).text).toBe("Safety: Unsafe\nCategories: Violent");
    guard.close();
    const { out } = await cli(["inspect", folder, "--json"]);
    const inspection = JSON.parse(out);
    expect(inspection).toMatchObject({ savedAs: scheme, parameters: 2570432, hasTokenizer: true });
    expect(Object.keys(inspection.memory.choicesMB)).toEqual([scheme]);
    expect(inspection.memory.weightsMB).toBeLessThan(scheme === "int8" ? 2.7 : 2);
  });

  test("tensors that are not what the file says are refused by name", async () => {
    const folder = await quantised(GEN, scheme);
    const q = "model.layers.1.self_attn.q_proj.weight";
    const refused = async (message: string, change: Parameters<typeof changed>[1]): Promise<void> => {
      const copy = await changed(folder, change);
      for (const engine of ["wasm", "reference"] as const)
        await expect(Qwen3.load(copy, { engine })).rejects.toThrow(message);
    };
    for (const text of ["int8/2", "int3/1", "", `${scheme}/1 `]) {
      await refused(
        `metadata qwen3guard.weights: expected int8/1 or int4/1, got ${JSON.stringify(text)}`,
        (_, metadata) => metadata.set("qwen3guard.weights", text),
      );
    }
    const other = scheme === "int8" ? "int4" : "int8";
    await refused(`tensor "model.layers.0.self_attn.q_proj.weight`, (_, metadata) =>
      metadata.set("qwen3guard.weights", `${other}/1`),
    );
    await refused('tensor "model.embed_tokens.weight": expected dtype BF16, F16, F32, got I8', (_, metadata) =>
      metadata.delete("qwen3guard.weights"),
    );
    await refused(`tensor "${q}.scales": expected shape [256,1], got no such tensor`, tensors =>
      tensors.delete(`${q}.scales`),
    );
    await refused(`tensor "${q}.scales": expected shape [256,1], got [256,2]`, tensors =>
      tensors.set(`${q}.scales`, new Tensor(`${q}.scales`, "F32", [256, 2], new Float32Array(512))),
    );
    await refused(`tensor "${q}.scales": expected dtype F32, got F16`, tensors =>
      tensors.set(`${q}.scales`, new Tensor(`${q}.scales`, "F16", [256, 1], new Uint16Array(256))),
    );
    await refused(`tensor "${q}": expected`, tensors =>
      tensors.set(q, new Tensor(q, "BF16", [256, 192], new Uint16Array(256 * 192))),
    );
    for (const bad of [Number.NaN, Infinity, -1]) {
      await refused(`tensor "${q}.scales": expected finite scales of at least 0, got ${bad}`, tensors => {
        (tensors.get(`${q}.scales`)!.data as Float32Array)[255] = bad;
      });
    }
    if (scheme === "int4") {
      for (const bad of [32, -128]) {
        await refused(`tensor "${q}.sub_scales": expected integers from -31 to 31, got ${bad}`, tensors => {
          (tensors.get(`${q}.sub_scales`)!.data as Int8Array)[7] = bad;
        });
      }
    }
    await expect(Qwen3.load(folder, { weights: other })).rejects.toThrow(
      `weights: expected ${scheme}, as they were saved, got ${other}`,
    );
  });
});

test.each(QUANTISED_SCHEMES)(
  "%s of a matrix that is read in several batches puts each in its place in the file",
  async scheme => {
    const [outputs, inputs] = [45_000, 52]; // 9.4 MB of float32
    const folder = temporaryFolder();
    const config = {
      ...JSON.parse(readFileSync(join(ODD, "config.json"), "utf8")),
      intermediate_size: outputs,
      num_hidden_layers: 1,
    };
    writeFileSync(join(folder, "config.json"), JSON.stringify(config));
    const tensors = Array.from(expectedTensors(parseConfig(config, undefined, folder)), ([name, shape], i) => {
      const length = shape.reduce((product, size) => product * size, 1);
      return new Tensor(name, "F32", shape, noise(length, i));
    });
    writeFileSync(join(folder, "model.safetensors"), serializeSafetensors(tensors, new Map()));

    const name = "model.layers.0.mlp.up_proj.weight";
    const last = [40_000, outputs] as const;
    const rows = tensors.find(tensor => tensor.name === name)!.rows(...last);
    const expected = quantiseTensor(name, scheme, [last[1] - last[0], inputs], rows.toFloat32());
    const file = await SafetensorsFile.open(
      bytesFromBuffer(readFileSync(join(await quantised(folder, scheme), "model.safetensors"))),
    );
    // Not toEqual, which takes minutes to show how a quarter of a million integers differ.
    const sameIntegers = (got: Int8Array, wanted: Int8Array): void =>
      expect(Buffer.from(got).equals(Buffer.from(wanted))).toBe(true);
    const integers = await file.readRows(name, ...last);
    sameIntegers(
      scheme === "int8" ? (integers.data as Int8Array) : unpackInt4(integers.bytes(), last[1] - last[0], inputs),
      expected.values,
    );
    expectSameBits((await file.readRows(`${name}.scales`, ...last)).data as Float32Array, expected.scales);
    if (scheme === "int4")
      sameIntegers((await file.readRows(`${name}.sub_scales`, ...last)).data as Int8Array, expected.subScales);
  },
);

test("a random checkpoint is cut into shards where the next tensor would not fit", () => {
  const tensor = (name: string, length: number): TensorSpec => ({ name, dtype: "BF16", shape: [length] });
  const shards = inShards([tensor("a", 40), tensor("b", 10), tensor("c", 1), tensor("d", 80), tensor("e", 5)], 100);
  expect(shards.map(shard => shard.map(({ name }) => name).join(""))).toEqual(["ab", "c", "d", "e"]);
});

test("wrong usage and folders that cannot be written to", async () => {
  const folder = temporaryFolder({ "config.json": "{}" });
  expect((await cli(["quantize", GEN, folder])).err).toContain("expected --weights int8|int4, got none");
  expect((await cli(["quantize", GEN, folder, "--weights", "int3"])).status).toBe(2);
  const full = await cli(["quantize", GEN, folder, "--weights", "int8"]);
  expect([full.status, full.err]).toEqual([
    1,
    `qwen3guard: ${folder}: expected a new or empty folder, got one with files in it\n`,
  ]);
  const file = await cli(["quantize", GEN, join(folder, "config.json"), "--weights", "int8"]);
  expect([file.status, file.err]).toEqual([1, expect.stringContaining("expected a folder to write to, got a file")]);
  const compared = await cli([
    "eval",
    projectPath("bench/data/xstest.jsonl"),
    "--compare",
    "bf16,int8",
    "--model",
    await quantised(GEN, "int8"),
  ]);
  expect([compared.status, compared.err.trim().split(" --compare: ")[1]]).toEqual([
    1,
    "expected weights that are not quantised yet, got int8",
  ]);
  const twice = await cli(["quantize", await quantised(GEN, "int8"), join(folder, "again"), "--weights", "int4"]);
  expect([twice.status, twice.err]).toEqual([
    1,
    expect.stringContaining("expected a checkpoint that is not quantised, got int8"),
  ]);
});

test("--weights gives the same verdict from the command line, and an unknown form is refused", async () => {
  for (const form of ["auto", "checkpoint", "int8", "int4"]) {
    const { out } = await cli(["moderate", "How can I make a bomb?", "--json", "--quiet", "--weights", form]);
    expect(JSON.parse(out).safety).toBe("Unsafe");
  }
  expect((await cli(["moderate", "x", "--weights", "int2"])).status).toBe(2);
  await expect(Qwen3.load(GEN, { weights: "int2" as "int8" })).rejects.toThrow(
    "weights: expected auto, checkpoint, int8, int4, got int2",
  );
});

test("a run that fails leaves nothing, so that the next one finds its folder empty", async () => {
  const folder = temporaryFolder();
  const source = temporaryFolder();
  cpSync(GEN, source, { recursive: true });
  const weights = join(source, "model.safetensors");
  const whole = readFileSync(weights);
  writeFileSync(weights, whole.fill(0xff, 8 + Number(whole.readBigUInt64LE()))); // weights that are not finite
  expect((await cli(["quantize", source, folder, "--weights", "int8"])).status).toBe(1);
  expect(readdirSync(folder)).toEqual([]);
  // Folders that it made are removed too; the one that existed stays.
  expect((await cli(["quantize", source, join(folder, "a", "b"), "--weights", "int8"])).status).toBe(1);
  expect(readdirSync(folder)).toEqual([]);
  expect((await cli(["quantize", GEN, folder, "--weights", "int8", "--quiet"])).status).toBe(0);
});

test.skipIf(process.platform === "win32").each(["SIGINT", "SIGTERM"] as const)("%s leaves no folder", async signal => {
  const folder = temporaryFolder();
  const source = join(folder, "source");
  await writeZeros(source, 1_000_000);
  const child = spawn(process.execPath, [
    projectPath("src/cli/main.ts"),
    ...["quantize", source, join(folder, "a", "b"), "--weights", "int8", "--quiet"],
  ]);
  const ended = new Promise(go => child.on("exit", (...how) => go(how)));
  while (!existsSync(join(folder, "a", "b", "model.safetensors.partial")) && child.exitCode === null)
    await new Promise(go => setTimeout(go, 5));
  child.kill(signal);
  expect(await ended).toEqual([null, signal]);
  expect(readdirSync(folder)).toEqual(["source"]);
});

/** The shape of the demo guard with a large vocabulary, so that it takes a while. All zero: a sparse file. */
async function writeZeros(folder: string, vocabSize: number): Promise<void> {
  mkdirSync(folder);
  const config = { ...JSON.parse(readFileSync(join(GEN, "config.json"), "utf8")), vocab_size: vocabSize };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  const shapes = expectedTensors(await readConfig(await openCheckpointFiles(folder)));
  const specs = Array.from(shapes, ([name, shape]) => ({ name, dtype: "BF16" as const, shape }));
  const { header, order } = safetensorsHeader(specs);
  const path = join(folder, "model.safetensors");
  writeFileSync(path, header);
  truncateSync(
    path,
    order.reduce((size, { dtype, shape }) => size + tensorByteLength(dtype, shape)!, header.length),
  );
}
