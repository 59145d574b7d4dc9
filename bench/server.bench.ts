/**
 * The server under load over loopback: requests a second, their time, and memory.
 *
 *     node bench/server.bench.ts [--requests 10000] [--connections 64] [--json]
 *
 * `qwen3guard serve` runs the embedded guard in a process of its own. Requests are moderations, chat completions and
 * streamed completions in turn, over 400 seeded conversations. Each answer must be what the library gives for that
 * conversation alone, with scores equal to the bit. Any other answer is counted and printed, and makes the exit status
 * 1. Every connection sends its next request when the last one was answered, so waiting times are those of 64 clients
 * that are never idle. Memory is the resident set of the server after each tenth of the requests. It rises until V8 has
 * settled on a size for its heap, of which about 15 MB are alive.
 */

import { Agent, request } from "node:http";
import { parseArgs } from "node:util";
import { Guard } from "../src/guard/guard.ts";
import { randomConversations } from "../test/guard/conversations.ts";
import { startServer } from "../test/server/server-process.ts";

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "10000" },
    connections: { type: "string", default: "64" },
    json: { type: "boolean", default: false },
  },
});
const [requests, connections] = [Number(values.requests), Number(values.connections)];

const conversations = [...randomConversations(64, 400)];
const guard = await Guard.load();
const expected: { readonly text: string; readonly scores: string }[] = [];
for (const messages of conversations) {
  const { text, scores, categoryScores } = await guard.moderate(messages);
  const { None: _none, ...categories } = categoryScores ?? {};
  expected.push({ text, scores: JSON.stringify([scores, categories]) });
}
guard.close();

const server = await startServer(["--max-queue", String(connections)]);
const agent = new Agent({ keepAlive: true, maxSockets: connections });

function post(path: string, body: object): Promise<{ readonly status: number | undefined; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      `${server.url}${path}`,
      { method: "POST", agent, headers: { "content-type": "application/json" } },
      incoming => {
        let text = "";
        incoming.setEncoding("utf8");
        incoming.on("data", chunk => {
          text += chunk;
        });
        incoming.on("end", () => resolve({ status: incoming.statusCode, text }));
        incoming.on("error", reject);
      },
    );
    outgoing.on("error", reject);
    outgoing.end(JSON.stringify(body));
  });
}

/** Whether the answer is right. */
async function ask(i: number): Promise<boolean> {
  const messages = conversations[i % conversations.length];
  const { text, scores } = expected[i % conversations.length];
  if (i % 3 === 0) {
    const answer = await post("/v1/moderations", { messages });
    if (answer.status !== 200) return false;
    const [result] = JSON.parse(answer.text).results;
    return result.text === text && JSON.stringify([result.scores, result.category_scores]) === scores;
  }
  const isStream = i % 3 === 1;
  const answer = await post("/v1/chat/completions", { messages, stream: isStream });
  if (answer.status !== 200) return false;
  if (!isStream) return JSON.parse(answer.text).choices[0].message.content === text;
  const events = answer.text.split("\n\n").filter(event => event !== "");
  const deltas = events
    .slice(0, -1)
    .map(event => JSON.parse(event.slice("data: ".length)).choices[0].delta.content ?? "");
  return events[events.length - 1] === "data: [DONE]" && deltas.join("") === text;
}

const ms: number[] = [];
let wrong = 0;
let next = 0;
const rssMB: number[] = [];
const started = performance.now();
await Promise.all(
  Array.from({ length: connections }, async () => {
    while (next < requests) {
      const i = next++;
      if (i > 0 && i % Math.ceil(requests / 10) === 0) rssMB.push(Math.round(server.rssMB()));
      const sent = performance.now();
      if (!(await ask(i).catch(() => false))) wrong++;
      ms.push(performance.now() - sent);
    }
  }),
);
const seconds = (performance.now() - started) / 1000;
rssMB.push(Math.round(server.rssMB()));
server.child.kill("SIGTERM");
const [status] = await server.ended;
agent.destroy();

ms.sort((a, b) => a - b);
const percentile = (p: number): number => ms[Math.min(ms.length - 1, Math.floor(ms.length * p))];
const result = {
  node: process.versions.node,
  requests: ms.length,
  connections,
  wrong,
  requestsPerSecond: requests / seconds,
  ms: { p50: percentile(0.5), p95: percentile(0.95), p99: percentile(0.99), max: percentile(1) },
  rssMB,
  exitStatus: status,
};
if (values.json) console.log(JSON.stringify(result));
else {
  const { p50, p95, p99, max } = result.ms;
  console.log(
    `${ms.length} requests over ${connections} connections: ${wrong} wrong, ${result.requestsPerSecond.toFixed(1)} a second`,
  );
  console.log(`ms: p50 ${p50.toFixed(0)}, p95 ${p95.toFixed(0)}, p99 ${p99.toFixed(0)}, max ${max.toFixed(0)}`);
  console.log(`server: ${rssMB.join(", ")} MB after each tenth`);
}
if (wrong > 0 || status !== 0) process.exitCode = 1;
