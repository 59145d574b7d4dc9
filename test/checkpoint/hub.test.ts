/**
 * Models of the Hub, against a stand-in on loopback: downloads that are complete, continued, checked or refused, and a
 * cache that needs no network.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs, {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { CachedRepo, type HubSettings, hubSettings } from "../../src/checkpoint/hub/cache.node.ts";
import { type Pulled, pull } from "../../src/checkpoint/hub/download.node.ts";
import { filesFromHub } from "../../src/checkpoint/hub/files.node.ts";
import { type HubProgress, hubUrl, parseHubId } from "../../src/checkpoint/hub/id.ts";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import { Guard } from "../../src/guard/guard.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { GEN, ODD } from "../checkpoints.ts";
import { temporaryFolder } from "../cli/harness.ts";
import {
  COMMIT,
  checkpointFiles,
  etagOf,
  type HubStandIn,
  sendContent,
  sendCut,
  startHub,
  startServer,
} from "../hub-stand-in.ts";

const NEEDED = [
  "config.json",
  "generation_config.json",
  "model.safetensors",
  "tokenizer.json",
  "tokenizer_config.json",
];
const WEIGHTS = readFileSync(join(GEN, "model.safetensors"));
const HALF = 2_000_000;

interface Place {
  readonly hub: HubStandIn;
  readonly env: Record<string, string>;
  readonly settings: HubSettings;
  /** The model's folder in the cache. */
  readonly repo: CachedRepo;
  readonly pull: (revision?: string, onProgress?: (progress: HubProgress) => void) => Promise<Pulled>;
}

async function place(more: Record<string, string> = {}): Promise<Place> {
  const hub = await startHub();
  const env = { HF_HOME: temporaryFolder(), HF_ENDPOINT: hub.endpoint, ...more };
  const settings = await hubSettings(env);
  return {
    hub,
    env,
    settings,
    repo: new CachedRepo({ id: hub.id, revision: "main" }, settings),
    pull: (revision = "main", onProgress) =>
      pull({ id: hub.id, revision }, settings, onProgress, { stallMs: 20_000, retryDelayMs: 1 }),
  };
}

const weightsBlob = (repo: CachedRepo): string => repo.blob(etagOf("model.safetensors", WEIGHTS));
const storageRequests = (hub: HubStandIn) =>
  hub.seen.filter(({ server, path }) => server === "storage" && path.includes("model.safetensors"));

describe("names", () => {
  test.each([
    ["Qwen/Qwen3Guard-Gen-0.6B", "Qwen/Qwen3Guard-Gen-0.6B", "main"],
    ["a/b@v1.0", "a/b", "v1.0"],
    ["a/b@refs/pr/1", "a/b", "refs/pr/1"],
    [`a/b@${COMMIT}`, "a/b", COMMIT],
  ])("%s", (text, id, revision) => {
    expect(parseHubId(text)).toEqual({ id, revision });
  });

  test.each([
    "gpt2",
    "a/b/c",
    "./a",
    "../a",
    "a/..",
    "/a/b",
    "a/",
    "a//b",
    "a/b@",
    "a/b@../x",
    "a/b@x/../y",
    "a/b@/x",
    "a/b@x//y",
    "a--b/c",
    "a/b.git",
    "a/.b",
    "-a/b",
    "a\\b",
    "C:/b",
    "a/b?c",
    "a/b#c",
    "a/b c",
    `a/${"b".repeat(100)}`,
    "",
    "a/b@-x",
  ])("not a Hub id: %s", text => {
    expect(parseHubId(text)).toBeUndefined();
  });

  test("its URL, for browsers", () => {
    expect(hubUrl({ id: "a/b", revision: "refs/pr/1" }).href).toBe("https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/");
  });
});

describe("the environment", () => {
  test("the cache is where huggingface_hub has it", async () => {
    const cache = async (env: Record<string, string>): Promise<string> => (await hubSettings(env)).cache;
    const { HOME } = process.env;
    expect(await cache({})).toBe(join(HOME ?? "", ".cache/huggingface/hub"));
    expect(await cache({ XDG_CACHE_HOME: "/x" })).toBe("/x/huggingface/hub");
    expect(await cache({ XDG_CACHE_HOME: "/x", HF_HOME: "/h" })).toBe("/h/hub");
    expect(await cache({ HF_HOME: "~/h" })).toBe(join(HOME ?? "", "h/hub"));
    expect(await cache({ HF_HOME: "/h", HF_HUB_CACHE: "/c" })).toBe("/c");
  });

  test("the token: HF_TOKEN, else the file that `hf auth login` writes", async () => {
    const HF_HOME = temporaryFolder({ token: "hf_file\n" });
    expect((await hubSettings({ HF_HOME })).token).toBe("hf_file");
    expect((await hubSettings({ HF_HOME, HF_TOKEN: "hf_env" })).token).toBe("hf_env");
    expect((await hubSettings({ HF_HOME: temporaryFolder() })).token).toBeUndefined();
  });

  test("a bad token is refused without being shown, and a bad endpoint is refused", async () => {
    await expect(hubSettings({ HF_TOKEN: "hf_a\nhf_b" })).rejects.toThrow(
      /^HF_TOKEN: expected a token, got characters that no token has$/,
    );
    await expect(hubSettings({ HF_ENDPOINT: "file:///etc" })).rejects.toThrow(
      "HF_ENDPOINT: expected a URL of http or https, got file:///etc",
    );
  });
});

describe("a download", () => {
  test("brings the files that a checkpoint needs and nothing else, in the standard layout", async () => {
    const { hub, repo, pull } = await place();
    const pulled = await pull();
    expect(pulled).toMatchObject({ id: hub.id, revision: "main", commit: COMMIT, path: repo.snapshot(COMMIT) });
    expect(pulled.files.map(({ name }) => name).sort()).toEqual(NEEDED);
    for (const { name, bytes, downloaded } of pulled.files) {
      const content = hub.files.get(name)!;
      expect([bytes, downloaded]).toEqual([content.length, content.length]);
      expect(readFileSync(join(pulled.path, name)).equals(content)).toBe(true);
      expect(readlinkSync(join(pulled.path, name))).toBe(`../../blobs/${etagOf(name, content)}`);
    }
    expect(readdirSync(pulled.path).sort()).toEqual(NEEDED);
    expect(readdirSync(dirname(weightsBlob(repo)))).toHaveLength(NEEDED.length);
    expect(readFileSync(join(repo.folder, "refs/main"), "utf8")).toBe(COMMIT);
    expect(readdirSync(join(repo.folder, ".no_exist", COMMIT))).toEqual(["chat_template.jinja"]);
    expect(hub.seen.filter(({ path }) => /README|\.bin|gitattributes/.test(path))).toEqual([]);
    expect(readdirSync(dirname(repo.lock))).toEqual([]);
  });

  test("done again downloads nothing; if one file has gone missing, only that is fetched", async () => {
    const { hub, repo, pull } = await place();
    await pull();
    hub.seen.length = 0;
    expect((await pull()).files.map(({ downloaded }) => downloaded)).toEqual([0, 0, 0, 0, 0]);
    expect(hub.seen.every(({ path }) => path.startsWith("/api/"))).toBe(true);
    rmSync(weightsBlob(repo));
    const again = await pull();
    expect(again.files.filter(({ downloaded }) => downloaded > 0).map(({ name }) => name)).toEqual([
      "model.safetensors",
    ]);
  });

  test("of a new commit fetches the changed files, and the old snapshot stays", async () => {
    const { hub, repo, pull } = await place();
    const old = await pull();
    hub.commit = "2".repeat(40);
    hub.files.set("generation_config.json", new TextEncoder().encode("{}"));
    const { commit, files } = await pull();
    expect(commit).toBe(hub.commit);
    expect(files.filter(({ downloaded }) => downloaded > 0)).toEqual([
      { name: "generation_config.json", bytes: 2, downloaded: 2 },
    ]);
    expect(readFileSync(repo.ref("main"), "utf8")).toBe(hub.commit);
    expect(statSync(join(old.path, "model.safetensors")).size).toBe(WEIGHTS.length);
  });

  test("of a tag, a ref with slashes, or a commit, which is not looked up again", async () => {
    const { hub, repo, pull } = await place();
    await pull("v1");
    await pull("refs/pr/1");
    expect(readFileSync(join(repo.folder, "refs/v1"), "utf8")).toBe(COMMIT);
    expect(readFileSync(join(repo.folder, "refs/refs/pr/1"), "utf8")).toBe(COMMIT);
    hub.seen.length = 0;
    expect((await pull(COMMIT)).files).toHaveLength(NEEDED.length);
    expect(hub.seen).toEqual([]);
  });

  test("reports bytes up to the total", async () => {
    const { pull } = await place();
    const seen: HubProgress[] = [];
    const { files } = await pull("main", progress => seen.push(progress));
    const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(seen.every(({ totalBytes, doneBytes }) => totalBytes === total && doneBytes <= total)).toBe(true);
    expect(seen.at(-1)).toEqual({ state: "checking", file: "model.safetensors", doneBytes: total, totalBytes: total });
  });

  test("of a sharded model takes all shards and the index", async () => {
    const { hub, pull } = await place();
    hub.files = new Map(readdirSync(ODD).map(name => [name, readFileSync(join(ODD, name)) as Uint8Array]));
    const { files, path } = await pull();
    expect(files.map(({ name }) => name).sort()).toEqual(readdirSync(ODD).sort());
    // It has no tokenizer, and this is noted.
    expect(existsSync(join(dirname(path), "../.no_exist", COMMIT, "tokenizer.json"))).toBe(true);
    hub.seen.length = 0;
    await filesFromHub({ id: hub.id, revision: "main" }, { env: { HF_HUB_CACHE: join(path, "../../..") } });
    expect(hub.seen).toEqual([]);
  });

  test("puts the files into the snapshot where links cannot be made", async () => {
    const { hub, pull, env } = await place();
    const failing = vi
      .spyOn(fs.promises, "symlink")
      .mockRejectedValue(Object.assign(new Error("EPERM"), { code: "EPERM" }));
    syncBuiltinESMExports();
    onTestFinished(() => {
      failing.mockRestore();
      syncBuiltinESMExports();
    });
    const { path } = await pull();
    expect(failing).toHaveBeenCalled();
    expect(lstatSync(join(path, "model.safetensors")).isFile()).toBe(true);
    await hub.stop();
    expect((await openCheckpointFiles(hub.id, { env })).name).toBe(hub.id);
  });
});

describe("loading by name", () => {
  test("downloads once, quietly, and then needs no network", async () => {
    const { hub, env } = await place();
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    onTestFinished(() => void vi.unstubAllEnvs());
    const output = [
      vi.spyOn(process.stdout, "write"),
      vi.spyOn(process.stderr, "write"),
      vi.spyOn(console, "debug"),
      vi.spyOn(console, "info"),
    ];
    const guard = await Guard.load(hub.id);
    expect(guard.name).toBe("tiny-guard");
    const verdict = await guard.moderate("How can I make a bomb?");
    expect([verdict.safety, verdict.model]).toEqual(["Unsafe", "tiny-guard"]);
    guard.model.close();
    await hub.stop();
    const seen = hub.seen.length;
    (await Guard.load(hub.id)).model.close();
    (await Guard.load(`${hub.id}@${COMMIT}`)).model.close();
    expect(hub.seen).toHaveLength(seen);
    for (const spy of output) {
      expect(spy).not.toHaveBeenCalled();
      spy.mockRestore();
    }
  });

  test("finds the same model for a tokenizer as for a guard, and downloads all of it", async () => {
    const { hub, env, repo } = await place();
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    onTestFinished(() => void vi.unstubAllEnvs());
    const tokenizer = await Tokenizer.load(hub.id);
    expect(tokenizer.encode("hello", {})).toEqual((await Tokenizer.load(GEN)).encode("hello"));
    expect(await repo.missing(COMMIT)).toEqual([]);
    const seen = hub.seen.length;
    (await Guard.load(hub.id)).close();
    await Tokenizer.load(`${hub.id}@${COMMIT}`);
    expect(hub.seen).toHaveLength(seen);
  });

  test("a folder of that name wins", async () => {
    const { hub, env } = await place();
    const folder = temporaryFolder();
    mkdirSync(join(folder, "org"));
    symlinkSync(GEN, join(folder, hub.id));
    const before = process.cwd();
    onTestFinished(() => process.chdir(before));
    process.chdir(folder);
    const files = await openCheckpointFiles(hub.id, { env });
    expect(await files.readText("config.json")).toBe(readFileSync(join(GEN, "config.json"), "utf8"));
    expect(hub.seen).toEqual([]);
  });

  test("a model that Python downloaded is found: refs with or without a snapshot, absolute links", async () => {
    const { hub, repo, env } = await place();
    await hub.stop();
    mkdirSync(dirname(weightsBlob(repo)), { recursive: true });
    mkdirSync(repo.snapshot(COMMIT), { recursive: true });
    mkdirSync(dirname(repo.ref("main")), { recursive: true });
    writeFileSync(repo.ref("main"), COMMIT);
    for (const name of NEEDED) {
      const blob = repo.blob(etagOf(name, hub.files.get(name)!));
      writeFileSync(blob, hub.files.get(name)!);
      symlinkSync(blob, join(repo.snapshot(COMMIT), name));
    }
    expect(await (await openCheckpointFiles(hub.id, { env })).readText("config.json")).toContain("Qwen3ForCausalLM");
    rmSync(join(repo.snapshot(COMMIT), "tokenizer.json"));
    await expect(openCheckpointFiles(hub.id, { env: { ...env, HF_HUB_OFFLINE: "1" } })).rejects.toThrow(
      "a snapshot without tokenizer.json",
    );
  });

  test("an interrupted update leaves the old snapshot in use", async () => {
    const { hub, env, pull } = await place();
    const { path } = await pull();
    hub.commit = "2".repeat(40);
    hub.files.set(
      "model.safetensors",
      WEIGHTS.map(byte => byte ^ 1),
    );
    hub.storage = (request, response, content) => {
      sendCut(request, response, content, 100_000);
      return true;
    };
    await expect(pull()).rejects.toThrow("pulling again continues");
    const weights = await (await openCheckpointFiles(hub.id, { env })).open("model.safetensors");
    await weights!.close();
    expect((await pull(COMMIT)).path).toBe(path);
  });
});

describe("a connection that is cut", () => {
  test("is continued where it stopped, by a range, and no byte is sent twice", async () => {
    const { hub, pull } = await place();
    let cuts = 0;
    hub.storage = (request, response, content) => {
      if (!request.url?.includes("model.safetensors") || ++cuts > 2) return false;
      sendCut(request, response, content, 1_000_000);
      return true;
    };
    const { files } = await pull();
    const ranges = storageRequests(hub).map(({ range }) => range);
    expect(ranges).toHaveLength(3);
    expect(ranges[0]).toBeUndefined();
    const from = ranges.slice(1).map(range => Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1]));
    expect(from[0]).toBeGreaterThan(0);
    expect(from[1]).toBeGreaterThan(from[0]);
    expect(storageRequests(hub).at(-1)!.sent).toBe(WEIGHTS.length - from[1]);
    expect(files.at(-1)).toEqual({ name: "model.safetensors", bytes: WEIGHTS.length, downloaded: WEIGHTS.length });
  });

  test("again and again is an error, and the next pull continues", async () => {
    const { hub, repo, pull } = await place();
    hub.storage = (request, response, content) => {
      if (!request.url?.includes("model.safetensors")) return false;
      sendCut(request, response, content, 100_000);
      return true;
    };
    await expect(pull()).rejects.toThrow(
      /^org\/tiny-guard\/model\.safetensors: expected .*; the downloaded part is kept, and pulling again continues$/,
    );
    const kept = statSync(`${weightsBlob(repo)}.incomplete`).size;
    expect(kept).toBeGreaterThan(0);
    expect(existsSync(repo.ref("main"))).toBe(false);
    hub.seen.length = 0;
    delete hub.storage;
    const { files } = await pull();
    expect(storageRequests(hub).map(({ range, sent }) => [range, sent])).toEqual([
      [`bytes=${kept}-`, WEIGHTS.length - kept],
    ]);
    expect(files.filter(({ downloaded }) => downloaded > 0)).toEqual([
      { name: "model.safetensors", bytes: WEIGHTS.length, downloaded: WEIGHTS.length - kept },
    ]);
  });

  test("that only falls silent counts as cut too", async () => {
    const { hub, settings } = await place();
    let isFirst = true;
    hub.storage = (request, response, content) => {
      if (!isFirst || !request.url?.includes("model.safetensors")) return false;
      isFirst = false;
      response.writeHead(200, { "Content-Length": content.length }).write(content.subarray(0, 1_000_000));
      return true;
    };
    await pull({ id: hub.id, revision: "main" }, settings, undefined, { stallMs: 1000, retryDelayMs: 1 });
    expect(storageRequests(hub).map(({ range }) => range)).toEqual([undefined, "bytes=1000000-"]);
  });

  test.each<[string, NonNullable<HubStandIn["storage"]>]>([
    [
      "knows no ranges",
      (request, response, content) => {
        delete request.headers.range;
        sendContent(request, response, content);
        return true;
      },
    ],
    [
      "has no such range",
      (request, response) => {
        if (!request.headers.range) return false;
        response.writeHead(416).end("no");
        return true;
      },
    ],
    [
      "sends another range",
      (request, response, content) => {
        if (!request.headers.range) return false;
        response.writeHead(206, { "Content-Range": `bytes 0-9/${content.length}` }).end(content.subarray(0, 10));
        return true;
      },
    ],
    [
      "has a file of another length by now",
      (request, response, content) => {
        if (!request.headers.range) return false;
        response
          .writeHead(206, { "Content-Range": `bytes ${HALF}-${content.length}/${content.length + 1}` })
          .end(content.subarray(HALF));
        return true;
      },
    ],
  ])("a server that %s: the file is downloaded from the beginning", async (_, storage) => {
    const { hub, repo, pull } = await place();
    mkdirSync(dirname(weightsBlob(repo)), { recursive: true });
    writeFileSync(`${weightsBlob(repo)}.incomplete`, WEIGHTS.subarray(0, HALF));
    hub.storage = storage;
    const { path } = await pull();
    expect(readFileSync(join(path, "model.safetensors")).equals(WEIGHTS)).toBe(true);
    expect(storageRequests(hub)[0].range).toBe(`bytes=${HALF}-`);
  });

  test("if the kept part has other contents, one download from the beginning decides", async () => {
    const { hub, repo, pull } = await place();
    mkdirSync(dirname(weightsBlob(repo)), { recursive: true });
    writeFileSync(`${weightsBlob(repo)}.incomplete`, new Uint8Array(HALF));
    const { path } = await pull();
    expect(readFileSync(join(path, "model.safetensors")).equals(WEIGHTS)).toBe(true);
    expect(storageRequests(hub).map(({ range }) => range)).toEqual([`bytes=${HALF}-`, undefined]);
  });

  test("the kept part may be the whole file, or longer than it", async () => {
    const { hub, repo, pull } = await place();
    mkdirSync(dirname(weightsBlob(repo)), { recursive: true });
    writeFileSync(`${weightsBlob(repo)}.incomplete`, WEIGHTS);
    expect((await pull()).files.at(-1)).toMatchObject({ name: "model.safetensors", downloaded: 0 });
    expect(storageRequests(hub)).toEqual([]);
    rmSync(weightsBlob(repo));
    writeFileSync(`${weightsBlob(repo)}.incomplete`, Buffer.concat([WEIGHTS, WEIGHTS]));
    expect((await pull()).files.at(-1)).toMatchObject({ name: "model.safetensors", downloaded: WEIGHTS.length });
  });
});

describe("refused", () => {
  test.each(["model.safetensors", "config.json"])("a wrong checksum, and the file is removed: %s", async name => {
    const { hub, repo, pull } = await place();
    const right = hub.files.get(name)!;
    const wrong = right.map((byte, i) => (i === 100 ? byte ^ 1 : byte));
    const etag = etagOf(name, right);
    // The listing has the right checksum, and the servers have the wrong file.
    const entries = hub.files;
    hub.files = new Proxy(entries, {
      get: (target, key) => {
        if (key === "get") return (file: string) => (file === name ? wrong : target.get(file));
        const value = Reflect.get(target, key);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    await expect(pull()).rejects.toThrow(`org/tiny-guard/${name}: expected the checksum ${etag}, got `);
    expect(existsSync(`${repo.blob(etag)}.incomplete`)).toBe(false);
    expect(existsSync(repo.blob(etag))).toBe(false);
    expect(existsSync(join(repo.snapshot(COMMIT), name))).toBe(false);
    expect(existsSync(repo.ref("main"))).toBe(false);
  });

  test("more bytes than the listing says", async () => {
    const { hub, pull } = await place();
    hub.storage = (_request, response, content) => {
      response.writeHead(200).end(Buffer.concat([content, content]));
      return true;
    };
    await expect(pull()).rejects.toThrow(/tokenizer\.json: expected 273528 bytes, got more/);
  });

  test("names and checksums in the listing that would lead out of the cache", async () => {
    const { hub, env, pull } = await place();
    const oid = "a".repeat(40);
    const hostile = [
      "../config.json",
      "/etc/config.json",
      "model/../../x.safetensors",
      "..\\model.safetensors",
      "C:model.safetensors",
      "model/x.safetensors",
      "model\0.safetensors",
    ];
    hub.moreEntries = hostile.map(path => ({ type: "file", path, size: 3, oid }));
    // Beside a single file no shard is wanted, whatever its name, so this repository has no single file.
    hub.files = new Map(readdirSync(ODD).map(name => [name, readFileSync(join(ODD, name)) as Uint8Array]));
    const { files } = await pull();
    expect(files.map(({ name }) => name).sort()).toEqual(readdirSync(ODD).sort());
    expect(readdirSync(env.HF_HOME)).toEqual(["hub"]);
    expect(readdirSync(join(env.HF_HOME, "hub")).sort()).toEqual([".locks", "models--org--tiny-guard"]);

    for (const [entry, message] of [
      [{ oid: "../../../evil" }, "model-x.safetensors: expected a SHA-1 in the Hub's listing, got something else"],
      [{ oid, lfs: { oid: "../evil", size: 3 } }, "model-x.safetensors: expected a SHA-256 in the Hub's listing"],
      [{ oid, size: -1 }, "model-x.safetensors: expected a size in the Hub's listing"],
      [{ oid, size: "3" }, "model-x.safetensors: expected a size in the Hub's listing"],
    ] as const) {
      hub.moreEntries = [{ type: "file", path: "model-x.safetensors", size: 3, ...entry }];
      await expect(pull()).rejects.toThrow(message);
    }
    hub.moreEntries = [];
    hub.commit = "../../x";
    await expect(pull()).rejects.toThrow("expected a commit");
    hub.commit = "2".repeat(40);
    hub.aliases = ["3".repeat(40)];
    await expect(pull(hub.aliases[0])).rejects.toThrow("expected a commit");
  });

  test("a repository without a checkpoint, and a model, revision or file that does not exist", async () => {
    const { hub, settings, pull } = await place();
    await expect(pull("nope")).rejects.toThrow(
      'org/tiny-guard: expected a branch, tag or commit of it, got "nope" (404 from http://127.0.0.1:',
    );
    await expect(
      openCheckpointFiles("org/none", { env: { HF_HUB_CACHE: settings.cache, HF_ENDPOINT: hub.endpoint } }),
    ).rejects.toThrow('org/none: expected a model of the Hub, got no such model or revision "main" (404');
    hub.files.delete("model.safetensors");
    await expect(pull()).rejects.toThrow(
      "org/tiny-guard: expected a repository with config.json and model.safetensors (or its shards), got only config.json, generation_config.json, tokenizer.json, tokenizer_config.json",
    );
    hub.files = new Map([["data.csv", new Uint8Array(1)]]);
    await expect(pull()).rejects.toThrow("got none of its files");
  });

  test("a shard that the index names and the repository lacks", async () => {
    const { hub, pull } = await place();
    hub.files = new Map(readdirSync(ODD).map(name => [name, readFileSync(join(ODD, name)) as Uint8Array]));
    hub.files.delete("model-00002-of-00003.safetensors");
    await expect(pull()).rejects.toThrow(
      "expected a checkpoint, got a repository without model-00002-of-00003.safetensors",
    );
  });

  test("a private or gated model, with words for each", async () => {
    const { hub, settings, pull: pullMain } = await place();
    hub.gate = { token: "hf_right", status: 401, api: true };
    await expect(pullMain()).rejects.toThrow(/no such model, or one that needs HF_TOKEN, private or gated \(401 from/);
    hub.gate = { token: "hf_right", status: 403, code: "GatedRepo" };
    await expect(pullMain()).rejects.toThrow(
      /a gated model: accept its terms on \S+\/org\/tiny-guard, and set HF_TOKEN \(403/,
    );
    const main = { id: hub.id, revision: "main" };
    hub.gate = { token: "hf_right", status: 403, api: true };
    const refused = await pull(main, { ...settings, token: "hf_wrong" }).catch((error: Error) => error.message);
    expect(refused).toContain("expected a model that HF_TOKEN may read");
    expect(refused).not.toContain("hf_wrong");
    expect((await pull(main, { ...settings, token: "hf_right" })).files).toHaveLength(NEEDED.length);
  });

  test("a server in trouble, or one that is not a Hub", async () => {
    const { hub, settings, pull: pullMain } = await place();
    hub.gate = { token: "x", status: 503, api: true };
    await expect(pullMain()).rejects.toThrow(
      /expected an answer from http:\S+, got status 503; offline\? no complete snapshot is in the cache/,
    );
    const endpoint = await startServer((request, response) => {
      if (request.url?.startsWith("/api/models/a/b"))
        response.writeHead(200).end("<html>Please log in to this network</html>");
      else if (request.url?.includes("/api/models/e/f/revision"))
        response.writeHead(200).end(JSON.stringify({ sha: COMMIT }));
      else if (request.url?.startsWith("/api/models/e/f/tree")) {
        const page = Array.from({ length: 1000 }, (_, i) => ({ type: "file", path: `${i}.txt`, size: 1 }));
        response
          .writeHead(200, { Link: `<http://${request.headers.host}${request.url}>; rel="next"` })
          .end(JSON.stringify(page));
      } else response.writeHead(302, { Location: "/again" }).end();
    });
    const from = (id: string) => pull({ id, revision: "main" }, { ...settings, endpoint });
    await expect(from("a/b")).rejects.toThrow(`a/b: expected the Hub's JSON from ${endpoint}, got `);
    await expect(from("e/f")).rejects.toThrow("e/f: expected at most 10000 files, got a longer listing");
    await expect(from("c/d")).rejects.toThrow("c/d: expected a file, got endless redirects");
  });
});

describe("the token", () => {
  test("goes to the Hub and not to where it redirects", async () => {
    const { hub, settings } = await place();
    hub.gate = { token: "secret", status: 401, api: true };
    await pull({ id: hub.id, revision: "main" }, { ...settings, token: "secret" });
    const sent = (server: string) =>
      new Set(hub.seen.filter(request => request.server === server).map(({ authorization }) => authorization));
    expect([...sent("hub")]).toEqual(["Bearer secret"]);
    expect([...sent("storage")]).toEqual([undefined]);
  });

  test("does not follow the listing to its next page elsewhere", async () => {
    const { hub, settings } = await place();
    const elsewhere: (string | undefined)[] = [];
    const endpoint = await startServer((request, response) => {
      elsewhere.push(request.headers.authorization);
      response.writeHead(200, { "Content-Type": "application/json" }).end("[]");
    });
    hub.nextPage = `${endpoint}/page2`;
    expect((await pull({ id: hub.id, revision: "main" }, { ...settings, token: "secret" })).files).toHaveLength(
      NEEDED.length,
    );
    expect(elsewhere).toEqual([undefined]);
  });
});

describe("without the network", () => {
  test("HF_HUB_OFFLINE asks nobody: a complete model is used, and missing files are named", async () => {
    const { hub, env, repo, pull: pullOnline } = await place();
    const offline = await hubSettings({ ...env, HF_HUB_OFFLINE: "1" });
    const main = { id: hub.id, revision: "main" };
    await expect(pull(main, offline)).rejects.toThrow(
      `org/tiny-guard: expected it in the cache, since HF_HUB_OFFLINE is set, got nothing (in ${repo.folder})`,
    );
    const online = await pullOnline();
    hub.seen.length = 0;
    expect((await pull(main, offline)).files).toEqual(online.files.map(file => ({ ...file, downloaded: 0 })));
    rmSync(join(online.path, "model.safetensors"));
    await expect(pull(main, offline)).rejects.toThrow("got a snapshot without model.safetensors (in ");
    await expect(pull({ ...main, revision: "v1" }, offline)).rejects.toThrow("got nothing");
    expect(hub.seen).toEqual([]);
  });

  test("the error for a Hub that cannot be reached names the cache", async () => {
    const { hub, env, repo, pull } = await place();
    await hub.stop();
    const message = `; offline? no complete snapshot is in the cache (${repo.folder})`;
    await expect(pull()).rejects.toThrow(message);
    await expect(openCheckpointFiles(hub.id, { env })).rejects.toThrow(message);
  });
});

describe("two at once", () => {
  test("the second waits, and nothing is downloaded twice", async () => {
    const { hub, pull } = await place();
    const waited: string[] = [];
    const both = await Promise.all([0, 1].map(() => pull("main", ({ state }) => waited.push(state))));
    expect(both[0].path).toBe(both[1].path);
    const sum = (pulled: Pulled): number => pulled.files.reduce((total, { downloaded }) => total + downloaded, 0);
    expect(sum(both[0]) + sum(both[1])).toBe(both[0].files.reduce((total, { bytes }) => total + bytes, 0));
    expect(waited).toContain("waiting");
    expect(storageRequests(hub)).toHaveLength(1);
  });

  test("a lock from another machine is taken over when nobody has touched it for half a minute", async () => {
    const { hub, repo, settings } = await place();
    mkdirSync(dirname(repo.lock), { recursive: true });
    writeFileSync(repo.lock, JSON.stringify({ pid: process.pid, host: "elsewhere.invalid", id: "x" }));
    const now = performance.now.bind(performance);
    let skipped = 0;
    const clock = vi.spyOn(performance, "now").mockImplementation(() => now() + skipped);
    onTestFinished(() => clock.mockRestore());
    const states: string[] = [];
    await pull({ id: hub.id, revision: "main" }, settings, ({ state }) => {
      states.push(state);
      if (state === "waiting") skipped = 31_000;
    });
    expect(states[0]).toBe("waiting");
    expect(states.at(-1)).toBe("checking");
  });

  test("a lock whose process is gone is taken over", async () => {
    const { repo, pull } = await place();
    mkdirSync(dirname(repo.lock), { recursive: true });
    const gone = spawnSync(process.execPath, ["-e", "console.log(process.pid, require('os').hostname())"], {
      encoding: "utf8",
    }).stdout.trim();
    const [pid, host] = gone.split(" ");
    writeFileSync(repo.lock, JSON.stringify({ pid: Number(pid), host, id: "x" }));
    expect((await pull()).files).toHaveLength(NEEDED.length);
    expect(readdirSync(dirname(repo.lock))).toEqual([]);
  });
});

test("the checksums of the stand-in are git's and SHA-256", () => {
  // git hash-object of "hello\n", as git prints it
  expect(etagOf("a.json", new TextEncoder().encode("hello\n"))).toBe("ce013625030ba8dba906f756967f9e9ca394464a");
  expect(etagOf("model.safetensors", WEIGHTS)).toBe(createHash("sha256").update(WEIGHTS).digest("hex"));
  expect([...checkpointFiles().keys()]).toEqual(expect.arrayContaining(NEEDED));
});
