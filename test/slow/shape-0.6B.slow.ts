/**
 * The engine at the size of the real 0.6B guard: a seeded random checkpoint of that shape, written on the spot, loads and gives correct
 * logits. About a minute and 2.5 GB of disk and memory; `npm run test:slow`.
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Qwen3 } from "../../src/model/qwen3.ts";
import { expectAtMost, expectSameBits, nmse, projectPath } from "../helpers.ts";
import { float64Logits } from "../model/float64-forward.ts";

const IDS = [785, 6722, 315, 9625, 374, 12095, 13, 151644];

/**
 * NMSE of PyTorch 2.13's own float32 forward on this checkpoint and these ids, against float64 (tools/reference/truth.py). Ours may be four
 * times that.
 */
const REFERENCE_NMSE = 1.77e-12;

const folder = mkdtempSync(join(tmpdir(), "qwen3guard-0.6B-"));

beforeAll(() => {
  execFileSync(process.execPath, [projectPath("tools/random-checkpoint.ts"), folder, "--shape", "0.6B"], { stdio: "inherit" });
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a 0.6B-shaped checkpoint gives correct logits for 8 ids, whole and one by one", async () => {
  const model = await Qwen3.load(folder);
  expect(model.config.numHiddenLayers).toBe(28);
  const logits = model.newSession().forward(IDS);
  expect(logits.length).toBe(151_936);
  const truth = float64Logits(model, IDS);
  expectAtMost(nmse(logits, truth), 4 * REFERENCE_NMSE, "NMSE of the logits");

  const session = model.newSession();
  const steps = IDS.map(id => session.forward([id]));
  expectSameBits(steps[IDS.length - 1], logits);
});
