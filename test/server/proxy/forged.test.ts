/** A share of test/slow/proxy-forged.slow.ts, and of both with a real guard. */

import fc from "fast-check";
import { test } from "vitest";
import { StreamGuard } from "../../../src/guard/stream-guard.ts";
import { loadGuard, STREAM } from "../../checkpoints.ts";
import { answersLeakNothing, failuresLetNothingPass, requestsLeakNothing } from "./forged.ts";
import { answering, forgedAnswer } from "./forged-answers.ts";
import { asking, forgedRequest } from "./forged-requests.ts";

test("of 300 forged answers the client gets what the guard let pass", () => answersLeakNothing(300));
test("of 300 forged requests the upstream gets what the guard let pass", () => requestsLeakNothing(300));
test("of 300 texts that a guard fails on, none passes even if the proxy fails open", () => failuresLetNothingPass(300));

test("the same with a few texts and real guards", async () => {
  const stream = await StreamGuard.load(STREAM);
  const guards = { Gen: await loadGuard(), Stream: stream };
  const [answer, ask] = [await answering(), await asking()];
  const options = { numRuns: 15, seed: 18 };
  await fc.assert(
    fc.asyncProperty(forgedAnswer, async forged => void (await answer(forged, guards[forged.kind]))),
    options,
  );
  await fc.assert(
    fc.asyncProperty(forgedRequest, async forged => void (await ask(forged, guards[forged.kind]))),
    options,
  );
  stream.close();
});
