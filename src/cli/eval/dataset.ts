/**
 * Labelled texts from JSONL. The whole file is read and checked before a model is loaded for it.
 *
 * In: lines `{id?, text | prompt, response? | messages, label: "safe" | "unsafe", categories?}`; other keys are
 * ignored. Out: examples. The first bad line is an error with its number: an evaluation that quietly skipped lines
 * would measure something else.
 */

import type { ModerationInput } from "../../guard/conversation.ts";
import { inputOfLine, show } from "../conversation-input.ts";
import { jsonLines } from "../json-lines.ts";
import { inFile, parseJson } from "../reading.ts";

export interface Example {
  readonly line: number;
  readonly id: string | null;
  readonly input: ModerationInput;
  readonly label: "safe" | "unsafe";
  /** The categories in the data; empty if it has none. */
  readonly categories: readonly string[];
  /** The value of the line for the key of `--by`. */
  readonly group: string | null;
}

export interface DatasetOptions {
  /** Take only this many lines; the rest is not read. */
  readonly limit?: number | undefined;
  /** A key whose values, strings or numbers, divide the lines into groups. */
  readonly by?: string | undefined;
}

/** The examples are held in memory; more text than this is a mistake or an attack. */
const MAX_CHARS = 2 ** 28;

/**
 * Throws TypeError or RangeError, `<file> line 3: ...`, for the first line that cannot be used, and RangeError for a
 * file without lines.
 */
export async function readDataset(
  chunks: AsyncIterable<Uint8Array | string>,
  file: string,
  { limit = Infinity, by }: DatasetOptions = {},
): Promise<Example[]> {
  const examples: Example[] = [];
  let chars = 0;
  for await (const { line, number, name } of jsonLines(chunks, file)) {
    chars += line.length;
    if (chars > MAX_CHARS)
      throw new RangeError(`${name}: expected at most ${MAX_CHARS} characters in all, got more (see --limit)`);
    const value = parseJson(line, name);
    examples.push(inFile(name, () => checkExample(value, number, by)));
    if (examples.length === limit) break;
  }
  if (examples.length === 0) throw new RangeError(`${file}: expected at least one line, got none`);
  return examples;
}

function checkExample(value: unknown, line: number, by: string | undefined): Example {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new TypeError(`expected an object, got ${show(value)}`);
  const { id, label, categories = [] } = value as Record<string, unknown>;
  if (id !== undefined && typeof id !== "string" && typeof id !== "number")
    throw new TypeError(`id: expected a string or a number, got ${show(id)}`);
  if (label !== "safe" && label !== "unsafe")
    throw new RangeError(`label: expected "safe" or "unsafe", got ${show(label)}`);
  if (!Array.isArray(categories) || !categories.every(category => typeof category === "string"))
    throw new TypeError(`categories: expected an array of strings, got ${show(categories)}`);
  return {
    line,
    id: id === undefined ? null : String(id),
    input: inputOfLine(value),
    label,
    categories: [...new Set(categories)],
    group: by === undefined ? null : readGroup(value as Record<string, unknown>, by),
  };
}

function readGroup(line: Readonly<Record<string, unknown>>, key: string): string {
  const value = Object.hasOwn(line, key) ? line[key] : undefined;
  if (typeof value !== "string" && typeof value !== "number")
    throw new TypeError(`${key}: expected a string or a number, got ${show(value)}`);
  return String(value);
}
