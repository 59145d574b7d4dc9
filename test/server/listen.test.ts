/** The end of the listener: requests that have arrived are answered, and the others are cut off at once. */

import { Server } from "node:http";
import { connect, type Socket } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import type { Handler } from "../../src/server/handler.ts";
import { InFlight } from "../../src/server/in-flight.ts";
import { type Listener, listen } from "../../src/server/listen.node.ts";

const FOREVER_MS = 2 ** 30;

interface Setting {
  readonly listener: Listener;
  /** A connection, and all that came back on it once it has ended. */
  readonly open: (text: string) => Promise<{ socket: Socket; all: Promise<string> }>;
  /** Resolves when so many requests have been begun. */
  readonly begun: (count: number) => Promise<void>;
}

/** A listener that would wait forever for what does not arrive; `answer` is its handler's. */
async function setting(answer: (request: Request) => Promise<Response>): Promise<Setting> {
  const inFlight = new InFlight();
  let count = 0;
  const handler: Handler = {
    fetch: async request => {
      count++;
      inFlight.begin();
      try {
        return await answer(request);
      } catch {
        return new Response(null, { status: 499 });
      } finally {
        inFlight.end();
      }
    },
    drain: () => inFlight.drain(),
  };
  const listener = await listen(handler, { host: "127.0.0.1", port: 0, timeoutMs: FOREVER_MS, receiveMs: FOREVER_MS });
  const sockets: Socket[] = [];
  onTestFinished(() => sockets.forEach(socket => void socket.destroy()));
  return {
    listener,
    open: async text => {
      const socket = connect(Number(new URL(listener.url).port), "127.0.0.1");
      sockets.push(socket);
      let received = "";
      socket.on("data", chunk => {
        received += chunk;
      });
      const all = new Promise<string>(resolve => socket.on("error", () => {}).once("close", () => resolve(received)));
      await new Promise(resolve => socket.once("connect", resolve));
      socket.write(text);
      return { socket, all };
    },
    begun: async wanted => {
      while (count < wanted) await new Promise(resolve => setTimeout(resolve));
    },
  };
}

const head = (length: number): string => `POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${length}\r\n\r\n`;
const lengthOfBody = async (request: Request): Promise<Response> => new Response(String((await request.text()).length));

test("half a body, half of the headers and an unused connection are cut off; what has arrived is answered", async () => {
  let answer: () => void = () => {};
  const mayAnswer = new Promise<void>(resolve => {
    answer = resolve;
  });
  const closeAll = vi.spyOn(Server.prototype, "closeAllConnections");
  onTestFinished(() => closeAll.mockRestore());
  const { listener, open, begun } = await setting(async request => {
    const response = await lengthOfBody(request);
    await mayAnswer;
    return response;
  });
  const whole = await open(`${head(5)}12345`);
  await begun(1);
  const half = await open(`${head(5)}123`);
  await begun(2);
  const headers = await open("POST / HTTP/1.1\r\nHost: loc");
  const unused = await open("");
  const closed = listener.close();
  expect(await half.all).toBe(""); // while the other is still being answered
  answer();
  expect(await whole.all).toMatch(/^HTTP\/1\.1 200 OK[\s\S]*\r\n\r\n5$/);
  await closed;
  expect(await Promise.all([headers.all, unused.all])).toEqual(["", ""]);
  expect(closeAll).not.toHaveBeenCalled(); // which the end would have waited seconds for
});

test("a body that has arrived but was not read yet is not cut off", async () => {
  const { listener, open, begun } = await setting(lengthOfBody);
  const { socket, all } = await open(head(2 ** 20));
  await begun(1);
  socket.write("x".repeat(2 ** 20));
  const closed = listener.close();
  expect(await all).toMatch(/\r\n\r\n1048576$/);
  await closed;
});

test("a body that goes on arriving is waited for", async () => {
  const { listener, open, begun } = await setting(lengthOfBody);
  const { socket, all } = await open(head(100));
  await begun(1);
  const closed = listener.close();
  for (let i = 0; i < 100; i++) {
    socket.write("x");
    await new Promise(resolve => setTimeout(resolve));
  }
  expect(await all).toMatch(/\r\n\r\n100$/);
  await closed;
});

test("a body that the handler does not read for a while is not cut off", async () => {
  let read: () => void = () => {};
  const mayRead = new Promise<void>(resolve => {
    read = resolve;
  });
  const { listener, open, begun } = await setting(async request => {
    const reader = request.body?.getReader();
    await reader?.read();
    await mayRead;
    let isDone = false;
    while (!isDone) isDone = (await reader?.read())?.done ?? true;
    return new Response("read");
  });
  const { all } = await open(head(2 ** 20) + "x".repeat(2 ** 20));
  await begun(1);
  const closed = listener.close();
  setTimeout(read, 200); // many times as long as a body may be silent
  expect(await all).toMatch(/read$/);
  await closed;
});
