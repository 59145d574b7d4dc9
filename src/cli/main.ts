#!/usr/bin/env node
/**
 * The command `qwen3guard`: runs the program on this process's arguments and terminal, and turns its outcome into the
 * exit status.
 */

/** The oldest that package.json's `engines` has. */
const OLDEST_NODE: readonly [number, number] = [20, 19];

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1])) {
  process.stderr.write(`qwen3guard: expected Node ${OLDEST_NODE.join(".")} or later, got ${process.versions.node}\n`);
  process.exitCode = 1;
} else {
  // Not static imports, which would come before the check, and fail on an older Node by a name that it does not have.
  const [{ processTerminal }, { EXIT_INTERRUPTED }, { run }] = await Promise.all([
    import("./terminal.ts"),
    import("./command.ts"),
    import("./program.ts"),
  ]);

  // What goes wrong with stdout rejects the write, and so reaches `run`: a reader that went away
  // (`qwen3guard ... | head`), a full disk.
  process.stdout.on("error", () => {});
  // A notice that nobody can be told is dropped; the work goes on.
  process.stderr.on("error", () => {});

  process.exitCode = await run(process.argv.slice(2), processTerminal());
  // Interrupted while it waited for input, the process would go on waiting.
  if (process.exitCode === EXIT_INTERRUPTED) process.exit();
}
