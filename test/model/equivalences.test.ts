/** One arithmetic: every way of computing gives the same bits. No golden and no tolerance here. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Session } from "../../src/model/session.ts";
import { GEN, loadModel, ODD, STREAM } from "../checkpoints.ts";
import { expectSameBits } from "../helpers.ts";

const IDS = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) % 331);

/** Feeds `ids` in the given pieces and returns the logits of every position. */
function feed(session: Session, ids: readonly number[], cuts: readonly number[], vocab: number): Float32Array {
  const out = new Float32Array(ids.length * vocab);
  let from = 0;
  for (const to of [...cuts, ids.length]) {
    if (to <= from) continue;
    out.set(session.forward(ids.slice(from, to), { logits: "all" }), from * vocab);
    from = to;
  }
  return out;
}

describe("the Stream heads", () => {
  test("say the same whole, token by token and in any chunks, and it is what the taps say", async () => {
    const model = await loadModel(STREAM);
    const taps = new Map<string, Float32Array>();
    model.newSession().forward(IDS, { logits: 0, tap: (name, data) => taps.set(name, data.slice()) });
    for (const [head, prefix] of [
      ["response", ""],
      ["query", "query_"],
    ] as const) {
      for (const size of [1, 2, 7, IDS.length]) {
        const session = model.newSession();
        const levels: number[] = [];
        const categories: number[] = [];
        for (let from = 0; from < IDS.length; from += size) {
          const { riskLevel, category } = await session.classify(IDS.slice(from, from + size), head);
          levels.push(...riskLevel);
          categories.push(...category);
        }
        expectSameBits(Float32Array.from(levels), taps.get(`${prefix}risk_level`) as Float32Array);
        expectSameBits(Float32Array.from(categories), taps.get(`${prefix}category`) as Float32Array);
        expect(session.position).toBe(IDS.length);
      }
    }
  });

  test("a prompt of several pieces gives what one pass gives", async () => {
    const model = await loadModel(STREAM);
    const ids = Array.from({ length: 150 }, (_, i) => (i * 53 + 7) % 331);
    const taps = new Map<string, Float32Array>();
    model.newSession().forward(ids, { logits: 0, tap: (name, data) => taps.set(name, data.slice()) });
    const { riskLevel, category } = await model.newSession().classify(ids, "query");
    expectSameBits(riskLevel, taps.get("query_risk_level") as Float32Array);
    expectSameBits(category, taps.get("query_category") as Float32Array);
  });

  test("a checkpoint without them is an error", async () => {
    const session = (await loadModel(GEN)).newSession();
    await expect(session.classify([1], "query")).rejects.toThrow(
      "classify: expected a Stream guard's checkpoint, got one without guard heads",
    );
  });
});

describe.each([
  ["tiny-guard-gen", GEN, "auto"],
  ["tiny-guard-gen", GEN, "int8"],
  ["tiny-guard-gen", GEN, "int4"],
  ["odd", ODD, "auto"],
  ["odd", ODD, "int8"],
  ["odd", ODD, "int4"],
] as const)("%s, %3$s", (_, folder, weights) => {
  test("token by token, any chunking and the whole prompt give the same logits at every position", async () => {
    const model = await loadModel(folder, { weights });
    const vocab = model.config.vocabSize;
    const whole = feed(model.newSession(), IDS, [], vocab);
    expectSameBits(feed(model.newSession(), IDS, [...IDS.keys()], vocab), whole);
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: IDS.length - 1 }), { maxLength: 6 }), cuts => {
        expectSameBits(
          feed(
            model.newSession(),
            IDS,
            cuts.sort((a, b) => a - b),
            vocab,
          ),
          whole,
        );
      }),
      { seed: 1, numRuns: 12 },
    );
  });

  test("rolling back and continuing differently leaves no trace of what was rolled back", async () => {
    const model = await loadModel(folder, { weights });
    const clean = model.newSession().forward(IDS);
    const session = model.newSession();
    session.forward(IDS.slice(0, 20));
    session.forward([1, 2, 3, 4, 5]);
    session.truncate(20);
    expectSameBits(session.forward(IDS.slice(20)), clean);
    expect(session.position).toBe(IDS.length);
  });

  test("sessions that take turns do not disturb each other", async () => {
    const model = await loadModel(folder, { weights });
    const [a, b] = [model.newSession(), model.newSession()];
    const reversed = [...IDS].reverse();
    for (let i = 0; i < 10; i++) {
      a.forward([IDS[i]], { logits: 0 });
      b.forward([reversed[i]], { logits: 0 });
    }
    expectSameBits(a.forward(IDS.slice(10)), model.newSession().forward(IDS));
    expectSameBits(b.forward(reversed.slice(10)), model.newSession().forward(reversed));
  });

  test("the last row of all logits is the last id's logits, and taps change nothing", async () => {
    const model = await loadModel(folder, { weights });
    const vocab = model.config.vocabSize;
    const all = model.newSession().forward(IDS, { logits: "all", tap: () => {} });
    expectSameBits(model.newSession().forward(IDS), all.slice(-vocab));
    expect(model.newSession().forward(IDS, { logits: 0 }).length).toBe(0);
  });
});

test("a prompt longer than a piece of prefill is the same bits as one pass", async () => {
  const model = await loadModel(GEN);
  const ids = Array.from({ length: 600 }, (_, i) => (i * 131) % 4000);
  expectSameBits(await model.newSession().prefill(ids), model.newSession().forward(ids));
});

describe("engines and threads", () => {
  const ENGINES = [
    { engine: "wasm", threads: 1 },
    { engine: "wasm", threads: 2 },
    { engine: "wasm", threads: 3 },
  ] as const;
  const FORMS = ["auto", "int8", "int4"] as const;

  test.each(FORMS.flatMap(weights => [["tiny-guard-gen", GEN, weights] as const, ["odd", ODD, weights] as const]))(
    "%s, weights %3$s: every intermediate of the fast engine is the reference's",
    async (_, folder, weights) => {
      const taps = new Map<string, Float32Array>();
      const ids = Array.from({ length: 70 }, (_, i) => (i * 53 + 7) % 331);
      const whole = (await loadModel(folder, { engine: "reference", weights })).newSession().forward(ids, {
        logits: "all",
        tap: (name, data) => taps.set(name, data.slice()),
      });
      for (const options of ENGINES) {
        let seen = 0;
        const logits = (await loadModel(folder, { ...options, weights })).newSession().forward(ids, {
          logits: "all",
          tap: (name, data) => {
            expectSameBits(data, taps.get(name) as Float32Array);
            seen++;
          },
        });
        expect(seen).toBe(taps.size);
        expectSameBits(logits, whole);
      }
    },
  );

  test.each([
    [120, "auto"],
    [40, "int8"],
    [40, "int4"],
  ] as const)(
    "%i random cases of engine, threads, chunking, turns and cache state give the reference's bits, weights %s",
    async (cases, weights) => {
      for (const folder of [ODD, GEN]) {
        const vocab = (await loadModel(folder)).config.vocabSize;
        const models = await Promise.all(ENGINES.map(options => loadModel(folder, { ...options, weights })));
        const reference = (await loadModel(folder, { engine: "reference", weights })).newSession();
        const sessions = models.flatMap(model => [model.newSession(), model.newSession()]);
        const truth = new Map<string, Float32Array>();
        const expected = (ids: readonly number[]): Float32Array => {
          const key = ids.join();
          const known = truth.get(key);
          if (known) return known;
          reference.truncate(Math.min(reference.commonPrefix(ids), ids.length - 1));
          const logits = reference.forward(ids.slice(reference.position));
          truth.set(key, logits);
          return logits;
        };
        fc.assert(
          fc.property(
            fc.nat(sessions.length - 1), // which engine and session is next, with what its cache holds from before
            fc.nat(3), // sequences share long beginnings
            fc.integer({ min: 1, max: 60 }),
            fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 5 }),
            (which, family, length, chunks) => {
              const ids = Array.from({ length }, (_, i) => (i * 37 + (i > 25 ? family * 11 : 3)) % vocab);
              const session = sessions[which];
              session.truncate(Math.min(session.commonPrefix(ids), length - 1));
              let logits = new Float32Array(0);
              for (const size of [...chunks, length]) {
                if (session.position < length)
                  logits = session.forward(
                    ids.slice(session.position, session.position + size),
                  ) as Float32Array<ArrayBuffer>;
              }
              expectSameBits(logits, expected(ids));
            },
          ),
          { seed: 7, numRuns: cases / 2 },
        );
      }
    },
  );
});
