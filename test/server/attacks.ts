/**
 * Malformed and hostile requests, seeded, each named after the attack, and what a server does with one: a status, or a
 * closed connection.
 */

import { connect } from "node:net";
import { seededRandom } from "../../src/model/sampling.ts";

export interface Attack {
  readonly name: string;
  /** What is sent, in this order. */
  readonly parts: readonly (string | Uint8Array)[];
  /**
   * What the client does then: waits for an answer, sends nothing more of a body that is not complete, or goes away in
   * one of two ways.
   */
  readonly afterwards: "wait" | "stall" | "half-close" | "reset";
}

type Random = () => number;
type Maker = (random: Random) => Omit<Attack, "name" | "afterwards"> & Partial<Pick<Attack, "afterwards">>;

const ENDPOINTS = ["/v1/chat/completions", "/v1/completions", "/v1/moderations"];
const MESSAGES = [{ role: "user", content: "hi" }];
const pick = <T>(random: Random, from: readonly T[]): T => from[Math.floor(random() * from.length)];
const integer = (random: Random, below: number): number => Math.floor(random() * below);

function head(method: string, path: string, headers: readonly string[]): string {
  return `${[`${method} ${path} HTTP/1.1`, "Host: localhost", ...headers].join("\r\n")}\r\n\r\n`;
}

function post(
  path: string,
  body: string | Uint8Array,
  headers: readonly string[] = ["Content-Type: application/json"],
): { parts: (string | Uint8Array)[] } {
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  return { parts: [head("POST", path, [...headers, `Content-Length: ${bytes.length}`]), bytes] };
}

/** A body that would be right. */
function right(path: string): Record<string, unknown> {
  if (path === "/v1/moderations") return { input: "hi" };
  return path === "/v1/completions" ? { prompt: "hi", max_tokens: 1 } : { messages: MESSAGES, max_tokens: 1 };
}

/** Values that no field takes. */
const ABSURD: readonly string[] = [
  ...["1e999", "-1e999", "1e308", "-5", "0.5", "9007199254740993", "123456789012345678901234567890", "-0.0001"],
  ...['{"a":{}}', '{"$ref":"#"}', '[[[["a"]]]]', '[{"toString":1}]', "[null]", "[true]"],
];
const FIELDS = [
  "model",
  "stop",
  "stream",
  "stream_options",
  "logprobs",
  "top_logprobs",
  "n",
  "tools",
  "logit_bias",
  "messages",
  "prompt",
  "input",
];

const MAKERS: Readonly<Record<string, Maker>> = {
  "JSON cut or changed": random => {
    const path = pick(random, ENDPOINTS);
    let text = JSON.stringify(right(path));
    const at = integer(random, text.length);
    text =
      random() < 0.5
        ? text.slice(0, at)
        : text.slice(0, at) + pick(random, ["{", '"', "\\", ",", "]", "\u0000", "NaN"]) + text.slice(at);
    try {
      JSON.parse(text);
      text += "{";
    } catch {}
    return post(path, text);
  },
  "deep nesting": random => {
    const depth = 33 + integer(random, 100_000);
    const [open, close] = pick(random, [
      ["[", "]"],
      ['{"a":', "}"],
    ]);
    const value = open.repeat(depth) + (open === "[" ? "" : "1") + (random() < 0.5 ? close.repeat(depth) : "");
    return post(pick(random, ENDPOINTS), `{"messages":${value},"input":1}`);
  },
  "absurd values": random => {
    const path = pick(random, ENDPOINTS);
    const others = Object.entries(right(path)).map(
      ([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`,
    );
    const value = pick(random, ABSURD);
    // What is not among an endpoint's fields is refused as well.
    return post(
      path,
      `{${[...others, `"nonsense":${value}`, `${JSON.stringify(pick(random, FIELDS))}:${value}`].join(",")}}`,
    );
  },
  "keys of prototypes": random => {
    const name = pick(random, ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "then"]);
    return post(pick(random, ENDPOINTS), `{"input":"hi",${JSON.stringify(name)}:{"isAdmin":true,"status":200}}`);
  },
  "many small values": random => {
    const entry = pick(random, ['""', "[]", "{}", "0", "null", '{"role":"x"}']);
    return post(pick(random, ENDPOINTS), `{"input":[${Array(100_000).fill(entry).join(",")}],"messages":[${entry}]}`);
  },
  "bytes that are not UTF-8": random => {
    const bytes = Uint8Array.from({ length: 1 + integer(random, 200) }, () => 128 + integer(random, 128));
    return post(
      pick(random, ENDPOINTS),
      Uint8Array.from([...new TextEncoder().encode('{"input":"'), ...bytes, 0x22, 0x7d]),
    );
  },
  "UTF-16": random =>
    post(pick(random, ENDPOINTS), new Uint8Array(Buffer.from(JSON.stringify({ input: "hi" }), "utf16le"))),
  "another kind of body": random => {
    const type = pick(random, [
      "text/plain",
      "application/x-www-form-urlencoded",
      "multipart/form-data; boundary=x",
      "application/json; charset=utf-7",
      "",
    ]);
    const path = pick(random, ENDPOINTS);
    return post(path, JSON.stringify(right(path)), random() < 0.2 ? [] : [`Content-Type: ${type}`]);
  },
  "compressed, it says": random => {
    const headers = [
      "Content-Type: application/json",
      `Content-Encoding: ${pick(random, ["gzip", "br", "deflate", "x"])}`,
    ];
    return post(pick(random, ENDPOINTS), Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0), headers);
  },
  "a body above the limit": random => {
    const length = 2 ** 20 + 1 + integer(random, 2 ** 20);
    return post(pick(random, ENDPOINTS), `{"input":"${"x".repeat(length)}"}`);
  },
  "a length that lies": random => {
    const claimed = pick(random, ["99999999999999999999", "-5", "1e3", "0x10", "5, 6", "", "1000000000000"]);
    return {
      parts: [
        head("POST", pick(random, ENDPOINTS), ["Content-Type: application/json", `Content-Length: ${claimed}`]),
        '{"input":',
      ],
    };
  },
  "chunks without end": random => {
    const chunk = `8000\r\n${"x".repeat(0x8000)}\r\n`;
    const headers = ["Content-Type: application/json", "Transfer-Encoding: chunked"];
    return { parts: [head("POST", pick(random, ENDPOINTS), headers), ...Array(40).fill(chunk)] };
  },
  "chunks that are none": random => {
    const chunk = pick(random, [
      "zz\r\nhi\r\n",
      "-1\r\n",
      "ffffffffffffffffff\r\n",
      "5\r\nhi\r\n0\r\n\r\n",
      "5;\u0000\r\n",
    ]);
    return {
      parts: [
        head("POST", pick(random, ENDPOINTS), ["Content-Type: application/json", "Transfer-Encoding: chunked"]),
        chunk,
        "\r\n".repeat(3),
      ],
    };
  },
  "smuggling: two lengths": random => {
    const headers = pick(random, [
      ["Content-Length: 5", "Content-Length: 6"],
      ["Content-Length: 5", "Transfer-Encoding: chunked"],
      ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ]);
    return {
      parts: [
        head("POST", pick(random, ENDPOINTS), ["Content-Type: application/json", ...headers]),
        "0\r\n\r\nGET / HTTP/1.1\r\n",
      ],
    };
  },
  "a flood of headers": random => {
    const count = 150 + integer(random, 3000);
    const headers = Array.from({ length: count }, (_, i) => `X-${i}: ${"v".repeat(random() < 0.5 ? 10 : 100)}`);
    return post("/v1/moderations", '{"input":5}', [...headers, "Content-Type: application/json"]);
  },
  "a long header": random =>
    post("/v1/moderations", "{}", [`X-Long: ${"v".repeat(16_384 + integer(random, 100_000))}`]),
  "a long path": random => ({ parts: [head("GET", `/${"x".repeat(integer(random, 60_000))}`, [])] }),
  "a path that climbs": random => {
    const path = pick(random, [
      ...[
        "/../../etc/passwd",
        "/v1/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/../../x",
        "/v1/models/%00",
        "/v1/models/%ZZ%",
      ],
      ...[
        "//evil.example/x",
        "/v1/models/{id}",
        "/health/../nothing",
        "/\\evil",
        "/v1/moderations/",
        "/v1//models",
        "/.git/config",
        "/?x=y/../z",
      ].slice(0, 7),
    ]);
    return { parts: [head("GET", path, [])] };
  },
  "another method": random => {
    const method = pick(random, [
      "PUT",
      "DELETE",
      "PATCH",
      "GET",
      "OPTIONS",
      "HEAD",
      "TRACE",
      "PROPFIND",
      "PURGE",
      "CONNECT",
      "BREW",
      "post",
    ]);
    return { parts: [head(method, pick(random, ENDPOINTS), ["Content-Length: 2"]), "{}"] };
  },
  "no HTTP": random => {
    const noise = Uint8Array.from({ length: 1 + integer(random, 500) }, () => integer(random, 256));
    return {
      parts: [
        pick(random, [
          Uint8Array.of(0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03),
          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
          "GET / HTTP/9.9\r\n\r\n",
          "GET /\r\n\r\n",
          "SSH-2.0-x\r\n\r\n",
          Uint8Array.from([...noise, 13, 10, 13, 10]),
        ]),
      ],
    };
  },
  "a header that is none": random => {
    const header = pick(random, [
      "X: \u0000",
      " folded",
      "no colon",
      "X\u0001: y",
      "Host: other",
      ": empty",
      "X: a\rb",
    ]);
    return post("/v1/moderations", "{}", [header, "Content-Type: application/json"]);
  },
  "a wrong host": random => {
    const host = pick(random, ["a b", "[::1", "x:99999", "user@evil", "%00", "<script>"]);
    return { parts: [`GET /health HTTP/1.1\r\nHost: ${host}\r\n\r\n`] };
  },
  "a body that stops coming": random => ({
    parts: [
      head("POST", pick(random, ENDPOINTS), ["Content-Type: application/json", "Content-Length: 1000"]),
      '{"input":"',
    ],
    afterwards: "stall",
  }),
  "headers that stop coming": () => ({
    parts: ["POST /v1/moderations HTTP/1.1\r\nHost: localhost\r\nContent-"],
    afterwards: "stall",
  }),
  "half a request, half closed": random => ({
    parts: [
      head("POST", pick(random, ENDPOINTS), ["Content-Type: application/json", "Content-Length: 1000"]),
      '{"input":"',
    ],
    afterwards: "half-close",
  }),
  "a client that leaves": random => {
    const path = pick(random, ENDPOINTS);
    return {
      ...post(path, JSON.stringify({ ...right(path), ...(path === "/v1/moderations" ? {} : { stream: true }) })),
      afterwards: "reset",
    };
  },
};

export const ATTACK_NAMES: readonly string[] = Object.keys(MAKERS);

/** The stalling ones take the server's patience, and so are rarer. */
export function* attacks(seed: number, count: number, stallShare: number = 0.02): Generator<Attack> {
  const random = seededRandom(seed);
  const names = Object.keys(MAKERS);
  const stalling = names.filter(name => / stops? coming$/.test(name));
  const others = names.filter(name => !stalling.includes(name));
  for (let i = 0; i < count; i++) {
    // Each kind once, then at random.
    const name = i < names.length ? names[i] : pick(random, random() < stallShare ? stalling : others);
    yield { name, afterwards: "wait", ...MAKERS[name](random) };
  }
}

/** The status of the first answer, or "closed" where the connection ended without one. */
export function attack(port: number, { parts, afterwards }: Attack): Promise<number | "closed"> {
  return new Promise(resolve => {
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    let answer = "";
    const end = (): void => {
      const status = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1];
      socket.destroy();
      resolve(status === undefined ? "closed" : Number(status));
    };
    socket.on("data", chunk => {
      if (afterwards === "reset") return; // it does not read
      answer += chunk.toString("latin1").slice(0, 100 - answer.length);
      if (answer.length >= 13) end();
    });
    socket.on("end", end);
    socket.on("close", end);
    socket.on("error", () => {}); // "close" follows
    for (const part of parts) socket.write(part);
    if (afterwards === "half-close") socket.end();
    if (afterwards === "reset") setTimeout(() => socket.resetAndDestroy(), 3);
  });
}

/** Runs them, so many at a time, and counts what came back, by kind. */
export async function attackAll(
  port: number,
  all: Iterable<Attack>,
  atOnce: number,
): Promise<Map<string, Map<number | "closed", number>>> {
  const outcomes = new Map<string, Map<number | "closed", number>>();
  const queue = all[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (let next = queue.next(); !next.done; next = queue.next()) {
      const outcome = await attack(port, next.value);
      const counts = outcomes.get(next.value.name) ?? new Map();
      counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
      outcomes.set(next.value.name, counts);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return outcomes;
}
