/** The layout's rules: which room may import which, where Node may appear, and that importing the entry points runs nothing of Node. */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, expect, test } from "vitest";
import { projectPath, readJson } from "./helpers.ts";

const SRC = projectPath("src");

/** Rooms that each room may import besides itself. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  tensor: [],
  checkpoint: [],
  tokenizer: ["checkpoint"],
  model: ["checkpoint", "tensor"],
  guard: ["model", "tokenizer", "tensor"],
  app: ["guard", "model", "tokenizer", "tensor"],
};

/** Packages that a room may import; they are bundled into the published package. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  tokenizer: ["@huggingface/jinja"],
  model: ["@huggingface/hub"],
  app: ["commander", "picocolors", "hono", "@hono/node-server"],
};

interface Import {
  readonly file: string;
  readonly specifier: string;
  readonly isDynamic: boolean;
}

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter(entry => entry.isFile() && entry.name.endsWith(".ts"))
    .map(entry => join(entry.parentPath, entry.name));
}

function importsOf(path: string): Import[] {
  const code = readFileSync(path, "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
  const file = relative(SRC, path);
  const statics = [...code.matchAll(/^\s*(?:import|export)\b[^;"']*?\bfrom\s*"([^"]+)"|^\s*import\s*"([^"]+)"/gm)];
  const dynamics = [...code.matchAll(/\bimport\(\s*"([^"]+)"/g)];
  return [
    ...statics.map(m => ({ file, specifier: m[1] ?? m[2], isDynamic: false })),
    ...dynamics.map(m => ({ file, specifier: m[1], isDynamic: true })),
  ];
}

const files = sources(SRC);
const imports = files.flatMap(importsOf);
const roomOf = (file: string): string => file.split("/")[0];
const isEntry = (file: string): boolean => !file.includes("/");
/** The server's handler runs anywhere; the rest of app/ is the command line. */
const mayUseNode = (file: string): boolean => (roomOf(file) === "app" && !file.startsWith("app/server/")) || file.endsWith(".node.ts");

test("the walk sees the project's files and their imports", () => {
  expect(files.length).toBeGreaterThan(30);
  expect(imports.length).toBeGreaterThan(60);
  expect([...new Set(files.map(file => roomOf(relative(SRC, file))).filter(room => !room.endsWith(".ts")))].sort()).toEqual(
    Object.keys(ALLOWED).sort(),
  );
});

describe("imports between rooms go one way", () => {
  test.each(Object.keys(ALLOWED))("%s", room => {
    const bad = imports
      .filter(({ file, specifier }) => roomOf(file) === room && specifier.startsWith("."))
      .map(({ file, specifier }) => ({ file, target: relative(SRC, join(SRC, dirname(file), specifier)) }))
      .filter(({ target }) => ![room, ...ALLOWED[room]].includes(roomOf(target)));
    expect(bad).toEqual([]);
  });
});

test("packages are imported only where they are listed", () => {
  const bad = imports.filter(
    ({ file, specifier }) => !/^(\.|node:)/.test(specifier) && !(PACKAGES[roomOf(file)] ?? []).some(name => specifier === name),
  );
  expect(bad).toEqual([]);
});

test("node: modules, process and Buffer appear only on the command line and in *.node.ts", () => {
  expect(imports.filter(({ file, specifier }) => specifier.startsWith("node:") && !mayUseNode(file))).toEqual([]);
  const bad = files.filter(path => {
    const code = readFileSync(path, "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
    return !mayUseNode(relative(SRC, path)) && /\b(process\.|Buffer\b|require\()/.test(code);
  });
  expect(bad.map(path => relative(SRC, path))).toEqual([]);
});

test("*.node.ts is reached from elsewhere by dynamic import alone", () => {
  const bad = imports.filter(({ file, specifier, isDynamic }) => specifier.endsWith(".node.ts") && !isDynamic && !mayUseNode(file));
  expect(bad).toEqual([]);
});

test("bundlers for browsers are told of every *.node.ts that is reached by dynamic import", () => {
  const browser = readJson<{ browser: Record<string, false> }>("package.json").browser;
  const reached = imports
    .filter(({ specifier, isDynamic }) => isDynamic && specifier.endsWith(".node.ts"))
    .map(({ file, specifier }) => `./dist/${join(dirname(file), specifier).replace(/\.ts$/, ".js")}`);
  expect(Object.keys(browser).sort()).toEqual([...new Set(reached)].sort());
});

test("no file inside a room only passes on what others export", () => {
  const barrels = files.filter(path => {
    const file = relative(SRC, path);
    const code = readFileSync(path, "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
    return !isEntry(file) && /^\s*export\s*(type\s*)?[{*][^;]*\bfrom\s*"/m.test(code);
  });
  expect(barrels.map(path => relative(SRC, path))).toEqual([]);
});
