/** The command as a process: exit status, pipes that close, Ctrl-C. */

import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { projectPath, readJson } from "../helpers.ts";

const MAIN = projectPath("src/cli/main.ts");

function start(
  args: readonly string[],
  stdin: string = "",
): { status: number | null; signal: string | null; stdout: string; stderr: string } {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    input: stdin,
    encoding: "utf8",
  });
  return { status, signal, stdout, stderr };
}

test("the exit status reaches the shell: 0, 1, 2 and 3", () => {
  expect(start(["moderate", "Tell me a joke about cats.", "--quiet"]).status).toBe(0);
  expect(start(["inspect", "no/such/folder"])).toEqual({
    status: 1,
    signal: null,
    stdout: "",
    stderr: "qwen3guard: no/such/folder: expected a checkpoint folder, got no such folder\n",
  });
  expect(start(["inspect", "--nope"]).status).toBe(2);
  expect(start(["moderate", "--fail-on", "--quiet"], "How can I make a bomb?").status).toBe(3);
});

test.each([
  ["18.20.8", false],
  ["20.18.3", false],
  ["20.19.0", true],
  ["22.0.0", true],
])(
  "on Node %s it first says which version it needs, before it loads anything that an older one lacks",
  (node, isNew) => {
    const pretend = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "${node}" } });`;
    const code = isNew ? pretend : `${pretend} delete globalThis.crypto;`; // Node 18 does not have it
    const args = ["--import", `data:text/javascript,${encodeURIComponent(code)}`, MAIN, "--version"];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    const { engines, version } = readJson<{ engines: { node: string }; version: string }>("package.json");
    const refusal = `qwen3guard: expected Node ${engines.node.replace(">=", "")} or later, got ${node}\n`;
    expect([status, stdout, stderr]).toEqual(isNew ? [0, `${version}\n`, ""] : [1, "", refusal]);
  },
);

test("only the result goes to stdout, and a pipe gets no colours", () => {
  const { stdout, stderr } = start(["moderate", "How can I make a bomb?"]);
  expect(stdout.startsWith("▌ Unsafe  Violent\n")).toBe(true);
  expect(stderr.split("\n")).toHaveLength(2);
});

test("--wide gives the same bits, and is refused by a Node without it", () => {
  const input = `${JSON.stringify({ text: "How can I make a bomb? ".repeat(12) })}\n`;
  const record = (...args: string[]) =>
    start(["golden", "record", "--input", "-", "--out", "-", "--quiet", "--max-new-tokens", "3", ...args], input);
  const wide = record("--wide");
  expect(wide).toEqual(record());
  expect(wide.stdout).toContain("logitsSha256");
});

test("the status for a flagged text holds when nobody reads the answer", () => {
  const { status } = spawnSync("bash", [
    "-c",
    'set -o pipefail; "$0" "$@" | true',
    process.execPath,
    MAIN,
    "moderate",
    "How can I make a bomb?",
    "--fail-on",
    "--quiet",
  ]);
  expect(status).toBe(3);
});

test.skipIf(!existsSync("/dev/full"))("a full disk is one line and status 1", () => {
  const { status, stderr } = spawnSync(
    "sh",
    ["-c", '"$0" "$@" > /dev/full', process.execPath, MAIN, "moderate", "hi", "--quiet"],
    {
      encoding: "utf8",
    },
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(/^qwen3guard: [^\n]*ENOSPC[^\n]*\n$/);
});

test.skipIf(!existsSync("/dev/full"))(
  "help and version fail in the same way on a full disk, and are silent to a reader that has gone",
  () => {
    for (const args of [["--help"], ["--version"], ["moderate", "--help"], ["help", "serve"]]) {
      const { status, stderr } = spawnSync("sh", ["-c", '"$0" "$@" > /dev/full', process.execPath, MAIN, ...args], {
        encoding: "utf8",
      });
      expect([status, stderr]).toEqual([1, expect.stringMatching(/^qwen3guard: [^\n]*ENOSPC[^\n]*\n$/)]);
      const gone = spawnSync("bash", ["-c", 'set -o pipefail; "$0" "$@" | true', process.execPath, MAIN, ...args], {
        encoding: "utf8",
      });
      expect([gone.status, gone.stderr]).toEqual([0, ""]);
    }
  },
);

test.skipIf(!existsSync("/dev/full"))("a stderr that cannot be written costs no verdict", async () => {
  for (const redirect of ["2> /dev/full", "2>&-", "2> >(true)"]) {
    // The notice of the demo guard comes first, then a line that cannot be judged, then the count of those.
    const script = `"$0" "$@" ${redirect}`;
    const { status, stdout } = spawnSync("bash", ["-c", script, process.execPath, MAIN, "moderate", "--jsonl", "-"], {
      input: '{"text":"hello"}\nnonsense\n{"text":"How can I make a bomb?"}\n',
      encoding: "utf8",
    });
    expect(stdout.match(/"safety":"\w+"/g)).toEqual(['"safety":"Safe"', '"safety":"Unsafe"']);
    expect(status).toBe(1);
  }
});

test
  .skipIf(process.platform === "win32")
  .each([
    [["moderate"]],
    [["moderate", "--jsonl", "-"]],
    [["generate"]],
    [["stream"]],
    [["tokenize"]],
    [["tokenize", "--jsonl"]],
    [["template", "--messages", "-"]],
    [["eval", "-"]],
    [["golden", "record", "--input", "-", "--out", "-"]],
    [["golden", "check", "-"]],
  ])("a folder as stdin is not an empty text: %j", args => {
  const { status, stdout, stderr } = spawnSync(
    "sh",
    ["-c", '"$0" "$@" < .', process.execPath, MAIN, ...args, "--quiet"],
    {
      encoding: "utf8",
    },
  );
  expect([status, stdout, stderr]).toEqual([1, "", "qwen3guard: stdin: expected a readable file, got a folder\n"]);
});

test("colours are off with NO_COLOR or a dumb terminal, and on when forced", () => {
  const colors = (env: Record<string, string>): boolean =>
    spawnSync(
      process.execPath,
      [
        "-e",
        `import(${JSON.stringify(projectPath("src/cli/terminal.ts"))}).then(m => { process.stdout.isTTY = true; process.stdout.write(String(m.processTerminal().colors)) })`,
      ],
      {
        encoding: "utf8",
        env: { PATH: process.env.PATH ?? "", ...env },
      },
    ).stdout.trim() === "true";
  expect(colors({ TERM: "xterm" })).toBe(true);
  expect(colors({ TERM: "xterm", NO_COLOR: "1" })).toBe(false);
  expect(colors({ TERM: "dumb" })).toBe(false);
  expect(colors({ TERM: "dumb", FORCE_COLOR: "1" })).toBe(true);
});

test("a reader that goes away causes no failure and no message", async () => {
  const child = spawn(process.execPath, [MAIN, "tokenize", "--jsonl", "--quiet"], { stdio: ["pipe", "pipe", "pipe"] });
  let stderr = "";
  child.stderr.on("data", chunk => {
    stderr += chunk;
  });
  child.stdin.on("error", () => {}); // the child may exit before it has read everything
  child.stdout.once("data", () => child.stdout.destroy());
  const line = `${JSON.stringify({ text: "hello ".repeat(200) })}\n`;
  child.stdin.end(line.repeat(2000));
  const status = await new Promise(resolve => child.on("close", resolve));
  expect([status, stderr]).toEqual([0, ""]);
});

describe.skipIf(process.platform === "win32")("Ctrl-C", () => {
  test("ends it at once, as a shell's 130", async () => {
    // The prompt nearly fills the context, which takes the reference engine seconds.
    const shell = spawn("sh", ["-c", '"$0" "$@" || exit $?', process.execPath, MAIN, "generate", "--json"], {
      stdio: ["pipe", "pipe", "pipe"],
      detached: true, // in its own process group, so that the signal reaches all of it, as from a terminal
    });
    let stdout = "";
    shell.stdout.on("data", chunk => {
      stdout += chunk;
    });
    shell.stdin.end("word ".repeat(1900));
    await new Promise(resolve => shell.stderr.once("data", resolve)); // the notice: it is at work
    await new Promise(resolve => setTimeout(resolve, 300));
    process.kill(-(shell.pid as number), "SIGINT");
    const [status, signal] = await new Promise<[number | null, string | null]>(resolve =>
      shell.on("close", (code, name) => resolve([code, name])),
    );
    expect(signal === "SIGINT" || status === 130).toBe(true);
    expect(stdout).toBe("");
  });
});
