/**
 * The Hub's cache on disk: what the environment says about it, where things are in it, and what a snapshot lacks.
 */

import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { CachedRepo, hubSettings } from "../../../src/checkpoint/hub/cache.node.ts";
import { temporaryFolder } from "../../cli/harness.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

describe("the environment", () => {
  test.each<[Record<string, string>, string]>([
    [{ HF_HOME: "~" }, join(homedir(), "hub")],
    [{ HF_HOME: "~someone/h" }, resolve("~someone/h/hub")],
    [{ HF_HOME: "/a/~/h" }, resolve("/a/~/h/hub")],
    [{ HF_HOME: "", XDG_CACHE_HOME: "/x" }, resolve("/x/huggingface/hub")],
    [{ HF_HOME: "/h", HF_HUB_CACHE: "", HUGGINGFACE_HUB_CACHE: "~/old" }, join(homedir(), "old")],
    [{ HF_HOME: "/h", HF_HUB_CACHE: "~/c", HUGGINGFACE_HUB_CACHE: "/old" }, join(homedir(), "c")],
    [{ HF_HOME: "h" }, resolve("h/hub")],
  ])("the cache under %j", async (env, cache) => {
    expect((await hubSettings({ HF_TOKEN: "t", ...env })).cache).toBe(cache);
  });

  test.each<[string | undefined, string]>([
    [undefined, "https://huggingface.co"],
    ["", "https://huggingface.co"],
    ["https://h//", "https://h"],
    ["http://h/a/", "http://h/a"],
  ])("the endpoint %j", async (HF_ENDPOINT, endpoint) => {
    expect((await hubSettings({ HF_TOKEN: "t", HF_ENDPOINT })).endpoint).toBe(endpoint);
  });

  test.each(["h", "xhttps://h", "ftp://h", "https://[", "https:/h"])("not an endpoint: %s", async HF_ENDPOINT => {
    await expect(hubSettings({ HF_TOKEN: "t", HF_ENDPOINT })).rejects.toThrow(
      new RangeError(`HF_ENDPOINT: expected a URL of http or https, got ${HF_ENDPOINT}`),
    );
  });

  test("HF_HUB_OFFLINE is set by these words", async () => {
    const offline = async (HF_HUB_OFFLINE?: string): Promise<boolean> =>
      (await hubSettings({ HF_TOKEN: "t", HF_HUB_OFFLINE })).offline;
    for (const yes of ["1", "on", "ON", "yes", "True"]) expect(await offline(yes)).toBe(true);
    for (const no of [undefined, "", "0", "off", "10", "x1", "yesno"]) expect(await offline(no)).toBe(false);
  });

  test.each(["a b", "a\tb", "é", "\x7f", "a\r\nX: y"])("the token %j is refused", async HF_TOKEN => {
    await expect(hubSettings({ HF_TOKEN })).rejects.toThrow(
      new RangeError("HF_TOKEN: expected a token, got characters that no token has"),
    );
  });

  test("white space around a token does not belong to it, and an empty token counts as none", async () => {
    expect((await hubSettings({ HF_TOKEN: " !~ \n" })).token).toBe("!~");
    expect((await hubSettings({ HF_TOKEN: " " })).token).toBeUndefined();
  });
});

describe("a model's folder", () => {
  const place = async () => {
    const HF_HUB_CACHE = temporaryFolder();
    const settings = await hubSettings({ HF_TOKEN: "t", HF_HUB_CACHE });
    return { cache: HF_HUB_CACHE, repo: new CachedRepo({ id: "org/name", revision: "main" }, settings) };
  };
  const put = (path: string, content: string = ""): void => {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  };

  test("has the layout of huggingface_hub", async () => {
    const { cache, repo } = await place();
    const folder = join(cache, "models--org--name");
    expect([repo.folder, repo.lock]).toEqual([folder, join(cache, ".locks/models--org--name/pull.lock")]);
    expect(repo.blob("e")).toBe(join(folder, "blobs/e"));
    expect(repo.snapshot("c")).toBe(join(folder, "snapshots/c"));
    expect(repo.ref("refs/pr/1")).toBe(join(folder, "refs/refs/pr/1"));
    expect(repo.noExist("c", "f")).toBe(join(folder, ".no_exist/c/f"));
  });

  test("takes a revision's commit from its ref, if that holds one", async () => {
    const { repo } = await place();
    expect([await repo.commit(COMMIT), await repo.commit("main")]).toEqual([COMMIT, undefined]);
    put(repo.ref("main"), `${COMMIT}\n`);
    put(repo.ref("v1"), "../../evil");
    expect([await repo.commit("main"), await repo.commit("v1")]).toEqual([COMMIT, undefined]);
  });

  test("lacks what is neither a file nor a working link, and is not noted as absent", async () => {
    const { repo } = await place();
    const file = (name: string): string => join(repo.snapshot(COMMIT), name);
    const missing = (): Promise<string[]> => repo.missing(COMMIT);
    expect(await missing()).toEqual(["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]);
    put(file("config.json"));
    put(repo.noExist(COMMIT, "tokenizer.json"));
    symlinkSync("nowhere", file("tokenizer_config.json"));
    mkdirSync(file("model.safetensors"));
    expect(await missing()).toEqual(["tokenizer_config.json", "model.safetensors"]);
    put(join(repo.snapshot(COMMIT), "nowhere"));
    put(file("model.safetensors.index.json"), '{"weight_map":{"a":"s1","b":"s2","c":"s1"}}');
    expect(await missing()).toEqual(["s1", "s2"]);
    put(file("s2"));
    expect(await missing()).toEqual(["s1"]);
    put(file("s1"));
    expect(await missing()).toEqual([]);
    // It is refused, by name, when the checkpoint is opened.
    put(file("model.safetensors.index.json"), "{");
    expect(await missing()).toEqual([]);
  });

  test("with the single file needs no shard, whatever an index says", async () => {
    const { repo } = await place();
    for (const name of ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
      put(join(repo.snapshot(COMMIT), name));
    put(join(repo.snapshot(COMMIT), "model.safetensors.index.json"), '{"weight_map":{"a":"s1"}}');
    expect(await repo.missing(COMMIT)).toEqual([]);
  });
});
