/** A checkpoint's files in a folder on disk. Node only; reached by `openCheckpointFiles`. */

import { readdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { bytesFromFile } from "./bytes.node.ts";
import { type CheckpointFiles, filesFromSources } from "./files.ts";
import { parseHubId } from "./hub/id.ts";

/**
 * Opens a folder. `title` appears in messages and verdicts instead of its path. Throws Error for a path that is not a
 * folder with a checkpoint's files.
 */
export async function filesFromFolder(folder: string | URL, title?: string): Promise<CheckpointFiles> {
  const path = typeof folder === "string" ? folder : fileURLToPath(folder);
  const kind = await stat(path).catch(missing);
  if (kind === undefined) throw new Error(`${path}: expected a checkpoint folder, got no such folder${hintFor(path)}`);
  if (!kind.isDirectory())
    throw new Error(`${path}: expected a checkpoint folder, got a file${GGUF.test(path) ? NOT_GGUF : ""}`);
  const files = await readdir(path);
  if (files.length === 0) throw new Error(`${path}: expected a checkpoint folder, got an empty one`);
  const gguf = files.find(file => GGUF.test(file));
  if (gguf !== undefined && !files.some(file => TEXTS.includes(file))) {
    throw new Error(`${path}: expected a checkpoint folder, got one with ${JSON.stringify(gguf)} alone${NOT_GGUF}`);
  }
  const name = title ?? nameOf(path);
  return filesFromSources({
    name,
    open: file => bytesFromFile(join(path, file), `${name}/${file}`).catch(missing),
  });
}

const GGUF = /\.gguf$/i;
const NOT_GGUF = ", a different format: the original's safetensors files, config.json and tokenizer.json are needed";
/** Every folder that a checkpoint, or its tokenizer alone, can be read from has one of these. */
const TEXTS: readonly string[] = ["config.json", "tokenizer.json"];

/** What the user may have meant by the path of a folder that does not exist. */
function hintFor(path: string): string {
  if (/^~[/\\]/.test(path)) return ' ("~" is the shell\'s name for the home folder: here the whole path is needed)';
  const isPlainName = parseHubId(`any/${path}`) !== undefined;
  return isPlainName ? " (a model of the Hub is named with its organisation, as in Qwen/Qwen3Guard-Gen-0.6B)" : "";
}

/** For `catch`: undefined where there is no such file or folder. */
function missing(error: NodeJS.ErrnoException): undefined {
  if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
  throw error;
}

/** Whether there is a file or folder at this path. */
export async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(missing)) !== undefined;
}

/** A name for messages and verdicts. "." would say nothing, so it becomes the whole path. */
function nameOf(path: string): string {
  return /^\.{1,2}[/\\]?$/.test(path) ? resolve(path) : path.length > 1 ? path.replace(/[/\\]+$/, "") : path;
}
