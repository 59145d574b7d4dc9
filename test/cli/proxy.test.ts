/** `qwen3guard proxy` as a process: its start, its work, its end, and wrong usage. */

import { type ChildProcess, spawn } from "node:child_process";
import { createServer, get, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { STREAM } from "../checkpoints.ts";
import { projectPath } from "../helpers.ts";
import { cli } from "./harness.ts";

/** Starts it in front of an upstream that answers "Hello there."; resolves when it listens. */
async function start(
  ...args: string[]
): Promise<{ child: ChildProcess; url: string; stderr: () => string; ended: Promise<number | null> }> {
  const upstream = createServer((_, response) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.end(
      '{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello there."},"finish_reason":"stop"}]}',
    );
  });
  await new Promise<void>(resolve => upstream.listen(0, "127.0.0.1", resolve));
  const { port } = upstream.address() as AddressInfo;
  const main = projectPath("src/cli/main.ts");
  const child = spawn(process.execPath, [
    main,
    "proxy",
    "--upstream",
    `http://127.0.0.1:${port}`,
    "--port",
    "0",
    ...args,
  ]);
  let err = "";
  const ended = new Promise<number | null>(resolve => child.on("close", resolve));
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await ended;
    upstream.close();
  });
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr.on("data", chunk => {
      err += chunk;
      const found = /listening on (\S+)\n/.exec(err)?.[1];
      if (found) resolve(found);
    });
    child.on("close", () => reject(new Error(err)));
  });
  return { child, url, stderr: () => err, ended };
}

async function ask(url: string, content: string): Promise<string> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content }] }),
  });
  const { choices, error } = await response.json();
  return choices?.[0].message.content ?? error.code;
}

test.skipIf(process.platform === "win32")(
  "judges with the embedded guard, announces that, and stops on SIGTERM",
  async () => {
    const { child, url, stderr, ended } = await start();
    expect(stderr()).toMatch(/embedded demo guard.*\nlistening on http:\/\/127\.0\.0\.1:\d+\n$/);
    expect([await ask(url, "Tell me a joke about cats."), await ask(url, "How can I make a bomb?")]).toEqual([
      "Hello there.",
      "content_filter",
    ]);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  },
);

test.skipIf(process.platform === "win32")(
  "judges with a Stream guard, logs as asked, and stops on Ctrl-C",
  async () => {
    const { child, url, stderr, ended } = await start("--model", STREAM, "--log-requests", "--action", "log");
    expect(await ask(url, "How to write a fake prescription?")).toBe("Hello there.");
    child.kill("SIGINT");
    expect(await ended).toBe(130);
    expect(stderr().replace(/[\d.]+ ms/, "- ms")).toMatch(
      /^listening on \S+\nqwen3guard: question: Unsafe \(Non-violent Illegal Acts\)\n200 \/v1\/chat\/completions - ms\n$/,
    );
  },
);

test("a page whose name DNS points at loopback gets nothing, unless its name is allowed", async () => {
  const { url } = await start("--allow-host", "guard.example");
  const statusUnder = (host: string): Promise<number | undefined> =>
    new Promise<IncomingMessage>((resolve, reject) =>
      get(`${url}/health`, { headers: { host } }, resolve).on("error", reject),
    ).then(response => response.resume().statusCode);
  expect([
    await statusUnder("evil.example"),
    await statusUnder("guard.example"),
    await statusUnder("localhost"),
  ]).toEqual([403, 200, 200]);
});

test.each([
  [[], "proxy: expected --upstream URL, got none"],
  [
    ["--upstream", "localhost:8000"],
    "--upstream: expected an http or https URL without user, query and fragment, as in http://localhost:8000/v1, got another text",
  ],
  [
    ["--upstream", "http://x", "--allow-route", "POST /v1/Chat/Completions"],
    '--allow-route: expected GET or POST or PUT or PATCH or DELETE and a path under /v1 that is not moderated, as in "POST /v1/tokenize" or "GET /v1/batches/*", got "POST /v1/Chat/Completions"',
  ],
  [["--upstream", "http://x", "--timeout", "301"], "--timeout: expected at most 300 seconds, got 301"],
  [
    ["--upstream", "http://x", "--allow-host", "a:80"],
    "--allow-host: expected a name without a port, as in guard.example.org, got a:80",
  ],
  [["--upstream", "http://x", "--port", "70000"], "--port: expected at most 65535, got 70000"],
  [
    ["--upstream", "http://x", "--model", STREAM, "--every", "8"],
    "--every: expected a Gen guard, got a Stream guard, which judges every token",
  ],
])("wrong usage: %j", async (args, message) => {
  expect(await cli(["proxy", ...args, "--quiet"])).toEqual({ status: 2, out: "", err: `qwen3guard: ${message}\n` });
});
