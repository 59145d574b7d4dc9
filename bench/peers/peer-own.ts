/** This project's fast engine as a peer: `node peer-own.ts JOB`, the job's `variant` being the form of weights. */

import { Qwen3 } from "../../src/model/qwen3.ts";
import { createSampler } from "../../src/model/sampling.ts";
import { measure, type Peer, readJob } from "./measure.ts";

const job = readJob();
const argmax = createSampler();

await measure(job, async (): Promise<Peer> => {
  const model = await Qwen3.load(job.path, {
    engine: "wasm",
    threads: job.threads,
    weights: job.variant as "checkpoint" | "int8" | "int4",
  });
  const session = model.newSession();
  return {
    // As the guard does: at most 256 ids in one `forward`.
    forward: async ids => argmax(await session.prefill(ids)),
    truncate: async position => session.truncate(position),
  };
});
