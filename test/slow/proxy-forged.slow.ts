/** 10,000 forged answers, requests and failing texts each go through the proxy: nothing passes unjudged. */

import { test } from "vitest";
import { answersLeakNothing, failuresLetNothingPass, requestsLeakNothing } from "../server/proxy/forged.ts";

test("10,000 answers", () => answersLeakNothing(10_000));
test("10,000 requests", () => requestsLeakNothing(10_000));
test("10,000 texts on which a guard fails, with a proxy that fails open", () => failuresLetNothingPass(10_000));
