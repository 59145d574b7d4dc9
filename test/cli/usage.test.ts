/**
 * Wrong usage and bad data, as a user meets them: one line that says what to do, status 2 for usage and 1 otherwise.
 */

import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { GEN, ODD, STREAM } from "../checkpoints.ts";
import { cli, type HarnessOptions, temporaryFolder } from "./harness.ts";

async function fails(
  status: number,
  args: readonly string[],
  message: string | RegExp,
  options: HarnessOptions = {},
): Promise<void> {
  const outcome = await cli(args, options);
  expect(outcome.out).toBe("");
  expect(outcome.err).toMatch(/^qwen3guard: [^\n]+\n$/);
  if (typeof message === "string") expect(outcome.err).toContain(message);
  else expect(outcome.err).toMatch(message);
  expect(outcome.status).toBe(status);
}

describe("wrong usage is status 2 and one line", () => {
  test.each<[string, string[], string]>([
    ["an unknown option", ["moderate", "hi", "--jsn"], "unknown option '--jsn' (Did you mean --json?)"],
    ["an unknown option of the program", ["--verbose"], "unknown option '--verbose'"],
    ["an unknown command", ["moderat", "hi"], "unknown command 'moderat' (did you mean 'moderate'?)"],
    ["a command like no other", ["frobnicate"], "unknown command 'frobnicate'; the commands are moderate, generate,"],
    ["an unknown golden command", ["golden", "chekc"], "unknown command 'golden chekc' (did you mean 'check'?)"],
    ["an unknown mode", ["moderate", "hi", "--mode", "lax"], "Allowed choices are strict, loose"],
    ["an unknown engine", ["moderate", "hi", "--engine", "gpu"], "Allowed choices are auto, wasm, reference"],
    [
      "two threads for the reference engine",
      ["moderate", "hi", "--engine", "reference", "--threads", "2"],
      "--threads: expected 1, since the reference engine has one, got 2",
    ],
    ["a thousand threads", ["moderate", "hi", "--threads", "1000"], "--threads: expected at most 64, got 1000"],
    ["no thread", ["moderate", "hi", "--threads", "0"], "expected an integer of at least 1"],
    ["an option without a value", ["moderate", "hi", "--model"], "option '--model <dir|id>' argument missing"],
    ["one text too many", ["moderate", "hi", "there"], "too many arguments"],
    [
      "a text and a conversation",
      ["moderate", "hi", "--messages", "x.json"],
      "expected a text or --messages, got both",
    ],
    [
      "a response and a conversation",
      ["moderate", "--response", "r", "--messages", "x.json"],
      "expected --response or --messages, got both",
    ],
    ["no text and no pipe", ["moderate"], "expected a text, or text on stdin, got neither"],
    ["a temperature that is not a number", ["generate", "--prompt", "x", "--temperature", "warm"], "expected a number"],
    [
      "a negative temperature",
      ["generate", "--prompt", "x", "--temperature", "-1"],
      "--temperature: expected a number of at least 0, got -1",
    ],
    [
      "a top-p without a temperature",
      ["generate", "--prompt", "x", "--top-p", "0.5"],
      "--top-p: expected a --temperature above 0 with it, got none",
    ],
    [
      "a top-p above 1",
      ["generate", "--prompt", "x", "--temperature", "1", "--top-p", "2"],
      "--top-p: expected a number above 0 and at most 1, got 2",
    ],
    ["no new tokens", ["generate", "--prompt", "x", "--max-new-tokens", "0"], "expected an integer of at least 1"],
    ["a seed that is text", ["generate", "--prompt", "x", "--seed", "abc"], "expected an integer of at least 0"],
    ["a template without messages", ["template"], "template: expected --messages FILE, got none"],
    [
      "a misspelt option before the missing one",
      ["template", "--mesages", "x"],
      "unknown option '--mesages' (Did you mean --messages?)",
    ],
    [
      "a golden record without its output",
      ["golden", "record", "--input", "x"],
      "golden record: expected --out FILE, got none",
    ],
    ["help on an unknown command", ["help", "moderat"], "unknown command 'moderat' (did you mean 'moderate'?)"],
    ["ids and text at once", ["tokenize", "x", "--jsonl"], "expected a text or --jsonl (lines on stdin), got both"],
    ["an evaluation of nothing", ["eval"], "missing required argument 'file'"],
    ["a limit of 0", ["eval", "x.jsonl", "--limit", "0"], "expected an integer of at least 1"],
    [
      "a page on stdout",
      ["eval", "x.jsonl", "--html", "-"],
      "--html: expected a file, got -, and stdout is for the figures",
    ],
    [
      "a shape and a model",
      ["bench", "--shape", "0.6B", "--model", "x"],
      "bench: expected --shape or --model, got both",
    ],
    ["two folders", ["inspect", "a", "--model", "b"], "expected a folder or --model, got both"],
    [
      "a pull of something that is not a Hub id",
      ["pull", "./folder"],
      "pull: expected a Hub id, org/name or org/name@revision, got ./folder",
    ],
    ["a pull of nothing", ["pull"], "missing required argument 'id'"],
  ])("%s", async (_, args, message) => {
    await fails(2, args, message);
  });

  test.each([
    [["moderate"]],
    [["moderate", "-"]],
    [["moderate", "--fail-on", "--json"]],
    [["moderate", "--response", "Sure."]],
    [["moderate", "--messages", "-"]],
    [["moderate", "--jsonl", "-"]],
    [["generate"]],
    [["generate", "--messages", "-"]],
    [["stream"]],
    [["stream", "--json"]],
    [["stream", "--model", STREAM]],
    [["tokenize"]],
    [["tokenize", "--jsonl"]],
    [["tokenize", "--decode"]],
    [["template", "--messages", "-"]],
    [["eval", "-"]],
    [["golden", "record", "--input", "-", "--out", "-"]],
    [["golden", "check", "-"]],
  ])("an empty stdin is not input: %j", async args => {
    const { status, out, err } = await cli([...args, "--quiet"], { stdin: "" });
    expect([status, out, err]).toEqual([2, "", "qwen3guard: stdin: expected input, got none\n"]);
  });

  test("no command at all prints the help to stderr", async () => {
    const { status, out, err } = await cli([]);
    expect([status, out]).toEqual([2, ""]);
    expect(err).toContain("Usage: qwen3guard");
  });
});

describe("bad data is status 1 and one line", () => {
  test("a missing folder, a Hub id offline, a file, and a folder that is not a model", async () => {
    const folder = temporaryFolder({ "readme.txt": "hello" });
    await fails(
      1,
      ["moderate", "hi", "--model", join(folder, "none")],
      "none: expected a checkpoint folder, got no such folder",
    );
    await fails(
      1,
      ["moderate", "hi", "--model", "Qwen/Qwen3Guard-Gen-0.6B"],
      "Qwen/Qwen3Guard-Gen-0.6B: expected it in the cache, since HF_HUB_OFFLINE is set, got nothing (in ",
      { env: { HF_HOME: folder, HF_HUB_OFFLINE: "1" } },
    );
    await fails(
      1,
      ["moderate", "hi", "--model", join(folder, "readme.txt")],
      "readme.txt: expected a checkpoint folder, got a file",
    );
    await fails(1, ["moderate", "hi", "--model", folder], "expected a checkpoint folder with a config.json, got none");
    await fails(1, ["inspect", folder], "expected a checkpoint folder with a config.json, got none");
    await fails(
      1,
      ["golden", "check", "x.jsonl", "--model", folder],
      "expected a checkpoint folder with a config.json, got none",
    );
  });

  test("conversations: a missing file, a folder, not JSON, not an array, a bad message, a system message at the end", async () => {
    const folder = temporaryFolder({
      "broken.json": '[{"role": "user"',
      "object.json": '{"role": "user", "content": "hi"}',
      "role.json": '[{"role": "robot", "content": "hi"}]',
      "system.json": '[{"role": "user", "content": "hi"}, {"role": "system", "content": "x"}]',
      "latin1.json": Uint8Array.of(0x5b, 0x22, 0xe9, 0x22, 0x5d),
    });
    mkdirSync(join(folder, "sub"));
    const moderate = (file: string): string[] => ["moderate", "--quiet", "--messages", join(folder, file)];
    await fails(1, moderate("none.json"), "none.json: expected a readable file, got no such file");
    await fails(1, moderate("sub"), "sub: expected a readable file, got a folder");
    await fails(1, moderate("broken.json"), "broken.json: expected JSON, got");
    await fails(1, moderate("object.json"), "object.json: expected a JSON array of {role, content}, got object");
    await fails(
      1,
      moderate("role.json"),
      'role.json: messages[0].role: expected system, user, assistant, tool, got "robot"',
    );
    await fails(1, moderate("system.json"), 'of role "user" or "assistant", got "system"');
    await fails(1, moderate("latin1.json"), "latin1.json: expected UTF-8 text, got bytes that are not");
  });

  test("a prompt too long for the context is refused with both numbers", async () => {
    const conversation = temporaryFolder({
      "long.json": JSON.stringify([
        { role: "user", content: "word ".repeat(2500) },
        { role: "assistant", content: "No." },
      ]),
    });
    await fails(
      1,
      ["moderate", "--quiet", "--messages", join(conversation, "long.json")],
      /expected room for 32 tokens .*, got -\d+$/m,
    );
    await fails(1, ["generate", "--quiet"], /prompt too long: expected at most 2048 tokens, got \d+$/m, {
      stdin: "word ".repeat(2500),
    });
  });

  test("a checkpoint that is not a guard where a guard is needed", async () => {
    await fails(1, ["moderate", "hi", "--model", STREAM], "expected a Gen guard");
    await fails(1, ["moderate", "hi", "--model", ODD], "tokenizer.json");
  });

  test("text that is not UTF-8, lines that are not JSON, ids that are not integers", async () => {
    await fails(1, ["moderate", "--quiet"], "stdin: expected UTF-8 text, got bytes that are not", {
      stdin: Uint8Array.of(0xff, 0xfe),
    });
    await fails(1, ["tokenize", "--jsonl", "--quiet"], "stdin line 1: expected JSON, got", { stdin: "hello\n" });
    await fails(1, ["tokenize", "--jsonl", "--quiet"], 'stdin line 2: expected {"text": ...}, got [1]', {
      stdin: "\n[1]\n",
    });
    await fails(
      1,
      ["tokenize", "--decode", "12 x", "--quiet"],
      'ids: expected ids that are integers of at least 0, got "x"',
    );
    await fails(
      1,
      ["golden", "record", "--input", "-", "--out", "-", "--model", ODD],
      "- line 1: ids: expected integers from 0 to 330, got 9999 at index 0",
      {
        stdin: '{"ids": [9999]}',
      },
    );
    await fails(
      1,
      ["golden", "record", "--input", join(GEN, "none.jsonl"), "--out", "-", "--model", ODD],
      "none.jsonl: expected a readable file, got no such file",
    );
    await fails(1, ["golden", "check", "-", "--model", ODD], "expected at least one recorded line, got none", {
      stdin: "\n",
    });
    await fails(
      1,
      ["golden", "check", "-", "--model", ODD],
      "- line 1: greedy: expected a recorded list, got nothing",
      {
        stdin: '{"ids": [1]}',
      },
    );
  });

  test("an evaluation checks its data before it loads the model, and the path of its page before the work", async () => {
    const folder = temporaryFolder({
      "bad.jsonl": '{"text": "a", "label": "safe"}\n\n{"text": "b", "label": "maybe"}\n',
      "empty.jsonl": "\n",
      "good.jsonl": '{"text": "a", "label": "safe"}\n',
      "long.jsonl": JSON.stringify({ prompt: "word ".repeat(2500), response: "No.", label: "safe" }),
    });
    const data = (name: string): string[] => ["eval", join(folder, name), "--quiet"];
    await fails(
      1,
      [...data("bad.jsonl"), "--model", "no-model"],
      'bad.jsonl line 3: label: expected "safe" or "unsafe", got "maybe"',
    );
    await fails(1, data("empty.jsonl"), "empty.jsonl: expected at least one line, got none");
    await fails(1, data("none.jsonl"), "none.jsonl: expected a readable file, got no such file");
    await fails(1, ["eval", "-", "--quiet"], "stdin line 1: expected JSON, got", { stdin: "hello" });
    await fails(1, [...data("good.jsonl"), "--model", STREAM], "expected a Gen guard");
    await fails(
      1,
      data("long.jsonl"),
      "long.jsonl: expected at least one line that fits the model's context, got none",
    );
    await fails(
      1,
      [...data("good.jsonl"), "--html", join(folder, "no", "where.html"), "--model", "no-model"],
      "where.html: expected a file to write, got no such file",
    );
    await fails(
      1,
      [...data("good.jsonl"), "--html", folder, "--model", "no-model"],
      "expected a file to write, got a folder",
    );
    expect(readdirSync(folder).sort()).toEqual(["bad.jsonl", "empty.jsonl", "good.jsonl", "long.jsonl"]);
  });

  test("the content of a file cannot move the cursor of the terminal or reverse its text", async () => {
    const folder = temporaryFolder({
      "esc.json": "\u001b[2J\u001b[31mPWNED\rx",
      "config.json": '{"model_type": "\u009b31m\u202eevil"}',
    });
    for (const args of [
      ["moderate", "--quiet", "--messages", join(folder, "esc.json")],
      ["inspect", folder],
    ]) {
      const { status, err } = await cli(args);
      expect(status).toBe(1);
      expect(err.trimEnd()).not.toMatch(/[\p{Cc}\p{Bidi_Control}]/u);
    }
  });

  test("a golden record that fails leaves the old file; input and output may be the same file", async () => {
    const folder = temporaryFolder({ "g.jsonl": '{"ids": [1, 2]}\n' });
    const file = join(folder, "g.jsonl");
    const record = (input: string, out: string): string[] => [
      "golden",
      "record",
      "--input",
      input,
      "--out",
      out,
      "--model",
      ODD,
      "--max-new-tokens",
      "1",
    ];
    await fails(1, record(join(folder, "none.jsonl"), file), "none.jsonl: expected a readable file, got no such file");
    expect(readFileSync(file, "utf8")).toBe('{"ids": [1, 2]}\n');
    expect((await cli(record(file, file))).status).toBe(0);
    expect(JSON.parse(readFileSync(file, "utf8")).ids).toEqual([1, 2]);
    expect(readdirSync(folder)).toEqual(["g.jsonl"]);
    await fails(1, record(file, join(folder, "no", "where")), "where: expected a file to write, got no such file");
    await fails(1, record(file, folder), "expected a file to write, got a folder");
    await fails(1, record("-", "-"), "- line 1: expected one of {ids}, {text} and {messages}, got several", {
      stdin: '{"ids": [1], "text": "x"}',
    });
    await fails(1, record("-", "-"), "-: expected at least one line, got none", { stdin: "\n" });
  });

  test("a text of many megabytes is refused at once, for its length", async () => {
    await fails(
      1,
      ["moderate", "--quiet"],
      /conversation too long: expected at most 64 windows of \d+ tokens, got at least \d+ /,
      {
        stdin: "word ".repeat(2_000_000),
      },
    );
    await fails(1, ["tokenize", "--quiet"], "stdin: expected at most 67108864 bytes, got more", {
      stdin: "x".repeat(70_000_000),
    });
  });

  test("DEBUG=qwen3guard shows the stack", async () => {
    const { err } = await cli(["inspect", "no-such-folder"], { env: { DEBUG: "qwen3guard" } });
    expect(err).toMatch(/\n\s+at /);
  });
});

describe("help and version", () => {
  test("every command explains itself, with an example", async () => {
    for (const command of [
      [],
      ["moderate"],
      ["eval"],
      ["generate"],
      ["tokenize"],
      ["template"],
      ["inspect"],
      ["pull"],
      ["bench"],
      ["golden", "record"],
      ["golden", "check"],
    ]) {
      const { status, out, err } = await cli([...command, "--help"]);
      expect([status, err]).toEqual([0, ""]);
      expect(out).toContain(`Usage: ${["qwen3guard", ...command].join(" ")}`);
      expect(out).toContain("Example:\n  $ ");
    }
  });

  test("--version is the package's", async () => {
    expect(await cli(["--version"])).toMatchObject({ status: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  });
});
