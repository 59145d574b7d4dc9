/** The text files of a folder on disk, for Node. Browsers give `Tokenizer.load` their own `TextFiles`. */

import { join } from "node:path";
import { readTextFile } from "../checkpoint/text-file.node.ts";
import type { TextFiles } from "./tokenizer.ts";

/**
 * A folder's files. `readText` gives undefined where there is no such file, TypeError for what is no text, and the file
 * system's own errors.
 */
export function folderTextFiles(folder: string): TextFiles {
  return { name: folder, readText: file => readTextFile(join(folder, file), join(folder, file)) };
}
