/** Starts the engine's workers on Node (worker_threads). This file is also what a worker runs. */

import { readFileSync } from "node:fs";
import { availableParallelism, freemem } from "node:os";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { serveJobs, type WorkerHandle, type WorkerStart } from "./threads.ts";

/**
 * Cores that this process may use, counted once where several hardware threads share one: two threads that share a
 * core's vector units only get in each other's way. At most 16: beyond that, memory is the limit.
 */
export function physicalCores(): number {
  const available = availableParallelism();
  try {
    const cores = new Set<string>();
    const info = readFileSync("/proc/cpuinfo", "utf8");
    for (const cpu of info.split(/\n\n+/)) {
      const [package_, core] = [/^physical id\s*: (\d+)/m, /^core id\s*: (\d+)/m].map(field => field.exec(cpu)?.[1]);
      if (core !== undefined) cores.add(`${package_}/${core}`);
    }
    return Math.max(1, Math.min(16, available, cores.size || available));
  } catch {
    return Math.min(16, available); // no such file: another system
  }
}

/** Memory that this process may still take: of its container where there is one, else of the machine. */
export function availableMemoryBytes(): number {
  // Node 20.13 and later; the types of Node 20 do not know it.
  const { availableMemory } = process as { availableMemory?: () => number };
  return availableMemory?.() ?? freemem();
}

/** A worker that does not keep the process alive. */
export function startNodeWorker(start: WorkerStart): WorkerHandle {
  // The program's own flags (--input-type, say) are not meant for the worker.
  const worker = new Worker(new URL(import.meta.url), { workerData: start, execArgv: [] });
  worker.unref();
  const ready = new Promise<void>((resolve, reject) => {
    worker.once("message", () => resolve());
    worker.once("error", reject);
    worker.once("exit", code => reject(new Error(`threads: expected a worker to start, got exit ${code}`)));
  });
  return {
    ready,
    terminate: () => void worker.terminate(),
    onExit: callback => {
      worker.once("error", error => callback(error.message));
      worker.once("exit", code => callback(`exit ${code}`));
    },
  };
}

if (!isMainThread && parentPort && workerData?.module instanceof WebAssembly.Module) {
  const port = parentPort; // nobody listens on it, so it does not keep the thread alive
  serveJobs(workerData as WorkerStart, () => port.postMessage("ready"));
}
