/** 10,000 forged answers, requests and failing texts each through the proxy: nothing passes that nobody judged. */

import { test } from "vitest";
import { answersLeakNothing, failuresLetNothingPass, requestsLeakNothing } from "../server/proxy/forged.ts";

test("10,000 answers", () => answersLeakNothing(10_000));
test("10,000 requests", () => requestsLeakNothing(10_000));
test("10,000 texts that a guard fails on, where the proxy fails open", () => failuresLetNothingPass(10_000));
