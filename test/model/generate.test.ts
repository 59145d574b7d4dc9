import { describe, expect, test } from "vitest";
import { GEN, loadModel, ODD } from "../checkpoints.ts";

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

  test("at the end of the context: the last id is given, and not run", async () => {
    const model = await loadModel(ODD); // 512 positions
    const prompt = Array.from({ length: 511 }, (_, i) => i % 300);
    const { ids, finishReason } = await model.generate(prompt, { stopIds: [] });
    expect([ids.length, finishReason]).toEqual([2, "length"]);
    expect((await model.generate([...prompt, 1], { stopIds: [] })).ids.length).toBe(1);
    await expect(model.generate([...prompt, 1, 2])).rejects.toThrow("prompt too long: expected at most 512 tokens, got 513");
  });

  test("by default at the checkpoint's own stop ids, after 128 ids at most", async () => {
    const model = await loadModel(ODD);
    const { ids, finishReason } = await model.generate(PROMPT);
    if (finishReason === "stop") expect(model.config.stopIds).toContain(ids.at(-1));
    else expect(ids.length).toBe(128);
  });
});

describe("while it runs", () => {
  test("an abort is heard between two ids, and the event loop gets its turns", async () => {
    const model = await loadModel(GEN, { engine: "reference" });
    const controller = new AbortController();
    const reason = new Error("enough");
    setTimeout(() => controller.abort(reason), 60);
    const seen: number[] = [];
    const run = async (): Promise<void> => {
      for await (const { id } of model.generateSteps([1, 2, 3], { maxNewTokens: 100_000, stopIds: [], signal: controller.signal }))
        seen.push(id);
    };
    await expect(run()).rejects.toBe(reason);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.length).toBeLessThan(2000);
  });

  test("one who stops listening ends it, and the session of the caller stays usable", async () => {
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
    [{ maxTokens: 5 }, 'generate: expected options among maxNewTokens, stopIds, signal, temperature, topK, topP, seed, got "maxTokens"'],
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
