/** `qwen3guard eval`: the options of an evaluation; the work is in eval/. */

import type { Command } from "commander";
import { type CommandContext, example, integer, withJson } from "../command.ts";
import { withModel } from "../model-options.ts";

export function specify(command: Command, { terminal }: CommandContext): void {
  withJson(withModel(command))
    .description("how well the guard does on labelled texts of your own, JSONL; - is stdin")
    .argument("<file>")
    .option("--html <file>", "also write the report as an HTML page, with curves")
    .option("--limit <n>", "only the first n lines", integer(1))
    .option("--by <key>", "also show figures for each value that the lines have for this key")
    .option(
      "--compare <forms>",
      "compare forms of weights with the first one, as in bf16,int8,int4; labels are not used",
    )
    .option("--worst <n>", "show this many of the worst mistakes of each kind", integer(0), 5)
    .addHelpText(
      "after",
      `\nEach line: {"text": "...", "label": "safe" or "unsafe"}, or {prompt, response} or {messages} instead of text; id and categories are optional.\n${example("qwen3guard eval texts.jsonl --html report.html")}`,
    )
    .action(async (file, options) => {
      // Imported here, so that the program's help does not wait for it.
      if (options.compare === undefined) {
        const { evaluateFile } = await import("../eval/run.ts");
        return evaluateFile(file, options, terminal);
      }
      const { compareWeights } = await import("../eval/compare-weights.ts");
      return compareWeights(file, options, terminal);
    });
}
