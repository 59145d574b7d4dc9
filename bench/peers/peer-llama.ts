/**
 * llama.cpp as a peer, through node-llama-cpp: `node peer-llama.ts JOB`, the job's `variant` being the folder of the
 * npm installation.
 *
 * Its API gives no logits without choosing a token. At temperature 0 that is one pass over the vocabulary, which takes
 * less than a millisecond.
 */

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { measure, type Peer, readJob } from "./measure.ts";

/** The part of node-llama-cpp that is used here; the package is not a dependency of this project. */
interface LlamaCpp {
  getLlama(options: {
    gpu: false;
    build: "never";
    maxThreads: number;
    logLevel: "error";
    progressLogs: false;
  }): Promise<{
    loadModel(options: { modelPath: string }): Promise<{
      createContext(options: {
        contextSize: number;
        batchSize: number;
        threads: number;
      }): Promise<{ getSequence(): Sequence }>;
    }>;
  }>;
}

type Input = number | [number, { generateNext: { token: true; options: { temperature: 0 } } }];

interface Sequence {
  readonly nextTokenIndex: number;
  controlledEvaluate(input: Input[]): Promise<({ next: { token?: number } } | undefined)[]>;
  eraseContextTokenRanges(ranges: { start: number; end: number }[]): Promise<void>;
}

const job = readJob();
const entry = join(job.variant, "node_modules", "node-llama-cpp", "dist", "index.js");
const { getLlama } = (await import(pathToFileURL(entry).href)) as LlamaCpp;

await measure(job, async (): Promise<Peer> => {
  const llama = await getLlama({
    gpu: false,
    build: "never",
    maxThreads: job.threads,
    logLevel: "error",
    progressLogs: false,
  });
  const model = await llama.loadModel({ modelPath: job.path });
  const { maxPositions, threads } = job;
  const context = await model.createContext({ contextSize: maxPositions, batchSize: maxPositions, threads });
  const sequence = context.getSequence();
  return {
    async forward(ids) {
      const input: Input[] = [...ids];
      input[ids.length - 1] = [ids[ids.length - 1], { generateNext: { token: true, options: { temperature: 0 } } }];
      const token = (await sequence.controlledEvaluate(input))[ids.length - 1]?.next.token;
      if (token === undefined) throw new Error("llama.cpp: expected a token behind the last id, got none");
      return token;
    },
    truncate: position => sequence.eraseContextTokenRanges([{ start: position, end: sequence.nextTokenIndex }]),
  };
});
