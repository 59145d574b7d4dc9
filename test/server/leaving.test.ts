/** Clients that send a request and leave: their work never begins. */

import { connect, type Socket } from "node:net";
import { expect, test } from "vitest";
import type { Guard } from "../../src/guard/guard.ts";
import type { ModerateOptions } from "../../src/guard/moderate-options.ts";
import { createHandler } from "../../src/server/handler.ts";
import { listen } from "../../src/server/listen.node.ts";
import type { ChatMessage } from "../../src/tokenizer/chat-template.ts";
import { guard } from "./requests.ts";

function request(input: string): string {
  const body = JSON.stringify({ input });
  const headers = ["Host: localhost", "Content-Type: application/json", `Content-Length: ${body.length}`];
  return `POST /v1/moderations HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n${body}`;
}

async function connected(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await new Promise(resolve => socket.once("connect", resolve));
  return socket;
}

test.each(["destroy", "end"] as const)("by %s, alone or many while another is judged", async how => {
  const begun: string[] = [];
  const noting: Guard = Object.create(guard, {
    moderate: {
      value: (messages: readonly ChatMessage[], options: ModerateOptions) => {
        begun.push(messages[0].content);
        return guard.moderate(messages, options);
      },
    },
  });
  const handler = createHandler(noting);
  const listener = await listen(handler, { host: "127.0.0.1", port: 0, timeoutMs: 60_000 });
  const port = Number(new URL(listener.url).port);
  const gone = async (count: number): Promise<void> => {
    const text = await (await fetch(`${listener.url}/metrics`)).text();
    if (!text.includes(`status="499"} ${count}\n`)) return gone(count);
  };

  const first = await connected(port);
  first.write(request("alone"));
  first[how]();
  await gone(1);
  expect(begun).toEqual([]);

  const stays = await connected(port);
  const sockets = await Promise.all(Array.from({ length: 20 }, () => connected(port)));
  stays.write(request("word ".repeat(600)));
  while (begun.length === 0) await new Promise(resolve => setTimeout(resolve));
  sockets.forEach((socket, i) => {
    socket.write(request(`left ${i}`));
    socket[how]();
  });
  await new Promise(resolve => stays.once("data", resolve));
  stays.destroy();
  await gone(21);
  expect(begun).toEqual(["word ".repeat(600)]);
  await listener.close();
});
