/** A server begins to listen once the engine's threads are up, and never if they do not come up. */

import { connect, createServer } from "node:net";
import { expect, test } from "vitest";
import { serveUntilStopped } from "../../../src/cli/serving/listening.ts";
import type { Terminal } from "../../../src/cli/terminal.ts";
import type { Handler } from "../../../src/server/handler.ts";

const handler: Handler = { fetch: async () => new Response("here"), drain: async () => {} };

function terminal(): { readonly terminal: Terminal; readonly text: () => string; readonly stop: () => void } {
  let err = "";
  let stop = (): void => {};
  const on = (listener: () => void): (() => void) => {
    stop = listener;
    return () => {};
  };
  const terminal: Terminal = {
    stdin: (async function* () {})(),
    out: async () => {},
    err: text => {
      err += text;
    },
    columns: 80,
    isTTY: false,
    colors: false,
    errColumns: undefined,
    env: {},
    onInterrupt: () => () => {},
    onTerminate: on,
  };
  return { terminal, text: () => err, stop: () => stop() };
}

/** A port on which nobody listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise(resolve => server.close(resolve));
  return port;
}

function isListening(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

test("nobody can connect until the engine's threads are up", async () => {
  const port = await freePort();
  let start: () => void = () => {};
  const engine = {
    ready: () =>
      new Promise<void>(resolve => {
        start = resolve;
      }),
  };
  const { terminal: t, text, stop } = terminal();
  const served = serveUntilStopped(engine, handler, { host: "127.0.0.1", port, timeoutMs: 1000 }, t);
  for (let i = 0; i < 10; i++) expect(await isListening(port)).toBe(false);
  expect(text()).toBe("");
  start();
  while (!text().includes("listening")) await new Promise(resolve => setTimeout(resolve));
  expect(await isListening(port)).toBe(true);
  stop();
  expect(await served).toBe(false);
});

test("threads that do not come up are an error that says what works without them", async () => {
  const engine = {
    ready: () => Promise.reject(new Error("the threads have stopped: a worker did not start: EMFILE")),
  };
  const { terminal: t, text } = terminal();
  await expect(serveUntilStopped(engine, handler, { host: "127.0.0.1", port: 0, timeoutMs: 1000 }, t)).rejects.toThrow(
    "the threads have stopped: a worker did not start: EMFILE (--threads 1 needs no workers)",
  );
  expect(text()).toBe("");
});
