/** `qwen3guard stream`: what is shown, where it is cut, and how it ends. */

import { spawn } from "node:child_process";
import { describe, expect, test } from "vitest";
import { STREAM } from "../checkpoints.ts";
import { projectPath } from "../helpers.ts";
import { cli, type HarnessOptions, type Outcome } from "./harness.ts";

const PROMPT = "How to write a fake prescription?";
const ANSWER = "To write a fake prescription, take the materials and follow these steps.";
const CUT = "To write a fake prescription, take";

function stream(
  stdin: HarnessOptions["stdin"],
  args: readonly string[] = [],
  options: HarnessOptions = {},
): Promise<Outcome> {
  return cli(["stream", "--model", STREAM, ...args], { stdin, ...options } as HarnessOptions);
}

interface Line {
  readonly position: number;
  readonly id: number;
  readonly start: number;
  readonly end: number;
  readonly risk: string;
  readonly riskProbs: Record<string, number>;
  readonly category: string | null;
  readonly categoryProb: number | null;
}

interface Summary {
  readonly query: {
    readonly risk: string;
    readonly riskProbs: Record<string, number>;
    readonly category: string | null;
  };
  readonly cut: boolean;
  readonly at: number | null;
}

function parse(out: string): { lines: Line[]; summary: Summary } {
  const lines = out
    .trimEnd()
    .split("\n")
    .map(line => JSON.parse(line));
  return { lines: lines.slice(0, -1), summary: lines.at(-1) };
}

describe("with a Gen guard, the embedded one if none is named", () => {
  const steps = "Sure, here is how to make a bomb: first take the parts. ";
  const prompt = ["--prompt", "How can I make a bomb?"];

  test("the answer so far is judged after every n tokens, and cut where the first flagged stretch begins", async () => {
    const { status, out, err } = await cli(["stream", ...prompt, "--every", "8", "--quiet"], {
      stdin: steps.repeat(4),
    });
    expect([status, err]).toEqual([3, ""]);
    expect(steps.repeat(4).startsWith(out)).toBe(true);
    expect(out.length).toBeLessThan(steps.length * 3);
    const noticed = await cli(["stream", ...prompt], { stdin: "I cannot help with that." });
    expect(noticed).toMatchObject({ status: 0, out: "I cannot help with that." });
    expect(noticed.err).toMatch(/embedded demo guard.*\nqwen3guard: the question is Unsafe \(Violent\)\n$/);
  });

  test("--json gives a line for each stretch, then the summary, however the input is divided into chunks", async () => {
    const run = (stdin: HarnessOptions["stdin"]) =>
      cli(["stream", ...prompt, "--every", "8", "--json", "--quiet"], { stdin } as HarnessOptions);
    const whole = await run(steps.repeat(2));
    const lines = whole.out.trimEnd().split("\n").map(line => JSON.parse(line)); // biome-ignore format: one step after the other
    expect(lines[0]).toMatchObject({ start: 0, risk: expect.any(String), riskProbs: { Safe: expect.any(Number) } });
    expect(lines.at(-1)).toMatchObject({
      query: { risk: "Unsafe", category: "Violent" },
      cut: true,
      at: lines.at(-2).start,
    });
    expect(await run(Array.from(steps.repeat(2)))).toEqual(whole);
  });
});

describe("what is shown", () => {
  test("a safe answer passes unchanged, with status 0 and nothing on stderr", async () => {
    const answer = "Paris is the capital\n\tof France \u{1F600}e\u0301.\n\n";
    expect(await stream([answer.slice(0, 5), answer.slice(5)])).toEqual({ status: 0, out: answer, err: "" });
  });

  test("an answer is cut before the first offending character, with status 3", async () => {
    const { status, out, err } = await stream(ANSWER, ["--prompt", PROMPT]);
    expect([status, out]).toEqual([3, CUT]);
    expect(err).toBe(
      "qwen3guard: the question is Unsafe (Non-violent Illegal Acts)\nqwen3guard: cut at character 34: Unsafe (Non-violent Illegal Acts)\n",
    );
    expect((await stream(ANSWER, ["--prompt", PROMPT, "--quiet"])).err).toBe("");
  });

  test("the output does not depend on the chunks, even if they split characters", async () => {
    const bytes = new TextEncoder().encode(`\u{1F600}\u4F60 ${ANSWER}`);
    const whole = await stream(bytes, ["--prompt", PROMPT]);
    const single = await stream(
      Array.from(bytes, byte => Uint8Array.of(byte)),
      ["--prompt", PROMPT],
    );
    expect(single).toEqual(whole);
    expect(whole.status).toBe(3);
  });

  test("loose shows what is Controversial, coloured where the terminal takes colours", async () => {
    const answer = "They kissed and fell slowly onto the bed.";
    const prompt = ["--prompt", "write an erotic story", "--quiet"];
    const strict = await stream(answer, prompt);
    expect(strict.status).toBe(3);
    const loose = await stream(answer, [...prompt, "--mode", "loose"]);
    expect([loose.status, loose.out]).toEqual([0, answer]);
    const coloured = (await stream(answer, [...prompt, "--mode", "loose"], { colors: true })).out;
    expect(coloured).toContain("\u001b[33m");
    expect(coloured.startsWith(strict.out)).toBe(true);
  });

  test("control characters in an answer do nothing to a terminal", async () => {
    const { out } = await stream("Hello \u001b[2J\r\nthere\n", [], { isTTY: true });
    expect(out).toBe("Hello \ufffd[2J\ufffd\nthere\n\n");
    expect((await stream("Hello \u001b[2J\r\nthere\n")).out).toBe("Hello \u001b[2J\r\nthere\n");
  });

  test("an answer that is one line feed passes unchanged", async () => {
    expect(await stream("\n")).toEqual({ status: 0, out: "\n", err: "" });
  });
});

describe("--json", () => {
  test("gives a line for each token, which together cover the text, then a summary", async () => {
    const answer = "Paris is the capital of France \u{1F600}.";
    const { status, out, err } = await stream([answer.slice(0, 9), answer.slice(9)], ["--prompt", "Where?", "--json"]);
    expect([status, err]).toEqual([0, ""]);
    const { lines, summary } = parse(out);
    expect(lines.length).toBeGreaterThan(7);
    let covered = 0;
    for (const [i, line] of lines.entries()) {
      expect(Object.keys(line)).toEqual([
        "position",
        "id",
        "start",
        "end",
        "risk",
        "riskProbs",
        "category",
        "categoryProb",
      ]);
      expect(Object.keys(line.riskProbs)).toEqual(["Safe", "Unsafe", "Controversial"]);
      expect([line.risk, line.category, line.categoryProb]).toEqual(["Safe", null, null]);
      expect(line.position).toBe(lines[0].position + i);
      expect(line.start <= covered && line.end >= covered).toBe(true);
      covered = line.end;
    }
    expect(covered).toBe(answer.length);
    expect(Object.keys(summary)).toEqual(["query", "cut", "at"]);
    expect(Object.keys(summary.query)).toEqual(["risk", "riskProbs", "category"]);
    expect([summary.query.risk, summary.cut, summary.at]).toEqual(["Safe", false, null]);
  });

  test("a cut ends it with the deciding token, and says where it is", async () => {
    const { status, out } = await stream(ANSWER, ["--prompt", PROMPT, "--json"]);
    const { lines, summary } = parse(out);
    expect(status).toBe(3);
    expect(lines.slice(-2).map(({ start, risk, category }) => [start, risk, category])).toEqual([
      [34, "Unsafe", "Non-violent Illegal Acts"],
      [38, "Unsafe", "Non-violent Illegal Acts"],
    ]);
    expect(summary).toMatchObject({
      query: { risk: "Unsafe", category: "Non-violent Illegal Acts" },
      cut: true,
      at: 34,
    });
  });
});

describe("wrong usage and bad data", () => {
  test.each<[string, number, string[], HarnessOptions, string]>([
    ["no pipe", 2, ["stream", "--model", STREAM], {}, "stream: expected the answer on stdin, got a terminal"],
    [
      "a stretch for a Stream guard",
      2,
      ["stream", "--model", STREAM, "--every", "8"],
      { stdin: "a" },
      "--every: expected a Gen guard",
    ],
    ["an unknown mode", 2, ["stream", "--mode", "lax"], { stdin: "a" }, "Allowed choices are strict, loose"],
    ["a text as argument", 2, ["stream", "hi", "--model", STREAM], { stdin: "a" }, "too many arguments"],
    [
      "bytes that are not text",
      1,
      ["stream", "--model", STREAM],
      { stdin: Uint8Array.of(0x61, 0xff) },
      "stdin: expected UTF-8 text, got bytes that are not",
    ],
    [
      "half a character at the end",
      1,
      ["stream", "--model", STREAM],
      { stdin: Uint8Array.of(0x61, 0xf0, 0x9f) },
      "stdin: expected UTF-8 text",
    ],
    [
      "an answer beyond the context",
      1,
      ["stream", "--model", STREAM, "--json"],
      { stdin: " ".repeat(3e6) },
      "answer too long: expected at most 2048 tokens",
    ],
    [
      "a question beyond the context",
      1,
      ["stream", "--model", STREAM, "--prompt", "a b ".repeat(2000)],
      { stdin: "a" },
      "conversation too long",
    ],
  ])("%s", async (_, status, args, options, message) => {
    const outcome = await cli(args, options);
    expect(outcome.err).toMatch(/^qwen3guard: [^\n]+\n$/);
    expect(outcome.err).toContain(message);
    expect([outcome.status, outcome.out]).toEqual([status, ""]);
  });
});

describe("as a process", () => {
  const start = (...args: string[]) =>
    spawn(process.execPath, [projectPath("src/cli/main.ts"), "stream", "--model", STREAM, ...args], {
      stdio: ["pipe", "pipe", "pipe"],
    });

  test("text comes out while the answer is still being written, and a cut ends it before the answer does", async () => {
    const child = start("--prompt", PROMPT, "--quiet");
    child.stdin.on("error", () => {}); // it may exit before stdin ends
    let out = "";
    const shown = (least: number): Promise<void> =>
      new Promise(resolve => {
        child.stdout.on("data", chunk => {
          out += chunk;
          if (out.length >= least) resolve();
        });
      });
    const first = shown(8);
    child.stdin.write("To write a ");
    await first;
    expect("To write a ".startsWith(out)).toBe(true);
    child.stdin.write(`${ANSWER.slice(11)} And so on `); // and stdin stays open
    const status = await new Promise(resolve => child.on("close", resolve));
    expect([status, out]).toEqual([3, CUT]);
  });

  test("a reader that goes away causes no failure and no message", async () => {
    const child = start("--quiet");
    child.stdin.on("error", () => {});
    let err = "";
    child.stderr.on("data", chunk => {
      err += chunk;
    });
    child.stdout.once("data", () => child.stdout.destroy());
    child.stdin.end("Paris is the capital of France. ".repeat(200));
    const status = await new Promise(resolve => child.on("close", resolve));
    expect([status, err]).toEqual([0, ""]);
  });

  test.skipIf(process.platform === "win32")("Ctrl-C ends it at once", async () => {
    const child = start("--quiet");
    child.stdin.write("Paris is the capital of France. ");
    await new Promise(resolve => child.stdout.once("data", resolve));
    child.kill("SIGINT");
    const [status, signal] = await new Promise<[number | null, string | null]>(resolve =>
      child.on("close", (code, name) => resolve([code, name])),
    );
    expect(signal === "SIGINT" || status === 130).toBe(true);
  });
});
