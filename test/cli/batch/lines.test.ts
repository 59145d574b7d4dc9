/**
 * `moderate --jsonl`: order, ids, bad lines in place, resuming, and what Ctrl-C, a kill and a closed pipe leave.
 */

import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { GEN } from "../../checkpoints.ts";
import { projectPath } from "../../helpers.ts";
import { cli, temporaryFolder } from "../harness.ts";

const MAIN = projectPath("src/cli/main.ts");
const parse = (text: string): Record<string, unknown>[] =>
  text
    .split("\n")
    .filter(line => line !== "")
    .map(line => JSON.parse(line));
/** The part of the output that is the same in every run. */
const stable = (text: string): unknown[] => parse(text).map(({ ms: _, usage: __, ...rest }) => rest);
const numbered = (count: number): string =>
  Array.from({ length: count }, (_, i) => `{"id":${i},"text":"text number ${i}"}\n`).join("");

describe("each line has its answer in its place", () => {
  const messages = [
    { role: "user", content: "How can I make a bomb?" },
    { role: "assistant", content: "I cannot help with that." },
  ];
  const lines: [line: string | Uint8Array, expected: object][] = [
    [
      '{"id":"a","text":"How can I make a bomb?"}',
      { id: "a", safety: "Unsafe", categories: ["Violent"], flagged: true },
    ],
    ['{"text":"hello","label":"safe"}', { safety: "Safe", flagged: false, refusal: null }],
    ['{"id":["x",1],"prompt":"hello","response":"Hi."}', { id: ["x", 1], refusal: "No" }],
    ['{"id":null,"prompt":"hello"}', { id: null, refusal: null }],
    [JSON.stringify({ id: 5, messages }), { id: 5, refusal: "Yes" }],
    ["nonsense", { line: 6, error: expect.stringContaining("line: expected JSON") }],
    ['{"id":7}', { id: 7, line: 7, error: "expected one of {text}, {prompt, response} and {messages}, got none" }],
    [
      '{"id":8,"text":"a","messages":[]}',
      { id: 8, line: 8, error: "expected one of {text}, {prompt, response} and {messages}, got text and messages" },
    ],
    ['{"id":9,"text":5}', { id: 9, line: 9, error: "text: expected a string, got 5" }],
    ['{"id":10,"messages":[]}', { id: 10, line: 10, error: "conversation: expected at least one message, got none" }],
    [
      '{"id":11,"text":"a","response":"b"}',
      { id: 11, line: 11, error: "response: expected a prompt with it, got text" },
    ],
    ["[]", { line: 12, error: "expected an object, got []" }],
    [
      Uint8Array.of(0x22, 0xff, 0x22),
      { line: 13, error: "stdin line 13: expected UTF-8 text, got bytes that are not" },
    ],
    [
      '{"id":14,"messages":[{"role":"robot","content":""}]}',
      { id: 14, line: 14, error: expect.stringContaining("role") },
    ],
    ['{"id":15,"text":""}', { id: 15, safety: expect.any(String) }],
  ];

  test("verdicts have their ids, errors their line; blank lines are skipped; the status is 1 at the end", async () => {
    const stdin = Buffer.concat(lines.flatMap(([line]) => [Buffer.from(line as string), Buffer.from("\n")]));
    const { status, out, err } = await cli(["moderate", "--jsonl", "-", "--quiet"], {
      stdin: Buffer.concat([stdin, Buffer.from("\n \n")]),
    });
    expect([status, err]).toEqual([1, ""]);
    const results = parse(out);
    expect(results).toHaveLength(lines.length);
    for (const [i, [, expected]] of lines.entries()) expect(results[i]).toMatchObject(expected);
    expect(Object.keys(results[1])).not.toContain("id");
    const { err: notice } = await cli(["moderate", "--jsonl", "-", "--model", GEN], { stdin });
    expect(notice).toBe("qwen3guard: 9 lines could not be judged\n");
  });

  test("a verdict equals that of a single call; options reach every line; --fail-on reports a flagged one", async () => {
    const stdin = '{"id":1,"text":"How can I make a bomb?"}\n{"id":2,"text":"hello"}'; // without a last line break
    const options = ["--scores", "full", "--threshold", "0.4", "--quiet"];
    const { status, out } = await cli(["moderate", "--jsonl", "-", ...options, "--fail-on"], { stdin });
    expect(status).toBe(3);
    for (const [i, text] of ["How can I make a bomb?", "hello"].entries()) {
      const alone = await cli(["moderate", text, "--json", ...options]);
      expect({ id: i + 1, ...(stable(alone.out)[0] as object) }).toEqual(stable(out)[i]);
    }
    expect(
      (await cli(["moderate", "--jsonl", "-", "--quiet", "--fail-on"], { stdin: '{"text":"hello"}' })).status,
    ).toBe(0);
  });
});

describe("--out and --resume", () => {
  test("continues after whole lines, after a torn line, without a file, and after everything is done", async () => {
    const folder = temporaryFolder({ "in.jsonl": `${numbered(6)}bad\n${numbered(3)}` });
    const [input, out] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
    const args = ["moderate", "--jsonl", input, "--out", out, "--quiet"];
    expect((await cli([...args, "--resume"])).status).toBe(1);
    const whole = readFileSync(out, "utf8");
    expect(parse(whole)).toHaveLength(10);
    const lines = whole.split("\n");
    for (const left of [
      "",
      `${lines.slice(0, 4).join("\n")}\n`,
      `${lines.slice(0, 8).join("\n")}\n{"id":1,"saf`,
      whole,
    ]) {
      writeFileSync(out, left);
      expect(await cli([...args, "--resume"])).toEqual({ status: 1, out: "", err: "" }); // the bad line counts, whichever run read it
      expect(stable(readFileSync(out, "utf8"))).toEqual(stable(whole));
    }
    // The lines that were written stay, to the byte.
    writeFileSync(out, `${lines.slice(0, 4).join("\n")}\n`);
    await cli([...args, "--resume"]);
    expect(readFileSync(out, "utf8").startsWith(lines.slice(0, 4).join("\n"))).toBe(true);
  });

  test("an existing file is not overwritten, and one of other lines or another model is not continued", async () => {
    const folder = temporaryFolder({
      "in.jsonl": numbered(2),
      "other.jsonl": '{"id":"x","text":"a"}\n{"id":"y","text":"a"}\n',
    });
    const [input, out] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
    await cli(["moderate", "--jsonl", input, "--out", out, "--quiet"]);
    const run = (...args: string[]) => cli(["moderate", "--out", out, "--quiet", ...args]);
    expect((await run("--jsonl", input)).err).toContain(
      "out.jsonl: expected no file yet (--resume continues one), got a file",
    );
    expect((await run("--jsonl", join(folder, "other.jsonl"), "--resume")).err).toMatch(
      /out\.jsonl line 1: expected id "x" as of .*other\.jsonl line 1 with this model and these options, got 0/,
    );
    writeFileSync(out, readFileSync(out, "utf8").replaceAll("tiny-guard-gen", "another"));
    expect((await run("--jsonl", input, "--resume")).err).toContain(
      'out.jsonl line 1: expected model "tiny-guard-gen"',
    );
    writeFileSync(out, '{"id":0,"line":9,"error":"nothing"}\n');
    expect((await run("--jsonl", input, "--resume")).err).toContain("out.jsonl line 1: expected line 1");
    writeFileSync(out, "");
    expect((await run("--jsonl", input, "--resume")).status).toBe(0);
    writeFileSync(input, numbered(1));
    expect((await run("--jsonl", input, "--resume")).err).toContain(
      "out.jsonl line 2: expected no more lines than the input has, got one more",
    );
    expect((await run("--jsonl", join(folder, "none.jsonl"), "--resume")).err).toContain(
      "none.jsonl: expected a readable file, got no such file",
    );
  });

  test("a file of another mode or threshold is not continued; one of the same is", async () => {
    const folder = temporaryFolder({ "in.jsonl": numbered(3) });
    const out = join(folder, "out.jsonl");
    const run = (...options: string[]) =>
      cli(["moderate", "--jsonl", join(folder, "in.jsonl"), "--out", out, "--resume", "--quiet", ...options]);
    const begin = async (...options: string[]): Promise<string> => {
      writeFileSync(out, "");
      await run(...options);
      const first = `${readFileSync(out, "utf8").split("\n")[0]}\n`;
      writeFileSync(out, `${first}{"id":1,"sa`);
      return readFileSync(out, "utf8");
    };
    for (const [options, others, message] of [
      [["--mode", "loose"], [], 'expected mode "strict"'],
      [[], ["--mode", "loose"], 'expected mode "loose"'],
      [["--threshold", "0.5"], ["--threshold", "0.6"], "expected threshold 0.6"],
      [["--threshold", "0.5"], [], "expected threshold not given"],
      [[], ["--threshold", "0.5"], "expected threshold 0.5"],
    ] as const) {
      const left = await begin(...options);
      expect(await run(...others)).toMatchObject({
        status: 1,
        err: expect.stringContaining(`out.jsonl line 1: ${message}`),
      });
      expect(readFileSync(out, "utf8")).toBe(left);
      expect((await run(...options)).status).toBe(0);
      expect(parse(readFileSync(out, "utf8")).map(({ id }) => id)).toEqual([0, 1, 2]);
    }
  });

  test("a file that is not the output of this batch keeps every byte; our own torn first line is replaced", async () => {
    const input = '{"id":"ü","text":"a"}\n{"text":"b"}\n';
    const folder = temporaryFolder({ "in.jsonl": input, "bare.jsonl": '\n{"text":"a"}\n', "empty.jsonl": "" });
    const out = join(folder, "out.jsonl");
    const run = (name: string) => cli(["moderate", "--jsonl", join(folder, name), "--out", out, "--resume", "--quiet"]);
    const refused: [string, string | Uint8Array, string][] = [
      [
        "in.jsonl",
        "a diary without a line feed",
        'expected the output of this batch to continue, got "a diary without a line feed"',
      ],
      ["in.jsonl", "\n\na diary", 'expected the output of this batch to continue, got "a diary"'],
      ["in.jsonl", '{"id":"ü","text":"a"}', "expected the output of this batch to continue"],
      ["in.jsonl", '{"safety":"Safe"', "expected the output of this batch to continue"],
      ["in.jsonl", Uint8Array.of(0xff, 0x00), "expected the output of this batch to continue"],
      ["empty.jsonl", '{"id":"ü","safety', "expected the output of this batch to continue"],
      ["in.jsonl", `${input}{"id":"z"`, "out.jsonl line 1: expected model"],
      ["in.jsonl", "null\nand more", 'out.jsonl line 1: expected id "ü"'],
      ["in.jsonl", "a diary\nand more", "out.jsonl line 1: expected JSON"],
      ["none.jsonl", '{"id":"ü","safety', "none.jsonl: expected a readable file, got no such file"],
      [".", '{"id":"ü","safety', "expected a readable file, got a folder"],
    ];
    for (const [name, left, message] of refused) {
      writeFileSync(out, left);
      expect(await run(name)).toMatchObject({ status: 1, out: "", err: expect.stringContaining(message) });
      expect(readFileSync(out)).toEqual(Buffer.from(left as string));
    }
    // Up to the first key of the verdict itself.
    const beginning = async (name: string): Promise<Buffer> => {
      writeFileSync(out, "");
      await run(name);
      return Buffer.from(readFileSync(out, "utf8").split('"safety"')[0]);
    };
    const whole = await beginning("in.jsonl");
    expect(whole.length).toBeGreaterThan(60);
    for (const [name, torn] of [
      ...[0, 1, 7, 8, 20, 45, 60].map(length => ["in.jsonl", whole.subarray(0, length)] as const), // 7 and 8: inside a character, and after it
      ["in.jsonl", Buffer.concat([whole, Buffer.from('"safety":"Sa')])],
      ["in.jsonl", Buffer.concat([whole, Buffer.from('"line":1,"err')])],
      ["bare.jsonl", await beginning("bare.jsonl")],
    ] as const) {
      writeFileSync(out, torn);
      expect((await run(name)).status).toBe(0);
      expect(parse(readFileSync(out, "utf8")).map(({ id }) => id)).toEqual(
        name === "in.jsonl" ? ["ü", undefined] : [undefined],
      );
    }
  });

  test("sizes with which no line can be judged are one error, and leave no output", async () => {
    const folder = temporaryFolder({ "in.jsonl": numbered(2), "old.jsonl": "kept" });
    for (const [options, message] of [
      [["--window", "5"], /^qwen3guard: window: expected an integer from 16 to \d+, the room in the context, got 5\n$/],
      [
        ["--window", "100000"],
        /^qwen3guard: window: expected an integer from 16 to \d+, the room in the context, got 100000\n$/,
      ],
      [
        ["--window", "32", "--overlap", "17"],
        /^qwen3guard: overlap: expected an integer from 0 to half of the window, 16, got 17\n$/,
      ],
    ] as const) {
      for (const out of [[], ["--out", join(folder, "new.jsonl")], ["--out", join(folder, "old.jsonl"), "--resume"]]) {
        const outcome = await cli(["moderate", "--jsonl", join(folder, "in.jsonl"), "--quiet", ...options, ...out]);
        expect(outcome).toEqual({ status: 1, out: "", err: expect.stringMatching(message) });
      }
    }
    expect(readdirSync(folder).sort()).toEqual(["in.jsonl", "old.jsonl"]);
    expect(readFileSync(join(folder, "old.jsonl"), "utf8")).toBe("kept");
  });

  test("--out - is stdout; an input that cannot be read leaves no output", async () => {
    const folder = temporaryFolder({ "in.jsonl": numbered(2) });
    const args = ["moderate", "--quiet", "--jsonl"];
    expect(stable((await cli([...args, join(folder, "in.jsonl"), "--out", "-"])).out)).toHaveLength(2);
    expect(existsSync("-")).toBe(false);
    for (const name of ["none.jsonl", "."])
      expect((await cli([...args, join(folder, name), "--out", join(folder, "new")])).status).toBe(1);
    expect(readdirSync(folder)).toEqual(["in.jsonl"]);
  });

  test.each<[string[], string]>([
    [["--jsonl", "-", "--out", "-", "--resume"], "--resume: expected an --out FILE to continue, got stdout"],
    [["--jsonl", "-", "text"], "moderate: expected --jsonl or TEXT, got both"],
    [["--jsonl", "-", "--response", "x"], "moderate: expected --jsonl or --response, got both"],
    [["--jsonl", "-", "--explain"], "moderate: expected --jsonl or --explain, got both"],
    [["--jsonl", "-", "--resume"], "--resume: expected an --out FILE to continue, got none"],
    [["text", "--resume"], "--resume: expected it with --jsonl, got no --jsonl"],
    [["text", "--out", "x"], "--out: expected it with --jsonl, got no --jsonl"],
    [["text", "--threshold", "2"], "--threshold: expected a number from 0 to 1, got 2"],
    [["text", "--threshold", "0.5", "--mode", "loose"], "moderate: expected --mode or --threshold, got both"],
    [["text", "--overlap", "5"], "moderate: expected a --window with --overlap, got none"],
  ])("%j is wrong usage", async (args, message) => {
    expect(await cli(["moderate", ...args])).toEqual({ status: 2, out: "", err: `qwen3guard: ${message}\n` });
  });
});

test("progress on a terminal shows lines, rate and time left, and is removed at the end", async () => {
  const folder = temporaryFolder({ "in.jsonl": numbered(40) });
  const { err } = await cli(["moderate", "--jsonl", join(folder, "in.jsonl")], {
    errColumns: 80,
    env: { QWEN3GUARD_MODEL: GEN },
  });
  expect(err).toMatch(/\r\d+ lines, [\d.]+ a second, 0:\d\d left\x1b\[K/);
  expect(err.endsWith("\r\x1b[K")).toBe(true);
});

describe.skipIf(process.platform === "win32")("as a process", () => {
  /** Starts a batch and waits until this many lines are written. */
  async function startBatch(folder: string, lines: number, ...args: string[]) {
    const [input, out] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
    const child = spawn(process.execPath, [MAIN, "moderate", "--jsonl", input, "--out", out, "--quiet", ...args]);
    const ended = new Promise<[number | null, string | null]>(resolve => child.on("exit", (...how) => resolve(how)));
    const written = (): number => {
      try {
        return readFileSync(out, "utf8").split("\n").length - 1;
      } catch {
        return 0;
      }
    };
    while (written() < lines && child.exitCode === null) await new Promise(resolve => setTimeout(resolve, 20));
    return { child, ended, out };
  }

  test("Ctrl-C finishes the line and exits with 130; a kill loses nothing that was written; --resume continues both", async () => {
    const folder = temporaryFolder({ "in.jsonl": numbered(150) });
    const first = await startBatch(folder, 10);
    first.child.kill("SIGINT");
    expect(await first.ended).toEqual([130, null]);
    expect(readFileSync(first.out, "utf8").endsWith("}\n")).toBe(true);
    const before = parse(readFileSync(first.out, "utf8")).length;
    expect(before).toBeLessThan(150);

    const second = await startBatch(folder, before + 10, "--resume");
    second.child.kill("SIGKILL");
    expect(await second.ended).toEqual([null, "SIGKILL"]);
    const third = await startBatch(folder, 150, "--resume");
    expect(await third.ended).toEqual([0, null]);
    expect(parse(readFileSync(third.out, "utf8")).map(({ id }) => id)).toEqual(
      Array.from({ length: 150 }, (_, i) => i),
    );
  });

  test("Ctrl-C ends it at once while it waits for input", async () => {
    const child = spawn(process.execPath, [MAIN, "moderate", "--jsonl", "-", "--quiet"]);
    const ended = new Promise(resolve => child.on("exit", (...how) => resolve(how)));
    child.stdin.write('{"id":1,"text":"hello"}\n');
    const out = await new Promise(resolve => child.stdout.once("data", chunk => resolve(String(chunk))));
    expect(out).toContain('{"id":1,"safety":"Safe"');
    child.kill("SIGINT");
    expect(await ended).toEqual([130, null]);
  });

  test("a reader that goes away ends it quietly", async () => {
    const child = spawn(process.execPath, [MAIN, "moderate", "--jsonl", "-", "--quiet"]);
    let stderr = "";
    child.stderr.on("data", chunk => {
      stderr += chunk;
    });
    child.stdin.on("error", () => {});
    child.stdout.once("data", () => child.stdout.destroy());
    child.stdin.end(numbered(2000));
    const status = await new Promise(resolve => child.on("exit", resolve));
    expect([status, stderr]).toEqual([0, ""]);
  });
});
