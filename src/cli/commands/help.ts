/** `qwen3guard help`: the help of the program, or of a command. */

import type { Command } from "commander";
import { suggestion } from "../command.ts";
import { UsageError } from "../terminal.ts";

export function specify(command: Command): void {
  command
    .description("print the help of a command")
    .argument("[command...]")
    .action((names: string[]) => {
      let subject = command.parent as Command;
      for (const name of names) {
        const found = subject.commands.find(c => c.name() === name);
        if (!found) throw new UsageError(`unknown command '${names.join(" ")}'${suggestion(name, subject)}`);
        subject = found;
      }
      subject.outputHelp();
    });
}
