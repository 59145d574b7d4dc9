/**
 * Mutation scores: `npm run test:mutants -- ROOM [--sample N] [--seed N]`.
 *
 * A mutant is the source with one small fault: `<` for `<=`, a condition that always holds, an emptied block or
 * string. It is found when a test fails or hangs because of it. The score is the share that is found. Out:
 * tmp/mutants/ROOM.txt, with the scores of the files and the mutants that survived.
 *
 * Stryker's instrumenter makes the mutants, of all kinds. Running them is our own work (runner.ts says how). Its
 * runner starts Vitest with all modules anew for each mutant, 4 seconds here, where the tests themselves take a
 * few milliseconds; and it wants TypeScript's old interface.
 */

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Instrumenter } from "@stryker-mutator/instrumenter";
import { ROOMS } from "./rooms.ts";
import type { Entry, Job } from "./runner.ts";
import type { Plan } from "./vitest-process.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** A worker that is silent for this long hangs in its mutant. */
const HANG_MS = 90_000;
/** Tests without a mutant may take longer. */
const SILENT_MS = 900_000;
/** Tests that take less than this are quick ones, which run first. */
const QUICK_MS = 300;
/** A file whose tests take longer is not run again for single mutants, which can only make the score too low. */
const ALONE_MS = 30_000;

interface Mutant {
  readonly id: string;
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly kind: string;
  readonly original: string;
  readonly replacement: string;
  isCovered: boolean;
  /** The test that found it. */
  found?: string;
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { sample: { type: "string" }, seed: { type: "string", default: "1" } },
});
const [name = ""] = positionals;
const room = ROOMS[name];
if (!room || positionals.length > 1)
  throw new Error(`expected one of ${Object.keys(ROOMS).join(", ")}, got ${positionals.join(" ") || "none"}`);
for (const option of ["sample", "seed"] as const) {
  const value = values[option];
  if (value !== undefined && !/^[1-9]\d{0,8}$/.test(value))
    throw new Error(`--${option}: expected a whole number from 1, got ${value}`);
}

const folder = join(ROOT, "tmp/mutants", name);
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
const started = performance.now();
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

const { mutants: all, instrumented } = await instrument(expand("src", room.sources, ".ts"));
const mutants = values.sample === undefined ? all : sample(all, Number(values.sample), Number(values.seed));
const tests = expand("test", room.tests, ".test.ts");
say(
  `${all.length} mutants in ${Object.keys(instrumented).length} files, ${mutants.length} tried, ${tests.length} test files`,
);

const byId = new Map(mutants.map(mutant => [mutant.id, mutant]));
/**
 * The mutants that must run alone, by test file: those that only code outside the tests reaches, and those that a test
 * would reach only once.
 */
const alone = new Map(tests.map(file => [file, new Set<string>()]));
/** How long the tests of a file take. */
const durationMs = new Map<string, number>();
for (const file of tests) await tryEach(file, { toMs: QUICK_MS });
await tryAlone();
writeReport();
for (const file of tests) await tryEach(file, { fromMs: QUICK_MS });
process.stdout.write(`${writeReport().split("\n\n")[0]}\n`);
say(`survivors: ${relative(ROOT, folder)}.txt`);

function say(text: string): void {
  process.stderr.write(`${((performance.now() - started) / 1000).toFixed(0).padStart(5)} s  ${text}\n`);
}

/** Files and whole folders below `base`, in the order given. */
function expand(base: string, paths: readonly string[], ending: string): string[] {
  return paths.flatMap(path => {
    const full = resolve(ROOT, base, path);
    if (!path.endsWith("/")) return existsSync(full) ? [full] : [];
    const files = readdirSync(full, { recursive: true, encoding: "utf8" }).filter(file => file.endsWith(ending));
    return files.sort().map(file => join(full, file));
  });
}

async function instrument(
  files: readonly string[],
): Promise<{ mutants: Mutant[]; instrumented: Record<string, string> }> {
  const silent = () => {};
  const logger = Object.fromEntries(["trace", "debug", "info", "warn", "error", "fatal"].map(level => [level, silent]));
  const instrumenter = new Instrumenter({ ...logger, isDebugEnabled: () => false } as never);
  const sources = files.map(file => ({ name: file, mutate: true, content: readFileSync(file, "utf8") }));
  const result = await instrumenter.instrument(sources, { plugins: null, excludedMutations: [], ignorers: [] });
  const instrumented: Record<string, string> = {};
  result.files.forEach(({ name: file, content }, i) => {
    instrumented[file] = join(folder, `${i}-${basename(file)}.txt`); // linters ignore this name
    writeFileSync(instrumented[file], content);
  });
  const lines = new Map(sources.map(({ name: file, content }) => [file, content.split("\n")]));
  const mutants = result.mutants.map(({ id, fileName, location: { start, end }, mutatorName, replacement = "" }) => {
    const text = lines.get(fileName)!.slice(start.line, end.line + 1);
    text.push(text.pop()!.slice(0, end.column));
    const original = text.join("\n").slice(start.column);
    return {
      ...{ id, file: relative(ROOT, fileName), line: start.line + 1, column: start.column + 1, kind: mutatorName },
      ...{ original: oneLine(original), replacement: oneLine(replacement), isCovered: false },
    };
  });
  return { mutants, instrumented };
}

function oneLine(code: string): string {
  const line = code.replace(/\s+/g, " ");
  return line.length <= 100 ? line : `${line.slice(0, 60)} ... ${line.slice(-30)}`;
}

/** A random choice that is the same for the same seed (xorshift). */
function sample(from: readonly Mutant[], count: number, seed: number): Mutant[] {
  let state = seed | 0 || 1;
  const random = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const drawn = from.map(mutant => ({ mutant, order: random() })).sort((a, b) => a.order - b.order);
  return drawn
    .slice(0, count)
    .map(({ mutant }) => mutant)
    .sort((a, b) => Number(a.id) - Number(b.id));
}

/** Tries the remaining mutants in the tests of a file, in a new worker after each one that spoilt its worker. */
async function tryEach(file: string, limits: Pick<Job, "fromMs" | "toMs">): Promise<void> {
  for (let isDone = false; !isDone; ) {
    const each = mutants
      .filter(({ found, id }) => found === undefined && !alone.get(file)!.has(id))
      .map(({ id }) => id);
    if (each.length === 0) return;
    const log = join(folder, "log.jsonl");
    const { entries, isKilled } = await runVitest([{ file, job: { ...limits, each, log } }], log);
    isDone = !isKilled;
    for (const entry of entries) {
      if (entry.kind === "failed")
        throw new Error(`${relative(ROOT, file)}: expected tests that pass, got ${entry.test}: ${entry.message}`);
      if (entry.kind === "dirty" || entry.kind === "timeout") isDone = false;
      if (entry.kind === "dirty" || entry.kind === "unreached") alone.get(file)!.add(entry.id);
      if (entry.kind === "coverage") {
        durationMs.set(file, Math.max(entry.ms, durationMs.get(file) ?? 0));
        const inTests = new Set(entry.tests);
        for (const id of entry.static) if (!inTests.has(id)) alone.get(file)!.add(id);
        for (const id of [...entry.static, ...entry.tests]) if (byId.has(id)) byId.get(id)!.isCovered = true;
      }
      take(entry);
    }
  }
  const left = mutants.filter(({ found }) => found === undefined).length;
  say(`${relative(ROOT, file)}${limits.fromMs ? ", slow tests" : ""}: ${left} of ${mutants.length} left`);
}

/** Tries the mutants that must be on from the start, in each file that reaches them. */
async function tryAlone(): Promise<void> {
  const quickest = [...alone].sort(([a], [b]) => durationMs.get(a)! - durationMs.get(b)!);
  for (const [file, ids] of quickest.filter(([path]) => durationMs.get(path)! < ALONE_MS)) {
    let left = [...ids].filter(id => byId.has(id));
    for (let isDone = false; !isDone; ) {
      left = left.filter(id => byId.get(id)!.found === undefined);
      if (left.length === 0) break;
      say(`${relative(ROOT, file)}: ${left.length} alone`);
      const log = join(folder, "log.jsonl");
      const { entries, isKilled } = await runVitest(
        left.map(id => ({ file, job: { alone: id, log } })),
        log,
      );
      isDone = !isKilled;
      for (const entry of entries) take(entry);
      const tried = new Set(entries.map(entry => ("id" in entry ? entry.id : "")));
      left = left.filter(id => !tried.has(id));
    }
  }
}

function take(entry: Entry): void {
  if (entry.kind === "killed") byId.get(entry.id)!.found ??= entry.test;
  if (entry.kind === "timeout") byId.get(entry.id)!.found ??= "timeout";
}

/** Runs a plan in its own process. If it hangs or ends, it is killed, and the mutant that it was in counts as found. */
async function runVitest(runs: Plan["runs"], log: string): Promise<{ entries: Entry[]; isKilled: boolean }> {
  writeFileSync(log, "");
  const plan = join(folder, "plan");
  writeFileSync(plan, JSON.stringify({ instrumented, runs } satisfies Plan));
  const script = fileURLToPath(new URL("vitest-process.ts", import.meta.url));
  // Detached: its workers are killed with it.
  const child = spawn(process.execPath, [script, plan], {
    cwd: ROOT,
    detached: true,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let messages = "";
  child.stderr.on("data", data => {
    messages += data;
  });
  const kill = (): void => {
    try {
      process.kill(-child.pid!, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
  };
  const watch = setInterval(() => {
    const limit = readLog(log).at(-1)?.kind === "start" ? HANG_MS : SILENT_MS;
    if (Date.now() - Math.max(statSync(log).mtimeMs, statSync(plan).mtimeMs) > limit) kill();
  }, 1_000);
  process.once("exit", kill);
  const status = await new Promise(done => child.on("close", done));
  clearInterval(watch);
  process.off("exit", kill);
  kill();
  const entries = readLog(log);
  if (status === 0) return { entries, isKilled: false };
  const last = entries.at(-1);
  if (last?.kind !== "start")
    throw new Error(`expected a run that ends by itself, got one that did not: ${messages.slice(-2_000)}`);
  return { entries: [...entries, { kind: "timeout", id: last.id }], isKilled: true };
}

function readLog(log: string): Entry[] {
  const lines = readFileSync(log, "utf8").split("\n");
  return lines.slice(0, -1).map(line => JSON.parse(line));
}

function writeReport(): string {
  const report = summary();
  writeFileSync(`${folder}.txt`, report);
  return report;
}

function summary(): string {
  const score = (name: string, of: readonly Mutant[]): string => {
    const [timeouts, found] = [
      of.filter(m => m.found === "timeout").length,
      of.filter(m => m.found !== undefined).length,
    ];
    const uncovered = of.filter(m => !m.isCovered && m.found === undefined).length;
    const share = `${((100 * found) / of.length).toFixed(1)} %`.padStart(7);
    return `${share}  ${found} of ${of.length} (${timeouts} by time, ${uncovered} in no test)  ${name}`;
  };
  const files = [...new Set(mutants.map(m => m.file))];
  const sampled =
    mutants.length < all.length ? `, a sample of ${mutants.length} of ${all.length} mutants, seed ${values.seed}` : "";
  const survivors = mutants
    .filter(m => m.found === undefined)
    .map(
      m =>
        `${m.file}:${m.line}:${m.column} ${m.kind}${m.isCovered ? "" : " (in no test)"}\n    - ${m.original}\n    + ${m.replacement}\n`,
    );
  return [
    `${score(`${name}${sampled}`, mutants)}\n${files
      .map(file =>
        score(
          file,
          mutants.filter(m => m.file === file),
        ),
      )
      .join("\n")}\n`,
    `Survivors:\n\n${survivors.join("")}`,
  ].join("\n");
}
