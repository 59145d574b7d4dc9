/**
 * `qwen3guard pull` and `--model HUB_ID`, as people and scripts use them, and as processes that are killed or run at
 * the same time.
 */

import { type ChildProcess, spawn } from "node:child_process";
import fs, { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { HubProgress } from "../../src/checkpoint/hub/id.ts";
import { downloadProgress } from "../../src/cli/download-progress.ts";
import { GEN } from "../checkpoints.ts";
import { projectPath } from "../helpers.ts";
import { COMMIT, type HubStandIn, startHub } from "../hub-stand-in.ts";
import { cli, temporaryFolder } from "./harness.ts";

const MAIN = projectPath("src/cli/main.ts");
const BYTES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
  .map(name => statSync(join(GEN, name)).size)
  .reduce((a, b) => a + b);

async function place(): Promise<{ hub: HubStandIn; env: Record<string, string>; repo: string; snapshot: string }> {
  const hub = await startHub();
  const env = { HF_HOME: temporaryFolder(), HF_ENDPOINT: hub.endpoint };
  const repo = join(env.HF_HOME, "hub", "models--org--tiny-guard");
  return { hub, env, repo, snapshot: join(repo, "snapshots", COMMIT) };
}

describe("pull", () => {
  test("prints the folder, which --model takes, and nothing else", async () => {
    const { hub, env, snapshot } = await place();
    expect(await cli(["pull", hub.id], { env })).toEqual({ status: 0, out: `${snapshot}\n`, err: "" });
    const { out } = await cli(["inspect", snapshot, "--json"], { env });
    expect(JSON.parse(out)).toMatchObject({ name: snapshot, files: ["model.safetensors"] });
  });

  test("--json says which files there are and what was fetched now", async () => {
    const { hub, env, snapshot } = await place();
    const { out } = await cli(["pull", `${hub.id}@v1`, "--json"], { env });
    expect(out.split("\n")).toHaveLength(2);
    const report = JSON.parse(out);
    expect(Object.keys(report)).toEqual(["id", "revision", "commit", "path", "files", "bytes", "ms"]);
    expect(report).toMatchObject({
      id: hub.id,
      revision: "v1",
      commit: COMMIT,
      path: snapshot,
      bytes: BYTES,
      ms: expect.any(Number),
    });
    expect(report.files).toContainEqual({ name: "model.safetensors", bytes: 5_145_792, downloaded: 5_145_792 });
    const again = JSON.parse((await cli(["pull", `${hub.id}@v1`, "--json"], { env })).out);
    expect(again.files).toContainEqual({ name: "model.safetensors", bytes: 5_145_792, downloaded: 0 });
  });

  test("shows progress if stderr is a terminal, unless quiet, and removes it in the end", async () => {
    const { hub, env } = await place();
    const { err } = await cli(["pull", hub.id], { env, errColumns: 60 });
    const lines = err.split("\r").map(line => line.replace("\u001b[K", ""));
    expect(lines.some(line => /^\d+ % of 5\.4 MB {2}/.test(line))).toBe(true);
    expect(lines.at(-1)).toBe("");
    expect(Math.max(...lines.map(line => line.length))).toBeLessThan(60);
    const quiet = await place();
    expect((await cli(["pull", quiet.hub.id, "--quiet"], { env: quiet.env, errColumns: 60 })).err).toBe("");
  });

  test("failures are status 1 and one line, without the token", async () => {
    const { hub, env } = await place();
    const fails = async (id: string, message: string, more: Record<string, string> = {}): Promise<void> => {
      const outcome = await cli(["pull", id], { env: { ...env, ...more } });
      expect(outcome).toMatchObject({ status: 1, out: "" });
      expect(outcome.err).toMatch(/^qwen3guard: [^\n]+\n$/);
      expect(outcome.err).toContain(message);
      expect(outcome.err).not.toContain("hf_secret");
    };
    await fails("org/none", "org/none: expected a model of the Hub, got no such model");
    await fails(`${hub.id}@none`, 'expected a branch, tag or commit of it, got "none"');
    await fails(hub.id, "HF_HUB_OFFLINE is set", { HF_HUB_OFFLINE: "1" });
    hub.gate = { token: "hf_other", status: 403, code: "GatedRepo" };
    await fails(hub.id, "a gated model", { HF_TOKEN: "hf_secret" });
    delete hub.gate;
    await fails(hub.id, "a path through something that is not a folder", {
      HF_HUB_CACHE: join(temporaryFolder({ file: "" }), "file", "hub"),
    });
    const full = fs.promises.open;
    const open = vi.spyOn(fs.promises, "open").mockImplementation(async (path, ...rest) => {
      const handle = await full(path, ...rest);
      if (String(path).endsWith(".incomplete")) {
        handle.write = () => Promise.reject(Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" }));
      }
      return handle;
    });
    syncBuiltinESMExports();
    onTestFinished(syncBuiltinESMExports);
    await fails(
      hub.id,
      "expected a folder to write to, got a full disk; the downloaded part is kept, and pulling again continues",
    );
    open.mockRestore();
  });
});

describe("--model HUB_ID", () => {
  test("downloads with progress, then answers; the second time without the network", async () => {
    const { hub, env } = await place();
    const moderate = ["moderate", "How can I make a bomb?", "--json", "--model", hub.id];
    const first = await cli(moderate, { env, errColumns: 80 });
    expect(first.status).toBe(0);
    expect(first.err).toContain("% of 5.4 MB");
    await hub.stop();
    const { out, err } = await cli(["moderate", "How can I make a bomb?", "--json"], {
      env: { ...env, QWEN3GUARD_MODEL: hub.id },
      errColumns: 80,
    });
    expect(err).toBe("");
    expect(JSON.parse(out)).toMatchObject({ safety: "Unsafe", model: "tiny-guard", text: JSON.parse(first.out).text });
    const inspection = JSON.parse((await cli(["inspect", hub.id, "--json"], { env })).out);
    expect(inspection).toMatchObject({ name: hub.id, files: ["model.safetensors"] });
  });
});

describe("as a process", () => {
  interface Ended {
    readonly status: number | null;
    readonly signal: string | null;
    readonly out: string;
    readonly err: string;
  }

  function start(args: readonly string[], env: Record<string, string>): { child: ChildProcess; ended: Promise<Ended> } {
    const child = spawn(process.execPath, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    let [out, err] = ["", ""];
    child.stdout?.on("data", chunk => {
      out += chunk;
    });
    child.stderr?.on("data", chunk => {
      err += chunk;
    });
    const ended = new Promise<Ended>(resolve =>
      child.on("close", (status, signal) => resolve({ status, signal, out, err })),
    );
    return { child, ended };
  }

  test.each(["SIGINT", "SIGKILL"] as const)(
    "killed by %s in the middle of a file, it continues the next time",
    async signal => {
      const { hub, env, repo, snapshot } = await place();
      // Sends the first 2 MB, then nothing until the process is gone.
      let stalled = (): void => {};
      const isStalled = new Promise<void>(resolve => {
        stalled = resolve;
      });
      hub.storage = (request, response, content) => {
        if (!request.url?.includes("model.safetensors")) return false;
        response.writeHead(200, { "Content-Length": content.length });
        response.write(content.subarray(0, 2_000_000), () => stalled());
        return true;
      };
      const { child, ended } = start([MAIN, "pull", hub.id], env);
      await isStalled;
      const kept = (): string | undefined =>
        readdirSync(join(repo, "blobs")).find(name => name.endsWith(".incomplete"));
      await vi.waitUntil(() => statSync(join(repo, "blobs", kept()!)).size === 2_000_000, { timeout: 60_000 });
      child.kill(signal);
      expect(await ended).toMatchObject({ signal, out: "" });
      expect(existsSync(join(snapshot, "model.safetensors"))).toBe(false);

      delete hub.storage;
      hub.seen.length = 0;
      const { status, out } = await start([MAIN, "pull", hub.id], env).ended;
      expect([status, out]).toEqual([0, `${snapshot}\n`]);
      expect(hub.seen.filter(({ server }) => server === "storage").map(({ range, sent }) => [range, sent])).toEqual([
        ["bytes=2000000-", 3_145_792],
      ]);
      expect(
        readFileSync(join(snapshot, "model.safetensors")).equals(readFileSync(join(GEN, "model.safetensors"))),
      ).toBe(true);
      expect(kept()).toBeUndefined();
    },
  );

  test("of two at once both succeed, and one downloads", async () => {
    const { hub, env, snapshot } = await place();
    const both = await Promise.all([0, 1].map(() => start([MAIN, "pull", hub.id, "--json"], env).ended));
    expect(both.map(({ status, err }) => [status, err])).toEqual([
      [0, ""],
      [0, ""],
    ]);
    expect(hub.seen.filter(({ path }) => path.includes("/signed/model.safetensors"))).toHaveLength(1);
    expect(readFileSync(join(snapshot, "model.safetensors")).equals(readFileSync(join(GEN, "model.safetensors")))).toBe(
      true,
    );
  });

  test("a folder loads no code for the Hub, and a cached model does not load the package that downloads", async () => {
    const { hub, env } = await place();
    expect((await cli(["pull", hub.id], { env })).status).toBe(0);
    // Prints every resolved module that has to do with the Hub, by the oldest kind of loader hook, which every Node
    // from 20 on has.
    const hooks = `export async function resolve(name, context, next) {
      const found = await next(name, context);
      if (/hub/.test(found.url.replace(/^.*\\/(src|node_modules)\\//, ""))) process._rawDebug(found.url.replace(/^.*\\//, ""));
      return found; }`;
    const program = join(temporaryFolder(), "load.mjs");
    writeFileSync(
      program,
      `import { register } from "node:module";
       register("data:text/javascript," + encodeURIComponent(${JSON.stringify(hooks)}));
       const { Guard } = await import(${JSON.stringify(projectPath("src/guard/guard.ts"))});
       (await Guard.load(process.argv[2], { threads: 1 })).model.close();`,
    );
    const loaded = async (source: string): Promise<string[]> => {
      const { status, err } = await start(["--no-deprecation", program, source], env).ended;
      expect(status).toBe(0);
      return [...new Set(err.split("\n").filter(line => line !== ""))];
    };
    expect(await loaded(GEN)).toEqual(["id.ts"]);
    expect(await loaded(hub.id)).toEqual(["id.ts", "files.node.ts", "cache.node.ts"]);
  });
});

describe("the progress line", () => {
  const at = (doneBytes: number, state: HubProgress["state"] = "downloading"): HubProgress => ({
    state,
    file: "model.safetensors",
    doneBytes,
    totalBytes: 2e9,
  });

  function draw(columns: number, steps: readonly (readonly [number, HubProgress])[]): string[] {
    const drawn: string[] = [];
    let time = 0;
    const line = downloadProgress({}, { err: text => drawn.push(text), errColumns: columns }, () => time);
    for (const [ms, progress] of steps) {
      time = ms;
      line.show(progress);
    }
    line.clear();
    return drawn.map(text => text.replace(/^\r|\u001b\[K$/g, ""));
  }

  test("rate and time left come from the last seconds; bytes that were there before do not count", () => {
    const lines = draw(80, [
      [0, at(1e9)],
      [1000, at(1e9 + 10e6)],
      [1050, at(1e9 + 11e6)], // too soon to be drawn
      [2000, at(1e9 + 20e6)],
      [10_000, at(1.1e9)],
      [20_000, at(1.1e9 + 1e6)],
    ]);
    expect(lines).toEqual([
      "50 % of 2.00 GB  model.safetensors",
      "50 % of 2.00 GB  10.0 MB/s  1:39 left  model.safetensors",
      "51 % of 2.00 GB  10.0 MB/s  1:38 left  model.safetensors",
      "55 % of 2.00 GB  10.0 MB/s  1:30 left  model.safetensors",
      "55 % of 2.00 GB  100 kB/s  2:29:50 left  model.safetensors",
      "",
    ]);
  });

  test("waiting, checking, a file that starts again, a narrow terminal", () => {
    expect(draw(80, [[0, at(0, "waiting")]])[0]).toBe("waiting for another process that downloads this model");
    expect(draw(80, [[0, at(2e9, "checking")]])[0]).toBe("100 % of 2.00 GB  checking  model.safetensors");
    expect(
      draw(30, [
        [0, at(1e9)],
        [1000, at(5e8)],
      ]),
    ).toEqual(["50 % of 2.00 GB  model.safete", "25 % of 2.00 GB  model.safete", ""]);
  });
});
