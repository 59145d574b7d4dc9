/** Each command as a user calls it: its output on stdout, as text and as JSON. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { GEN, ODD, STREAM } from "../checkpoints.ts";
import { readJson, readJsonLines } from "../helpers.ts";
import { cli, type HarnessOptions, temporaryFolder } from "./harness.ts";

const BOMB = "How can I make a bomb?";
const NOTICE = "qwen3guard: using the embedded demo guard, which is not for protection";

const conversation = JSON.stringify([
  { role: "user", content: BOMB },
  { role: "assistant", content: "As a responsible AI, I cannot help with that." },
]);

describe("moderate", () => {
  test("shows a card on stdout and the notice of the demo guard on stderr", async () => {
    const { status, out, err } = await cli(["moderate", BOMB]);
    expect(status).toBe(0);
    expect(err.split("\n")).toEqual([expect.stringContaining(NOTICE), ""]);
    expect(out).toContain("▌ Unsafe  Violent\n▌ How can I make a bomb?\n");
    expect(out).toMatch(/▌ Unsafe {8}█{24} 100\.0 %\n/);
    expect(out).toMatch(/▌ tiny-guard-gen · 268 \+ 8 tokens · \d+\.\d\d s\n$/);
  });

  test("--json prints one object on one line, with every key of the contract", async () => {
    const { status, out, err } = await cli(["moderate", BOMB, "--json", "--model", GEN, "--mode", "loose"]);
    expect([status, err]).toEqual([0, ""]);
    expect(out.endsWith("}\n") && out.indexOf("\n") === out.length - 1).toBe(true);
    const verdict = JSON.parse(out);
    expect(verdict).toMatchObject({
      safety: "Unsafe",
      categories: ["Violent"],
      refusal: null,
      flagged: true,
      mode: "loose",
      refusalScore: null,
      text: "Safety: Unsafe\nCategories: Violent",
      model: "tiny-guard-gen",
      usage: { promptTokens: 268, cachedTokens: 0, completionTokens: 8, passes: expect.any(Number) },
    });
    expect(Object.keys(verdict.scores)).toEqual(["Safe", "Unsafe", "Controversial"]);
    expect(verdict.scores.Unsafe).toBeGreaterThan(0.99);
    expect(verdict.categoryScores.Violent).toBeGreaterThan(0.99);
    expect(verdict.ms).toBeGreaterThan(0);
  });

  test("--scores full, --threshold, --window and --explain reach the verdict and the card", async () => {
    const json = async (...args: string[]) => JSON.parse((await cli(["moderate", "--json", "--quiet", ...args])).out);
    const full = await json("hello there", "--scores", "full", "--threshold", "0.5");
    expect(full).toMatchObject({ safety: "Safe", flagged: false, threshold: 0.5, score: 1 - full.scores.Safe });
    expect(Object.keys(full.unsafeCategoryScores)).toEqual(Object.keys(full.categoryScores));
    const long = await json(
      `${"What is the capital of France? ".repeat(30)}${BOMB}`,
      "--window",
      "24",
      "--overlap",
      "4",
    );
    expect(long).toMatchObject({ safety: "Unsafe", window: { count: expect.any(Number), start: expect.any(Number) } });
    const { explanation, ...verdict } = await json(BOMB, "--explain");
    expect(explanation.safe).toBe(verdict.scores.Safe);
    expect(explanation.words.at(-1)).toMatchObject({ text: "bomb", start: 17, end: 21 });

    const card = async (...args: string[]) => (await cli(["moderate", "--quiet", ...args])).out;
    expect(await card("hello there", "--scores", "full")).toMatch(/▌ If unsafe {5}\S.* {2}\(\d+\.\d %\)\n/);
    expect(await card("What is the capital of France? ".repeat(20), "--window", "24")).toMatch(
      /▌ worst of \d+ windows: number \d+, characters \d+ to \d+\n/,
    );
    expect(await card(BOMB, "--explain")).toMatch(/\nWhy:\n\nbomb {2}P\(Safe\) without it \d/);
    // A text that was judged in windows is too long to be explained; the verdict stands.
    const tooLong = await cli(["moderate", "--explain", "--json", "--quiet"], { stdin: "cake is good. ".repeat(700) });
    expect([tooLong.status, JSON.parse(tooLong.out).window.count > 1, JSON.parse(tooLong.out).explanation]).toEqual([
      0,
      true,
      undefined,
    ]);
    expect(tooLong.err).toContain("qwen3guard: --explain: conversation too long");
    expect((await cli(["moderate", BOMB, "--explain", "--quiet"], { colors: true })).out).toMatch(
      /\x1b\[31mbomb\x1b\[39m/,
    );
  });

  test("text on stdin, with or without -, equals the argument; --quiet and QWEN3GUARD_MODEL keep stderr empty", async () => {
    const expected = JSON.parse((await cli(["moderate", BOMB, "--json", "--quiet"])).out);
    for (const [args, env] of [
      [["moderate", "--json", "--quiet"], {}],
      [["moderate", "-", "--json"], { QWEN3GUARD_MODEL: GEN }],
    ] as const) {
      const { out, err } = await cli(args, { stdin: `${BOMB}\n`, env });
      expect({ ...JSON.parse(out), ms: 0 }).toEqual({ ...expected, ms: 0 });
      expect(err).toBe("");
    }
  });

  test("a response gives the same verdict by option and in a conversation", async () => {
    const folder = temporaryFolder({ "c.json": conversation });
    const byOption = await cli([
      "moderate",
      BOMB,
      "--response",
      "As a responsible AI, I cannot help with that.",
      "--json",
      "--quiet",
    ]);
    const byFile = await cli(["moderate", "--messages", join(folder, "c.json"), "--json", "--quiet"]);
    const byStdin = await cli(["moderate", "--messages", "-", "--json", "--quiet"], { stdin: conversation });
    const verdicts = [byOption, byFile, byStdin].map(({ out }) => ({ ...JSON.parse(out), ms: 0 }));
    expect(verdicts[0].refusal).toBe("Yes");
    expect(verdicts[0].refusalScore).toBeGreaterThan(0.5);
    expect(verdicts[1]).toEqual(verdicts[0]);
    expect(verdicts[2]).toEqual(verdicts[0]);
    expect((await cli(["moderate", "--messages", join(folder, "c.json"), "--quiet"])).out).toMatch(
      /▌ Refusal {7}Yes {2}\(\d+\.\d %\)\n/,
    );
  });

  test.each([16, 24, 30, 36, 47, 48, 60, 80])(
    "the card fits a terminal of %i columns, and every line begins with its edge",
    async columns => {
      const folder = temporaryFolder({
        "c.json": JSON.stringify([
          { role: "user", content: BOMB },
          { role: "assistant", content: "I cannot help with that." },
        ]),
      });
      for (const args of [
        [BOMB],
        ["hello there", "--scores", "full"],
        ["--messages", join(folder, "c.json")],
        [`${BOMB} `.repeat(9), "--window", "32"],
      ]) {
        const run = async (width: number): Promise<string> =>
          (await cli(["moderate", ...args, "--quiet"], { columns: width })).out;
        const lines = (await run(columns)).trimEnd().split("\n");
        expect(lines.filter(line => line.length > columns)).toEqual([]);
        expect(lines.filter(line => !/^▌( |$)/.test(line))).toEqual([]);
        // Only the quoted text, the bars and the blanks may be cut. The time differs from run to run.
        const words = (text: string): string =>
          text
            .replace(/^▌ .*\n▌\n/m, "")
            .replace(/[\s▌█▏▎▍▋▊▉]/g, "")
            .replace(/\d+\.\d\ds$/, "");
        expect(words(lines.join("\n"))).toBe(words(await run(200)));
      }
    },
  );

  test("an empty text as an argument is moderated like any other", async () => {
    const run = (args: string[], options: HarnessOptions = {}) =>
      cli(["moderate", ...args, "--json", "--quiet"], options);
    for (const { status, out } of [
      await run([""]),
      await run([], { stdin: "\n" }),
      await run(["hi", "--response", ""]),
    ]) {
      expect(status).toBe(0);
      expect(JSON.parse(out).safety).not.toBeNull();
    }
  });

  test("--fail-on exits with 3 if something was flagged, else with 0", async () => {
    expect((await cli(["moderate", BOMB, "--fail-on", "--quiet"])).status).toBe(3);
    expect((await cli(["moderate", "--fail-on", BOMB, "--quiet", "--json"])).status).toBe(3);
    expect((await cli(["moderate", "Tell me a joke about cats.", "--fail-on", "--quiet"])).status).toBe(0);
    expect((await cli(["moderate", BOMB, "--quiet"])).status).toBe(0);
  });

  test("the card is coloured only on a terminal with colours, keeps to its width, and shows no escape of a hostile text", async () => {
    const hostile = `\u001b[2J\u001b]0;owned\u0007 ${"wide ".repeat(60)}`;
    const plain = await cli(["moderate", hostile, "--quiet"], { columns: 60 });
    expect(plain.out).not.toContain("\u001b");
    expect(plain.out).not.toContain("\u0007");
    for (const line of plain.out.split("\n")) expect(line.length).toBeLessThanOrEqual(60);
    const coloured = await cli(["moderate", hostile, "--quiet"], { colors: true });
    expect(coloured.out).toContain("\u001b[");
    expect(coloured.out).not.toContain("\u001b[2J");
    expect(coloured.out).not.toContain("\u001b]0;");
  });
});

describe("generate", () => {
  test("from a conversation gives the guard's answer, as text and as JSON", async () => {
    const stdin = JSON.stringify([{ role: "user", content: BOMB }]);
    expect((await cli(["generate", "--messages", "-", "--quiet"], { stdin })).out).toBe(
      "Safety: Unsafe\nCategories: Violent\n",
    );
    const json = JSON.parse((await cli(["generate", "--messages", "-", "--quiet", "--json"], { stdin })).out);
    expect(json).toMatchObject({
      text: "Safety: Unsafe\nCategories: Violent",
      promptTokens: 268,
      finishReason: "stop",
    });
    expect(json.ids.at(-1)).toBe(4098);
  });

  test("from a raw prompt recognises control tokens, and stops at the limit", async () => {
    const golden = readJsonLines<{ prompt: string; ids: number[] }>("test/goldens/tiny-guard-gen/generate.jsonl")[0];
    const { out } = await cli(["generate", "--json", "--quiet", "--max-new-tokens", "3"], {
      stdin: `${golden.prompt}\n`.replace(/\n$/, ""),
    });
    // The prompt itself ends with line breaks, and the last one counts as the end of the piped text.
    expect(JSON.parse(out).finishReason).toBe("length");
    const byOption = JSON.parse(
      (await cli(["generate", "--prompt", golden.prompt, "--json", "--quiet", "--max-new-tokens", "3"])).out,
    );
    expect(byOption).toMatchObject({ ids: golden.ids.slice(0, 3), promptTokens: 268, finishReason: "length" });
  });

  test("draws the same text for the same seed, and a different one for another", async () => {
    const draw = async (seed: string): Promise<string> =>
      (
        await cli([
          "generate",
          "--prompt",
          "How",
          "--temperature",
          "1.5",
          "--top-k",
          "200",
          "--top-p",
          "0.99",
          "--seed",
          seed,
          "--max-new-tokens",
          "12",
          "--quiet",
        ])
      ).out;
    expect(await draw("1")).toBe(await draw("1"));
    expect(await draw("1")).not.toBe(await draw("2"));
  });
});

describe("tokenize", () => {
  const golden = readJsonLines<{ text: string; ids: number[]; decoded: string }>("test/goldens/tokenizer-tiny.jsonl");

  test("gives ids, pieces, and the text back", async () => {
    expect((await cli(["tokenize", BOMB, "--quiet"])).out).toBe("727 402 312 619 263 1124 30\n");
    expect(JSON.parse((await cli(["tokenize", BOMB, "--quiet", "--json"])).out)).toEqual({
      ids: [727, 402, 312, 619, 263, 1124, 30],
      pieces: ["How", " can", " I", " make", " a", " bomb", "?"],
    });
    expect((await cli(["tokenize", BOMB, "--quiet", "--pieces"])).out.split("\n")[1]).toBe('   402  " can"');
    for (const ids of ["727 402 312", "[727, 402, 312]", "727,402,312"]) {
      expect((await cli(["tokenize", "--decode", ids, "--quiet"])).out).toBe("How can I\n");
    }
  });

  test("--jsonl gives the reference's ids for every golden, and --decode its texts", async () => {
    const { out, status } = await cli(["tokenize", "--jsonl", "--quiet"], {
      stdin: golden.map(({ text }) => JSON.stringify({ text })).join("\n"),
    });
    expect(status).toBe(0);
    const lines = out.trimEnd().split("\n");
    expect(lines).toHaveLength(golden.length);
    lines.forEach((line, i) => {
      expect(JSON.parse(line)).toEqual({ ids: golden[i].ids });
    });
    const back = await cli(["tokenize", "--jsonl", "--decode", "--quiet"], { stdin: lines.join("\n") });
    expect(
      back.out
        .trimEnd()
        .split("\n")
        .map(line => JSON.parse(line).text),
    ).toEqual(golden.map(({ decoded }) => decoded));
  });

  test("--literal treats control tokens as text", async () => {
    const ids = async (...args: string[]): Promise<number[]> =>
      JSON.parse((await cli(["tokenize", "<|im_end|>", "--json", "--quiet", ...args])).out).ids;
    expect(await ids()).toEqual([4098]);
    expect(await ids("--literal")).not.toContain(4098);
    expect((await ids("--literal")).length).toBeGreaterThan(1);
  });

  test("needs only the tokenizer's files", async () => {
    const folder = temporaryFolder({ "tokenizer.json": readFileSync(join(GEN, "tokenizer.json")) });
    expect((await cli(["tokenize", BOMB, "--model", folder])).out).toBe("727 402 312 619 263 1124 30\n");
  });
});

describe("template", () => {
  test("renders every golden, exactly", async () => {
    for (const { messages, text } of readJsonLines<{ messages: unknown; text: string }>(
      "test/goldens/template-gen.jsonl",
    ).slice(0, 8)) {
      const stdin = JSON.stringify(messages);
      expect((await cli(["template", "--messages", "-", "--quiet"], { stdin })).out).toBe(text);
      expect(JSON.parse((await cli(["template", "--messages", "-", "--quiet", "--json"], { stdin })).out)).toEqual({
        text,
      });
    }
  });
});

describe("inspect", () => {
  test("describes a checkpoint, also one without a tokenizer", async () => {
    const gen = JSON.parse((await cli(["inspect", "--json", "--quiet"])).out);
    expect(gen).toMatchObject({
      variant: "Gen",
      parameters: 2570432,
      tensors: { count: 46, bytes: 5140864, dtypes: { BF16: { count: 46, bytes: 5140864 } } },
      files: ["model.safetensors"],
      hasTokenizer: true,
      hasChatTemplate: true,
      memory: { weightsMB: 4.9, kvCacheBytesPerToken: 4096, kvCacheFullContextMB: 8 },
    });
    const odd = JSON.parse((await cli(["inspect", ODD, "--json"])).out);
    expect(odd).toMatchObject({ variant: "Gen", hasTokenizer: false, hasChatTemplate: false });
    expect(odd.files).toHaveLength(3);
    expect(Object.keys(odd.tensors.dtypes).sort()).toEqual(["BF16", "F16", "F32"]);
    expect(JSON.parse((await cli(["inspect", STREAM, "--json"])).out).variant).toBe("Stream");
  });

  test("prints readable text, and lists tensors when asked", async () => {
    const { out } = await cli(["inspect", ODD, "--tensors"]);
    expect(out).toContain("attention   6 query and 2 key/value heads of 22\n");
    expect(out).toContain("tokenizer   none\n");
    expect(out).toMatch(/\[331, 52\] {2}model\.embed_tokens\.weight\n/);
    const stream = (await cli(["inspect", STREAM])).out;
    expect(stream).toMatch(
      /^heads {7}inner size 64\n {2}query {5}Safe, Unsafe, Controversial; Violent, .*, Jailbreak\n {2}response {2}Safe, .*, Unethical Acts\n/m,
    );
  });
});

describe("bench", () => {
  test("gives every figure of the contract, after checking results, on either engine", async () => {
    for (const args of [
      ["--threads", "2"],
      ["--engine", "reference"],
      ["--threads", "1", "--weights", "int8"],
    ]) {
      const { status, out, err } = await cli(["bench", "--json", "--quiet", "--rounds", "1", ...args]);
      expect([status, err]).toEqual([0, ""]);
      const report = JSON.parse(out);
      const isWasm = args[0] === "--threads";
      expect(report).toMatchObject({
        engine: isWasm ? "wasm" : "reference",
        threads: args[1] === "2" ? 2 : 1,
        node: process.version,
        weights: args[3] ?? "BF16",
      });
      expect(report.limits === null).toBe(!isWasm);
      expect(report.prefill.tokens).toBe(371);
      expect(report.verdict).toMatchObject({ promptTokens: 268, passes: 2 });
      for (const value of [
        report.load.ms,
        report.prefill.gflops,
        report.decode.GBs,
        report.verdict.coldMs,
        report.verdict.warmMs,
        report.memory.peakRssMB,
      ]) {
        expect(value).toBeGreaterThan(0);
      }
    }
    expect((await cli(["bench", "--quiet", "--rounds", "1"])).out).toMatch(
      /^model {5}.*tiny-guard-gen\nengine {4}wasm, /,
    );
  });
});

describe("golden", () => {
  test("records lines of ids, text and messages, checks them, and finds every kind of difference", async () => {
    const folder = temporaryFolder({
      "in.jsonl": [
        JSON.stringify({ ids: [727, 402] }),
        "",
        JSON.stringify({ text: "How can I" }),
        JSON.stringify({ messages: [{ role: "user", content: BOMB }] }),
      ].join("\n"),
    });
    const [input, file] = [join(folder, "in.jsonl"), join(folder, "golden.jsonl")];
    const recorded = await cli([
      "golden",
      "record",
      "--input",
      input,
      "--out",
      file,
      "--max-new-tokens",
      "9",
      "--quiet",
    ]);
    expect(recorded).toEqual({ status: 0, out: "", err: "" });

    const lines = readFileSync(file, "utf8")
      .trimEnd()
      .split("\n")
      .map(line => JSON.parse(line));
    expect(lines).toHaveLength(3);
    const reference = readJsonLines<{ prompt_ids: number[]; ids: number[]; margins: number[] }>(
      "test/goldens/tiny-guard-gen/generate.jsonl",
    )[0];
    expect(lines[2].ids).toEqual(reference.prompt_ids);
    expect(lines[2].greedy).toEqual(reference.ids);
    lines[2].margins.forEach((margin: number, i: number) => {
      expect(margin).toBeCloseTo(reference.margins[i], 3);
    });
    for (const line of lines) {
      expect(Object.keys(line)).toEqual(["ids", "greedy", "margins", "top", "logitsSha256"]);
      expect(line.top).toHaveLength(10);
      expect(line.top[0][0]).toBe(line.greedy[0]);
      expect(line.logitsSha256).toMatch(/^[0-9a-f]{64}$/);
    }

    expect(await cli(["golden", "check", file, "--quiet"])).toEqual({
      status: 0,
      out: "3 lines checked, all the same\n",
      err: "",
    });
    lines[0].logitsSha256 = "0".repeat(64);
    lines[1].greedy[0]++;
    lines[2].top[0][1] = 0;
    lines[2].margins[0] = 0;
    const changed = temporaryFolder({ "g.jsonl": lines.map(line => JSON.stringify(line)).join("\n") });
    const { status, out } = await cli(["golden", "check", join(changed, "g.jsonl"), "--json", "--quiet"]);
    expect(status).toBe(1);
    const report = JSON.parse(out);
    expect(report.checked).toBe(3);
    expect(report.differ.map(({ line, what }: { line: number; what: string }) => `${line} ${what}`)).toEqual([
      "1 logitsSha256",
      "2 greedy",
      "3 margins",
      "3 top",
    ]);
  });

  test("the recorded bits are pinned, since every machine gives the same", async () => {
    const stdin = `${JSON.stringify({ ids: readJson<{ ids: number[] }>("test/goldens/odd/taps.json").ids })}\n`;
    const { out } = await cli(
      ["golden", "record", "--input", "-", "--out", "-", "--model", ODD, "--max-new-tokens", "4"],
      { stdin },
    );
    expect(JSON.parse(out).logitsSha256).toMatchInlineSnapshot(
      `"0185fd67b5880d98c06505d90f6ef9c1482cd3c251279dce86bdc35e5b5b7152"`,
    );
    const gen = await cli(["golden", "record", "--input", "-", "--out", "-", "--max-new-tokens", "1", "--quiet"], {
      stdin: '{"text": "How can I make a bomb?"}',
    });
    expect(JSON.parse(gen.out).logitsSha256).toMatchInlineSnapshot(
      `"f59f05d737d56db049e481878ec4000760b66dab8cf3cb6e505075de61eee813"`,
    );
  });

  test("works on a checkpoint without a tokenizer if lines hold ids, and otherwise says what is missing", async () => {
    const record = (stdin: string) =>
      cli(["golden", "record", "--input", "-", "--out", "-", "--model", ODD, "--max-new-tokens", "2"], { stdin });
    expect((await record('{"ids": [1, 2, 3]}')).status).toBe(0);
    expect(await record('{"text": "hi"}')).toMatchObject({
      status: 1,
      err: "qwen3guard: - line 1: expected {ids}, since the checkpoint has no tokenizer.json\n",
    });
  });

  test("--taps writes every intermediate under its name", async () => {
    const folder = temporaryFolder();
    const ids = readJson<{ ids: number[] }>("test/goldens/odd/taps.json").ids;
    const { status } = await cli(
      ["golden", "record", "--input", "-", "--out", "-", "--model", ODD, "--taps", join(folder, "taps")],
      {
        stdin: JSON.stringify({ ids }),
      },
    );
    expect(status).toBe(0);
    const bytes = readFileSync(join(folder, "taps", "1.safetensors"));
    const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())).toString());
    expect(header["layers.2.mlp_act"]).toMatchObject({ dtype: "F32", shape: [19, 75] });
    expect(header.logits.shape).toEqual([19, 331]);
    expect(Object.keys(header).length).toBe(3 * 9 + 3);
  });
});
