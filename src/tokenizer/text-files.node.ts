// The text files of a folder on disk, for Node. Browsers give `Tokenizer.load` their own `TextFiles`.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { TextFiles } from "./tokenizer.ts";

export class FolderTextFiles implements TextFiles {
  readonly name: string;

  constructor(folder: string) {
    this.name = folder;
  }

  /** Undefined when the folder has no such file. Errors: TypeError for what is not UTF-8, and the file system's own. */
  async readText(file: string): Promise<string | undefined> {
    const path = join(this.name, file);
    let bytes: Uint8Array;
    try {
      bytes = await readFile(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw new TypeError(`${path}: expected UTF-8 text, got other bytes`);
    }
  }
}
