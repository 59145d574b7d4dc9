/** Where a request goes: to be moderated, straight through by a list, or nowhere. */

import { describe, expect, test } from "vitest";
import { Routes } from "../../../src/server/proxy/routes.ts";

const routes = new Routes([]);
const find = (method: string, path: string): string => routes.find(method, new URL(`http://x${path}`).pathname);

describe("what may pass unjudged is a list", () => {
  test.each([
    "GET /v1/models",
    "HEAD /v1/models",
    "OPTIONS /v1/models",
    "GET /v1/models/a",
    "GET /v1/models/.a",
    "GET /v1/models/a.",
    "HEAD /v1/models/a/b/c",
    "GET /v1/models/llama3:8b",
    "GET /v1/models/org/name@main",
    "GET /v1/models/org%2Fname%40main",
    "POST /v1/embeddings",
    "OPTIONS /v1/embeddings",
    "POST /v1/moderations",
    "POST /v1/rerank",
    "POST /v1/score",
    "GET /v1/files",
    "POST /v1/files",
    "GET /v1/files/file-1",
    "GET /v1/files/file-1/content",
    "DELETE /v1/files/file-1",
    "POST /v1/images/generations",
    "POST /v1/images/edits",
    "POST /v1/images/variations",
    "POST /v1/audio/speech",
    "POST /v1/audio/transcriptions",
    "POST /v1/audio/translations",
  ])("%s", route => {
    const [method, path] = route.split(" ");
    expect(find(method, path)).toBe("/v1/*");
  });

  test.each(["GET", "POST", "PUT", "PATCH", "DELETE"])("%s can be allowed, and with it HEAD and OPTIONS", method => {
    const more = new Routes([`${method} /v1/batches`]);
    expect([more.find(method, "/v1/batches"), more.find("OPTIONS", "/v1/batches")]).toEqual(["/v1/*", "/v1/*"]);
    if (method === "GET") expect(more.find("HEAD", "/v1/batches")).toBe("/v1/*");
    else expect(() => more.find("HEAD", "/v1/batches")).toThrow(/^path: expected /);
  });

  test("a pattern stands for names, none of them empty", () => {
    const more = new Routes(["GET /v1/*", "POST /v1/a/*/b", "PUT /v1/a/*/**"]);
    expect(more.find("GET", "/v1/tokenize")).toBe("/v1/*");
    expect(more.find("POST", "/v1/a/x/b")).toBe("/v1/*");
    expect(more.find("PUT", "/v1/a/x/y")).toBe("/v1/*");
    for (const route of [
      "GET /v1/",
      "GET /v1",
      "POST /v1/a/b",
      "POST /v1/a/x",
      "POST /v1/a//b",
      "POST /v1/b/x/b",
      "PUT /v1/a",
      "PUT /v1/a/x",
      "PUT /v1/a/x/",
    ]) {
      // biome-ignore format: one line
      const [method, path] = route.split(" ");
      expect(() => more.find(method, path), route).toThrow(/^path: expected /);
    }
  });

  test("the moderated ones are found by any method", () => {
    for (const path of ["/v1/chat/completions", "/v1/completions"])
      for (const method of ["POST", "GET", "OPTIONS", "LINK"]) expect(find(method, path)).toBe(path);
  });

  test("an unknown route is refused without being quoted", () => {
    expect(() => find("POST", "/v1/say")).toThrow(
      expect.objectContaining({
        status: 404,
        code: "not_moderated",
        message:
          "path: expected /v1/chat/completions, /v1/completions or a route that may pass unjudged, got another; --allow-route lets one pass",
      }),
    );
  });

  test("everything else is refused, or must be allowed", () => {
    const more = new Routes(["POST /v1/tokenize", "GET /v1/batches/*", "POST /v1/tools/**"]);
    expect(more.find("POST", "/v1/tokenize")).toBe("/v1/*");
    expect(more.find("GET", "/v1/batches/b-1")).toBe("/v1/*");
    expect(more.find("POST", "/v1/tools/a/b")).toBe("/v1/*");
    const others = ["GET /v1/tokenize", "GET /v1/batches", "GET /v1/batches/b/x", "POST /v1/tools", "POST /v1/tools/a/../b", "POST /v1/tools//a", "POST /v1/tools/%2e%2e/a", "POST /v1/tools/completions", "POST /v1/tools/x/%43ompletions"]; // biome-ignore format: one line
    for (const route of others) {
      const [method, path] = route.split(" ");
      expect(() => more.find(method, path), route).toThrow(/^path: expected /);
    }
  });

  test.each([
    "/v1/tokenize",
    "POST tokenize",
    "POST x/v1/tokenize",
    "POST /v1",
    "POST",
    "POST /v1/tokenize ",
    "POST /v1/tokenize /v1/b",
    "POST /v1/tokenize/**b",
    "POST /v1/a/*b",
    "POST /v1/a/completions/*",
    "POST /v2/tokenize",
    "POST /v1/",
    "POST /v1/**",
    "post /v1/tokenize",
    "POST /v1/a/**/b",
    "POST /v1/../x",
    "POST /v1/%61",
    "POST /v1/chat/completions",
    "POST /v1/Completions.",
    "TRACE /v1/x",
    "POST /v1/a b",
    "",
  ])("%j cannot be allowed", route => {
    const form = 'GET or POST or PUT or PATCH or DELETE and a path under /v1 that is not moderated, as in "POST /v1/tokenize" or "GET /v1/batches/*"'; // biome-ignore format: one line
    expect(() => new Routes([route])).toThrow(
      new RangeError(`allowRoutes: expected ${form}, got ${JSON.stringify(route)}`),
    );
  });
});

describe("a way around the guard", () => {
  test.each([
    "/v1/responses",
    "/v1/messages",
    "/v1/responses/resp_1",
    "/v1/threads/t/runs",
    "/v1/batches",
    "/v1/chat/completions/",
    "/v1//chat/completions",
    "/v1/chat%2Fcompletions",
    "/v1/%63hat/completions",
    "/v1/%2563hat/completions",
    "/v1/%252563hat/completions",
    "/v1/Chat/Completions",
    "/v1/completions;x=1",
    "/v1/completions%20",
    "/v1/chat/completions/batch",
    "/v1/chat/completions/id/messages",
    "/v1/models/..%2fchat/completions",
    "/v1/models/gemini:generateContent",
    "/v1/engines/e/completions",
    "/v1/x\\chat\\completions",
    "/v1/responses%3Fx",
    "/v1/responses%23x",
    "/v1/respon%09ses",
    "/v1/responses%00",
    "/v1/responses.",
    "/v1/re%C5%BFponses",
    "/v1/internal/logits",
    "/v1/projects/p/publishers/google/models/x:generateContent",
    "/v1/evals/x",
    "/v1/%ff",
    "/v1",
    "/v2/chat/completions",
    "/chat/completions",
    "/",
    // Names that servers have given to what writes text, of which the next one is not known yet.
    "/v1/sonar",
    "/v1/agent",
    "/v1/sessions",
    "/v1/flexible/infers",
    "/v1/infer",
    "/v1/predictions",
    "/v1/rag/query",
    "/v1/tokenize",
    "/v1/embeddings/",
    "/v1/Embeddings",
    "/v1/%65mbeddings",
    "/v1/embeddings.",
    "/v1/embeddings;x",
    "/v1//embeddings",
    "/v1/images/generations/x",
    "/v1/files/..%2fchat%2fcompletions",
    "/v1/files/%252e%252e",
    "/v1/models",
    "/v1/models/llm",
  ])("POST %s is not there", async path => {
    expect(() => find("POST", path)).toThrow(/^path: expected /);
  });

  const verbs = ["PUT", "PATCH", "POST", "DELETE"].map(method => `${method} /v1/models/x:generateContent`);
  test.each([
    ...verbs,
    "GET /v1/models/..%2fresponses",
    "GET /v1/models/%2e%2e%2fresponses",
    "GET /v1/models//responses",
    "GET /v1/models/",
    "GET /v1/models/%20a",
    "GET /v1/models/a%20",
    "GET /v1/models/..%2f..",
    "GET /v1/models/a/Completions",
    "GET /v1/models/%ff",
    "GET /v1/files/%ff",
    "GET /v1/files/",
    "PUT /v1/embeddings",
    "GET /v1/embeddings",
    "PATCH /v1/files/1",
    "POST /v1/files/1",
    "GET /v1/files/a%2Fb",
    "OPTIONS /v1/responses",
    "HEAD /v1/responses",
    "LINK /v1/models",
  ])("%s is not there", route => {
    const [method, path] = route.split(" ");
    expect(() => find(method, path)).toThrow(/^path: expected /);
  });
});
