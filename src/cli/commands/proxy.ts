/** `qwen3guard proxy`: the options of the proxy; the work is in serving/. */

import { type Command, Option } from "commander";
import { ACTIONS } from "../../server/proxy/call.ts";
import {
  type CommandContext,
  EXIT_INTERRUPTED,
  everyOption,
  example,
  integer,
  modeOption,
  required,
} from "../command.ts";
import { withModel } from "../model-options.ts";
import { withLimits, withListening } from "../serving/options.ts";

export function specify(command: Command, { terminal, setStatus }: CommandContext): void {
  withModel(command)
    .description("stand in front of an OpenAI-compatible server: judge requests, and answers while they are written")
    .option("--upstream <url>", "the server behind it, as in http://localhost:8000/v1 (required)");
  withListening(command, 8100)
    .addOption(modeOption("strict flags Unsafe and Controversial, loose Unsafe alone", "strict"))
    .addOption(
      new Option("--action <action>", "block what is flagged, pass it with a field that says so, or only log it")
        .choices(ACTIONS)
        .default("block"),
    )
    .addOption(everyOption())
    .option("--hold-back <n>", "characters to hold back beyond those that the guard has not cleared", integer(0), 0)
    .option("--max-streams <n>", "answers moderated at once; each holds the memory of its tokens", integer(1), 8);
  withLimits(command, 4 * 2 ** 20, "seconds that the upstream may be silent", 120)
    .option("--fail-open", "pass what could not be judged because the guard failed")
    .option("--allow-route <route...>", 'pass another route unjudged: "POST /v1/tokenize", "GET /v1/batches/*"')
    .option("--log-requests", "a line on stderr for each request and each finding, without text")
    .option("--log-text", "the same, with the text of findings")
    .addHelpText(
      "after",
      example("qwen3guard proxy --upstream http://localhost:8000/v1 --model Qwen/Qwen3Guard-Stream-0.6B"),
    )
    .action(async options => {
      const upstream = required(options.upstream, "proxy", "--upstream URL");
      // Imported here, so that the program's help does not wait for the proxy's code.
      const { serveProxy } = await import("../serving/proxy.ts");
      if (await serveProxy({ ...options, upstream }, terminal)) setStatus(EXIT_INTERRUPTED);
    });
}
