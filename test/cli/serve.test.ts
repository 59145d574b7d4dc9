/** `qwen3guard serve` as a process: what it prints, how it is stopped, and what its options do. */

import { request } from "node:http";
import { connect, createServer } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { type ServerProcess, startServer } from "../server/server-process.ts";
import { cli } from "./harness.ts";

async function serve(args: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
  const server = await startServer(args, env);
  onTestFinished(() => void server.child.kill("SIGKILL"));
  return server;
}

function moderate(url: string, input: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}/v1/moderations`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ input }),
  });
}

/** Waits until the engine has begun to work. */
async function isBusy(url: string): Promise<void> {
  while (!(await (await fetch(`${url}/metrics`)).text()).includes("queue_begun 1"))
    await new Promise(resolve => setTimeout(resolve, 5));
}

// All differ, so that none is answered from the cache.
const LONG = Array.from({ length: 12 }, (_, i) => `${i} ${"word ".repeat(300)}`);

describe.skipIf(process.platform === "win32")("stops", () => {
  test("on SIGTERM: it finishes the requests that it has accepted, refuses new ones, and exits with 0", async () => {
    const { url, child, stderr, ended } = await serve();
    const running = moderate(url, LONG);
    await isBusy(url);
    child.kill("SIGTERM");
    let health = 200;
    while (health === 200) ({ status: health } = await fetch(`${url}/health`));
    const refused = await moderate(url, "hi");
    expect([health, refused.status, (await refused.json()).error.code]).toEqual([503, 503, "shutting_down"]);
    const answer = await running;
    expect([answer.status, (await answer.json()).results.length]).toEqual([200, LONG.length]);
    expect(await ended).toEqual([0, null]);
    expect(stderr()).toBe(`listening on ${url}\n`);
  });

  test("on Ctrl-C: the same with 130; on a second one at once", async () => {
    const idle = await serve();
    idle.child.kill("SIGINT");
    expect(await idle.ended).toEqual([130, null]);

    const busy = await serve();
    const running = moderate(busy.url, LONG).catch(() => "cut");
    await isBusy(busy.url);
    busy.child.kill("SIGINT");
    while ((await fetch(`${busy.url}/health`)).status === 200);
    busy.child.kill("SIGINT");
    expect(await busy.ended).toEqual([null, "SIGINT"]); // a shell's 130
    expect(await running).toBe("cut");
  });
});

test("a log that nobody reads any longer stops nothing", async () => {
  const { url, child, ended } = await serve(["--log-requests"]);
  child.stderr?.destroy();
  for (const text of ["one", "two", "three"]) expect((await moderate(url, text)).status).toBe(200);
  child.kill("SIGTERM");
  expect(await ended).toEqual([0, null]);
});

test("its options reach the handler", async () => {
  const { url, stderr } = await serve(
    ["--served-model-name", "a", "b", "--max-body", "1kB", "--cors", "https://example.org", "--log-requests"],
    {
      QWEN3GUARD_API_KEY: "secret",
    },
  );
  expect((await moderate(url, "hi")).status).toBe(401);
  const key = { authorization: "Bearer secret" };
  const answer = await moderate(url, "a secret text", key);
  expect([answer.headers.get("access-control-allow-origin"), (await answer.json()).model]).toEqual([
    "https://example.org",
    "a",
  ]);
  expect((await moderate(url, "x".repeat(1024), key)).status).toBe(413);
  const models = await (await fetch(`${url}/v1/models`, { headers: key })).json();
  expect(models.data.map(({ id }: { id: string }) => id)).toEqual(["a", "b", "tiny-guard-gen"]);
  expect(stderr().replace(/[\d.]+ ms/g, "- ms")).toBe(
    `listening on ${url}\n401 /v1/moderations - ms\n200 /v1/moderations - ms\n413 /v1/moderations - ms\n200 /v1/models - ms\n`,
  );
});

test.skipIf(process.platform === "win32")(
  "connections that take all file descriptors as soon as it listens take none that the engine needs",
  async () => {
    const { url, child } = await startServer(["--threads", "2"], {}, { files: 256 });
    onTestFinished(() => void child.kill("SIGKILL"));
    const { port, hostname } = new URL(url);
    const sockets = Array.from({ length: 400 }, () => connect(Number(port), hostname).on("error", () => {}));
    await Promise.all(
      sockets.map(socket => new Promise(resolve => socket.once("connect", resolve).once("close", resolve))),
    );
    // They stay for as long as an answer takes, which is about as long as a worker takes to start.
    const body = JSON.stringify({ input: "word ".repeat(300) });
    sockets[0].write(
      `POST /v1/moderations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await new Promise(resolve => sockets[0].once("data", resolve));
    for (const socket of sockets) socket.destroy();
    let answer: Response | undefined;
    while (!answer) answer = await moderate(url, "hi ".repeat(50)).catch(() => undefined); // until a descriptor is free again
    expect([answer.status, (await fetch(`${url}/health`)).status]).toEqual([200, 200]);
  },
);

test("beyond loopback without a key it warns", async () => {
  const open = await serve(["--host", "0.0.0.0"]);
  expect(open.stderr()).toBe(
    `qwen3guard: 0.0.0.0 may be reached by others and no --api-key is asked for\nlistening on ${open.url}\n`,
  );
  const closed = await serve(["--host", "0.0.0.0", "--api-key", "secret"]);
  expect(closed.stderr()).toBe(`listening on ${closed.url}\n`);
});

/** The status and error code of the answer to this name in Host, as sent by a page that DNS has led here. */
function under(url: string, path: string, host: string): Promise<[number | undefined, string | undefined]> {
  const origin = `http://${host}`;
  return new Promise((resolve, reject) => {
    const sent = request(`${url}${path}`, { headers: { host, origin } }, async response => {
      let text = "";
      for await (const chunk of response) text += chunk;
      const isJson = response.headers["content-type"]?.startsWith("application/json");
      resolve([response.statusCode, isJson ? JSON.parse(text).error?.code : undefined]);
    });
    sent.on("error", reject).end();
  });
}

test("a page whose name DNS points at loopback gets nothing, unless its name is allowed", async () => {
  const { url } = await serve();
  const { port } = new URL(url);
  for (const path of ["/", "/health", "/v1/models", "/nowhere"]) {
    expect(await under(url, path, `evil.example:${port}`)).toEqual([403, "host_not_allowed"]);
  }
  expect(await under(url, "/v1/models", `localhost:${port}`)).toEqual([200, undefined]);

  const named = await serve(["--allow-host", "guard.example", "--allow-host", "other.example"]);
  for (const name of ["guard.example", "other.example", "127.0.0.1"])
    expect(await under(named.url, "/health", name)).toEqual([200, undefined]);
  expect(await under(named.url, "/health", "evil.example")).toEqual([403, "host_not_allowed"]);
});

test("a port in use is one line and status 1", async () => {
  const other = createServer();
  onTestFinished(() => void other.close());
  await new Promise<void>(resolve => other.listen(0, "127.0.0.1", resolve));
  const { port } = other.address() as { port: number };
  expect(await cli(["serve", "--port", String(port), "--quiet"])).toEqual({
    status: 1,
    out: "",
    err: `qwen3guard: 127.0.0.1:${port}: expected a port to listen on, got one that is in use\n`,
  });
});

test.each([
  [["--port", "70000"], "--port: expected at most 65535, got 70000"],
  [["--max-body", "1GB"], "expected a size of at most 64MB, as in 500kB or 1MB."],
  [["--cors", "example.org"], "--cors: expected an origin, as in https://example.org, or *, got example.org"],
  [["--timeout", "100000"], "--timeout: expected at most 86400 seconds, got 100000"],
  [
    ["--allow-host", "http://guard.example"],
    "--allow-host: expected a name without a port, as in guard.example.org, got http://guard.example",
  ],
  [["--api-key", ""], "--api-key: expected a key, got an empty text"],
])("%j is wrong usage", async (args, message) => {
  const { status, err } = await cli(["serve", "--quiet", ...args]);
  expect([status, err]).toEqual([2, expect.stringContaining(message)]);
});
