/** A conversation from a JSON file, as `--messages` names it. */

import { type ChatMessage, checkMessages } from "../tokenizer/chat-template.ts";
import { inFile, parseJson, readTextFile, type Terminal } from "./io.ts";

/** Reads an array of `{role, content}`; TypeError or RangeError, with the file's name, for anything else. */
export async function readMessages(path: string, terminal: Terminal): Promise<ChatMessage[]> {
  const name = path === "-" ? "stdin" : path;
  const value = parseJson(await readTextFile(path, terminal), name);
  if (!Array.isArray(value))
    throw new TypeError(
      `${name}: expected a JSON array of {role, content}, got ${value === null ? "null" : typeof value}`,
    );
  return inFile(path, () => checkMessages(value));
}
