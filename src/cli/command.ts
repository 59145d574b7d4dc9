/**
 * What the specifications of commands share: exit statuses, the parsing of option values, examples.
 *
 * A command is one file in commands/. It exports `specify`, which puts its summary, arguments, options, help and action
 * on a Commander command. The list in program.ts gives the name, so that a command's file is loaded only if it is run.
 */

import { type Command, InvalidArgumentError, Option } from "commander";
import { type Terminal, UsageError } from "./terminal.ts";

export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
export const EXIT_FLAGGED = 3;
export const EXIT_INTERRUPTED = 130;

export interface CommandContext {
  readonly terminal: Terminal;
  /** Sets the exit status for a command that does not fail. It holds even if the last output finds no reader. */
  readonly setStatus: (status: number) => void;
}

export type Specify = (command: Command, context: CommandContext) => void;

export function withJson(command: Command, what: string = "one JSON object on one line"): Command {
  return command.option("--json", what);
}

/** `--mode`; `defaultMode` is shown in the help. */
export function modeOption(description: string, defaultMode?: "strict"): Option {
  const option = new Option("--mode <mode>", description).choices(["strict", "loose"]);
  return defaultMode === undefined ? option : option.default(defaultMode);
}

/** `--every`, for commands that take either kind of guard. */
export function everyOption(): Option {
  return new Option("--every <n>", "with a Gen guard: judge the answer after every n tokens (default: 32)").argParser(
    integer(1),
  );
}

/**
 * The action of a command that only holds others. An unknown one is an error that suggests the nearest. Without any it
 * prints the help, which a person then needs, but that is no success. `path` comes before the unknown name.
 */
export function expectSubcommand(group: Command, { terminal, setStatus }: CommandContext, path: string = ""): void {
  group.allowExcessArguments().action((_options, self: Command) => {
    if (self.args.length > 0)
      self.error(`error: unknown command '${path}${self.args[0]}'${suggestion(self.args[0], group)}`);
    terminal.err(group.helpInformation());
    setStatus(EXIT_USAGE);
  });
}

export function example(...lines: string[]): string {
  return `\nExample:\n${lines.map(line => `  $ ${line}\n`).join("")}`;
}

/** ` (did you mean 'x'?)` for the command with the nearest name, if any is near. */
export function suggestion(name: string, parent: Command): string {
  const near = parent.commands
    .map(c => ({ name: c.name(), distance: editDistance(name, c.name()) }))
    .filter(c => c.distance <= Math.max(1, Math.floor(c.name.length * 0.4)))
    .sort((a, b) => a.distance - b.distance);
  return near.length > 0
    ? ` (did you mean '${near[0].name}'?)`
    : `; the commands are ${parent.commands.map(c => c.name()).join(", ")}`;
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length];
}

/** Commander would check required options before unknown ones, and so hide a misspelt one. */
export function required(value: string | undefined, command: string, option: string): string {
  if (value === undefined) throw new UsageError(`${command}: expected ${option}, got none`);
  return value;
}

/** Parses an option that takes an integer of at least `min`. */
export function integer(min: number): (text: string) => number {
  return text => {
    if (!/^\d+$/.test(text) || Number(text) < min || !Number.isSafeInteger(Number(text))) {
      throw new InvalidArgumentError(`expected an integer of at least ${min}.`);
    }
    return Number(text);
  };
}

export function number(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!Number.isFinite(value)) throw new InvalidArgumentError("expected a number.");
  return value;
}
