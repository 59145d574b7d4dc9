/** A checkpoint's files in a folder on disk. Node only; reached by `openCheckpointFiles`. */

import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { missing, readTextFile } from "../checkpoint/text-file.node.ts";
import { bytesFromFile } from "../tensor/bytes.node.ts";
import type { CheckpointFiles } from "./checkpoint-files.ts";

/** Throws Error where `folder` is not a folder. `title` stands in messages and verdicts instead of its path. */
export async function filesFromFolder(folder: string | URL, title?: string): Promise<CheckpointFiles> {
  const path = typeof folder === "string" ? folder : fileURLToPath(folder);
  const kind = await stat(path).catch(missing);
  if (kind === undefined) throw new Error(`${path}: expected a checkpoint folder, got no such folder`);
  if (!kind.isDirectory()) throw new Error(`${path}: expected a checkpoint folder, got a file`);
  const name = title ?? nameOf(path);
  return {
    name,
    open: async file => {
      const found = await stat(join(path, file)).catch(missing);
      return found && bytesFromFile(join(path, file), `${name}/${file}`);
    },
    readText: file => readTextFile(join(path, file), `${name}/${file}`),
  };
}

/** Whether there is anything of that name. */
export async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(missing)) !== undefined;
}

/** A name for messages and verdicts: "." says nothing. */
function nameOf(path: string): string {
  return /^\.{1,2}[/\\]?$/.test(path) ? resolve(path) : path.length > 1 ? path.replace(/[/\\]+$/, "") : path;
}
