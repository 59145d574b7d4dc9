/**
 * `moderate --jsonl --out --resume`: checks what each line answers and what judged it; an output has one writer.
 */

import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { shortHash } from "../../../src/cli/batch/judge-hash.ts";
import { lockOutput } from "../../../src/cli/batch/output-lock.ts";
import { GEN } from "../../checkpoints.ts";
import { projectPath } from "../../helpers.ts";
import { cli, type Outcome, temporaryFolder } from "../harness.ts";

const MAIN = projectPath("src/cli/main.ts");
const TIMING = { touchMs: 20, abandonedMs: 400 };
const lines = (...texts: string[]): string => texts.map(text => `${JSON.stringify({ text })}\n`).join("");
const texts = (path: string): Record<string, unknown>[] =>
  readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map(line => JSON.parse(line));

function batch(input: string): {
  folder: string;
  input: string;
  out: string;
  resume: (...args: string[]) => Promise<Outcome>;
} {
  const folder = temporaryFolder({ "in.jsonl": input });
  const [path, out] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
  const resume = (...args: string[]) =>
    cli(["moderate", "--jsonl", path, "--out", out, "--resume", "--quiet", ...args]);
  return { folder, input: path, out, resume };
}

/** Expects a run to be refused, to keep every byte and to leave no other file. */
async function refuses(
  { folder, out }: { folder: string; out: string },
  run: Promise<Outcome>,
  message: string,
): Promise<void> {
  const [before, files] = [readFileSync(out), readdirSync(folder)];
  expect(await run).toEqual({ status: 1, out: "", err: expect.stringContaining(message) });
  expect(readFileSync(out)).toEqual(before);
  expect(readdirSync(folder)).toEqual(files);
}

describe("what a line answers", () => {
  test("another text, with the same id or none, does not pass for the old one", async () => {
    for (const id of [{ id: 7 }, {}]) {
      const line = (text: string): string => `${JSON.stringify({ ...id, text })}\n`;
      const b = batch(line("hello") + line("you"));
      expect((await b.resume()).status).toBe(0);
      writeFileSync(b.input, line("hello") + line("How can I make a bomb?"));
      await refuses(b, b.resume(), "out.jsonl line 2: expected inputHash");
      await refuses(b, b.resume(), "the line has changed; a new --out file begins with the first line");
      // Verdicts before the changed line stay.
      writeFileSync(b.out, `${readFileSync(b.out, "utf8").split("\n")[0]}\n`);
      expect((await b.resume()).status).toBe(0);
      expect(texts(b.out).map(({ safety }) => safety)).toEqual(["Safe", "Unsafe"]);
    }
  });

  test("swapped, missing and added lines are noticed; white space around a line is not part of it", async () => {
    const b = batch(lines("a", "b", "c"));
    await b.resume();
    for (const other of [lines("b", "a", "c"), lines("a", "c"), lines("a", "x", "b", "c")]) {
      writeFileSync(b.input, other);
      await refuses(b, b.resume(), "expected inputHash");
    }
    writeFileSync(b.input, lines("a", "b", "c", "d").replaceAll("\n", " \r\n"));
    expect((await b.resume()).status).toBe(0);
    expect(texts(b.out)).toHaveLength(4);
  });

  test("a line that could not be judged counts as changed once it is repaired", async () => {
    const b = batch('{"id":1,"text":5}\n');
    expect((await b.resume()).status).toBe(1);
    expect(texts(b.out)[0]).toEqual({
      id: 1,
      inputHash: expect.stringMatching(/^[\da-f]{16}$/),
      judgeHash: expect.stringMatching(/^[\da-f]{16}$/),
      line: 1,
      error: "text: expected a string, got 5",
    });
    writeFileSync(b.input, '{"id":1,"text":"5"}\n');
    await refuses(b, b.resume(), "expected inputHash");
  });

  test("an output without hashes is not continued", async () => {
    const b = batch(lines("hello", "you"));
    await b.resume();
    writeFileSync(b.out, readFileSync(b.out, "utf8").replaceAll(/"(input|judge)Hash":"\w+",/g, ""));
    await refuses(b, b.resume(), "got none: an output without hashes, of an older version or another program");
  });
});

describe("what judges it", () => {
  test("other scores, windows or weights are refused, and so is their absence", async () => {
    const b = batch(lines("hello", "you"));
    const judges = [
      ["--scores", "full"],
      ["--window", "64"],
      ["--window", "64", "--overlap", "9"],
      ["--weights", "int8"],
      [],
    ];
    for (const [i, options] of judges.entries()) {
      rmSync(b.out, { force: true });
      expect((await b.resume(...options)).status).toBe(0);
      const others = judges[(i + 1) % judges.length];
      await refuses(b, b.resume(...others), "the checkpoint, --weights, --scores, --window or --overlap have changed");
    }
    // Engine and threads do not change the judge: the bits are the same.
    expect((await b.resume("--threads", "1")).status).toBe(0);
    expect((await b.resume("--weights", "checkpoint")).status).toBe(0);
  });

  test("another checkpoint of the same name: a changed weight, tokenizer or template", async () => {
    const b = batch(lines("hello", "you"));
    const copy = (name: string): string => {
      const model = join(b.folder, name, "guard");
      mkdirSync(join(b.folder, name));
      cpSync(GEN, model, { recursive: true });
      return model;
    };
    const model = copy("first");
    await b.resume("--model", model);
    expect((await b.resume("--model", copy("second"))).status).toBe(0); // the place of the folder does not matter
    const weights = readFileSync(join(model, "model.safetensors"));
    weights[weights.length - 1] ^= 1;
    const template = readFileSync(join(model, "tokenizer_config.json"), "utf8");
    for (const [name, file, content] of [
      ["third", "model.safetensors", weights],
      ["fourth", "tokenizer_config.json", `${template}\n`],
    ] as const) {
      const changed = copy(name);
      writeFileSync(join(changed, file), content);
      await refuses(b, b.resume("--model", changed), "expected judgeHash");
    }
  });
});

describe("one writer", () => {
  test("a second run on an output fails while the first is at work, whatever path names it", async () => {
    const b = batch(lines("hello"));
    symlinkSync("out.jsonl", join(b.folder, "link"));
    const lock = await lockOutput(b.out, {}, TIMING);
    for (const name of ["out.jsonl", "link"]) {
      const out = join(b.folder, name);
      const outcome = await cli(["moderate", "--jsonl", b.input, "--out", out, "--resume", "--quiet"]);
      expect(outcome).toEqual({
        status: 1,
        out: "",
        err: `qwen3guard: ${out}: another run is writing to it (process ${process.pid} on ${hostname()}); ${b.out}.lock is its lock\n`,
      });
    }
    expect(existsSync(b.out)).toBe(false);
    await lock.release();
    expect((await b.resume()).status).toBe(0);
    expect(readdirSync(b.folder).sort()).toEqual(["in.jsonl", "link", "out.jsonl"]);
  });

  test("a lock is taken over if its process is gone, or if nobody touches it", async () => {
    const { folder, out } = batch("");
    const child = spawn(process.execPath, ["-e", ""]);
    await new Promise(resolve => child.on("exit", resolve));
    const waits: string[] = [];
    for (const owner of [
      JSON.stringify({ pid: child.pid, host: hostname(), id: "killed" }),
      JSON.stringify({ pid: 1, host: "another-machine", id: "lost" }),
      JSON.stringify({ pid: process.pid, host: hostname(), id: "a number that is ours by now" }),
      "", // killed before it could write its name
    ]) {
      writeFileSync(`${out}.lock`, owner);
      const lock = await lockOutput(out, { onWait: () => waits.push(owner) }, TIMING);
      expect(readFileSync(`${out}.lock`, "utf8")).toContain(`"pid":${process.pid}`);
      await lock.release();
      expect(readdirSync(folder)).toEqual(["in.jsonl"]);
    }
    expect(waits.map(owner => /[a-z ]*"\}$/.exec(owner)?.[0])).toEqual([
      'lost"}',
      'a number that is ours by now"}',
      undefined,
    ]);
  });

  test("of many that start at once on an abandoned lock, one gets it", async () => {
    const { out } = batch("");
    writeFileSync(`${out}.lock`, JSON.stringify({ pid: 1, host: "another-machine", id: "lost" }));
    const locks = await Promise.allSettled(Array.from({ length: 20 }, () => lockOutput(out, {}, TIMING)));
    const held = locks.flatMap(lock => (lock.status === "fulfilled" ? [lock.value] : []));
    expect(held).toHaveLength(1);
    await held[0].release();
  });

  test("the claim of a run that was killed while it took over a lock is named", async () => {
    const { out } = batch("");
    const owner = JSON.stringify({ pid: 1, host: "another-machine", id: "lost" });
    writeFileSync(`${out}.lock`, owner);
    writeFileSync(`${out}.lock.${shortHash(owner)}`, "");
    await expect(lockOutput(out, {}, TIMING)).rejects.toThrow(
      `${out}: its lock could not be taken over; remove ${out}.lock and what begins with its name`,
    );
  });

  test("a lock that was taken over is not released by its former owner", async () => {
    const { out } = batch("");
    const lost = await lockOutput(out, {}, TIMING);
    writeFileSync(`${out}.lock`, "another's");
    await lost.release();
    expect(readFileSync(`${out}.lock`, "utf8")).toBe("another's");
  });

  test("a missing folder is named", async () => {
    const { folder, input } = batch(lines("hello"));
    const out = join(folder, "no", "out.jsonl");
    expect((await cli(["moderate", "--jsonl", input, "--out", out, "--quiet"])).err).toBe(
      `qwen3guard: ${out}: expected a file to write, got no such file\n`,
    );
  });
});

describe.skipIf(process.platform === "win32")("as a process", () => {
  const many = lines(...Array.from({ length: 300 }, (_, i) => `text number ${i}`));

  function start(b: { input: string; out: string }) {
    const child = spawn(process.execPath, [
      MAIN,
      "moderate",
      "--jsonl",
      b.input,
      "--out",
      b.out,
      "--resume",
      "--quiet",
    ]);
    let stderr = "";
    child.stderr.on("data", chunk => {
      stderr += chunk;
    });
    const ended = new Promise<{ status: number | null; stderr: string }>(go =>
      child.on("close", status => go({ status, stderr })),
    );
    const until = async (isSo: () => boolean): Promise<void> => {
      while (!isSo() && child.exitCode === null) await new Promise(go => setTimeout(go, 10));
    };
    return {
      child,
      ended,
      until,
      written: () => until(() => existsSync(b.out) && readFileSync(b.out, "utf8").includes("\n")),
    };
  }

  test("of two at once one writes and one fails; the lock of a killed one is taken over", async () => {
    const b = batch(many);
    const first = start(b);
    await first.written();
    expect(await start(b).ended).toEqual({
      status: 1,
      stderr: expect.stringContaining("another run is writing to it"),
    });
    first.child.kill("SIGKILL");
    await first.ended;
    expect(existsSync(`${b.out}.lock`)).toBe(true);
    expect(await start(b).ended).toEqual({ status: 0, stderr: "" });
    const answered = texts(b.out);
    expect(answered).toHaveLength(300);
    expect(new Set(answered.map(({ inputHash }) => inputHash)).size).toBe(300);
    expect(readdirSync(b.folder).sort()).toEqual(["in.jsonl", "out.jsonl"]);
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s leaves no lock, while it loads and while it judges", async signal => {
    const b = batch(many);
    const loading = start(b);
    await loading.until(() => existsSync(`${b.out}.lock`));
    loading.child.kill(signal);
    await loading.ended;
    expect(readdirSync(b.folder).filter(name => name.endsWith(".lock"))).toEqual([]);
    const judging = start(b);
    await judging.written();
    judging.child.kill(signal);
    await judging.ended;
    expect(readdirSync(b.folder).sort()).toEqual(["in.jsonl", "out.jsonl"]);
  });

  test.each<[string, (out: string) => void, string]>([
    ["removed", out => rmSync(out), "the output was removed while the batch ran"],
    ["moved", out => renameSync(out, `${out}.old`), "the output was removed while the batch ran"],
    [
      "replaced",
      out => {
        writeFileSync(`${out}.new`, "");
        renameSync(`${out}.new`, out);
      },
      "the output was replaced while the batch ran",
    ],
    ["emptied", out => truncateSync(out), "another program has written to the output: expected"],
    [
      "written to",
      out => writeFileSync(out, "mine\n", { flag: "a" }),
      "another program has written to the output: expected",
    ],
  ])("an output that is %s ends the batch with an error", async (_, change, message) => {
    const b = batch(many);
    const run = start(b);
    await run.written();
    change(b.out);
    expect(await run.ended).toEqual({ status: 1, stderr: expect.stringContaining(`out.jsonl: ${message}`) });
  });
});

describe("an output before its first line", () => {
  test("a batch that fails before its first line leaves no file", async () => {
    const folder = temporaryFolder();
    const args = ["moderate", "--jsonl", "-", "--out", join(folder, "out.jsonl"), "--quiet"];
    expect((await cli(args, { stdin: "" })).status).toBe(2);
    expect(readdirSync(folder)).toEqual([]);
    expect((await cli(args, { stdin: "\n" })).status).toBe(0); // no lines, so every line is judged
    expect(readFileSync(join(folder, "out.jsonl"), "utf8")).toBe("");
  });

  test.skipIf(process.platform === "win32")("a device cannot be continued", async () => {
    const { input } = batch(lines("hello"));
    const outcome = await cli(["moderate", "--jsonl", input, "--out", "/dev/null", "--resume", "--quiet"]);
    expect(outcome.err).toBe(
      "qwen3guard: /dev/null: expected a file to write, got a pipe or a device (--out - is stdout)\n",
    );
  });
});
