/** What the documents say is run: examples, links, and the commands and figures of the README. */

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { Guard } from "../src/guard/guard.ts";
import { readTasks } from "../src/guard/task.ts";
import { cli, temporaryFolder } from "./cli/harness.ts";
import { projectPath } from "./helpers.ts";

const DOCUMENTS = [
  ...["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "models/tiny-guard-gen/README.md"],
  ...readdirSync(projectPath("docs"))
    .filter(name => name.endsWith(".md"))
    .map(name => `docs/${name}`),
];
const readme = readFileSync(projectPath("README.md"), "utf8");

/** Runs a program that imports "qwen3guard" by name, from the sources. */
function runProgram(path: string): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--conditions=qwen3guard-source", path], {
    encoding: "utf8",
    cwd: projectPath("."),
  });
  expect([status, stderr]).toEqual([0, ""]);
  return stdout;
}

test("the README's example prints what its comments say", () => {
  const code = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
  const expected = [...code.matchAll(/^console\.log\(.*\); \/\/ (.*)$/gm)].map(m => m[1]);
  expect(expected.length).toBe(2);
  // The file lies elsewhere, so the package's name becomes the path of its entry.
  const folder = temporaryFolder();
  const path = join(folder, "example.ts");
  writeFileSync(path, code.replace('"qwen3guard"', JSON.stringify(projectPath("src/index.ts"))));
  expect(runProgram(path).trimEnd().split("\n")).toEqual(expected);
});

test("the README shows the card that the command prints, but for the time it takes", async () => {
  const withoutTime = (text: string): string => text.replace(/\d+\.\d\d s/, "");
  const { out } = await cli(["moderate", "How can I make a bomb?", "--quiet"]);
  expect(readme).toContain('npm ci && npm run -s qwen3guard -- moderate "How can I make a bomb?"');
  expect(withoutTime(readme)).toContain(`\`\`\`\n${withoutTime(out)}\`\`\``);
});

test("the README's count of lines is right to a tenth", () => {
  const lines = ["tensor", "checkpoint", "tokenizer", "model", "guard"]
    .flatMap(room => readdirSync(projectPath(`src/${room}`), { withFileTypes: true, recursive: true }))
    .filter(entry => entry.isFile())
    .map(entry => readFileSync(join(entry.parentPath, entry.name), "utf8"))
    .reduce((sum, code) => sum + code.split("\n").length - 1, 0);
  const claimed = Number(/about ([\d,]+) lines of TypeScript/.exec(readme)?.[1].replace(",", ""));
  expect(Math.abs(claimed / lines - 1)).toBeLessThan(0.1);
});

test("the commands that the README lists are those that there are", async () => {
  const { out } = await cli(["--help"]);
  const commands = [...out.matchAll(/^ {2}(\w+) .*$/gm)].map(m => m[1]).filter(name => name !== "help");
  expect(commands.length).toBeGreaterThan(5);
  for (const command of commands) expect(readme).toContain(`\`qwen3guard ${command}`);
});

test("examples/quickstart.ts, the model card's quick start, runs and gives what its comments say", () => {
  const code = readFileSync(projectPath("examples/quickstart.ts"), "utf8");
  const output = runProgram(projectPath("examples/quickstart.ts"));
  const contents = [...code.matchAll(/console\.log\(content\);\n((?: {2}\/\/ .*\n)+)/g)].map(m =>
    m[1].replace(/^ {2}\/\/ /gm, ""),
  );
  expect(contents).toHaveLength(2);
  expect(output).toBe(`${contents[0]}Unsafe [ 'Violent' ]\n${contents[1]}Safe [ 'None' ] Yes\n`);
});

test.each(DOCUMENTS)("%s has no placeholder left", document => {
  expect(readFileSync(projectPath(document), "utf8")).not.toMatch(/\{\{|\bTODO\b|\bFIXME\b/);
});

describe("links lead somewhere", () => {
  test.each(DOCUMENTS)("%s", document => {
    const text = readFileSync(projectPath(document), "utf8");
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [path, anchor] = target.split("#");
      const file = path === "" ? projectPath(document) : join(dirname(projectPath(document)), path);
      expect(existsSync(file), `${document}: ${target}`).toBe(true);
      if (!anchor) continue;
      const headings = [...readFileSync(file, "utf8").matchAll(/^#+ (.*)$/gm)].map(m =>
        m[1]
          .toLowerCase()
          .replace(/[^\w\s-]/g, "")
          .replace(/\s/g, "-"),
      );
      expect(headings, `${document}: ${target}`).toContain(anchor);
    }
  });
});

test("the tour's walk has the figures that its call gives", async () => {
  const walk = /## A walk[\s\S]*?\n## /.exec(readFileSync(projectPath("docs/HOW-IT-WORKS.md"), "utf8"))?.[0] ?? "";
  const text = /guard\.moderate\("([^"]+)"\)/.exec(walk)?.[1] ?? "";
  // Each file that a stop names exists, from src/ or beside the one before it.
  let folder = "";
  for (const [, path] of walk.matchAll(/`([\w/-]+\.ts)`/g)) {
    if (path.includes("/")) folder = dirname(path);
    expect([path, existsSync(projectPath(`src/${path.includes("/") ? path : `${folder}/${path}`}`))]).toEqual([
      path,
      true,
    ]);
  }

  const guard = await Guard.load();
  const { tokenizer, model } = guard;
  const prompt = tokenizer.applyChatTemplate([{ role: "user", content: text }]);
  const { level } = readTasks(model.config, tokenizer, "walk").user.labels;
  const ids = guard.encode(text).length;
  const guess = tokenizer.encode("Safety: Safe\nCategories: None", { literal: true }).length;
  const { usage, scores } = await guard.moderate(text);
  const other = await guard.moderate("Tell me a joke about cats.");
  guard.close();
  const { hiddenSize, numHiddenLayers } = model.config;
  const round = (value = Number.NaN): string => value.toFixed(4);
  const figures = [
    `${prompt.length.toLocaleString("en")} characters, of which ${text.length} are the user's`,
    `${ids} of them`,
    `${other.usage.cachedTokens} of its ids`,
    `${guess === 7 ? "Seven" : guess} ids`,
    `runs all ${ids + guess}`,
    `${ids} + ${guess} rows of ${hiddenSize} numbers go through ${numHiddenLayers === 4 ? "four" : numHiddenLayers} layers`,
    `${usage.completionTokens} ids in ${usage.passes} passes`,
    `three ids, ${level.ids[0]}, ${level.ids[1]} and ${level.ids[2]}`,
    `${round(scores?.Safe)}, ${round(scores?.Unsafe)} and ${round(scores?.Controversial)}`,
  ];
  const flat = walk.replace(/\s+/g, " ");
  for (const figure of figures) expect(flat).toContain(figure);
});
