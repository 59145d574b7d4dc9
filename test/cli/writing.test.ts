/**
 * Files: the messages of failures, and files that appear whole or not at all: links, pipes, and a signal in the middle
 * of the work.
 */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { lstatSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { fileError } from "../../src/cli/file-error.ts";
import { parseJson } from "../../src/cli/reading.ts";
import { ODD } from "../checkpoints.ts";
import { projectPath } from "../helpers.ts";
import { cli, temporaryFolder } from "./harness.ts";

const LABELLED = '{"text":"hello","label":"safe"}\n';
/** Command lines that write `out`, from the data in `folder`. */
const writers = (folder: string, out: string): string[][] => [
  ["golden", "record", "--input", join(folder, "ids.jsonl"), "--out", out, "--model", ODD, "--max-new-tokens", "1"],
  ["eval", join(folder, "labelled.jsonl"), "--html", out, "--quiet"],
];
const data = { "ids.jsonl": '{"ids":[1,2]}\n', "labelled.jsonl": LABELLED };

test.each([
  ["EACCES", undefined, "x: expected a readable file, got no permission to read it"],
  ["EACCES", "a file to write", "x: expected a file to write, got no permission to write it"],
  ["ENOSPC", "a file to write", "x: expected a file to write, got a full disk"],
  ["EROFS", "a file to write", "x: expected a file to write, got a read-only disk"],
  ["EMFILE", undefined, "x: expected a readable file, got EMFILE: too many"],
])("%s where %s was expected", (code, what, message) => {
  expect(fileError("x", Object.assign(new Error("EMFILE: too many"), { code }), what).message).toBe(message);
});

test("an error in a JSON text is one line, whatever the text contains", () => {
  // Node quotes the text around the error.
  for (const text of ["{\n\n b", "[1,\r\n x]", "\u2028[", '{"a\u0085\u2029": x}', "\u001b[2J"]) {
    expect(() => parseJson(text, "x")).toThrow(/^x: expected JSON, got [^\p{Cc}\p{Zl}\p{Zp}]+$/u);
  }
});

test.skipIf(process.platform === "win32")("a write that fails names its file, and leaves no part of a file", () => {
  const folder = temporaryFolder({ ...data, "many.jsonl": '{"ids":[1,2]}\n'.repeat(9) });
  const golden = ["golden", "record", "--input", join(folder, "many.jsonl"), "--model", ODD, "--max-new-tokens", "1"];
  for (const [name, args] of [
    ["page.html", ["eval", join(folder, "labelled.jsonl"), "--quiet", "--html", join(folder, "page.html")]],
    ["golden.jsonl", [...golden, "--out", join(folder, "golden.jsonl")]],
    ["1.safetensors", [...golden, "--out", "-", "--taps", join(folder, "taps")]],
    [
      "out.jsonl",
      ["moderate", "--quiet", "--jsonl", join(folder, "labelled.jsonl"), "--out", join(folder, "out.jsonl")],
    ],
  ] as const) {
    const limited = ["-c", 'ulimit -f 1; "$0" "$@"', process.execPath, projectPath("src/cli/main.ts"), ...args]; // 512 or 1024 bytes a file
    const { status, stderr } = spawnSync("sh", limited, { encoding: "utf8" });
    expect([status, stderr]).toEqual([
      1,
      expect.stringMatching(`^qwen3guard: [^\n]*${name}: expected a file to write, got EFBIG[^\n]*\n$`),
    ]);
  }
  expect(readdirSync(folder).sort()).toEqual(["ids.jsonl", "labelled.jsonl", "many.jsonl", "out.jsonl", "taps"]);
});

describe.skipIf(process.platform === "win32")("a file that is written whole", () => {
  test("a link stays a link, and its target is written, whether or not it exists", async () => {
    const folder = temporaryFolder({ ...data, "there.txt": "before" });
    symlinkSync("there.txt", join(folder, "link"));
    symlinkSync("new.txt", join(folder, "dangling"));
    symlinkSync("loop", join(folder, "loop"));
    for (const [link, target] of Object.entries({ link: "there.txt", dangling: "new.txt" })) {
      for (const args of writers(folder, join(folder, link))) {
        writeFileSync(join(folder, "there.txt"), "before");
        expect((await cli(args)).status).toBe(0);
        expect(lstatSync(join(folder, link)).isSymbolicLink()).toBe(true);
        expect(readFileSync(join(folder, target), "utf8")).toMatch(
          args[0] === "golden" ? /^\{"ids":\[1,2\]/ : /^<!doctype html>/i,
        );
      }
    }
    for (const args of writers(folder, join(folder, "loop"))) {
      expect(await cli(args)).toMatchObject({
        status: 1,
        err: expect.stringContaining("loop: expected a file to write, got ELOOP"),
      });
    }
    expect(readdirSync(folder).filter(name => name.endsWith(".part"))).toEqual([]);
  });

  test("a pipe gets the text and stays a pipe", async () => {
    const folder = temporaryFolder(data);
    const pipe = join(folder, "pipe");
    execFileSync("mkfifo", [pipe]);
    for (const args of writers(folder, pipe)) {
      const [{ status }, text] = await Promise.all([cli(args), readFile(pipe, "utf8")]);
      expect([status, lstatSync(pipe).isFIFO()]).toEqual([0, true]);
      expect(text).toMatch(args[0] === "golden" ? /^\{"ids":\[1,2\]/ : /^<!doctype html>/i);
    }
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s leaves the old file and nothing else", async signal => {
    const folder = temporaryFolder({
      ...data,
      "ids.jsonl": '{"ids":[1,2]}\n'.repeat(100_000),
      "labelled.jsonl": LABELLED.repeat(20_000),
      "out.txt": "before",
    });
    const before = readdirSync(folder);
    for (const args of writers(folder, join(folder, "out.txt"))) {
      const child = spawn(process.execPath, [projectPath("src/cli/main.ts"), ...args], { stdio: "ignore" });
      const ended = new Promise(resolve => child.on("exit", (...how) => resolve(how)));
      while (readdirSync(folder).length === before.length && child.exitCode === null)
        await new Promise(go => setTimeout(go, 20));
      await new Promise(go => setTimeout(go, 300)); // so that it is at work, not just starting
      child.kill(signal);
      expect(await ended).toEqual([null, signal]);
      expect(readdirSync(folder)).toEqual(before);
      expect(readFileSync(join(folder, "out.txt"), "utf8")).toBe("before");
    }
  });
});
