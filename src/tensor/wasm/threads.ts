/**
 * Threads over one shared memory: a main thread that hands out jobs and takes part in them, and workers that wait for
 * jobs.
 *
 * In: a job's name, arguments and number of items. Out: the job done. Items are handed out one by one (`Atomics.add`),
 * so a slow thread takes fewer. Workers spin for a moment, since the next job of a forward pass follows in
 * microseconds, and then sleep (`Atomics.wait`): an idle engine uses no processor. What coordinates them lies in a
 * control block at the start of the memory.
 *
 * A job is open while the generation is even. A worker enters by raising its flag and then looking at the generation
 * once more; the main thread closes the job by making the generation odd and then waiting for all flags to fall.
 * Whichever comes second sees the other (all accesses are sequentially consistent), so no worker works on a job that is
 * being replaced, and one that sleeps, or that the system has not scheduled, holds nobody up. Waiting for every worker
 * to report instead cost a factor of 3 on a busy machine.
 *
 * Nothing here is Node's: a worker is started by a function that the engine is given (worker-start.node.ts for Node).
 */

import { roundUp } from "./heap.ts";
import { type JobContext, MAX_JOB_FIELDS } from "./job.ts";
import { type ArgsOf, argsFromNumbers, argsToNumbers, beginJob, JOB_NAMES, type JobName } from "./jobs.ts";
import { instantiateKernels } from "./kernels.ts";
import type { EngineMemory } from "./memory.ts";

/** Bytes of the control block. */
export const CONTROL_BYTES = 4096;

// The control block's 32-bit words. Those that different threads hammer at lie on cache lines of their own.
const GENERATION = 0; // even: a job is open; odd: none is. Workers wait for it to change
const NEXT_ITEM = 16;
const JOB = 48; // index into JOB_NAMES, or EXIT
const ITEMS = 49;
const SCRATCH = 50; // address of the first thread's scratch
const SCRATCH_BYTES = 51; // of each thread
const MEMORY = 52; // index of the memory that the job works in
const FAILED = 64; // 1 + index of a worker that threw
const PROGRESS = 80; // counts items done by workers
const SLEEPERS = 88; // workers that sleep, or are about to
/** A word for each worker: 1 while it is in a job. */
const ACTIVE = 96;
/** Arguments of the job, as float64: exact for addresses and for float32 values alike. */
const ARGS_BYTE = 1024;
/** Threads write into their scratch at the same time: none shares a cache line with another. */
const SCRATCH_ALIGNMENT = 64;
/** A worker's error message, UTF-8, its length before it. */
const MESSAGE_BYTE = 2048;
const MESSAGE_MAX_BYTES = 1024;

const EXIT = -1;
/** The generation before the first job. */
const CLOSED = 1;

/** Turns of an empty loop before a worker sleeps: about 0.2 ms, longer than any pause within a forward pass. */
const WORKER_SPINS = 40_000;
/** Turns before the main thread looks at the clock. */
const MAIN_SPINS = 20_000;
/** When no worker has finished an item for this long, one is gone: the largest item takes some milliseconds. */
const STALLED_MS = 10_000;
/** A gap this long between two looks at the clock means that the process was suspended, not stalled. */
const STILL_MS = 1_000;

/** What a worker is started with. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  /** The first holds the control block. */
  readonly memories: readonly WebAssembly.Memory[];
  /** 1, 2, ...: the main thread is 0. */
  readonly index: number;
}

export interface WorkerHandle {
  /** Resolves when the worker waits for jobs (see serveJobs); rejects where it never does. */
  readonly ready: Promise<void>;
  /** Ends it at once. */
  terminate(): void;
  /** Calls back when it has ended, for whatever reason. */
  onExit(callback: (reason: string) => void): void;
}

export type StartWorker = (start: WorkerStart) => WorkerHandle;

/** How often a timer runs that does nothing but keep a process alive. */
const KEEP_ALIVE_MS = 1_000;

/** Tells workers to exit when they look next, and ends those that do not. */
function endWorkers(workers: readonly WorkerHandle[], memory: WebAssembly.Memory): void {
  if (workers.length === 0) return;
  const control = new Int32Array(memory.buffer, 0, CONTROL_BYTES / 4);
  control[JOB] = EXIT;
  Atomics.add(control, GENERATION, 1);
  Atomics.notify(control, GENERATION);
  for (const worker of workers) worker.terminate();
}

/** Ends the workers of a pool that was forgotten without `close`. */
const forgotten = new FinalizationRegistry<{
  readonly workers: readonly WorkerHandle[];
  readonly memory: WebAssembly.Memory;
}>(({ workers, memory }) => endWorkers(workers, memory));

/** The main thread's side. */
export class ThreadPool {
  readonly threads: number;
  #memories: readonly WebAssembly.Memory[];
  #workers: readonly WorkerHandle[];
  // Views that stay valid when the memory grows.
  #control: Int32Array;
  #args: Float64Array;
  /**
   * Why no more jobs can be done. Kept apart from the pool, because the workers' handlers must not keep a forgotten
   * pool alive.
   */
  readonly #state: { ended: string | undefined } = { ended: undefined };
  /** Resolves when each worker has started or failed to. */
  readonly #started: Promise<unknown>;

  private constructor(memories: readonly WebAssembly.Memory[], workers: readonly WorkerHandle[]) {
    this.#memories = memories;
    this.#workers = workers;
    this.#control = new Int32Array(memories[0].buffer, 0, CONTROL_BYTES / 4);
    this.#args = new Float64Array(memories[0].buffer, ARGS_BYTE, MAX_JOB_FIELDS);
    this.threads = workers.length + 1;
    const state = this.#state;
    this.#started = Promise.all(
      workers.map(worker => {
        let what = "did not start";
        const end = (reason: string): void => {
          state.ended ??= `a worker ${what}: ${reason}`;
        };
        worker.onExit(end);
        return worker.ready.then(
          () => {
            what = "ended";
          },
          error => end(error.message),
        );
      }),
    );
    if (workers.length > 0) forgotten.register(this, { workers, memory: memories[0] }, this);
  }

  /** Why no more jobs can be done; undefined while they can. */
  get failure(): string | undefined {
    return this.#state.ended;
  }

  /**
   * Resolves when all workers wait for jobs; throws Error where one never does. Jobs need not wait for this, but a
   * server must: a worker that is still opening its modules finds no file descriptor left where connections have taken
   * them all.
   */
  async ready(): Promise<void> {
    const alive = setInterval(() => {}, KEEP_ALIVE_MS); // the workers do not keep the process alive
    await this.#started;
    clearInterval(alive);
    this.#checkRunning();
  }

  #checkRunning(): void {
    if (this.#state.ended !== undefined) throw new Error(`the threads have stopped: ${this.#state.ended}`);
  }

  /**
   * Starts `threads - 1` workers over the shared memories; with 1 thread they may be any. Does not wait for them: jobs
   * are done without those that are not up yet. Where one does not start, the next job throws.
   */
  static start(
    module: WebAssembly.Module,
    memories: readonly WebAssembly.Memory[],
    threads: number,
    startWorker?: StartWorker,
  ): ThreadPool {
    new Int32Array(memories[0].buffer)[GENERATION] = CLOSED;
    if (threads === 1 || !startWorker) return new ThreadPool(memories, []);
    const workers = Array.from({ length: threads - 1 }, (_, i) => startWorker({ module, memories, index: i + 1 }));
    return new ThreadPool(memories, workers);
  }

  /**
   * Does a job in one of the memories, each thread with a scratch of `scratchBytes`, and returns when it is done.
   * Throws Error where a worker threw, ended or stopped; the pool then refuses further jobs, since the result is
   * incomplete.
   */
  run<Name extends JobName>(
    memory: EngineMemory,
    name: Name,
    args: ArgsOf<Name>,
    items: number,
    scratchBytes: number = 0,
  ): void {
    this.#checkRunning();
    const threadBytes = roundUp(scratchBytes, SCRATCH_ALIGNMENT);
    const scratch = memory.scratch.atLeast(threadBytes * this.threads);
    const context: JobContext = { kernels: memory.kernels, memory: memory.heap.memory, scratch };
    const doItem = beginJob(name, context, args);
    if (this.#workers.length === 0 || items < 2) {
      for (let item = 0; item < items; item++) doItem(item);
      return;
    }
    const control = this.#control;
    this.#args.set(argsToNumbers(name, args));
    control[MEMORY] = memory.index;
    control[JOB] = JOB_NAMES.indexOf(name);
    control[ITEMS] = items;
    control[SCRATCH] = scratch;
    control[SCRATCH_BYTES] = threadBytes;
    Atomics.store(control, NEXT_ITEM, 0);
    Atomics.add(control, GENERATION, 1); // open: even
    // A worker counts itself as asleep before its last look at the generation, so none is missed.
    if (Atomics.load(control, SLEEPERS) > 0) Atomics.notify(control, GENERATION);
    try {
      for (let item = Atomics.add(control, NEXT_ITEM, 1); item < items; item = Atomics.add(control, NEXT_ITEM, 1))
        doItem(item);
    } finally {
      Atomics.add(control, GENERATION, 1); // closed: odd
      this.#awaitWorkers(control);
    }
    const failed = Atomics.load(control, FAILED);
    if (failed !== 0) {
      this.#state.ended = `worker ${failed - 1} failed: ${readMessage(this.#memories[0])}`;
      throw new Error(`threads: ${this.#state.ended}`);
    }
  }

  /** Ends the workers, and lets go of the memories. */
  close(): void {
    if (this.#memories.length === 0) return;
    this.#state.ended ??= "the engine was closed";
    forgotten.unregister(this);
    endWorkers(this.#workers, this.#memories[0]);
    this.#memories = [];
    this.#workers = [];
    this.#control = new Int32Array(0);
    this.#args = new Float64Array(0);
  }

  /** Waits until no worker is in the job. */
  #awaitWorkers(control: Int32Array): void {
    const isActive = (): boolean => this.#workers.some((_, i) => Atomics.load(control, ACTIVE + i) !== 0);
    let progress = Atomics.load(control, PROGRESS);
    let since = 0;
    let looked = 0;
    for (let spins = 1; isActive(); spins++) {
      if (spins % MAIN_SPINS !== 0) continue;
      // Not a wait for a notification: a browser's main thread may not wait, and the clock must be looked at anyway.
      const now = performance.now();
      const latest = Atomics.load(control, PROGRESS);
      // After a long gap between two looks, the whole process was suspended, and its workers with it.
      const stoodStill = now - looked > STILL_MS;
      looked = now;
      if (since === 0 || stoodStill || latest !== progress) {
        progress = latest;
        since = now;
      } else if (now - since > STALLED_MS) {
        this.#state.ended = `no worker has finished anything for ${STALLED_MS / 1000} s (was one killed?)`;
        throw new Error(`threads: ${this.#state.ended}`);
      }
    }
  }
}

/**
 * A worker's side: serves jobs until it is told to exit. Blocks its thread; calls `onReady` when nothing can fail to
 * start any more.
 */
export function serveJobs({ module, memories, index }: WorkerStart, onReady: () => void): void {
  const kernels = memories.map(memory => instantiateKernels(module, memory));
  onReady();
  const [first] = memories;
  const control = new Int32Array(first.buffer, 0, CONTROL_BYTES / 4);
  const args = new Float64Array(first.buffer, ARGS_BYTE, MAX_JOB_FIELDS);
  const active = ACTIVE + index - 1;
  for (let seen = CLOSED; ; ) {
    for (let spins = 0; Atomics.load(control, GENERATION) === seen; spins++) {
      if (spins <= WORKER_SPINS) continue;
      Atomics.add(control, SLEEPERS, 1);
      Atomics.wait(control, GENERATION, seen);
      Atomics.sub(control, SLEEPERS, 1);
    }
    seen = Atomics.load(control, GENERATION);
    if (seen % 2 !== 0) continue;
    Atomics.store(control, active, 1);
    if (Atomics.load(control, GENERATION) === seen) {
      if (control[JOB] === EXIT) return;
      try {
        const name = JOB_NAMES[control[JOB]];
        const items = control[ITEMS];
        // Addresses are unsigned: the upper half of 4 GiB would read as negative.
        const which = control[MEMORY];
        const context: JobContext = {
          kernels: kernels[which],
          memory: memories[which],
          scratch: (control[SCRATCH] >>> 0) + index * control[SCRATCH_BYTES],
        };
        const doItem = beginJob(name, context, argsFromNumbers(name, args));
        for (let item = Atomics.add(control, NEXT_ITEM, 1); item < items; item = Atomics.add(control, NEXT_ITEM, 1)) {
          doItem(item);
          Atomics.add(control, PROGRESS, 1);
        }
      } catch (error) {
        writeMessage(first, error instanceof Error ? error.message : String(error));
        Atomics.store(control, FAILED, index + 1);
      }
    }
    Atomics.store(control, active, 0);
  }
}

function writeMessage(memory: WebAssembly.Memory, message: string): void {
  const bytes = new TextEncoder().encode(message).subarray(0, MESSAGE_MAX_BYTES);
  new Uint8Array(memory.buffer, MESSAGE_BYTE + 4, bytes.length).set(bytes);
  new Uint32Array(memory.buffer, MESSAGE_BYTE, 1)[0] = bytes.length;
}

function readMessage(memory: WebAssembly.Memory): string {
  const length = new Uint32Array(memory.buffer, MESSAGE_BYTE, 1)[0];
  // A copy: TextDecoder does not take shared memory everywhere.
  return new TextDecoder().decode(new Uint8Array(memory.buffer, MESSAGE_BYTE + 4, length).slice());
}
