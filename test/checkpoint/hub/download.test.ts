/** Which files of a repository are downloaded, and what the cache has then, against a small Hub in place of `fetch`. */

import { createHash } from "node:crypto";
import fs, { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { CachedRepo, type HubSettings, hubSettings } from "../../../src/checkpoint/hub/cache.node.ts";
import { type Pulled, pull } from "../../../src/checkpoint/hub/download.node.ts";
import { filesFromHub } from "../../../src/checkpoint/hub/files.node.ts";
import type { HubProgress } from "../../../src/checkpoint/hub/id.ts";
import { temporaryFolder } from "../../cli/harness.ts";

const COMMIT = "1".repeat(40);
const ENDPOINT = "https://hub.test";
const FILES = {
  "config.json": "{}",
  "tokenizer.json": "tokens",
  "tokenizer_config.json": "{ }",
  "model.safetensors": "the weights",
};
const SHARDED = {
  ...FILES,
  "model.safetensors.index.json": '{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}',
};

interface Hub {
  files: Record<string, string>;
  sha: unknown;
  moreEntries: unknown[];
  /** Answers a request instead of the Hub. */
  answer?: (path: string) => Response | undefined;
  readonly paths: string[];
  readonly settings: HubSettings;
  readonly repo: CachedRepo;
  readonly pull: (revision?: string, more?: Partial<HubSettings>) => Promise<Pulled>;
  readonly progress: HubProgress[];
  /** The files that were downloaded since the last call. */
  readonly resolved: () => string[];
}

async function startHub(files: Record<string, string> = FILES): Promise<Hub> {
  const settings = await hubSettings({
    HF_TOKEN: "t",
    HF_ENDPOINT: ENDPOINT,
    HF_HUB_CACHE: join(temporaryFolder(), "cache"),
  });
  const progress: HubProgress[] = [];
  const hub: Hub = {
    files,
    sha: COMMIT,
    moreEntries: [],
    paths: [],
    settings,
    progress,
    repo: new CachedRepo({ id: "org/name", revision: "main" }, settings),
    pull: (revision = "main", more = {}) =>
      pull({ id: "org/name", revision }, { ...settings, ...more }, one => void progress.push(one), {
        stallMs: 5_000,
        retryDelayMs: 0,
      }),
    resolved: () => {
      const prefix = `/org/name/resolve/${COMMIT}/`;
      return hub.paths.splice(0).flatMap(path => (path.startsWith(prefix) ? [path.slice(prefix.length)] : []));
    },
  };
  vi.stubGlobal("fetch", async (url: URL) => {
    const path = decodeURIComponent(url.pathname);
    hub.paths.push(path);
    const answer = hub.answer?.(path);
    if (answer) return answer;
    if (path.includes("/revision/"))
      return Response.json({ _id: "1", id: "org/name", sha: hub.sha, siblings: [], tags: [] });
    if (path.includes("/tree/")) return Response.json([...Object.entries(hub.files).map(entryOf), ...hub.moreEntries]);
    const content = hub.files[path.replace(/.*\/resolve\/[^/]+\//, "")];
    return content === undefined ? new Response("no", { status: 404 }) : new Response(content);
  });
  onTestFinished(() => void vi.unstubAllGlobals());
  return hub;
}

const sha1 = (content: string): string => createHash("sha1").update(`blob ${content.length}\0${content}`).digest("hex");
const sha256 = (content: string): string => createHash("sha256").update(content).digest("hex");
const etagOf = (name: string, content: string): string => (/safetensors$/.test(name) ? sha256(content) : sha1(content));

function entryOf([path, content]: [string, string]): unknown {
  const lfs = { lfs: { oid: sha256(content), size: content.length, pointerSize: 130 } };
  return { type: "file", path, size: content.length, oid: sha1(content), ...(/safetensors$/.test(path) ? lfs : {}) };
}

/** Makes a function of `node:fs/promises` fail with this code until the test ends. */
function failing(name: "symlink" | "mkdir", code: string): void {
  const spy = vi.spyOn(fs.promises, name).mockRejectedValue(Object.assign(new Error(code), { code }));
  syncBuiltinESMExports();
  onTestFinished(() => {
    spy.mockRestore();
    syncBuiltinESMExports();
  });
}

function put(path: string, content: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

describe("a repository", () => {
  test("comes smallest file first, reported to the byte, and the files that it lacks are noted", async () => {
    const hub = await startHub({ "README.md": "no", ...FILES });
    const pulled = await hub.pull();
    const files = [
      { name: "config.json", bytes: 2, downloaded: 2 },
      { name: "tokenizer_config.json", bytes: 3, downloaded: 3 },
      { name: "tokenizer.json", bytes: 6, downloaded: 6 },
      { name: "model.safetensors", bytes: 11, downloaded: 11 },
    ];
    expect(pulled).toEqual({
      id: "org/name",
      revision: "main",
      commit: COMMIT,
      path: hub.repo.snapshot(COMMIT),
      files,
    });
    let before = 0;
    const expected = files.flatMap(({ name, bytes }) => {
      const at = (doneBytes: number, state: string) => ({ state, file: name, doneBytes, totalBytes: 22 });
      before += bytes;
      return [at(before - bytes, "downloading"), at(before, "downloading"), at(before, "checking")];
    });
    expect(hub.progress).toEqual(expected);
    expect(readdirSync(join(hub.repo.folder, ".no_exist", COMMIT)).sort()).toEqual([
      "chat_template.jinja",
      "generation_config.json",
    ]);
    expect(readFileSync(hub.repo.noExist(COMMIT, "chat_template.jinja"), "utf8")).toBe("");
    expect(hub.resolved()).toEqual(files.map(({ name }) => name));
    expect(readFileSync(join(pulled.path, "model.safetensors"), "utf8")).toBe("the weights");
  });

  test("with a generation config and a chat template brings both, even if one is empty", async () => {
    const hub = await startHub({ ...FILES, "generation_config.json": "", "chat_template.jinja": "x" });
    await hub.pull();
    expect(hub.resolved().sort()).toEqual(
      [...Object.keys(FILES), "generation_config.json", "chat_template.jinja"].sort(),
    );
    expect(existsSync(join(hub.repo.folder, ".no_exist"))).toBe(false);
  });

  test("in shards brings the files with names of weights, and none of them if there is the single file", async () => {
    const { "model.safetensors": _, ...sharded } = SHARDED;
    const shards = {
      "model-1.safetensors": "1",
      "model-2.safetensors": "2",
      [`model${"x".repeat(200)}.safetensors`]: "3",
    };
    const others = [
      "xmodel.safetensors",
      "model.safetensors.bak",
      "model 1.safetensors",
      "modelé.safetensors",
      "MODEL.safetensors",
      "modelxsafetensors",
    ];
    others.push(`model${"x".repeat(201)}.safetensors`, "a/model-1.safetensors", "model/1.safetensors");
    const more = Object.fromEntries(others.map(name => [name, "no"]));
    const hub = await startHub({ ...sharded, ...shards, ...more });
    await hub.pull();
    expect(hub.resolved().sort()).toEqual([...Object.keys(sharded), ...Object.keys(shards)].sort());
    expect(readdirSync(join(hub.repo.folder, ".no_exist", COMMIT)).sort()).toEqual([
      "chat_template.jinja",
      "generation_config.json",
    ]);
    const both = await startHub({ ...SHARDED, ...shards });
    await both.pull();
    expect(both.resolved().sort()).toEqual(Object.keys(FILES).sort());
    expect(readdirSync(join(both.repo.folder, ".no_exist", COMMIT)).sort()).toEqual([
      "chat_template.jinja",
      "generation_config.json",
    ]);
  });

  test("that lacks files that its index names is refused, with all their names", async () => {
    const { "model.safetensors": _, ...sharded } = SHARDED;
    const hub = await startHub(sharded);
    await expect(hub.pull()).rejects.toThrow(
      new Error("org/name: expected a checkpoint, got a repository without model-1.safetensors, model-2.safetensors"),
    );
    expect(existsSync(hub.repo.ref("main"))).toBe(false);
  });

  test("without a config, or without weights, is refused, and the message lists what it has", async () => {
    const refused = async (files: Record<string, string>): Promise<string> =>
      (await startHub(files)).pull().then(String, ({ message }) => message);
    const expected = "org/name: expected a repository with config.json and model.safetensors (or its shards), got ";
    expect(await refused({ "tokenizer.json": "", "config.json": "" })).toBe(
      `${expected}only config.json, tokenizer.json`,
    );
    expect(await refused({ "model.safetensors": "" })).toBe(`${expected}only model.safetensors`);
    expect(await refused({ "README.md": "" })).toBe(`${expected}none of its files`);
  });

  test("may list ten thousand entries, including folders, and not one more", async () => {
    const hub = await startHub();
    hub.moreEntries = Array.from({ length: 9_996 }, () => ({
      type: "directory",
      path: "model-1.safetensors",
      size: 0,
      oid: "x",
    }));
    await hub.pull();
    expect(hub.resolved().sort()).toEqual(Object.keys(FILES).sort());
    hub.moreEntries.push(hub.moreEntries[0]);
    await expect(hub.pull()).rejects.toThrow(
      new RangeError("org/name: expected at most 10000 files, got a longer listing"),
    );
  });
});

describe("an answer of the Hub", () => {
  const [hex40, hex64] = ["a".repeat(40), "a".repeat(64)];
  test.each<[string, object, string]>([
    ["a SHA-1 that is short", { oid: hex40.slice(1) }, "a SHA-1"],
    ["a SHA-1 that is long", { oid: `${hex40}a` }, "a SHA-1"],
    ["a SHA-1 after a path", { oid: `../${hex40}` }, "a SHA-1"],
    ["a SHA-1 that is not a text", { oid: [hex40] }, "a SHA-1"],
    ["a SHA-256 in place of a SHA-1", { oid: hex64 }, "a SHA-1"],
    ["a SHA-256 after a path", { oid: hex40, lfs: { oid: `../${hex64}`, size: 3 } }, "a SHA-256"],
    ["a SHA-256 that is long", { oid: hex40, lfs: { oid: `${hex64}a`, size: 3 } }, "a SHA-256"],
    ["a SHA-1 in place of a SHA-256", { oid: hex40, lfs: { oid: hex40, size: 3 } }, "a SHA-256"],
    ["a size below 0", { oid: hex40, size: -1 }, "a size"],
    ["a size between two", { oid: hex40, size: 1.5 }, "a size"],
    ["a large file's size", { oid: hex40, lfs: { oid: hex64, size: -1 } }, "a size"],
  ])("%s is refused", async (_, entry, what) => {
    const hub = await startHub();
    hub.moreEntries = [{ type: "file", path: "model-x.safetensors", size: 3, ...entry }];
    await expect(hub.pull()).rejects.toThrow(
      new RangeError(`org/name/model-x.safetensors: expected ${what} in the Hub's listing, got something else`),
    );
    expect(existsSync(hub.repo.folder)).toBe(false);
  });

  test.each<[unknown, string]>([
    ["../../x", "main"],
    [undefined, "main"],
    [COMMIT.slice(1), "main"],
    [COMMIT, "2".repeat(40)],
  ])("with the commit %s for %s is refused", async (sha, revision) => {
    const hub = await startHub();
    hub.sha = sha;
    await expect(hub.pull(revision)).rejects.toThrow(
      `org/name: expected a commit from ${ENDPOINT}, got none, or another than asked for; offline? no complete snapshot is in the cache (${hub.repo.folder})`,
    );
  });

  test.each<[string, () => Response]>([
    ["something other than JSON", () => new Response("<html>")],
    ["something other than a list", () => Response.json(null)],
    [
      "cut off by the clock",
      () =>
        new Response(
          new ReadableStream({
            pull: controller => controller.error(new DOMException("too late", "TimeoutError")),
          }),
        ),
    ],
  ])("%s is not a listing", async (_, answer) => {
    const hub = await startHub();
    hub.answer = path => (path.includes("/tree/") ? answer() : undefined);
    await expect(hub.pull()).rejects.toThrow(`org/name: expected the Hub's JSON from ${ENDPOINT}, got `);
    await expect(hub.pull()).rejects.toThrow("; offline? no complete snapshot is in the cache");
  });

  test("that does not come: a complete model in the cache is offered; other errors are final", async () => {
    const hub = await startHub();
    await hub.pull();
    hub.answer = () => new Response("", { status: 500 });
    await expect(hub.pull()).rejects.toThrow(
      `org/name: expected an answer from ${ENDPOINT}, got status 500; offline? a complete snapshot, which HF_HUB_OFFLINE=1 uses is in the cache`,
    );
    hub.answer = () => new Response("", { status: 404 });
    await expect(hub.pull()).rejects.toThrow(/^org\/name: expected a model of the Hub.*\)$/);
  });
});

describe("a file that is in the cache already", () => {
  test("is not downloaded: it may be a whole file in the snapshot, or a blob, which is linked", async () => {
    const hub = await startHub();
    put(join(hub.repo.snapshot(COMMIT), "tokenizer.json"), FILES["tokenizer.json"]);
    put(hub.repo.blob(etagOf("model.safetensors", "the weights")), "the weights");
    put(`${hub.repo.blob(sha1("{}"))}.incomplete`, "{");
    const { path, files } = await hub.pull();
    expect(files.map(({ downloaded }) => downloaded)).toEqual([2, 3, 0, 0]); // this server knows no ranges
    // 6 and 11 of the 22 bytes were there, and 1 byte of a longer file.
    expect(hub.progress[0]).toEqual({ state: "downloading", file: "config.json", doneBytes: 18, totalBytes: 22 });
    expect(lstatSync(join(path, "tokenizer.json")).isFile()).toBe(true);
    expect(lstatSync(join(path, "model.safetensors")).isSymbolicLink()).toBe(true);
  });

  test("is replaced if its size is wrong; more bytes than the file has count as the file", async () => {
    const hub = await startHub();
    put(join(hub.repo.snapshot(COMMIT), "tokenizer.json"), "short");
    put(hub.repo.blob(sha1("{}")), "long");
    put(`${hub.repo.blob(sha1("{ }"))}.incomplete`, "longer");
    const { path } = await hub.pull();
    expect(hub.progress[0].doneBytes).toBe(3);
    for (const [name, content] of Object.entries(FILES)) expect(readFileSync(join(path, name), "utf8")).toBe(content);
  });

  test("is listed without a request, smallest first, when the revision is a commit or the network is off", async () => {
    const hub = await startHub();
    const { files, path } = await hub.pull();
    writeFileSync(join(path, "notes.txt"), "");
    hub.paths.length = 0;
    const expected = files.map(file => ({ ...file, downloaded: 0 }));
    expect((await hub.pull(COMMIT)).files).toEqual(expected);
    expect(await hub.pull("main", { offline: true })).toEqual({
      id: "org/name",
      revision: "main",
      commit: COMMIT,
      path,
      files: expected,
    });
    expect(hub.paths).toEqual([]);
    await hub.pull();
    expect(hub.paths.length).toBeGreaterThan(0);
    for (const name of ["config.json", "model.safetensors"]) rmSync(join(path, name));
    const lacking =
      "org/name: expected it in the cache, since HF_HUB_OFFLINE is set, got a snapshot without config.json, model.safetensors";
    await expect(hub.pull("main", { offline: true })).rejects.toThrow(`${lacking} (in ${hub.repo.folder})`);
    await expect(hub.pull("v1", { offline: true })).rejects.toThrow(`set, got nothing (in ${hub.repo.folder})`);
  });

  test("gets a ref with the revision's name, unless that is a commit", async () => {
    const hub = await startHub();
    await hub.pull(COMMIT);
    expect(existsSync(join(hub.repo.folder, "refs"))).toBe(false);
    await hub.pull("refs/pr/1");
    expect(readFileSync(hub.repo.ref("refs/pr/1"), "utf8")).toBe(COMMIT);
  });
});

describe("a disk", () => {
  test.each([
    ["ENOSPC", "a full disk; the downloaded part is kept, and pulling again continues"],
    ["EDQUOT", "a full quota; the downloaded part is kept, and pulling again continues"],
    ["EACCES", "no permission to write"],
    ["EPERM", "no permission to write"],
    ["EROFS", "a read-only file system"],
    ["ENOTDIR", "a path through something that is not a folder"],
  ])("that says %s", async (code, got) => {
    const hub = await startHub();
    failing("mkdir", code);
    await expect(hub.pull()).rejects.toThrow(
      new Error(`${hub.repo.folder}: expected a folder to write to, got ${got}`),
    );
  });

  test("that says something else is quoted", async () => {
    const hub = await startHub();
    failing("mkdir", "EIO");
    await expect(hub.pull()).rejects.toMatchObject({ code: "EIO", message: "EIO" });
  });

  test("without links has the files in the snapshot; an older blob may be in use and stays", async () => {
    const hub = await startHub();
    const old = hub.repo.blob(sha1("tokens"));
    put(old, "tokens");
    failing("symlink", "EPERM");
    const { path } = await hub.pull();
    for (const [name, content] of Object.entries(FILES)) {
      expect(lstatSync(join(path, name)).isFile()).toBe(true);
      expect(readFileSync(join(path, name), "utf8")).toBe(content);
    }
    expect(readdirSync(dirname(old))).toEqual([sha1("tokens")]);
  });

  test("on which another process was faster has its link; a missing link is noticed at the end", async () => {
    const hub = await startHub();
    failing("symlink", "EEXIST");
    await expect(hub.pull()).rejects.toThrow(
      "got a repository without config.json, tokenizer.json, tokenizer_config.json, model.safetensors",
    );
    expect(readdirSync(join(hub.repo.folder, "blobs"))).toHaveLength(4);
  });
});

test("waits for another process that downloads the same model, and says so", async () => {
  const hub = await startHub();
  put(hub.repo.lock, JSON.stringify({ pid: process.pid, host: hostname(), id: "x" }));
  setTimeout(() => rmSync(hub.repo.lock), 250);
  await hub.pull();
  expect(hub.progress[0]).toEqual({ state: "waiting", file: "", doneBytes: 0, totalBytes: 22 });
});

test("a name that was never in the cache may have been meant as a path; one that was there is not", async () => {
  const hub = await startHub();
  const env = { HF_ENDPOINT: ENDPOINT, HF_TOKEN: "t", HF_HUB_CACHE: hub.settings.cache };
  const open = () => filesFromHub({ id: "org/name", revision: "main" }, { env });
  hub.answer = () => new Response("", { status: 404 });
  const error = await open().catch((thrown: Error) => thrown);
  expect(error).toMatchObject({
    message: expect.stringMatching(/; there is no folder of that name either$/),
    cause: expect.any(Error),
  });
  delete hub.answer;
  expect((await open()).name).toBe("org/name");
  rmSync(join(hub.repo.snapshot(COMMIT), "config.json"));
  hub.answer = () => new Response("", { status: 404 });
  await expect(open()).rejects.toThrow(/\(404 from https:\/\/hub\.test\)$/);
});
