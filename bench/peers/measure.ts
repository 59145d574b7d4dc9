/**
 * Runs the workload on one engine and prints the measurements as one JSON line. measure.py is its twin for engines in
 * Python.
 *
 * In: a job from run.ts, as JSON in the first argument. Everything runs twice. The first run is the warm-up, and both
 * must give the same ids.
 */

export interface Job {
  /** The checkpoint folder or model file. */
  readonly path: string;
  /** What the engine does differently, if one program serves several. */
  readonly variant: string;
  readonly threads: number;
  /** Quick start: this prompt, then `steps` greedy steps. */
  readonly promptIds: readonly number[];
  readonly steps: number;
  /** Best: one forward of `tailIds` after `prefixIds`. */
  readonly prefixIds: readonly number[];
  readonly tailIds: readonly number[];
  /** Room for the longest sequence of the job. */
  readonly maxPositions: number;
}

export interface Measurements {
  /** Imports are not counted. */
  readonly loadMs: number;
  /** The warm-up, including work that the engine had put off. */
  readonly firstQuickStartMs: number;
  readonly quickStartMs: number;
  /** The prompt's part of quickStartMs. */
  readonly prefillMs: number;
  /** The steps of the quick start. */
  readonly decodeTokensPerSecond: number;
  readonly bestMs: number;
  /** Of the whole process, with the pages of mapped files. */
  readonly peakRssMb: number;
  /** The quick start's answer, steps + 1 ids. */
  readonly ids: readonly number[];
  readonly bestId: number;
}

/** An engine with one sequence, and its keys and values. */
export interface Peer {
  /** Runs ids after those kept. Returns the index of the largest logit of the last one. */
  forward(ids: readonly number[]): Promise<number>;
  /** Forgets everything from `position` on. */
  truncate(position: number): Promise<void>;
}

async function quickStart(peer: Peer, job: Job): Promise<{ ids: number[]; prefillMs: number; stepsMs: number }> {
  await peer.truncate(0);
  const start = performance.now();
  let id = await peer.forward(job.promptIds);
  const promptDone = performance.now();
  const ids = [id];
  for (let i = 0; i < job.steps; i++) {
    id = await peer.forward([id]);
    ids.push(id);
  }
  return { ids, prefillMs: promptDone - start, stepsMs: performance.now() - promptDone };
}

/** The prefix is not timed. */
async function best(peer: Peer, job: Job): Promise<{ bestId: number; bestMs: number }> {
  await peer.truncate(0);
  await peer.forward(job.prefixIds);
  const start = performance.now();
  const bestId = await peer.forward(job.tailIds);
  return { bestId, bestMs: performance.now() - start };
}

export function readJob(): Job {
  return JSON.parse(process.argv[2]) as Job;
}

/** `load` is what is timed as loading. Ends the process. */
export async function measure(job: Job, load: () => Promise<Peer>): Promise<void> {
  const start = performance.now();
  const peer = await load();
  const loadMs = performance.now() - start;
  const warm = { ...(await quickStart(peer, job)), ...(await best(peer, job)) };
  const { ids, prefillMs, stepsMs } = await quickStart(peer, job);
  const { bestId, bestMs } = await best(peer, job);
  if (`${ids} ${bestId}` !== `${warm.ids} ${warm.bestId}`) {
    throw new Error(`ids: expected those of the warm-up ${warm.ids} ${warm.bestId}, got ${ids} ${bestId}`);
  }
  const result: Measurements = {
    loadMs,
    firstQuickStartMs: warm.prefillMs + warm.stepsMs,
    quickStartMs: prefillMs + stepsMs,
    prefillMs,
    decodeTokensPerSecond: (1e3 * job.steps) / stepsMs,
    bestMs,
    peakRssMb: process.resourceUsage().maxRSS / 1024,
    ids,
    bestId,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());
}
