/** A conversation from a JSON file, as `--messages` names it. */

import type { ChatMessage } from "../tokenizer/chat-template.ts";
import { parseJson, readTextFile, type Terminal } from "./io.ts";

/** Reads an array of `{role, content}`; what is in it is checked where it is used. Throws TypeError for anything but an array. */
export async function readMessages(path: string, terminal: Terminal): Promise<ChatMessage[]> {
  const name = path === "-" ? "stdin" : path;
  const value = parseJson(await readTextFile(path, terminal), name);
  if (!Array.isArray(value))
    throw new TypeError(`${name}: expected a JSON array of {role, content}, got ${value === null ? "null" : typeof value}`);
  return value;
}
