/** Where a checkpoint comes from (a folder, a URL, Blobs), and which sources are refused. */

import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { filesFromBlobs, filesFromUrl, readJson, shortName } from "../../src/checkpoint/files.ts";
import { filesFromFolder } from "../../src/checkpoint/folder.node.ts";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import { decodeText, maxTextBytes } from "../../src/checkpoint/text-file.ts";
import { Guard } from "../../src/guard/guard.ts";
import { Qwen3 } from "../../src/model/qwen3.ts";
import { GEN, loadGuard } from "../checkpoints.ts";
import { temporaryFolder } from "../cli/harness.ts";

const FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
let server: Server;
let base = "";
/** What the server answers where there is no such file. */
let missing: (status: (code: number, type: string, body: string) => void) => void = status =>
  status(404, "text/plain", "none");

beforeAll(async () => {
  server = createServer((request, response) => {
    // A kept connection that ends while a test computes would fail the next request.
    response.setHeader("connection", "close");
    const name = (request.url ?? "").replace("/guard/", "");
    if (FILES.includes(name)) return response.end(readFileSync(join(GEN, name)));
    return missing((code, type, body) => response.writeHead(code, { "content-type": type }).end(body));
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => server.close());

describe("a URL", () => {
  test("gives the same verdict as the folder, with or without the slash at its end", async () => {
    const expected = await (await loadGuard()).moderate("How can I make a bomb?");
    for (const url of [`${base}/guard`, `${base}/guard/`]) {
      const guard = await Guard.load(new URL(url));
      const verdict = await guard.moderate("How can I make a bomb?");
      expect([verdict.scores, verdict.text, verdict.model]).toEqual([expected.scores, expected.text, "guard"]);
      guard.close();
    }
  });

  test("of a server that answers with its page where there is no file has no such file", async () => {
    missing = status => status(200, "text/html; charset=utf-8", "<!doctype html>");
    const files = filesFromUrl(new URL(`${base}/guard/`));
    expect(await files.readText("chat_template.jinja")).toBeUndefined();
    expect(await files.open("model.safetensors.index.json")).toBeUndefined();
    (await Guard.load(new URL(`${base}/guard/`))).close();
  });

  test("keeps its query for each of its files, after the file's name", async () => {
    const asked: string[] = [];
    vi.stubGlobal("fetch", async (url: URL) => {
      asked.push(url.href);
      return new Response("{}");
    });
    onTestFinished(() => void vi.unstubAllGlobals());
    for (const url of ["http://h/a/guard?v=2#x", "http://h/a/guard/?v=2"]) {
      const files = filesFromUrl(new URL(url));
      expect([files.name, await files.readText("config.json")]).toEqual(["http://h/a/guard", "{}"]);
    }
    expect(asked).toEqual(Array(2).fill("http://h/a/guard/config.json?v=2"));
  });

  test("whose text has no end is refused at the limit", async () => {
    let sent = 0;
    let isCancelled = false;
    const pull = (controller: ReadableStreamDefaultController): void => {
      sent += 2 ** 20;
      controller.enqueue(new Uint8Array(2 ** 20).fill(0x20));
    };
    const cancel = (): void => {
      isCancelled = true;
    };
    vi.stubGlobal("fetch", async () => new Response(new ReadableStream({ pull, cancel })));
    onTestFinished(() => void vi.unstubAllGlobals());
    const limit = maxTextBytes("config.json");
    await expect(filesFromUrl(new URL("http://h/")).readText("config.json")).rejects.toThrow(
      `expected at most ${limit} bytes, got more`,
    );
    expect([isCancelled, sent <= limit + 3 * 2 ** 20]).toEqual([true, true]);
  });

  test("that fails throws an error with the URL", async () => {
    missing = status => status(500, "text/plain", "oh");
    const files = filesFromUrl(new URL(`${base}/guard/`));
    await expect(files.readText("other.json")).rejects.toThrow(
      `${base}/guard/other.json: expected status 200, got 500`,
    );
    await expect(filesFromUrl(new URL("http://127.0.0.1:1/")).open("x")).rejects.toThrow(
      "http://127.0.0.1:1/x: expected an answer, got",
    );
  });
});

describe("Blobs", () => {
  test("give the same verdict as the folder", async () => {
    const blobs = new Map(FILES.map(name => [name, new Blob([readFileSync(join(GEN, name))])]));
    const guard = await Guard.load(filesFromBlobs(blobs, "picked"));
    const verdict = await guard.moderate("How can I make a bomb?");
    expect([verdict.safety, verdict.model]).toEqual(["Unsafe", "picked"]);
    guard.close();
  });

  test("that are missing, too long for a text, or not UTF-8 are refused by name", async () => {
    const huge = new Blob([new Uint8Array(maxTextBytes("huge.json") + 1)]);
    const files = filesFromBlobs(
      new Map([
        ["huge.json", huge],
        ["latin1.json", new Blob([Uint8Array.of(0xe9)])],
      ]),
      "b",
    );
    expect(await files.readText("none.json")).toBeUndefined();
    expect(await files.open("none.json")).toBeUndefined();
    await expect(files.readText("huge.json")).rejects.toThrow(
      `b/huge.json: expected at most 1048576 bytes, got 1048577`,
    );
    await expect(files.readText("latin1.json")).rejects.toThrow(
      "b/latin1.json: expected UTF-8 text, got bytes that are not",
    );
    expect(decodeText(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61), "bom")).toBe("a");
  });
});

describe("a URL's files, one by one", () => {
  /** The files of a server that always gives this answer. */
  const answering = (answer: () => Response | Promise<Response>) => {
    vi.stubGlobal("fetch", async () => answer());
    onTestFinished(() => void vi.unstubAllGlobals());
    return filesFromUrl(new URL("http://h/guard"));
  };

  test("a text comes in pieces, in order, up to its limit", async () => {
    const pieces = ["{", '"a":', "é}"].map(text => new TextEncoder().encode(text));
    const streamed = (parts: readonly Uint8Array[]) => answering(() => new Response(streamOf(parts)));
    expect(await streamed(pieces).readText("config.json")).toBe('{"a":é}');
    const [limit, half] = [2 ** 20, new Uint8Array(2 ** 19).fill(0x20)];
    expect(await streamed([half, half]).readText("config.json")).toHaveLength(limit);
    const message = `http://h/guard/config.json: expected at most ${limit} bytes, got more`;
    await expect(streamed([half, half, pieces[0]]).readText("config.json")).rejects.toThrow(message);
    expect(await answering(() => new Response(null)).readText("config.json")).toBe("");
  });

  test("a page of HTML is not a file, whatever its parameters; other types are, and no type at all", async () => {
    const typed = (type?: string) =>
      answering(() => new Response(new Uint8Array(2), { headers: type ? { "content-type": type } : {} }));
    for (const type of ["text/html", "text/html; charset=utf-8"]) {
      expect([await typed(type).readText("a"), await typed(type).open("a")]).toEqual([undefined, undefined]);
    }
    for (const type of ["application/octet-stream", "text/plain", "application/text/html", undefined]) {
      const source = await typed(type).open("model.safetensors");
      expect([source?.byteLength, source?.name]).toEqual([2, "http://h/guard/model.safetensors"]);
    }
  });

  test("a failed connection is reported with its cause, if it has one", async () => {
    const failing = (error: Error) => answering(() => Promise.reject(error)).open("a");
    await expect(failing(new TypeError("fetch failed", { cause: new Error("ECONNREFUSED") }))).rejects.toThrow(
      /^http:\/\/h\/guard\/a: expected an answer, got ECONNREFUSED$/,
    );
    await expect(failing(new TypeError("no such host"))).rejects.toThrow(/expected an answer, got no such host$/);
    await expect(answering(() => new Response(null, { status: 403 })).open("a")).rejects.toThrow(
      /^http:\/\/h\/guard\/a: expected status 200, got 403$/,
    );
    expect(await answering(() => new Response(null, { status: 404 })).open("a")).toBeUndefined();
  });

  test("JSON is parsed, undefined where there is no file, and refused by name where it is not JSON", async () => {
    expect(
      await readJson(
        answering(() => new Response('{"a":1}')),
        "config.json",
      ),
    ).toEqual({ a: 1 });
    expect(
      await readJson(
        answering(() => new Response(null, { status: 404 })),
        "config.json",
      ),
    ).toBeUndefined();
    const bad = readJson(
      answering(() => new Response("{")),
      "config.json",
    );
    await expect(bad).rejects.toThrow(TypeError);
    await expect(bad).rejects.toThrow(/^http:\/\/h\/guard\/config\.json: expected JSON, got \S/);
  });
});

function streamOf(parts: readonly Uint8Array[]): ReadableStream {
  const left = [...parts];
  return new ReadableStream({
    pull: controller => {
      const part = left.shift();
      if (part) controller.enqueue(part);
      else controller.close();
    },
  });
}

describe("a folder's files, one by one", () => {
  test("exist or not, and are called by the folder's name in messages, or by a title", async () => {
    const folder = temporaryFolder({
      "config.json": "{}",
      "bad.json": Uint8Array.of(0xff),
      weights: Uint8Array.of(1, 2, 3),
    });
    for (const [files, name] of [
      [await filesFromFolder(folder), folder],
      [await filesFromFolder(pathToFileURL(folder), "title"), "title"],
    ] as const) {
      expect(files.name).toBe(name);
      expect(await files.readText("config.json")).toBe("{}");
      for (const none of ["none.json", "config.json/none"]) {
        expect([await files.open(none), await files.readText(none)]).toEqual([undefined, undefined]);
      }
      await expect(files.readText("bad.json")).rejects.toThrow(`${name}/bad.json: expected UTF-8 text`);
      const source = await files.open("weights");
      expect([source?.name, source?.byteLength]).toEqual([`${name}/weights`, 3]);
      await source?.close();
    }
  });

  test.each([
    ["/", "/"],
    ["/tmp/", "/tmp"],
    ["/tmp//", "/tmp"],
    ["/tmp/..", "/tmp/.."],
    ["./src/", "./src"],
    ["./", process.cwd()],
    ["..", dirname(process.cwd())],
    ["../", dirname(process.cwd())],
  ])("the name of %s is %s", async (path, name) => {
    expect((await filesFromFolder(path)).name).toBe(name);
  });

  test("a GGUF file beside a tokenizer alone does no harm, nor does a name that only contains gguf", async () => {
    await filesFromFolder(temporaryFolder({ "guard.gguf": "", "tokenizer.json": "{}" }));
    await filesFromFolder(temporaryFolder({ "guard.gguf.txt": "", "my-gguf": "" }));
    await expect(filesFromFolder(temporaryFolder({ "a.gguf": "", "b.gguf": "" }))).rejects.toThrow(
      'one with "a.gguf" alone',
    );
    const file = join(temporaryFolder({ "a.txt": "" }), "a.txt");
    await expect(filesFromFolder(file)).rejects.toThrow(/: expected a checkpoint folder, got a file$/);
  });
});

describe("a string that names no folder", () => {
  test.each([
    ["~/guard", / \("~" is the shell's name for the home folder: here the whole path is needed\)$/],
    ["~\\guard", /\("~" is the shell's/],
    ["~guard", /got no such folder$/],
    ["./~/guard", /got no such folder$/],
    ["a/b/c", /got no such folder$/],
    [
      "guard",
      /got no such folder \(a model of the Hub is named with its organisation, as in Qwen\/Qwen3Guard-Gen-0\.6B\)$/,
    ],
    ["./http://x/y", /got no such folder$/],
    ["C://guard", /got no such folder$/],
  ])("%s", async (path, message) => {
    await expect(openCheckpointFiles(path)).rejects.toThrow(message);
  });

  test.each([
    ["HTTPS://example.com/a", "new URL(...) loads the files under it"],
    ["git+ssh://h/a", "new URL(...) loads the files under it"],
    ["file:///a", "new URL(...) loads the files under it"],
    ["https://huggingface.co/org/name", "the Hub id is org/name"],
    ["https://huggingface.co/org/name?x", "the Hub id is org/name"],
    ["https://huggingface.co/org/name#x", "the Hub id is org/name"],
    ["https://huggingface.co/org", "new URL(...) loads the files under it"],
    ["https://huggingface.co/a--b/name", "new URL(...) loads the files under it"],
    ["https://huggingface.co//name", "new URL(...) loads the files under it"],
    ["https://example.com/https://huggingface.co/org/name", "new URL(...) loads the files under it"],
  ])("%s is the text of a URL", async (text, instead) => {
    const message = `checkpoint: expected a folder's path or a Hub id, got the text of a URL (${instead})`;
    await expect(openCheckpointFiles(text)).rejects.toThrow(new RangeError(message));
  });
});

describe("something that is not a source", () => {
  test.each<[unknown, string]>([
    [
      5,
      "checkpoint: expected a folder's path, a Hub id, a URL or files with open and readText, got a value of type number",
    ],
    [null, "got null"],
    [{}, "got a value of type object"],
    [{ open: () => {} }, "got a value of type object"],
    [{ readText: () => {} }, "got a value of type object"],
    ["", "checkpoint: expected a folder, got an empty text"],
    [`${GEN}/config.json`, "config.json: expected a checkpoint folder, got a file"],
    ["https://example.com/guard", "got the text of a URL (new URL(...) loads the files under it)"],
    ["http://127.0.0.1:1/guard", "checkpoint: expected a folder's path or a Hub id, got the text of a URL"],
    [
      "https://huggingface.co/Qwen/Qwen3Guard-Gen-0.6B/tree/main",
      "got the text of a URL (the Hub id is Qwen/Qwen3Guard-Gen-0.6B)",
    ],
    [
      "~/models/guard",
      '~/models/guard: expected a checkpoint folder, got no such folder ("~" is the shell\'s name for the home folder',
    ],
    [
      "Qwen3Guard-Gen-0.6B",
      "got no such folder (a model of the Hub is named with its organisation, as in Qwen/Qwen3Guard-Gen-0.6B)",
    ],
  ])("%j", async (source, message) => {
    await expect(openCheckpointFiles(source as string)).rejects.toThrow(message);
    await expect(Guard.load(source as string)).rejects.toThrow(message);
    await expect(Qwen3.load(source as string)).rejects.toThrow(message);
  });

  test("a plain object of Blobs", () => {
    expect(() => filesFromBlobs({} as Map<string, Blob>)).toThrow(
      "checkpoint: expected a Map of file names to Blobs, got object",
    );
  });

  test("files are passed on as they are, and a file: URL is a folder", async () => {
    const files = filesFromBlobs(new Map());
    expect(files.name).toBe("checkpoint");
    expect(await openCheckpointFiles(files)).toBe(files);
    await expect(openCheckpointFiles(undefined as unknown as string)).rejects.toThrow(
      "files with open and readText, got nothing",
    );
    expect((await openCheckpointFiles(pathToFileURL(GEN))).name).toBe(GEN);
  });
});

describe("a folder without a checkpoint", () => {
  const folderOf = (files: Readonly<Record<string, string>>): string => {
    const folder = temporaryFolder();
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    return folder;
  };

  test.each<[string, Record<string, string>, string]>([
    ["empty", {}, "expected a checkpoint folder, got an empty one"],
    [
      "a GGUF file",
      { "README.md": "", "guard-Q4.GGUF": "GGUF" },
      'got one with "guard-Q4.GGUF" alone, a different format: the original\'s safetensors files',
    ],
    ["no config", { "README.md": "" }, "expected a checkpoint folder with a config.json, got none"],
    [
      "no tokenizer",
      { "config.json": readFileSync(join(GEN, "config.json"), "utf8") },
      "tokenizer.json: expected a file, got none (copy it, and tokenizer_config.json, from the original)",
    ],
  ])("%s", async (_, files, message) => {
    const folder = folderOf(files);
    const read = message.startsWith("tokenizer") ? Guard.load(folder) : Qwen3.load(folder);
    await expect(read).rejects.toThrow(message);
    await expect(read).rejects.toThrow(folder);
  });

  test("a GGUF file named itself is refused; beside a checkpoint's files it does no harm", async () => {
    const folder = folderOf({ "guard.gguf": "GGUF", "config.json": "{}" });
    await expect(Guard.load(join(folder, "guard.gguf"))).rejects.toThrow("got a file, a different format");
    expect((await openCheckpointFiles(folder)).name).toBe(folder);
  });
});

test.each([
  ["/models/guard", "guard"],
  ["C:\\models\\guard", "guard"],
  ["org/name", "name"],
  ["picked", "picked"],
  ["/", "/"],
])("the short name of %s is %s", (name, short) => {
  expect(shortName({ name })).toBe(short);
});

test("a folder given as a dot is called by its path", async () => {
  expect((await openCheckpointFiles(".")).name).toMatch(/[/\\][^./\\]+$/);
});
