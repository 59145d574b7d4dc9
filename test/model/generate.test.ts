import { describe, expect, test } from "vitest";
import type { Draft, GenerateOptions } from "../../src/model/generate.ts";
import { GEN, loadModel, ODD } from "../checkpoints.ts";
import { expectSameBits } from "../helpers.ts";

const PROMPT = [121, 303, 278, 66];

describe("when generation ends", () => {
  test("at a stop id, which belongs to the answer", async () => {
    const model = await loadModel(ODD);
    const free = await model.generate(PROMPT, { maxNewTokens: 12, stopIds: [] });
    expect([free.ids.length, free.finishReason]).toEqual([12, "length"]);
    const stopped = await model.generate(PROMPT, { maxNewTokens: 12, stopIds: [free.ids[5]] });
    const at = free.ids.indexOf(free.ids[5]);
    expect(stopped).toEqual({ ids: free.ids.slice(0, at + 1), finishReason: "stop" });
  });

  test("at the end of the context: the last id is yielded, and not run", async () => {
    const model = await loadModel(ODD); // 512 positions
    const prompt = Array.from({ length: 511 }, (_, i) => i % 300);
    const { ids, finishReason } = await model.generate(prompt, { stopIds: [] });
    expect([ids.length, finishReason]).toEqual([2, "length"]);
    expect((await model.generate([...prompt, 1], { stopIds: [] })).ids.length).toBe(1);
    await expect(model.generate([...prompt, 1, 2])).rejects.toThrow(
      "prompt too long: expected at most 512 tokens, got 513",
    );
  });

  test("by default at the checkpoint's own stop ids, after 128 ids at most", async () => {
    const model = await loadModel(ODD);
    const { ids, finishReason } = await model.generate(PROMPT);
    if (finishReason === "stop") expect(model.config.stopIds).toContain(ids.at(-1));
    else expect(ids.length).toBe(128);
  });
});

describe("while it runs", () => {
  test("an abort is heard between two ids, and the event loop gets turns", async () => {
    const model = await loadModel(GEN, { engine: "reference" });
    const controller = new AbortController();
    const reason = new Error("enough");
    setTimeout(() => controller.abort(reason), 60);
    const seen: number[] = [];
    const run = async (): Promise<void> => {
      for await (const { id } of model.generateSteps([1, 2, 3], {
        maxNewTokens: 100_000,
        stopIds: [],
        signal: controller.signal,
      }))
        seen.push(id);
    };
    await expect(run()).rejects.toBe(reason);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.length).toBeLessThan(2000);
  });

  test("it ends when nobody listens any more, and the caller's session stays usable", async () => {
    const model = await loadModel(ODD);
    const session = model.newSession();
    for await (const { id } of model.generateSteps(PROMPT, { stopIds: [] }, session)) {
      expect(id).toBeGreaterThanOrEqual(0);
      if (session.position >= PROMPT.length + 2) break;
    }
    expect(session.position).toBe(PROMPT.length + 2);
    session.forward([1]);
  });
});

describe("options that cannot be honoured are refused", () => {
  test.each<[object, string]>([
    [{ maxNewTokens: 0 }, "maxNewTokens: expected an integer of at least 1, got 0"],
    [{ maxNewTokens: 1.5 }, "got 1.5"],
    [
      { maxTokens: 5 },
      'generate: expected options among maxNewTokens, stopIds, signal, turn, draft, temperature, topK, topP, seed, got "maxTokens"',
    ],
    [{ temperature: "1" }, "temperature: expected a number, got string"],
    [{ temperature: -1 }, "temperature: expected a number of at least 0, got -1"],
  ])("%j", async (options, message) => {
    const model = await loadModel(ODD);
    await expect(model.generate(PROMPT, options)).rejects.toThrow(message);
  });

  test("no prompt", async () => {
    await expect((await loadModel(ODD)).generate([])).rejects.toThrow("ids: expected at least one id, got none");
  });
});

describe("a draft changes the number of passes and nothing else", () => {
  const collect = async (folder: string, prompt: readonly number[], options: GenerateOptions) => {
    const model = await loadModel(folder);
    const session = model.newSession();
    const [ids, logits, passes]: [number[], Float32Array[], number[]] = [[], [], []];
    const steps = model.generateSteps(prompt, options, session);
    let step = await steps.next();
    for (; !step.done; step = await steps.next()) {
      ids.push(step.value.id);
      logits.push(step.value.logits);
      passes.push(step.value.pass);
    }
    return { ids, logits, passes, reason: step.value, position: session.position };
  };
  /** Right `right` times in a row, then wrong once. */
  const draftOf =
    (answer: readonly number[], right: number): Draft =>
    got => {
      const rest = answer.slice(got.length, got.length + right);
      return [...rest, ((answer[got.length + right] ?? 0) + 1) % 331, 5, 6];
    };

  test.each([0, 1, 2, 5, 40])("a guess that is right %i times in a row", async right => {
    for (const options of [
      { maxNewTokens: 30, stopIds: [] },
      { maxNewTokens: 30, stopIds: [], temperature: 0.8, seed: 5 },
      { maxNewTokens: 7, stopIds: [] },
      { maxNewTokens: 1, stopIds: [] },
    ]) {
      const plain = await collect(ODD, PROMPT, options);
      const drafted = await collect(ODD, PROMPT, { ...options, draft: draftOf(plain.ids, right) });
      expect(drafted.ids).toEqual(plain.ids);
      for (const [i, logits] of drafted.logits.entries()) expectSameBits(logits, plain.logits[i]);
      expect([drafted.reason, drafted.position]).toEqual([plain.reason, plain.position]);
      expect(plain.passes.at(-1)).toBe(plain.ids.length);
      expect(drafted.passes.at(-1)).toBe(Math.ceil(plain.ids.length / (right + 1)));
    }
  });

  test("a stop id ends the answer anywhere in a guess, and at the end of the context there is no room to guess", async () => {
    const free = await collect(ODD, PROMPT, { maxNewTokens: 12, stopIds: [] });
    const options = { maxNewTokens: 12, stopIds: [free.ids[4]] };
    const plain = await collect(ODD, PROMPT, options);
    for (const draft of [draftOf(free.ids, 10), draftOf(plain.ids, 3)]) {
      const { ids, reason, position } = await collect(ODD, PROMPT, { ...options, draft });
      expect([ids, reason, position]).toEqual([plain.ids, "stop", plain.position]);
    }
    for (const length of [505, 510, 511, 512]) {
      const prompt = Array.from({ length }, (_, i) => i % 300); // of 512 positions
      const { ids, reason } = await collect(ODD, prompt, { stopIds: [] });
      expect(await collect(ODD, prompt, { stopIds: [], draft: draftOf(ids, 20) })).toMatchObject({ ids, reason });
    }
  });

  test("the next guess sees what was refused: the logits after the wrong id", async () => {
    const model = await loadModel(ODD);
    const seen: number[] = [];
    const draft: Draft = (answer, refused) => {
      seen.push(refused.length);
      return answer.length === 0 ? [1, 2, 3, 4] : [];
    };
    const plain = await model.generate(PROMPT, { maxNewTokens: 3, stopIds: [] });
    expect(plain.ids[0]).not.toBe(1);
    expect((await model.generate(PROMPT, { maxNewTokens: 5, stopIds: [], draft })).ids.slice(0, 3)).toEqual(plain.ids);
    expect(seen).toEqual([0, 4, 0, 0, 0]);
  });
});
