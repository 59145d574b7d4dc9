/**
 * The command line: which commands and options there are, and what each outcome's exit status is.
 *
 * In: arguments and a terminal. Out: 0 done; 1 it failed; 2 wrong usage; 3 with --fail-on, something was flagged, or a
 * stream was cut; 130 a batch was interrupted. Every failure is one line on stderr (the stack too where
 * DEBUG=qwen3guard). The work itself is done in commands/.
 */

import { readFileSync } from "node:fs";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { ACTIONS } from "../server/proxy/call.ts";
import { WEIGHTS } from "../tensor/engine-choice.ts";
import { QUANTISED_SCHEMES } from "../tensor/quantised.ts";
import { benchCommand } from "./commands/bench.ts";
import { generateCommand } from "./commands/generate.ts";
import { goldenCheckCommand, goldenRecordCommand } from "./commands/golden.ts";
import { inspectCommand } from "./commands/inspect.ts";
import { moderateCommand } from "./commands/moderate.ts";
import { pullCommand } from "./commands/pull.ts";
import { quantizeCommand } from "./commands/quantize.ts";
import { streamCommand } from "./commands/stream.ts";
import { templateCommand } from "./commands/template.ts";
import { tokenizeCommand } from "./commands/tokenize.ts";
import { oneLine, type Terminal, UsageError } from "./io.ts";
import { SHAPES } from "./random-checkpoint.ts";

export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
export const EXIT_FLAGGED = 3;
export const EXIT_INTERRUPTED = 130;

/** Runs one command line and returns its exit status; never throws and never ends the process. */
export async function run(args: readonly string[], terminal: Terminal): Promise<number> {
  let status = EXIT_DONE;
  const helps: Promise<void>[] = [];
  const program = buildProgram(terminal, helps, code => {
    status = code;
  });
  try {
    await program.parseAsync(args, { from: "user" }).catch(error => {
      if (!(error instanceof CommanderError)) throw error;
      if (error.exitCode !== 0) status = EXIT_USAGE; // it has written its message
    });
    await Promise.all(helps);
    return status;
  } catch (error) {
    if (isClosedPipe(error)) return status; // the reader has seen enough; what was found stands
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    terminal.err(`qwen3guard: ${terminal.env.DEBUG === "qwen3guard" ? stack : oneLine(message)}\n`);
    return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
  }
}

/** Commander does not wait for what it prints: `helps` collects that. */
function buildProgram(terminal: Terminal, helps: Promise<void>[], setStatus: (code: number) => void): Command {
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
  // Without a command the help is what a person needs, but it is no success.
  program.action((_options, command: Command) => {
    if (command.args.length > 0)
      command.error(`error: unknown command '${command.args[0]}'${suggestion(command.args[0], program)}`);
    terminal.err(program.helpInformation());
    setStatus(EXIT_USAGE);
  });
  program.allowExcessArguments();

  const command = (name: string, description: string, parent: Command = program): Command =>
    parent.command(name).description(description).copyInheritedSettings(program).allowExcessArguments(false);
  const withModel = (c: Command): Command =>
    c
      .option("--model <dir|id>", "checkpoint folder or Hub id (else QWEN3GUARD_MODEL, else the embedded demo guard)")
      .addOption(
        new Option("--engine <name>", "wasm is the fast one, reference the readable one")
          .choices(["auto", "wasm", "reference"])
          .default("auto"),
      )
      .option("--threads <n>", "threads to compute with (default: the physical cores)", integer(1))
      .addOption(
        new Option("--weights <form>", "quantise the weights while they are read: less memory, faster")
          .choices(WEIGHTS)
          .default("auto"),
      )
      .option("--wide", "experimental: let V8 widen the kernels to 256 bits (Node 24 and later)")
      .option("--quiet", "no notices on stderr");
  const withJson = (c: Command, what: string = "one JSON object on one line"): Command => c.option("--json", what);

  withJson(withModel(command("moderate [text]", "the verdict on a prompt, or on the answer to it")))
    .option("--response <text>", "judge this answer to the prompt")
    .option(
      "--messages <file>",
      "judge the last message of a conversation: a JSON array of {role, content}; - is stdin",
    )
    .addOption(
      new Option("--mode <mode>", "strict (default) flags Unsafe and Controversial, loose Unsafe alone").choices([
        "strict",
        "loose",
      ]),
    )
    .option("--threshold <t>", "flag by the score 1 - P(Safe) instead: from t on (0 to 1)", number)
    .addOption(
      new Option("--scores <scores>", "full: also the categories that an unsafe reading would have")
        .choices(["basic", "full"])
        .default("basic"),
    )
    .option(
      "--window <n>",
      "judge the text in windows of n tokens (by default only what exceeds the context)",
      integer(1),
    )
    .option("--overlap <n>", "by how many tokens windows overlap (default: an eighth)", integer(0))
    .option("--explain", "show how P(Safe) changes when a word is left out, for each word")
    .option(
      "--jsonl <file>",
      "a batch: {text}, {prompt, response} or {messages} a line, with an id or without; - is stdin",
    )
    .option("--out <file>", "with --jsonl: write to a new file; - is stdout, as without it")
    .option("--resume", "with --jsonl and --out: go on where the file ends")
    .option("--fail-on", "exit with status 3 if it is flagged")
    .addHelpText(
      "after",
      example(
        'qwen3guard moderate "How do I kill a process?" --json',
        "echo some text | qwen3guard moderate",
        "qwen3guard moderate --jsonl chats.jsonl --out verdicts.jsonl --resume",
      ),
    )
    .action(async (text, options) => {
      const { flagged, failed, isInterrupted, output } = await moderateCommand(text, options, terminal);
      // Before the output, which nobody may be there to take.
      if (isInterrupted) setStatus(EXIT_INTERRUPTED);
      else if (failed > 0) {
        if (!options.quiet)
          terminal.err(`qwen3guard: ${failed} ${failed === 1 ? "line" : "lines"} could not be judged\n`);
        setStatus(EXIT_FAILED);
      } else if (flagged && options.failOn) setStatus(EXIT_FLAGGED);
      await terminal.out(output);
    });

  withJson(withModel(command("generate", "text from a prompt or a conversation")))
    .option("--prompt <text>", "raw prompt, control tokens recognised (else stdin)")
    .option("--messages <file>", "a conversation for the checkpoint's chat template; - is stdin")
    .option("--max-new-tokens <n>", "at most this many tokens", integer(1), 128)
    .option("--temperature <t>", "0 is greedy", number, 0)
    .option("--top-p <p>", "draw from the likeliest tokens that together reach p", number)
    .option("--top-k <k>", "draw from the k likeliest tokens", integer(1))
    .option("--seed <n>", "start of the random generator (default: 0)", integer(0))
    .addHelpText("after", example("qwen3guard generate --messages conversation.json --json"))
    .action(options => generateCommand(options, terminal));

  withJson(
    withModel(command("stream", "moderates an answer from stdin as it arrives, and cuts it where it offends")),
    "one JSON object a token (of a Gen guard: a stretch), then one on the whole",
  )
    .option("--prompt <text>", "the question that it answers", "")
    .addOption(
      new Option("--mode <mode>", "strict cuts at Unsafe and Controversial, loose at Unsafe alone")
        .choices(["strict", "loose"])
        .default("strict"),
    )
    .option(
      "--every <n>",
      "a Gen guard judges the answer each time so many tokens more are there (default: 32)",
      integer(1),
    )
    .addHelpText("after", example('some-llm "$Q" | qwen3guard stream --prompt "$Q" --model ./Qwen3Guard-Stream-0.6B'))
    .action(options => streamCommand(options, terminal, () => setStatus(EXIT_FLAGGED)));

  withJson(withModel(command("tokenize [text]", "the ids of a text, or the text of ids")))
    .option("--literal", "treat all of it as ordinary text: control tokens are not recognised")
    .option("--pieces", "show the text of each id")
    .option("--decode", "the other way: TEXT (or stdin) holds ids")
    .option("--jsonl", "for each line {text} on stdin a line {ids}; with --decode for {ids} a line {text}")
    .addHelpText(
      "after",
      example('qwen3guard tokenize "How can I help?" --pieces', 'qwen3guard tokenize --decode "727 402 312"'),
    )
    .action((text, options) => tokenizeCommand(text, options, terminal));

  withJson(withModel(command("template", "the prompt that a conversation is rendered to")))
    .option("--messages <file>", "a JSON array of {role, content}; - is stdin (required)")
    .addHelpText("after", example("qwen3guard template --messages conversation.json"))
    .action(options =>
      templateCommand({ ...options, messages: required(options.messages, "template", "--messages FILE") }, terminal),
    );

  withJson(
    withModel(command("inspect [dir]", "what a checkpoint is: config, tensors, dtypes, bytes, memory it will need")),
  )
    .option("--tensors", "list every tensor")
    .addHelpText("after", example("qwen3guard inspect ./Qwen3Guard-Gen-0.6B"))
    .action((dir, options) => inspectCommand(dir, options, terminal));

  withJson(
    command(
      "pull <id>",
      "download a model of the Hugging Face Hub, or bring it up to date: org/name or org/name@revision",
    ),
  )
    .option("--quiet", "no progress on stderr")
    .addHelpText("after", example("qwen3guard pull Qwen/Qwen3Guard-Gen-0.6B"))
    .action((id, options) => pullCommand(id, options, terminal));

  withJson(
    withModel(command("eval <file>", "how well the guard does on labelled texts of your own, JSONL; - is stdin")),
  )
    .option("--html <file>", "also write the report as a page of its own, with curves")
    .option("--limit <n>", "only the first n lines", integer(1))
    .option("--by <key>", "also show figures by what each line says under this key")
    .option("--compare <forms>", "hold forms of weights against the first, as in bf16,int8,int4, instead of labels")
    .option("--worst <n>", "show this many of the worst mistakes of each kind", integer(0), 5)
    .addHelpText(
      "after",
      `\nEach line: {"text": "...", "label": "safe" or "unsafe"}, or {prompt, response} or {messages} for text; id and categories may be added.\n${example("qwen3guard eval texts.jsonl --html report.html")}`,
    )
    .action(async (file, options) => {
      if (options.compare === undefined)
        return (await import("./commands/eval.ts")).evalCommand(file, options, terminal);
      const { checkCompare, evalCompareCommand } = await import("./commands/eval-compare.ts");
      return evalCompareCommand(file, checkCompare(options), terminal);
    });

  withModel(command("serve", "the HTTP server: OpenAI's chat, completions and moderations, and a page to try it"))
    .option("--host <host>", "address to listen on", "127.0.0.1")
    .option("--port <n>", "port to listen on; 0 picks a free one", integer(0), 8000)
    .option(
      "--allow-host <name...>",
      "names in Host to answer, besides localhost, 127.0.0.1 and [::1]: on loopback without a key no others are",
    )
    .option(
      "--api-key <key>",
      "key that requests must carry (else QWEN3GUARD_API_KEY, which other processes do not see; else none)",
    )
    .option(
      "--served-model-name <name...>",
      "names that requests may call the model by, besides its own; answers carry the first",
    )
    .option("--max-queue <n>", "requests that may wait; one more is told to come back", integer(1), 64)
    .option("--max-body <size>", "largest request: 500kB, 1MB, ...", byteSize, 2 ** 20)
    .option("--timeout <s>", "seconds that a request may take, waiting included", integer(1), 300)
    .option("--cors <origin>", "origin whose pages may call it from a browser, or *")
    .option("--log-requests", "a line on stderr for each request, without its text")
    .option("--log-text", "the same, with its text")
    .addHelpText("after", example("qwen3guard serve --model Qwen/Qwen3Guard-Gen-0.6B --port 8000"))
    .action(async options => {
      const { serveCommand } = await import("./commands/serve.ts"); // these bring the most code, which no other command waits for
      if (await serveCommand(options, terminal)) setStatus(EXIT_INTERRUPTED);
    });

  withModel(
    command(
      "proxy",
      "stands in front of an OpenAI-compatible server: judges what is asked, and answers while they are written",
    ),
  )
    .option("--upstream <url>", "the server behind it, as in http://localhost:8000/v1 (required)")
    .option("--host <host>", "address to listen on", "127.0.0.1")
    .option("--port <n>", "port to listen on; 0 picks a free one", integer(0), 8100)
    .option(
      "--allow-host <name...>",
      "names in Host to answer, besides localhost, 127.0.0.1 and [::1]: on loopback no others are",
    )
    .addOption(
      new Option("--mode <mode>", "strict flags Unsafe and Controversial, loose Unsafe alone")
        .choices(["strict", "loose"])
        .default("strict"),
    )
    .addOption(
      new Option("--action <action>", "block what is flagged, pass it with a field that tells, or only log it")
        .choices(ACTIONS)
        .default("block"),
    )
    .option(
      "--every <n>",
      "a Gen guard judges the answer each time so many tokens more are there (default: 32)",
      integer(1),
    )
    .option("--hold-back <n>", "characters that are held back beyond what the guard has not cleared", integer(0), 0)
    .option("--max-streams <n>", "answers moderated at once; each holds the memory of its tokens", integer(1), 8)
    .option("--max-queue <n>", "requests that may wait; one more is told to come back", integer(1), 64)
    .option("--max-body <size>", "largest request: 500kB, 1MB, ...", byteSize, 4 * 2 ** 20)
    .option("--timeout <s>", "seconds that the upstream may be silent", integer(1), 120)
    .option("--fail-open", "let pass what could not be judged because the guard failed")
    .option("--allow-route <route...>", 'let another route pass unjudged: "POST /v1/tokenize", "GET /v1/batches/*"')
    .option("--log-requests", "a line on stderr for each request and each finding, without text")
    .option("--log-text", "the same, with the text of findings")
    .addHelpText(
      "after",
      example("qwen3guard proxy --upstream http://localhost:8000/v1 --model Qwen/Qwen3Guard-Stream-0.6B"),
    )
    .action(async options => {
      const upstream = required(options.upstream, "proxy", "--upstream URL");
      const { proxyCommand } = await import("./commands/proxy.ts");
      if (await proxyCommand({ ...options, upstream }, terminal)) setStatus(EXIT_INTERRUPTED);
    });

  withJson(withModel(command("bench", "what this machine does with a model, beside what it could do at most")))
    .addOption(
      new Option("--shape <shape>", "a random checkpoint of this shape, made on the spot, instead of a model").choices(
        Object.keys(SHAPES),
      ),
    )
    .option("--rounds <n>", "rounds to measure, of which the best counts", integer(1), 3)
    .addHelpText("after", example("qwen3guard bench --shape 0.6B"))
    .action(options => benchCommand(options, terminal));

  withJson(command("quantize <from> <to>", "write a checkpoint with quantised weights, which loads faster"))
    .addOption(new Option("--weights <form>", "how (required)").choices(QUANTISED_SCHEMES))
    .option("--quiet", "no progress on stderr")
    .addHelpText(
      "after",
      example("qwen3guard quantize ./Qwen3Guard-Gen-0.6B ./Qwen3Guard-Gen-0.6B-int8 --weights int8"),
    )
    .action((from, to, options) =>
      quantizeCommand(
        from,
        to,
        { ...options, weights: required(options.weights, "quantize", "--weights int8|int4") },
        terminal,
      ),
    );

  command("help [command...]", "print the help of a command").action((names: string[]) => {
    let subject = program;
    for (const name of names) {
      const found = subject.commands.find(c => c.name() === name);
      if (!found) throw new UsageError(`unknown command '${names.join(" ")}'${suggestion(name, subject)}`);
      subject = found;
    }
    subject.outputHelp();
  });

  const golden = command("golden", "record outputs to the bit, and check them again").allowExcessArguments();
  golden.action((_options, self: Command) => {
    if (self.args.length > 0)
      self.error(`error: unknown command 'golden ${self.args[0]}'${suggestion(self.args[0], golden)}`);
    terminal.err(golden.helpInformation());
    setStatus(EXIT_USAGE);
  });
  withModel(command("record", "run each line and write what came out", golden))
    .option("--input <file>", "JSONL: {ids}, {text} or {messages} a line; - is stdin (required)")
    .option("--out <file>", "JSONL to write; - is stdout (required)")
    .option("--max-new-tokens <n>", "at most this many greedy tokens a line", integer(1), 128)
    .option("--taps <dir>", "also write every intermediate as <dir>/<line>.safetensors")
    .addHelpText("after", example("qwen3guard golden record --input prompts.jsonl --out golden.jsonl"))
    .action(options => {
      const input = required(options.input, "golden record", "--input FILE");
      const out = required(options.out, "golden record", "--out FILE");
      return goldenRecordCommand({ ...options, input, out }, terminal);
    });
  withJson(withModel(command("check <file>", "run a recorded file again and report each difference", golden)))
    .addHelpText("after", example("qwen3guard golden check golden.jsonl"))
    .action(async (file, options) => {
      if (!(await goldenCheckCommand(file, options, terminal))) setStatus(EXIT_FAILED);
    });
  return program;
}

function example(...lines: string[]): string {
  return `\nExample:\n${lines.map(line => `  $ ${line}\n`).join("")}`;
}

/** ` (did you mean 'x'?)` for the command with the nearest name, if any is near. */
function suggestion(name: string, parent: Command): string {
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

/** Commander checks required options before unknown ones, and so would hide a misspelt one. */
function required(value: string | undefined, command: string, option: string): string {
  if (value === undefined) throw new UsageError(`${command}: expected ${option}, got none`);
  return value;
}

function integer(min: number): (text: string) => number {
  return text => {
    if (!/^\d+$/.test(text) || Number(text) < min || !Number.isSafeInteger(Number(text))) {
      throw new InvalidArgumentError(`expected an integer of at least ${min}.`);
    }
    return Number(text);
  };
}

/** "500kB", "1MB", or bytes. */
function byteSize(text: string): number {
  const [, digits, unit] = /^(\d+) ?(B|kB|MB)?$/i.exec(text) ?? [];
  const bytes = Number(digits) * { b: 1, kb: 2 ** 10, mb: 2 ** 20 }[(unit ?? "B").toLowerCase() as "b" | "kb" | "mb"];
  if (!(bytes >= 1 && bytes <= 64 * 2 ** 20))
    throw new InvalidArgumentError("expected a size of at most 64MB, as in 500kB or 1MB.");
  return bytes;
}

function number(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!Number.isFinite(value)) throw new InvalidArgumentError("expected a number.");
  return value;
}

function isClosedPipe(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === "EPIPE";
}

/** From package.json, two folders up from both src/cli/ and the compiled layout. */
function packageVersion(): string {
  return JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;
}
