#!/usr/bin/env node
/** The command `qwen3guard`: runs the program on this process's arguments and terminal, and turns its outcome into the exit status. */

import { processTerminal } from "./io.ts";
import { EXIT_INTERRUPTED, run } from "./program.ts";

// What goes wrong with stdout rejects the write, and so reaches `run`: a reader that went away (`qwen3guard ... | head`), a full disk.
process.stdout.on("error", () => {});
// A notice that nobody can be told is dropped; the work goes on.
process.stderr.on("error", () => {});

process.exitCode = await run(process.argv.slice(2), processTerminal());
// Interrupted while it waited for input, the process would go on waiting.
if (process.exitCode === EXIT_INTERRUPTED) process.exit();
