/**
 * The protocol of threads.ts, step by step: a worker's side runs on this thread, with scripted jobs, and with the other
 * side's steps at the worst possible moments.
 */

import { afterEach, beforeEach, describe, expect, type Mock, test, vi } from "vitest";
import type { JobContext } from "../../../src/tensor/wasm/job.ts";
import { JOB_NAMES, JOBS } from "../../../src/tensor/wasm/jobs.ts";
import type { EngineMemory } from "../../../src/tensor/wasm/memory.ts";
import { CONTROL_BYTES, serveJobs, ThreadPool } from "../../../src/tensor/wasm/threads.ts";
import { startNodeWorker } from "../../../src/tensor/wasm/worker-start.node.ts";
import * as memories from "./memory.ts";
import { MODULE } from "./memory.ts";

const [GENERATION, NEXT_ITEM, JOB, ITEMS, SCRATCH, SCRATCH_BYTES, FAILED, PROGRESS, SLEEPERS, ACTIVE] = [
  ...[0, 16, 48, 49, 50, 51, 64, 80, 88, 96],
];
const EXIT = -1;
const JOB_NAME = "add";

afterEach(() => vi.restoreAllMocks());

function newMemory(): { memory: EngineMemory; control: Int32Array } {
  const memory = memories.newMemory();
  return { memory, control: new Int32Array(memory.heap.memory.buffer, 0, CONTROL_BYTES / 4) };
}

/** Runs what stands in for the job, on the worker's side. */
function script(item: (context: JobContext, item: number) => void): Mock {
  const work = vi.fn(item);
  vi.spyOn(JOBS[JOB_NAME], "begin").mockImplementation(context => i => work(context, i));
  return work;
}

/** x += y over `vectors` of 4. */
function runJob(
  pool: ThreadPool,
  memory: EngineMemory,
  vectors: number = 2,
  share: number = 1,
  scratchBytes: number = 0,
): void {
  const args = { x: CONTROL_BYTES, y: CONTROL_BYTES + (vectors > 2 ? vectors * 16 : 0), vectors, share };
  pool.run(memory, JOB_NAME, args, vectors / share, scratchBytes);
}

/** A job of one item is open. */
function openJob(control: Int32Array, generation: number): void {
  control[JOB] = JOB_NAMES.indexOf(JOB_NAME);
  control[ITEMS] = 1;
  control[NEXT_ITEM] = 0;
  control[GENERATION] = generation;
}

/** The next thing that a worker sees is that it must exit. */
function exitNext(control: Int32Array): void {
  control[JOB] = EXIT;
  control[GENERATION] = (control[GENERATION] | 1) + 1;
}

/** The worker's side on this thread, until it is told to exit. */
function serve(memory: EngineMemory, index: number): void {
  serveJobs({ module: MODULE, memories: [memory.heap.memory], index }, () => {});
}

/** A pool whose workers do nothing by themselves. */
function idlePool(memory: EngineMemory, threads: number): ThreadPool {
  return ThreadPool.start(MODULE, [memory.heap.memory], threads, () => ({
    ready: Promise.resolve(),
    terminate: () => {},
    onExit: () => {},
  }));
}

describe("a worker", () => {
  beforeEach(() => {
    vi.spyOn(Atomics, "wait").mockImplementation(() => {
      throw new Error("it sleeps on this thread, where nobody could wake it");
    });
  });

  test("does the items of an open job in its own scratch, even beyond 2 GiB, where addresses read as negative", () => {
    for (const scratch of [4096, 2 ** 31, 3 * 2 ** 30]) {
      const { memory, control } = newMemory();
      openJob(control, 2);
      control[SCRATCH] = scratch;
      control[SCRATCH_BYTES] = 640;
      const seen: unknown[] = [];
      script((context, item) => {
        seen.push([item, context.scratch, control[ACTIVE + 1]]);
        exitNext(control);
      });
      serve(memory, 2);
      expect(seen).toEqual([[0, scratch + 2 * 640, 1]]);
      expect(control[PROGRESS]).toBe(1);
    }
  });

  test("leaves a job alone that closes between its first look and its flag", () => {
    const { memory, control } = newMemory();
    openJob(control, 2);
    const job = script(() => exitNext(control));
    const { store } = Atomics;
    const flags: number[] = [];
    vi.spyOn(Atomics, "store").mockImplementation(((words: Int32Array, at: number, value: number) => {
      if (at === ACTIVE) {
        flags.push(value);
        // The main thread saw no flag, has closed the job, and is about to write the next one.
        if (flags.length === 1) control[GENERATION] = 3;
        if (flags.length === 2) exitNext(control);
      }
      return store(words, at, value);
    }) as typeof Atomics.store);
    serve(memory, 1);
    expect(job).not.toHaveBeenCalled();
    expect(flags).toEqual([1, 0, 1]); // the last one on learning that it must exit
  });

  test("that fails says so, with its number and the reason, and lowers its flag", () => {
    const { memory, control } = newMemory();
    openJob(control, 2);
    script(() => {
      exitNext(control);
      throw new Error("no kernel for that");
    });
    const { store } = Atomics;
    const lowered: number[] = [];
    vi.spyOn(Atomics, "store").mockImplementation(((words: Int32Array, at: number, value: number) => {
      if (at === ACTIVE + 2 && value === 0) lowered.push(control[FAILED]);
      return store(words, at, value);
    }) as typeof Atomics.store);
    serve(memory, 3);
    expect([control[FAILED], lowered[0]]).toEqual([4, 4]); // before the flag falls, or the main thread misses it
    vi.restoreAllMocks();
    // The main thread, at the next end of a job.
    const pool = idlePool(memory, 4);
    const run = (): void => runJob(pool, memory);
    control[ACTIVE + 2] = 0;
    expect(run).toThrow("threads: worker 3 failed: no kernel for that");
    expect(pool.failure).toBe("worker 3 failed: no kernel for that");
    expect(run).toThrow("the threads have stopped: worker 3 failed: no kernel for that");
  });

  test("counts itself among the sleepers before it sleeps, and no longer once it is woken", () => {
    const { memory, control } = newMemory();
    control[GENERATION] = 1;
    const sleepers: number[] = [];
    vi.spyOn(Atomics, "wait").mockImplementation(((_words: Int32Array, at: number, value: number) => {
      sleepers.push(control[SLEEPERS]);
      expect([at, value]).toEqual([GENERATION, 1]);
      exitNext(control);
      return "ok";
    }) as typeof Atomics.wait);
    serve(memory, 1);
    expect([sleepers, control[SLEEPERS]]).toEqual([[1], 0]);
  });
});

describe("the main thread", () => {
  test("wakes sleepers after it has opened a job, and notifies nobody where none sleeps", () => {
    const { memory, control } = newMemory();
    const pool = idlePool(memory, 2);
    const generations: number[] = [];
    vi.spyOn(Atomics, "notify").mockImplementation(((words: Int32Array, at: number) => {
      expect([words.buffer === memory.heap.memory.buffer, at]).toEqual([true, GENERATION]);
      generations.push(control[GENERATION]);
      return 0;
    }) as typeof Atomics.notify);
    const run = (): void => runJob(pool, memory);
    run();
    expect(generations).toEqual([]);
    control[SLEEPERS] = 1;
    run();
    expect(generations).toEqual([4]); // the second job's own, and open
  });

  test("passes on the address of a scratch beyond 2 GiB unchanged", () => {
    const { memory, control } = newMemory();
    const pool = idlePool(memory, 2);
    vi.spyOn(memory.scratch, "atLeast").mockReturnValue(3 * 2 ** 30);
    runJob(pool, memory, 2, 1, 640);
    expect([control[SCRATCH] >>> 0, control[SCRATCH_BYTES]]).toEqual([3 * 2 ** 30, 640]);
  });
});

test("a job wakes a worker that really sleeps, and the worker takes part", async () => {
  const { memory, control } = newMemory();
  const pool = ThreadPool.start(MODULE, [memory.heap.memory], 2, startNodeWorker);
  await pool.ready();
  while (Atomics.load(control, SLEEPERS) === 0) await new Promise(resolve => setTimeout(resolve));
  const vectors = 20_000;
  // Nobody else wakes it: without the job's notification it would never do an item.
  for (let jobs = 0; jobs < 10_000 && Atomics.load(control, PROGRESS) === 0; jobs++) {
    runJob(pool, memory, vectors, 100);
  }
  expect(Atomics.load(control, PROGRESS)).toBeGreaterThan(0);
  pool.close();
});
