#!/usr/bin/env node
/** The command `qwen3guard`: runs the program on this process's arguments and terminal, and turns its outcome into the exit status. */

import { processTerminal } from "./io.ts";
import { run } from "./program.ts";

// A reader that goes away (`qwen3guard ... | head`) is not a failure: stop without a word.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

process.exitCode = await run(process.argv.slice(2), processTerminal());
