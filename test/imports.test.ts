/**
 * The layout's rules: which room may import which, where Node may appear, and that importing the entry points runs
 * nothing of Node.
 */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, expect, test } from "vitest";
import { projectPath, readJson } from "./helpers.ts";

const SRC = projectPath("src");

interface Room {
  /** Rooms whose files it may import, besides its own. */
  readonly rooms: readonly string[];
  /** Packages it may import; they are bundled into the published package. */
  readonly packages?: readonly string[];
  /**
   * Whether all of it may use Node. Elsewhere only files named *.node.ts may, which others reach by dynamic import
   * alone.
   */
  readonly isNode?: boolean;
}

/** What a file may import, by its room. Each room may import those above it, never one below. */
const ROOMS: Readonly<Record<string, Room>> = {
  tensor: { rooms: [] },
  checkpoint: { rooms: ["tensor"], packages: ["@huggingface/hub"] },
  tokenizer: { rooms: ["checkpoint"], packages: ["@huggingface/jinja"] },
  model: { rooms: ["tensor", "checkpoint"] },
  guard: { rooms: ["tensor", "checkpoint", "tokenizer", "model"] },
  server: { rooms: ["tensor", "tokenizer", "model", "guard"], packages: ["hono", "@hono/node-server"] },
  cli: {
    rooms: ["tensor", "checkpoint", "tokenizer", "model", "guard", "server"],
    packages: ["commander", "picocolors"],
    isNode: true,
  },
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
const mayUseNode = (file: string): boolean => ROOMS[roomOf(file)]?.isNode === true || file.endsWith(".node.ts");

test("the walk sees the project's files and their imports", () => {
  expect(files.length).toBeGreaterThan(30);
  expect(imports.length).toBeGreaterThan(60);
  expect(
    [...new Set(files.map(file => roomOf(relative(SRC, file))).filter(room => !room.endsWith(".ts")))].sort(),
  ).toEqual(Object.keys(ROOMS).sort());
});

describe("imports between rooms go one way", () => {
  test.each(Object.keys(ROOMS))("%s", room => {
    const bad = imports
      .filter(({ file, specifier }) => roomOf(file) === room && specifier.startsWith("."))
      .map(({ file, specifier }) => ({ file, target: relative(SRC, join(SRC, dirname(file), specifier)) }))
      .filter(({ target }) => ![room, ...ROOMS[room].rooms].includes(roomOf(target)));
    expect(bad).toEqual([]);
  });
});

test("packages are imported only where they are listed", () => {
  const bad = imports.filter(
    ({ file, specifier }) =>
      !/^(\.|node:)/.test(specifier) && !(ROOMS[roomOf(file)]?.packages ?? []).includes(specifier),
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
  const bad = imports.filter(
    ({ file, specifier, isDynamic }) => specifier.endsWith(".node.ts") && !isDynamic && !mayUseNode(file),
  );
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
