/**
 * One arithmetic: what must give the same bits, whatever the way. No golden and no tolerance here.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Session } from "../../src/model/session.ts";
import { GEN, loadModel, ODD } from "../checkpoints.ts";
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

describe.each([
  ["tiny-guard-gen", GEN],
  ["odd", ODD],
])("%s", (_, folder) => {
  test("token by token, any chunking and the whole prompt give the same logits at every position", async () => {
    const model = await loadModel(folder);
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

  test("rolling back and going on otherwise leaves no trace of what was rolled back", async () => {
    const model = await loadModel(folder);
    const clean = model.newSession().forward(IDS);
    const session = model.newSession();
    session.forward(IDS.slice(0, 20));
    session.forward([1, 2, 3, 4, 5]);
    session.truncate(20);
    expectSameBits(session.forward(IDS.slice(20)), clean);
    expect(session.position).toBe(IDS.length);
  });

  test("sessions that take turns do not disturb each other", async () => {
    const model = await loadModel(folder);
    const [a, b] = [model.newSession(), model.newSession()];
    const reversed = [...IDS].reverse();
    for (let i = 0; i < 10; i++) {
      a.forward([IDS[i]], { logits: "none" });
      b.forward([reversed[i]], { logits: "none" });
    }
    expectSameBits(a.forward(IDS.slice(10)), model.newSession().forward(IDS));
    expectSameBits(b.forward(reversed.slice(10)), model.newSession().forward(reversed));
  });

  test("the last row of all logits is the logits of the last, and taps change nothing", async () => {
    const model = await loadModel(folder);
    const vocab = model.config.vocabSize;
    const all = model.newSession().forward(IDS, { logits: "all", tap: () => {} });
    expectSameBits(model.newSession().forward(IDS), all.slice(-vocab));
    expect(model.newSession().forward(IDS, { logits: "none" }).length).toBe(0);
  });
});

test("a prompt longer than a piece of prefill is the same bits as one pass", async () => {
  const model = await loadModel(GEN);
  const ids = Array.from({ length: 600 }, (_, i) => (i * 131) % 4000);
  expectSameBits(await model.newSession().prefill(ids), model.newSession().forward(ids));
});
