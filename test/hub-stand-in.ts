/**
 * A small Hugging Face Hub on loopback, for tests: the API's model info and file listing, and `/resolve/` with a
 * redirect to a second server, of another origin, for large files. Paths, headers and shapes are those of the real one,
 * as far as `@huggingface/hub` and Python's huggingface_hub read them.
 */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { GEN } from "./checkpoints.ts";

export interface SeenRequest {
  readonly server: "hub" | "storage";
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  /** Bytes of the body that were handed out. */
  sent: number;
}

/** What a test may change while it runs. */
export interface HubStandIn {
  readonly endpoint: string;
  readonly id: string;
  readonly seen: SeenRequest[];
  files: Map<string, Uint8Array>;
  commit: string;
  /** Names of that commit. */
  aliases: readonly string[];
  /** Without it, or with another, `/resolve/` (and `api`, if it says so) answers this status. */
  gate?: { readonly token: string; readonly status: number; readonly code?: string; readonly api?: boolean };
  /** Entries of the listing beside the files. */
  moreEntries: unknown[];
  /** Where the listing says that it goes on. */
  nextPage?: string;
  /** Answers a request for a large file instead of the storage server; true where it has. */
  storage?: (request: IncomingMessage, response: ServerResponse, content: Uint8Array) => boolean;
  readonly stop: () => Promise<void>;
}

export const COMMIT = "1".repeat(40);

/** With the demo guard's files, and a few that no checkpoint needs. */
export function checkpointFiles(): Map<string, Uint8Array> {
  const files = new Map(readdirSync(GEN).map(name => [name, readFileSync(join(GEN, name)) as Uint8Array]));
  return files.set("pytorch_model.bin", new Uint8Array(10)).set(".gitattributes", new Uint8Array(5));
}

const isLarge = (name: string): boolean => /\.safetensors$|^tokenizer\.json$|\.bin$/.test(name);
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const gitSha1 = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

export function etagOf(name: string, content: Uint8Array): string {
  return isLarge(name) ? sha256(content) : gitSha1(content);
}

/** Starts a server that ends with the test; returns its origin. */
export async function startServer(
  serve: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer(serve);
  onTestFinished(() => stop(server));
  return listen(server);
}

export async function startHub(id: string = "org/tiny-guard"): Promise<HubStandIn> {
  const storage = createServer((request, response) => serveStorage(request, response));
  const server = createServer((request, response) => serveHub(request, response));
  const [storageOrigin, endpoint] = await Promise.all([storage, server].map(listen));
  const hub: HubStandIn = {
    endpoint,
    id,
    seen: [],
    files: checkpointFiles(),
    commit: COMMIT,
    aliases: ["main", "v1", "refs/pr/1"],
    moreEntries: [],
    stop: async () => {
      await Promise.all([storage, server].map(stop));
    },
  };
  onTestFinished(hub.stop);

  function note(server: SeenRequest["server"], { url, headers }: IncomingMessage): SeenRequest {
    const seen = {
      server,
      path: decodeURIComponent(url ?? ""),
      range: headers.range,
      authorization: headers.authorization,
      sent: 0,
    };
    hub.seen.push(seen);
    return seen;
  }

  function serveHub(request: IncomingMessage, response: ServerResponse): void {
    const seen = note("hub", request);
    const path = seen.path.replace(/\?.*/, "");
    const { gate } = hub;
    const isApi = path.startsWith("/api/");
    if (gate && (!isApi || gate.api) && request.headers.authorization !== `Bearer ${gate.token}`) {
      response.writeHead(gate.status, gate.code ? { "X-Error-Code": gate.code } : {}).end("no");
      return;
    }
    const [, revision] = new RegExp(`^/api/models/${id}(?:/revision|/tree)/(.+)$`).exec(path) ?? [];
    if (isApi && revision !== undefined) {
      if (![...hub.aliases, hub.commit].includes(revision)) {
        response.writeHead(404, { "X-Error-Code": "RevisionNotFound" }).end("no");
      } else if (path.includes("/tree/")) {
        if (hub.nextPage) response.setHeader("Link", `<${hub.nextPage}>; rel="next"`);
        json(response, [...[...hub.files].map(([name, content]) => entry(name, content)), ...hub.moreEntries]);
      } else {
        const siblings = [...hub.files.keys()].map(rfilename => ({ rfilename }));
        json(response, {
          _id: "1",
          id,
          modelId: id,
          sha: hub.commit,
          private: false,
          lastModified: "2026-01-01T00:00:00.000Z",
          siblings,
          tags: [],
        });
      }
      return;
    }
    const [, at, name] = new RegExp(`^/${id}/resolve/([^/]+)/(.+)$`).exec(path) ?? [];
    const content = hub.files.get(name);
    if (!content || ![hub.commit, "main"].includes(at)) {
      response
        .writeHead(404, { "X-Error-Code": path.startsWith(`/${id}/`) ? "EntryNotFound" : "RepoNotFound" })
        .end("no");
      return;
    }
    response.setHeader("X-Repo-Commit", hub.commit);
    if (isLarge(name)) {
      response.setHeader("X-Linked-ETag", `"${sha256(content)}"`).setHeader("X-Linked-Size", content.length);
      response.writeHead(302, { Location: `${storageOrigin}/signed/${name}?Signature=secret` }).end();
    } else {
      response.setHeader("ETag", `"${gitSha1(content)}"`);
      sendContent(request, response, content, seen);
    }
  }

  function serveStorage(request: IncomingMessage, response: ServerResponse): void {
    const seen = note("storage", request);
    const content = hub.files.get(seen.path.replace(/^\/signed\/|\?.*/g, ""))!;
    if (!hub.storage?.(request, response, content)) sendContent(request, response, content, seen);
  }

  return hub;
}

/** 200, or 206 for a range. */
export function sendContent(
  request: IncomingMessage,
  response: ServerResponse,
  content: Uint8Array,
  seen?: SeenRequest,
): void {
  const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const body = content.subarray(from);
  if (request.headers.range)
    response.setHeader("Content-Range", `bytes ${from}-${content.length - 1}/${content.length}`);
  response.writeHead(request.headers.range ? 206 : 200, { "Content-Length": body.length });
  if (seen && request.method !== "HEAD") seen.sent += body.length;
  response.end(request.method === "HEAD" ? undefined : body);
}

/** Promises `content` whole, or from a range's start, and cuts the connection after `bytes` of it. */
export function sendCut(request: IncomingMessage, response: ServerResponse, content: Uint8Array, bytes: number): void {
  const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
  if (from > 0) response.setHeader("Content-Range", `bytes ${from}-${content.length - 1}/${content.length}`);
  response.writeHead(from > 0 ? 206 : 200, { "Content-Length": content.length - from });
  response.write(content.subarray(from, from + bytes), () => setTimeout(() => response.destroy(), 20));
}

function entry(path: string, content: Uint8Array): unknown {
  const lfs = isLarge(path) ? { lfs: { oid: sha256(content), size: content.length, pointerSize: 130 } } : {};
  return {
    type: "file",
    path,
    size: content.length,
    oid: gitSha1(isLarge(path) ? new TextEncoder().encode(path) : content),
    ...lfs,
  };
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(value));
}

async function stop(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise(resolve => server.close(resolve));
}

function listen(server: Server): Promise<string> {
  return new Promise(resolve =>
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)),
  );
}
