/**
 * `npm run eval:data -- [options of eval]`: evaluates a guard on XSTest and on OpenAI's moderation set.
 *
 * In: the options, such as `--model DIR`. `--html DIR` names a folder here, since there are two pages. Out: two
 * reports.
 */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "../src/cli/program.ts";
import { processTerminal } from "../src/cli/terminal.ts";

const options = process.argv.slice(2);
const html = options.indexOf("--html");
const [folder] = html < 0 ? [] : options.splice(html, 2).slice(1);
if (folder !== undefined) mkdirSync(folder, { recursive: true });

for (const name of ["xstest", "openai-moderation"]) {
  const data = fileURLToPath(new URL(`data/${name}.jsonl`, import.meta.url));
  const page = folder === undefined ? [] : ["--html", join(folder, `${name}.html`)];
  const status = await run(["eval", data, ...options, ...page], processTerminal());
  if (status !== 0) process.exit(status);
}
