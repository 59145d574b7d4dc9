/**
 * The forward pass is about as near to the float64 truth as the reference implementation's own float32 run
 * (docs/ARITHMETIC.md: at most 16 times its NMSE, for each tap and the logits), and greedy answers are the reference's,
 * id for id.
 */

import { describe, expect, test } from "vitest";
import { bytesFromFile } from "../../src/checkpoint/bytes.node.ts";
import { SafetensorsFile } from "../../src/checkpoint/safetensors.ts";
import { GEN, loadModel, ODD, STREAM } from "../checkpoints.ts";
import { expectAtMost, nmse, projectPath, readJson, readJsonLines } from "../helpers.ts";

/** Ours may have four times the amplitude of the reference's own error. */
const NMSE_FACTOR = 16;

/** A step whose two best logits are nearer than this is a declared near-tie. */
const NEAR_TIE = 1e-3;

describe.each([
  ["tiny-guard-gen", GEN],
  ["tiny-guard-stream", STREAM],
  ["odd", ODD],
])("%s", (name, folder) => {
  test("every tap is as near to the truth as the reference", async () => {
    const golden = readJson<{ ids: number[]; float32_nmse: Record<string, number> }>(`test/goldens/${name}/taps.json`);
    const file = await SafetensorsFile.open(await bytesFromFile(projectPath(`test/goldens/${name}/taps.safetensors`)));
    const truth = await file.readAll();
    await file.close();
    const seen: string[] = [];
    (await loadModel(folder)).newSession().forward(golden.ids, {
      logits: "all",
      tap: (tap, data, shape) => {
        const expected = truth.get(tap);
        if (!expected) return expect.fail(`tap ${tap} has no golden`);
        seen.push(tap);
        expect(shape, tap).toEqual(expected.shape);
        expectAtMost(nmse(data, expected.toFloat32()), NMSE_FACTOR * golden.float32_nmse[tap], tap);
      },
    });
    expect(seen.sort()).toEqual([...truth.keys()].sort());
  });

  test("the last position's logits are as near to the truth as the reference's, at every length", async () => {
    const model = await loadModel(folder);
    for (const { ids, top, float32_nmse } of readJsonLines<{
      ids: number[];
      top: [number, number][];
      float32_nmse: number;
    }>(`test/goldens/${name}/logits.jsonl`)) {
      const logits = model.newSession().forward(ids);
      const at = top.map(([id]) => logits[id]);
      expectAtMost(
        nmse(
          at,
          top.map(([, logit]) => logit),
        ),
        NMSE_FACTOR * float32_nmse,
        `${ids.length} ids`,
      );
      const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
      for (let i = 0; i < 9; i++) {
        if (top[i][1] - top[i + 1][1] > NEAR_TIE)
          expect(order.slice(0, i + 1).sort()).toEqual(
            top
              .slice(0, i + 1)
              .map(([id]) => id)
              .sort(),
          );
      }
    }
  });
});

test("greedy answers of tiny-guard-gen are the reference's, id for id", async () => {
  const model = await loadModel(GEN);
  const goldens = readJsonLines<{ prompt_ids: number[]; ids: number[]; margins: number[] }>(
    "test/goldens/tiny-guard-gen/generate.jsonl",
  );
  expect(goldens.length).toBe(56);
  // Prompts of one kind share long beginnings. Continuing from them gives the same bits as starting anew
  // (equivalences.test.ts), sooner.
  goldens.sort((a, b) => a.prompt_ids[12] - b.prompt_ids[12]);
  const session = model.newSession();
  let fed: number[] = [];
  for (const golden of goldens) {
    const prompt = golden.prompt_ids;
    let shared = 0;
    while (shared < prompt.length - 1 && shared < fed.length && prompt[shared] === fed[shared]) shared++;
    session.truncate(shared);
    const ids: number[] = [];
    for await (const { id } of model.generateSteps(prompt.slice(shared), {}, session)) ids.push(id);
    fed = [...prompt, ...ids.slice(0, -1)];
    expect(session.position).toBe(fed.length);

    // After a near-tie the two may rightly differ.
    const tie = golden.margins.findIndex(margin => !(margin > NEAR_TIE));
    if (tie < 0) expect(ids).toEqual(golden.ids);
    else expect(ids.slice(0, tie)).toEqual(golden.ids.slice(0, tie));
  }
});

describe("the Stream heads", () => {
  interface Reading {
    readonly risk_level: string;
    readonly risk_prob: number;
    readonly category: string;
    readonly category_prob: number;
  }

  test("read the goldens' levels and categories at every position, probabilities within 1e-4", async () => {
    const model = await loadModel(STREAM);
    const heads = model.config.guardHeads;
    if (!heads) return expect.fail("no heads");
    const best = (
      scores: Float32Array,
      row: number,
      labels: readonly string[],
    ): [label: string, probability: number] => {
      const logits = scores.subarray(row * labels.length, (row + 1) * labels.length);
      const max = logits.reduce((a, b) => Math.max(a, b));
      const sum = logits.reduce((total, x) => total + Math.exp(x - max), 0);
      return [labels[logits.indexOf(max)], 1 / sum];
    };
    for (const golden of readJsonLines<{ ids: number[]; user_end: number; query: Reading; response: Reading[] }>(
      "test/goldens/tiny-guard-stream/stream.jsonl",
    )) {
      const taps = new Map<string, Float32Array>();
      model.newSession().forward(golden.ids, { logits: 0, tap: (name, data) => taps.set(name, data.slice()) });
      const check = (
        row: number,
        prefix: string,
        levels: readonly string[],
        categories: readonly string[],
        expected: Reading,
      ): void => {
        const [level, levelProbability] = best(taps.get(`${prefix}risk_level`) as Float32Array, row, levels);
        const [category, categoryProbability] = best(taps.get(`${prefix}category`) as Float32Array, row, categories);
        expect([level, category]).toEqual([expected.risk_level, expected.category]);
        expectAtMost(Math.abs(levelProbability - expected.risk_prob), 1e-4, "risk_prob");
        expectAtMost(Math.abs(categoryProbability - expected.category_prob), 1e-4, "category_prob");
      };
      check(golden.user_end, "query_", heads.queryRiskLevels, heads.queryCategories, golden.query);
      expect(golden.response.length).toBe(golden.ids.length - golden.user_end - 1);
      golden.response.forEach((reading, i) => {
        check(golden.user_end + 1 + i, "", heads.responseRiskLevels, heads.responseCategories, reading);
      });
    }
  });
});
