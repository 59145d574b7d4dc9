/**
 * Vitest's runner, which runs each test once as it is and then once more for every mutant that it went through.
 *
 * The sources are instrumented: every mutant stands in them, and one of them can be switched on. So a mutant costs
 * a call of the test's function, not a start of Vitest with all its modules. Two things follow. State that
 * outlives a test may be spoilt by a mutant: after each failure the test runs once more without it, and where that
 * fails too, the mutant counts for nothing here and the worker is given up. And what is computed once only, at
 * import, in `beforeAll` or in a cache, was computed before the mutant was on: those mutants run alone, in a
 * worker where they are on from the start.
 */

import { appendFileSync, readFileSync } from "node:fs";
import { type OnTestFinishedHandler, type RunnerTask, type RunnerTestCase, TestRunner } from "vitest";

/** The object through which instrumented code and its runner speak; the names are the instrumenter's. */
interface Switchboard {
  activeMutant?: string | undefined;
  currentTestId?: string | undefined;
  hitCount?: number | undefined;
  hitLimit?: number;
  mutantCoverage?: { static: Record<string, number>; perTest: Record<string, Record<string, number>> };
}

/** The task of a worker. */
export interface Job {
  /** A mutant to switch on from the start. Each test then runs once. */
  readonly alone?: string;
  /** The mutants to try, each in the tests that reach it. */
  readonly each?: readonly string[];
  /** Run only tests whose time in milliseconds is in this range: quick tests find most mutants. */
  readonly fromMs?: number;
  readonly toMs?: number;
  /** The file for the records, one JSON object a line. */
  readonly log: string;
}

/** The findings of a worker. */
export type Entry =
  | { readonly kind: "start" | "dirty" | "unreached" | "survived" | "timeout"; readonly id: string }
  | { readonly kind: "killed"; readonly id: string; readonly test: string }
  | { readonly kind: "coverage"; readonly ms: number; readonly static: string[]; readonly tests: string[] }
  | { readonly kind: "failed"; readonly test: string; readonly message: string };

/** A mutant may take this many times as long as the test without it. */
const HITS = 100;
const TIMES = 5;
const LEAST_HITS = 1_000;
const LEAST_MS = 5_000;

/** Kept here, since tests replace the clock with their own. */
const now = performance.now.bind(performance);

export default class MutantRunner extends TestRunner {
  readonly #job: Job = JSON.parse(readFileSync(process.env.MUTANTS_JOB ?? "", "utf8"));
  readonly #board: Switchboard;
  readonly #todo: Set<string>;
  #isSpoilt = false;
  /** The times of the tests without a mutant. */
  #sumMs = 0;

  constructor(config: ConstructorParameters<typeof TestRunner>[0]) {
    super(config);
    const global = globalThis as { __stryker__?: Switchboard };
    global.__stryker__ ??= {};
    this.#board = global.__stryker__;
    this.#board.activeMutant = this.#job.alone;
    this.#todo = new Set(this.#job.each);
  }

  async runTask(test: RunnerTestCase): Promise<void> {
    const run = TestRunner.getTestFn(test);
    if (this.#job.alone !== undefined) return void (await run());
    if (this.#isSpoilt) return;
    this.#board.currentTestId = test.id;
    const started = now();
    try {
      await run();
    } catch (error) {
      this.#write({ kind: "failed", test: test.name, message: String(error) });
      throw error;
    } finally {
      this.#board.currentTestId = undefined;
    }
    const ms = now() - started;
    this.#sumMs += ms;
    await cleanUp(test);
    const { fromMs = 0, toMs = Number.POSITIVE_INFINITY } = this.#job;
    if (ms < fromMs || ms >= toMs) return;
    for (const [id, hits] of Object.entries(this.#board.mutantCoverage?.perTest[test.id] ?? {})) {
      if (this.#todo.has(id) && !this.#isSpoilt) await this.#try(id, test, run, hits, ms);
    }
  }

  async #try(id: string, test: RunnerTestCase, run: () => unknown, hits: number, ms: number): Promise<void> {
    this.#write({ kind: "start", id });
    this.#board.hitCount = 0;
    this.#board.hitLimit = Math.max(LEAST_HITS, hits * HITS);
    this.#board.activeMutant = id;
    const outcome = await attempt(run, Math.max(LEAST_MS, ms * TIMES));
    this.#board.activeMutant = undefined;
    const isReached = this.#board.hitCount > 0;
    this.#board.hitCount = undefined;
    await cleanUp(test).catch(() => {});
    if (outcome === "passed") return this.#write({ kind: isReached ? "survived" : "unreached", id });
    this.#todo.delete(id);
    if (outcome === "timeout") {
      this.#isSpoilt = true;
      return this.#write({ kind: "timeout", id });
    }
    this.#isSpoilt = (await attempt(run, Math.max(LEAST_MS, ms * TIMES))) !== "passed";
    await cleanUp(test).catch(() => {});
    this.#write(this.#isSpoilt ? { kind: "dirty", id } : { kind: "killed", id, test: test.name });
  }

  override onAfterRunFiles(): void {
    super.onAfterRunFiles();
    const { static: atImport = {}, perTest = {} } = this.#board.mutantCoverage ?? {};
    const tests = new Set(Object.values(perTest).flatMap(hits => Object.keys(hits)));
    this.#write({ kind: "coverage", ms: this.#sumMs, static: Object.keys(atImport), tests: [...tests] });
  }

  #write(entry: Entry): void {
    appendFileSync(this.#job.log, `${JSON.stringify(entry)}\n`);
  }
}

async function attempt(run: () => unknown, limitMs: number): Promise<"passed" | "failed" | "timeout"> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<"timeout">(resolve => {
    timer = setTimeout(resolve, limitMs, "timeout");
  });
  const running = (async () => {
    try {
      await run();
      return "passed";
    } catch {
      return "failed";
    }
  })();
  return Promise.race([running, limit]).finally(() => clearTimeout(timer)) as Promise<"passed" | "failed" | "timeout">;
}

/** What Vitest does after a test: the test's own clean-up, then that of its suites. */
async function cleanUp(test: RunnerTestCase): Promise<void> {
  const own = test as { onFinished?: OnTestFinishedHandler[] };
  const acts = own.onFinished ?? [];
  own.onFinished = [];
  for (const act of acts.reverse()) await act(test.context);
  for (let suite: RunnerTask | undefined = test.suite ?? test.file; suite; suite = suite.suite ?? suite.file) {
    if (suite.type !== "suite") break;
    const { afterEach, beforeEach } = TestRunner.getSuiteHooks(suite);
    if (beforeEach.length > 0) throw new Error(`${test.name}: beforeEach cannot be run again for every mutant`);
    for (const act of afterEach) await act(test.context, suite);
    if (suite.file === suite) break;
  }
}
