/**
 * Threads share the work, report failures, and are gone when they should be. They never hang and never give a wrong
 * number.
 */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { createEngine } from "../../../src/tensor/engine-choice.ts";
import { compileKernels } from "../../../src/tensor/wasm/kernels.ts";
import type { EngineMemory } from "../../../src/tensor/wasm/memory.ts";
import {
  CONTROL_BYTES,
  type StartWorker,
  serveJobs,
  ThreadPool,
  type WorkerHandle,
} from "../../../src/tensor/wasm/threads.ts";
import { startNodeWorker } from "../../../src/tensor/wasm/worker-start.node.ts";
import { projectPath } from "../../helpers.ts";
import { MODULE, newMemory } from "./memory.ts";

const VALUES = CONTROL_BYTES; // where the job's numbers lie

interface TestPool {
  readonly pool: ThreadPool;
  readonly memory: EngineMemory;
  readonly floats: Float32Array;
}

async function pool(threads: number, startWorker: StartWorker = startNodeWorker): Promise<TestPool> {
  const memory = newMemory();
  const workers: WorkerHandle[] = [];
  const pool = ThreadPool.start(MODULE, [memory.heap.memory], threads, start => {
    workers.push(startWorker(start));
    return workers[workers.length - 1];
  });
  await Promise.allSettled(workers.map(worker => worker.ready));
  return { pool, memory, floats: new Float32Array(memory.heap.memory.buffer) };
}

/** x += y over `vectors` of 4, one vector an item: as many hand-outs as possible. */
function addJob({ pool, memory }: Pick<TestPool, "pool" | "memory">, vectors: number): void {
  pool.run(memory, "add", { x: VALUES, y: VALUES + vectors * 16, vectors, share: 1 }, vectors);
}

test.each([1, 2, 3, 8])("%i thread(s): every item of thousands of jobs is done exactly once", async threads => {
  const p = await pool(threads);
  expect(p.pool.threads).toBe(threads);
  const vectors = 37;
  const at = VALUES / 4;
  p.floats.fill(1, at + vectors * 4, at + vectors * 8);
  for (let i = 1; i <= 3000; i++) {
    addJob(p, vectors);
    if (i % 500 === 0) expect(p.floats.slice(at, at + vectors * 4).every(x => x === i)).toBe(true);
  }
  p.pool.close();
});

test("workers that sleep wake up for the next job", async () => {
  const p = await pool(3);
  p.floats.fill(1, VALUES / 4 + 400, VALUES / 4 + 800);
  for (let i = 1; i <= 5; i++) {
    await new Promise(resolve => setTimeout(resolve, 30));
    addJob(p, 100);
    expect(p.floats.slice(VALUES / 4, VALUES / 4 + 400).every(x => x === i)).toBe(true);
  }
  p.pool.close();
});

test("an idle engine uses no processor", async () => {
  const engine = await createEngine({ engine: "wasm", threads: 3 });
  await engine.ready();
  await new Promise(resolve => setTimeout(resolve, 100));
  const before = process.cpuUsage();
  await new Promise(resolve => setTimeout(resolve, 500));
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1000).toBeLessThan(250); // ms, of 500 in which two spinning workers would use 1000
  engine.close();
});

describe("failures", () => {
  test("a job that throws in a worker makes the call throw its message, and the pool refuses further jobs", async () => {
    const p = await pool(2);
    const args = { out: 2 ** 31, x: 2 ** 31, gain: 2 ** 31, rows: 64, size: 4, eps: 1e-6, share: 1 };
    // Addresses far outside the memory trap on whichever thread meets them. The main thread throws its own trap as it
    // is.
    expect(() => p.pool.run(p.memory, "rmsNorm", args, 64)).toThrow(/memory access out of bounds|worker 1 failed/);
    p.pool.close();
    expect(() => addJob(p, 4)).toThrow(/the threads have stopped/);
  });

  test("after a worker ends, the next call throws", async () => {
    let handle: WorkerHandle | undefined;
    const p = await pool(2, start => {
      handle = startNodeWorker(start);
      return handle;
    });
    addJob(p, 100);
    const ended = new Promise(resolve => handle?.onExit(resolve));
    handle?.terminate();
    await ended;
    expect(() => addJob(p, 100)).toThrow("the threads have stopped: a worker ended: exit 1");
  });

  test("a worker killed in the middle of a job is an error after a while, not a hang", async () => {
    // A worker that enters the job and never leaves it: its flag stays up.
    const p = await pool(2, start => ({ ready: Promise.resolve(), terminate: () => {}, onExit: () => void start }));
    const control = new Int32Array(p.floats.buffer, 0, CONTROL_BYTES / 4);
    control[96] = 1;
    expect(() => addJob(p, 100)).toThrow("threads: no worker has finished anything for 10 s (was one killed?)");
    expect(() => addJob(p, 100)).toThrow("the threads have stopped");
  }, 30_000);

  test("where a worker does not start, the next call throws, and so does waiting for it", async () => {
    const failing: StartWorker = () => ({
      ready: Promise.reject(new Error("no such thread")),
      terminate: () => {},
      onExit: () => {},
    });
    const p = await pool(2, failing);
    const message = "the threads have stopped: a worker did not start: no such thread";
    await expect(p.pool.ready()).rejects.toThrow(message);
    expect(p.pool.failure).toBe("a worker did not start: no such thread");
    expect(() => addJob(p, 100)).toThrow(message);
  });

  test("a worker whose kernels do not start is never ready", async () => {
    const module = compileKernels(false); // not for a shared memory
    const p = await pool(2, start => startNodeWorker({ ...start, module }));
    await expect(p.pool.ready()).rejects.toThrow("the threads have stopped: a worker did not start: ");
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
    let isReady = false;
    const serve = (): void =>
      serveJobs({ module, memories: [memory], index: 1 }, () => {
        isReady = true;
      });
    expect(serve).toThrow(WebAssembly.LinkError);
    expect(isReady).toBe(false);
  });
});

test("a pool is ready when all its workers wait for jobs, and not before", async () => {
  const memory = new WebAssembly.Memory({ initial: 32, maximum: 65536, shared: true });
  const starts: (() => void)[] = [];
  const p = ThreadPool.start(compileKernels(true), [memory], 3, () => ({
    ready: new Promise(resolve => starts.push(resolve)),
    terminate: () => {},
    onExit: () => {},
  }));
  let isReady = false;
  const ready = p.ready().then(() => {
    isReady = true;
  });
  for (const start of starts) {
    await new Promise(resolve => setTimeout(resolve));
    expect(isReady).toBe(false);
    start();
  }
  await ready;
  expect(p.failure).toBeUndefined();
  p.close();
  expect(p.failure).toBe("the engine was closed");
});

test("a process with nothing else to do waits for its workers", () => {
  const program = `
    import { createEngine } from ${JSON.stringify(projectPath("src/tensor/engine-choice.ts"))};
    const engine = await createEngine({ engine: "wasm", threads: 3 });
    await engine.ready();
    console.log("ready");`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", program], {
    encoding: "utf8",
  });
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "ready\n", stderr: "" });
});

test("jobs are done without waiting for workers that are still starting", () => {
  const memory = newMemory();
  const pool = ThreadPool.start(MODULE, [memory.heap.memory], 3, startNodeWorker);
  const floats = new Float32Array(memory.heap.memory.buffer);
  floats.fill(1, VALUES / 4 + 400, VALUES / 4 + 800);
  addJob({ pool, memory }, 100);
  expect(floats.slice(VALUES / 4, VALUES / 4 + 400).every(x => x === 1)).toBe(true);
  pool.close();
});

test("a worker that is told to exit ends by itself, even where ports cannot be closed (as in Deno)", async () => {
  const file = pathToFileURL(projectPath("src/tensor/wasm/worker-start.node.ts")).href;
  let exited: Promise<string> | undefined;
  const p = await pool(2, start => {
    const code = `
      const { parentPort } = require("node:worker_threads");
      Object.defineProperty(parentPort, "close", { value: undefined });
      import(${JSON.stringify(file)});`;
    const worker = new Worker(code, { eval: true, workerData: start, execArgv: [] });
    exited = new Promise(resolve => {
      worker.once("error", error => resolve(error.message));
      worker.once("exit", code => resolve(`exit ${code}`));
    });
    return {
      ready: new Promise(resolve => worker.once("message", () => resolve())),
      terminate: () => {},
      onExit: () => {},
    };
  });
  p.pool.close();
  expect(await exited).toBe("exit 0");
});

test("a process ends by itself, and silently, while workers sleep", () => {
  const program = `
    import { createEngine } from ${JSON.stringify(projectPath("src/tensor/engine-choice.ts"))};
    const engine = await createEngine({ engine: "wasm", threads: 3 });
    engine.addInto(engine.buffer(100, 100), engine.buffer(100, 100));`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", program], {
    encoding: "utf8",
    timeout: 20_000,
  });
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "", stderr: "" });
});

test.skipIf(!existsSync("/proc/self/task"))(
  "engines that were closed, and engines that were forgotten, leave no thread behind",
  () => {
    const program = `
    import { readdirSync } from "node:fs";
    import { createEngine } from ${JSON.stringify(projectPath("src/tensor/engine-choice.ts"))};
    const threads = () => readdirSync("/proc/self/task").length;
    const use = async close => {
      const engine = await createEngine({ engine: "wasm", threads: 4 });
      engine.addInto(engine.buffer(1000, 100), engine.buffer(1000, 100));
      await new Promise(resolve => setTimeout(resolve, 150));
      if (close) engine.close();
    };
    await use(true);
    await new Promise(resolve => setTimeout(resolve, 300));
    const before = threads();
    for (let i = 0; i < 6; i++) await use(i % 2 === 0);
    for (let i = 0; i < 40 && threads() > before; i++) {
      globalThis.gc();
      await new Promise(resolve => setTimeout(resolve, 100));
    }
    console.log(threads() - before);`;
    const { stdout, stderr } = spawnSync(process.execPath, ["--expose-gc", "--input-type=module", "--eval", program], {
      encoding: "utf8",
      timeout: 60_000,
    });
    expect(stderr).toBe("");
    expect(Number(stdout)).toBeLessThanOrEqual(0);
  },
);

describe("the choice of an engine", () => {
  test("is by name, and what cannot be honoured is refused", async () => {
    expect((await createEngine({ engine: "reference" })).name).toBe("reference");
    const auto = await createEngine();
    expect(auto.name).toBe("wasm");
    auto.close();
    await expect(createEngine({ thread: 2 } as object)).rejects.toThrow(
      'engine: expected options among engine, threads, weights, got "thread"',
    );
    await expect(createEngine({ engine: "gpu" as "auto" })).rejects.toThrow(
      "engine: expected auto, wasm or reference, got gpu",
    );
    await expect(createEngine({ engine: "reference", threads: 2 })).rejects.toThrow(
      "threads: expected 1, since the reference engine has one, got 2",
    );
    for (const threads of [0, 1.5, 65, Number.NaN])
      await expect(createEngine({ threads })).rejects.toThrow("threads: expected an integer from 1 to 64");
  });

  test("a machine without SIMD gets the readable engine, or an error where the fast one was asked for", async () => {
    const { validate } = WebAssembly;
    WebAssembly.validate = () => false;
    try {
      expect((await createEngine()).name).toBe("reference");
      await expect(createEngine({ engine: "wasm" })).rejects.toThrow("expected WebAssembly with SIMD");
    } finally {
      WebAssembly.validate = validate;
    }
  });

  test("without shared memory there is one thread, or an error where more were asked for", async () => {
    const shared = globalThis.SharedArrayBuffer;
    Reflect.deleteProperty(globalThis, "SharedArrayBuffer");
    try {
      const engine = await createEngine();
      expect([engine.name, engine.threads]).toEqual(["wasm", 1]);
      await expect(createEngine({ threads: 2 })).rejects.toThrow(
        "threads: expected 1, since there is no shared memory here, got 2",
      );
    } finally {
      globalThis.SharedArrayBuffer = shared;
    }
  });
});
