/** docs/SERVER.md: its curl commands work, its program prints what its comment says, and its figures are the code's. */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { cli } from "../cli/harness.ts";
import { projectPath } from "../helpers.ts";
import { client } from "./requests.ts";

const text = readFileSync(projectPath("docs/SERVER.md"), "utf8");
const blocks = (language: string): string[] =>
  [...text.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, "g"))].map(m => m[1]);
const commands = blocks("sh").flatMap(block => block.split("\n").filter(line => line.startsWith("curl ")));

test("there are commands for every route that is not a page", () => {
  const paths = commands.map(command => /127\.0\.0\.1:8000(\S+)/.exec(command)?.[1]);
  expect(new Set(paths)).toEqual(
    new Set([
      "/v1/moderations",
      "/v1/chat/completions",
      "/v1/completions",
      "/v1/models",
      "/health",
      "/metrics",
      "/openapi.json",
    ]),
  );
});

test.each(commands)("%s", async command => {
  const [, path, header, body] =
    /^curl -s http:\/\/127\.0\.0\.1:8000(\S+)(?: -H "content-type: ([^"]*)" -d '([^']*)')?$/.exec(command) ??
    expect.fail("another form");
  const { get, post } = client();
  const { status, json } =
    body === undefined ? await get(path) : await post(path, body, { headers: { "content-type": header } });
  expect(status).toBe(200);
  if (path === "/v1/chat/completions")
    expect(json.choices[0].message.content).toBe("Safety: Unsafe\nCategories: Violent");
});

test("its program prints what its comment says", () => {
  const [code] = blocks("ts");
  const sources = code.replace(
    /from "qwen3guard(\/server)?"/g,
    (_match, entry) => `from ${JSON.stringify(projectPath(`src${entry ?? "/index"}.ts`))}`,
  );
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", sources], {
    encoding: "utf8",
  });
  expect([status, stdout.trim(), stderr]).toEqual([0, /console\.log\(.*\); \/\/ (.*)$/m.exec(code)?.[1], ""]);
});

test("its Python example names a model that any guard has, the demo guard too", async () => {
  const [code] = blocks("python");
  const { get, post } = client();
  const [, name] = /create\(model=("[^"]*"|\w+),/.exec(code) ?? expect.fail("no model");
  // What its `client.models.list().data[0].id` is, or the name that it spells out.
  const first = (await get("/v1/models")).json.data[0].id;
  const model = name.startsWith('"')
    ? JSON.parse(name)
    : code.includes(`${name} = client.models.list().data[0].id`)
      ? first
      : undefined;
  const messages = JSON.parse(/messages = (.*)/.exec(code)?.[1] ?? "");
  const { status, json } = await post("/v1/chat/completions", { model, messages });
  expect([model, status, json.choices?.[0].message.content]).toEqual([
    first,
    200,
    "Safety: Unsafe\nCategories: Violent",
  ]);
});

test.each([
  ["serve", "SERVER.md"],
  ["proxy", "PROXY.md"],
])("every option of %s stands in docs/%s", async (command, document) => {
  const { out } = await cli([command, "--help"]);
  const options = [...out.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)]
    .map(m => m[1])
    .filter(option => option !== "--help");
  expect(options.length).toBeGreaterThan(15);
  const described = readFileSync(projectPath(`docs/${document}`), "utf8");
  expect(options.filter(option => !new RegExp(`\`${option}[ \`]`).test(described))).toEqual([]);
});

test("every option of the command that it names is there, with its default", async () => {
  const { out } = await cli(["serve", "--help"]);
  for (const [, option] of text.matchAll(/`(--[a-z-]+)/g)) expect(out).toContain(`${option} `);
  for (const [option, value] of [
    ["--max-queue", "64"],
    ["--timeout", "300"],
    ["--host", "127.0.0.1"],
    ["--port", "8000"],
  ]) {
    expect(out.replace(/\s+/g, " ")).toMatch(new RegExp(`${option} <[^>]*> [^<]*\\(default: "?${value}"?\\)`));
  }
});
