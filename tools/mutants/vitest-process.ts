/**
 * Runs test files on instrumented sources, one after another: `node vitest-process.ts PLAN`, a process of its own
 * that may be killed when a mutant hangs. What it finds out goes to the plan's log.
 */

import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { createVitest } from "vitest/node";
import type { Entry, Job } from "./runner.ts";

export interface Plan {
  /** The path of the instrumented text of a source, by the path of the source. */
  readonly instrumented: Readonly<Record<string, string>>;
  readonly runs: readonly { readonly file: string; readonly job: Job }[];
}

const [planPath] = process.argv.slice(2);
const { instrumented, runs }: Plan = JSON.parse(readFileSync(planPath, "utf8"));
const jobPath = `${planPath}.job`;
process.env.MUTANTS_JOB = jobPath;

const vitest = await createVitest(
  "test",
  {
    config: false,
    include: ["test/**/*.test.ts"],
    runner: fileURLToPath(new URL("runner.ts", import.meta.url)),
    maxWorkers: 1,
    watch: false,
    bail: 1,
    reporters: [{}],
    onConsoleLog: () => false,
    // For Vitest a test with all its mutants is one test; the runner watches for hangs.
    testTimeout: 3_600_000,
    hookTimeout: 120_000,
  },
  {
    plugins: [
      {
        name: "mutants",
        enforce: "pre",
        load: id => (instrumented[id] ? readFileSync(instrumented[id], "utf8") : undefined),
      },
    ],
  },
);
for (const { file, job } of runs) {
  const write = (entry: Entry): void => appendFileSync(job.log, `${JSON.stringify(entry)}\n`);
  writeFileSync(jobPath, JSON.stringify(job));
  vitest.state.filesMap.clear();
  vitest.state.errorsSet.clear();
  if (job.alone !== undefined) write({ kind: "start", id: job.alone });
  await vitest.start([file]);
  const files = vitest.state.getFiles();
  const failed = files.find(({ result }) => result?.state === "fail");
  const [error = failed?.result?.errors?.[0]] = vitest.state.errorsSet;
  const message = error === undefined ? "" : String((error as Error).stack ?? error);
  if (job.alone !== undefined) {
    const isKilled = failed !== undefined || vitest.state.errorsSet.size > 0;
    write(isKilled ? { kind: "killed", id: job.alone, test: file } : { kind: "survived", id: job.alone });
  } else if (failed !== undefined || files.length === 0) {
    write({ kind: "failed", test: file, message });
  }
}
await vitest.close();
process.exit(0);
