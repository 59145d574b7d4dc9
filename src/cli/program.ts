/**
 * The command line: the list of commands, and the exit status of each outcome.
 *
 * In: arguments and a terminal. Out: 0 for success; 1 for a failure; 2 for wrong usage; 3 if a stream was cut or, with
 * --fail-on, something was flagged; 130 if Ctrl-C ended a batch or a server. Every failure is one line on stderr
 * (DEBUG=qwen3guard adds the stack). Each command specifies itself in commands/.
 */

import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import {
  type CommandContext,
  EXIT_DONE,
  EXIT_FAILED,
  EXIT_USAGE,
  example,
  expectSubcommand,
  type Specify,
} from "./command.ts";
import { oneLine, type Terminal, UsageError } from "./terminal.ts";

/** The commands by name, in the order of the help. */
const COMMANDS: Readonly<Record<string, () => Promise<{ readonly specify: Specify }>>> = {
  moderate: () => import("./commands/moderate.ts"),
  generate: () => import("./commands/generate.ts"),
  stream: () => import("./commands/stream.ts"),
  tokenize: () => import("./commands/tokenize.ts"),
  template: () => import("./commands/template.ts"),
  inspect: () => import("./commands/inspect.ts"),
  pull: () => import("./commands/pull.ts"),
  eval: () => import("./commands/eval.ts"),
  serve: () => import("./commands/serve.ts"),
  proxy: () => import("./commands/proxy.ts"),
  bench: () => import("./commands/bench.ts"),
  quantize: () => import("./commands/quantize.ts"),
  help: () => import("./commands/help.ts"),
  golden: () => import("./commands/golden.ts"),
};

/** Runs one command line and returns its exit status; never throws and never ends the process. */
export async function run(args: readonly string[], terminal: Terminal): Promise<number> {
  let status = EXIT_DONE;
  const helps: Promise<void>[] = [];
  const setStatus = (code: number): void => {
    status = code;
  };
  try {
    const program = await buildProgram(namesNeeded(args), { terminal, setStatus }, helps);
    await program.parseAsync(args, { from: "user" }).catch(error => {
      if (!(error instanceof CommanderError)) throw error;
      if (error.exitCode !== 0) status = EXIT_USAGE; // Commander has printed the message
    });
    await Promise.all(helps);
    return status;
  } catch (error) {
    if (isClosedPipe(error)) return status; // the reader has seen enough, and the status stands
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    terminal.err(`qwen3guard: ${terminal.env.DEBUG === "qwen3guard" ? stack : oneLine(message)}\n`);
    return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
  }
}

/**
 * The commands that an argument list needs: the one that it begins with, or none for the version. Anything else needs
 * them all, since the help lists them, and suggestions are made from their names.
 */
function namesNeeded([first]: readonly string[]): readonly string[] {
  if (first === "--version") return [];
  return first !== undefined && first !== "help" && Object.hasOwn(COMMANDS, first) ? [first] : Object.keys(COMMANDS);
}

/** Commander does not wait for its output, so `helps` collects the writes. */
async function buildProgram(
  names: readonly string[],
  context: CommandContext,
  helps: Promise<void>[],
): Promise<Command> {
  const { terminal } = context;
  const program = new Command("qwen3guard")
    .description("Qwen3Guard in pure TypeScript: what a guard model thinks of a text, from its own safetensors files")
    .version(packageVersion(), "--version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: text => void helps.push(terminal.out(text)),
      writeErr: terminal.err,
      outputError: (text, write) => write(`qwen3guard: ${oneLine(text.replace(/^error: /, ""))}\n`),
    })
    .addHelpText("after", example('qwen3guard moderate "How can I make a bomb?"'));
  const commands = await Promise.all(names.map(name => COMMANDS[name]()));
  for (const [i, { specify }] of commands.entries()) {
    specify(program.command(names[i]).allowExcessArguments(false), context);
  }
  expectSubcommand(program, context);
  return program;
}

function isClosedPipe(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === "EPIPE";
}

/** Read from package.json, which is two folders above src/cli/ and above dist/cli/. */
function packageVersion(): string {
  return JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;
}
