/** Where a checkpoint comes from: a folder, a URL, Blobs; and what is refused at that door. */

import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { decodeText, maxTextBytes } from "../../src/checkpoint/text-file.ts";
import { Guard } from "../../src/guard/guard.ts";
import { filesFromBlobs, filesFromUrl } from "../../src/model/checkpoint-files.ts";
import { openCheckpointFiles } from "../../src/model/open-checkpoint.ts";
import { Qwen3 } from "../../src/model/qwen3.ts";
import { temporaryFolder } from "../app/harness.ts";
import { GEN, loadGuard } from "../checkpoints.ts";

const FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
let server: Server;
let base = "";
/** What the server does where there is no such file. */
let missing: (status: (code: number, type: string, body: string) => void) => void = status => status(404, "text/plain", "none");

beforeAll(async () => {
  server = createServer((request, response) => {
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

  test("of a server that answers with its page where there is no file: the page is not taken for one", async () => {
    missing = status => status(200, "text/html; charset=utf-8", "<!doctype html>");
    const files = filesFromUrl(new URL(`${base}/guard/`));
    expect(await files.readText("chat_template.jinja")).toBeUndefined();
    expect(await files.open("model.safetensors.index.json")).toBeUndefined();
    (await Guard.load(new URL(`${base}/guard/`))).close();
  });

  test("keeps its query, behind the folder's name, for each of its files", async () => {
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
    await expect(filesFromUrl(new URL("http://h/")).readText("config.json")).rejects.toThrow(`expected at most ${limit} bytes, got more`);
    expect([isCancelled, sent <= limit + 3 * 2 ** 20]).toEqual([true, true]);
  });

  test("that fails is an error with the URL", async () => {
    missing = status => status(500, "text/plain", "oh");
    const files = filesFromUrl(new URL(`${base}/guard/`));
    await expect(files.readText("other.json")).rejects.toThrow(`${base}/guard/other.json: expected status 200, got 500`);
    await expect(filesFromUrl(new URL("http://127.0.0.1:1/")).open("x")).rejects.toThrow("http://127.0.0.1:1/x: expected an answer, got");
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

  test("that are missing, too long for a text, or no UTF-8, are refused by name", async () => {
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
    await expect(files.readText("huge.json")).rejects.toThrow(`b/huge.json: expected at most 1048576 bytes, got more`);
    await expect(files.readText("latin1.json")).rejects.toThrow("b/latin1.json: expected UTF-8 text, got bytes that are not");
    expect(decodeText(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61), "bom", 9)).toBe("a");
  });
});

describe("what is no source", () => {
  test.each<[unknown, string]>([
    [5, "checkpoint: expected a folder's path, a Hub id, a URL or files with open and readText, got a value of type number"],
    [null, "got null"],
    [{}, "got a value of type object"],
    ["", "checkpoint: expected a folder, got an empty text"],
    [`${GEN}/config.json`, "config.json: expected a checkpoint folder, got a file"],
    ["https://example.com/guard", "got the text of a URL (new URL(...) loads the files under it)"],
    ["http://127.0.0.1:1/guard", "checkpoint: expected a folder's path or a Hub id, got the text of a URL"],
    ["https://huggingface.co/Qwen/Qwen3Guard-Gen-0.6B/tree/main", "got the text of a URL (the Hub id is Qwen/Qwen3Guard-Gen-0.6B)"],
    ["~/models/guard", '~/models/guard: expected a checkpoint folder, got no such folder ("~" is the shell\'s name for the home folder'],
    ["Qwen3Guard-Gen-0.6B", "got no such folder (a model of the Hub is named with its organisation, as in Qwen/Qwen3Guard-Gen-0.6B)"],
  ])("%j", async (source, message) => {
    await expect(openCheckpointFiles(source as string)).rejects.toThrow(message);
    await expect(Guard.load(source as string)).rejects.toThrow(message);
    await expect(Qwen3.load(source as string)).rejects.toThrow(message);
  });

  test("a plain object of Blobs", () => {
    expect(() => filesFromBlobs({} as Map<string, Blob>)).toThrow("checkpoint: expected a Map of file names to Blobs, got object");
  });
});

describe("a folder that is no checkpoint's", () => {
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
      'got one with "guard-Q4.GGUF" alone, which is of another format: the original\'s safetensors files',
    ],
    ["no config", { "README.md": "" }, "expected a checkpoint folder with a config.json, got none"],
    [
      "no tokenizer",
      { "config.json": "{}" },
      "tokenizer.json: expected a file, got none (copy it, and tokenizer_config.json, from the original)",
    ],
  ])("%s", async (_, files, message) => {
    const folder = folderOf(files);
    const read = message.startsWith("tokenizer") ? Guard.load(folder) : Qwen3.load(folder);
    await expect(read).rejects.toThrow(message);
    await expect(read).rejects.toThrow(folder);
  });

  test("a GGUF file by its own name; beside a checkpoint's files it is no matter", async () => {
    const folder = folderOf({ "guard.gguf": "GGUF", "config.json": "{}" });
    await expect(Guard.load(join(folder, "guard.gguf"))).rejects.toThrow("got a file, which is of another format");
    expect((await openCheckpointFiles(folder)).name).toBe(folder);
  });
});

test("a folder named by a dot has the name of the folder", async () => {
  expect((await openCheckpointFiles(".")).name).toMatch(/[/\\][^./\\]+$/);
});
