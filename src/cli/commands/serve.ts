/** `qwen3guard serve`: the options of the HTTP server; the work is in serving/. */

import type { Command } from "commander";
import { type CommandContext, EXIT_INTERRUPTED, example } from "../command.ts";
import { withModel } from "../model-options.ts";
import { withLimits, withListening } from "../serving/options.ts";

export function specify(command: Command, { terminal, setStatus }: CommandContext): void {
  withListening(withModel(command), 8000, " without a key")
    .description("the HTTP server: OpenAI's chat, completions and moderations, and a page to try it")
    .option(
      "--api-key <key>",
      "key that requests must carry (default: QWEN3GUARD_API_KEY, which other processes cannot see, else none)",
    )
    .option(
      "--served-model-name <name...>",
      "names that requests may call the model by, besides its own; answers carry the first",
    );
  withLimits(command, 2 ** 20, "seconds that a request may take, waiting included", 300)
    .option("--cors <origin>", "origin whose pages may call it from a browser, or *")
    .option("--log-requests", "a line on stderr for each request, without its text")
    .option("--log-text", "the same, with its text")
    .addHelpText("after", example("qwen3guard serve --model Qwen/Qwen3Guard-Gen-0.6B --port 8000"))
    .action(async options => {
      // Imported here, so that the program's help does not wait for the server's code.
      const { serveGuard } = await import("../serving/serve.ts");
      if (await serveGuard(options, terminal)) setStatus(EXIT_INTERRUPTED);
    });
}
