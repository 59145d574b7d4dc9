#!/usr/bin/env node
/**
 * The command `qwen3guard`: runs the program on this process's arguments and terminal, and turns its outcome into the
 * exit status.
 */

/** The oldest version in package.json's `engines`. */
const OLDEST_NODE: readonly [number, number] = [20, 19];

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1])) {
  process.stderr.write(`qwen3guard: expected Node ${OLDEST_NODE.join(".")} or later, got ${process.versions.node}\n`);
  process.exitCode = 1;
} else {
  // Static imports would run before the check, and fail on an older Node that lacks a name they use.
  const [{ processTerminal }, { EXIT_INTERRUPTED }, { run }] = await Promise.all([
    import("./terminal.ts"),
    import("./command.ts"),
    import("./program.ts"),
  ]);

  // An error of stdout (the reader went away, as in `qwen3guard ... | head`, or the disk is full) also rejects the
  // write, and so reaches `run`.
  process.stdout.on("error", () => {});
  // A notice that cannot be written is dropped, and the work goes on.
  process.stderr.on("error", () => {});

  process.exitCode = await run(process.argv.slice(2), processTerminal());
  // A batch that was interrupted while it waited for input would otherwise keep the process waiting.
  if (process.exitCode === EXIT_INTERRUPTED) process.exit();
}
