/**
 * The published package: packed, installed into an empty folder, and used there as a stranger would.
 *
 * Runs on this Node; `npm run test:nodes` fetches the other supported versions and runs it on each.
 */

import { execFile, execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { CHROMIUM, type Page, startBrowser } from "./browser.ts";
import { projectPath, readJsonLines } from "./helpers.ts";
import { startHub } from "./hub-stand-in.ts";
import { installPackage, npm } from "./installed-package.ts";

const NODES = (process.env.QWEN3GUARD_NODES ?? process.execPath).split(":");
const MAX_PACKED_BYTES = 8 * 2 ** 20;

const home = mkdtempSync(join(tmpdir(), "qwen3guard package "));
const user = join(home, "user");
const installed = join(user, "node_modules", "qwen3guard");
let tarball = "";

/** Runs a program on one of the Nodes in the user's folder; stderr must stay empty unless it is returned. */
function runOn(
  node: string,
  args: readonly string[],
  input: string = "",
): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(node, args, { cwd: user, input, encoding: "utf8" });
  return { status, stdout, stderr };
}

beforeAll(() => {
  ({ tarball } = installPackage(home));
});

afterAll(() => rmSync(home, { recursive: true, force: true }));

describe("what is in it", () => {
  test("it is below 8 MB, and holds the demo guard, the licences, the documents and no test", () => {
    expect(statSync(tarball).size).toBeLessThan(MAX_PACKED_BYTES);
    expect(readdirSync(installed).sort()).toEqual([
      "CHANGELOG.md",
      "CONTRIBUTING.md",
      "LICENSE",
      "README.md",
      "SECURITY.md",
      "dist",
      "docs",
      "examples",
      "models",
      "package.json",
      "src",
    ]);
    expect(readdirSync(join(installed, "models", "tiny-guard-gen"))).toContain("model.safetensors");
    const licences = readFileSync(join(installed, "dist", "vendor", "LICENCES.md"), "utf8");
    for (const name of [
      "@hono/node-server",
      "@huggingface/hub",
      "@huggingface/jinja",
      "commander",
      "hono",
      "picocolors",
    ])
      expect(licences).toContain(`## ${name} `);
  });

  test("the README's links lead somewhere in it", () => {
    const readme = readFileSync(join(installed, "README.md"), "utf8");
    const targets = [...readme.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
      .map(m => m[1])
      .filter(target => !/^https?:/.test(target));
    expect(targets.length).toBeGreaterThan(10);
    expect(targets.filter(target => !existsSync(join(installed, target)))).toEqual([]);
  });

  test("installing it installs nothing else and runs no script", () => {
    expect(readdirSync(join(user, "node_modules")).filter(name => !name.startsWith("."))).toEqual(["qwen3guard"]);
    const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
    for (const key of ["dependencies", "optionalDependencies", "peerDependencies", "bundleDependencies"])
      expect(manifest[key]).toBeUndefined();
    for (const script of ["preinstall", "install", "postinstall", "prepare"])
      expect(manifest.scripts[script]).toBeUndefined();
  });

  test("its types serve a strict program that knows of no other package", () => {
    writeFileSync(
      join(user, "user.ts"),
      `import { Guard, type Verdict } from "qwen3guard";
       import { SafetensorsFile } from "qwen3guard/tensor";
       import { Tokenizer } from "qwen3guard/tokenizer";
       import { Qwen3 } from "qwen3guard/model";
       import { parseAnswer } from "qwen3guard/guard";
       import { createHandler } from "qwen3guard/server";
       export const verdict: Verdict = await (await Guard.load()).moderate({ prompt: "a", response: "b" });
       export const parts = [SafetensorsFile, Tokenizer, Qwen3, parseAnswer, createHandler];
       // @ts-expect-error a level is one of three, or null
       export const level: "Maybe" = verdict.safety;`,
    );
    const tsc = projectPath("node_modules/typescript/bin/tsc");
    const options = "--noEmit --strict --target es2022 --module nodenext".split(" ");
    const surroundings = [
      ["--lib", "es2022,dom", "--types", ""],
      // Node's alone, in which some of the web's names are values and no types.
      ["--lib", "es2023", "--types", "node", "--typeRoots", projectPath("node_modules/@types")],
    ];
    for (const surrounding of surroundings) {
      expect(runOn(process.execPath, [tsc, ...options, ...surrounding, "user.ts"])).toMatchObject({
        status: 0,
        stdout: "",
      });
    }
  });
});

describe.each(NODES)("on %s", node => {
  test("the core entry points load without touching node:", () => {
    // A loader hook that refuses node: modules, set before the entry points are imported.
    const program = `
      import { register } from "node:module";
      register("data:text/javascript," + encodeURIComponent(
        'export async function resolve(name, context, next) {' +
        '  if (name.startsWith("node:")) throw new Error("touched " + name + " from " + context.parentURL);' +
        '  return next(name, context); }'));
      for (const entry of ["", "/tensor", "/tokenizer", "/model", "/guard", "/server"]) await import("qwen3guard" + entry);
      console.log("loaded");`;
    // Node 26 deprecates the hook that 20 needs.
    expect(runOn(node, ["--no-deprecation", "--input-type=module", "--eval", program])).toEqual({
      status: 0,
      stdout: "loaded\n",
      stderr: "",
    });
  });

  test("three lines give a verdict, and nothing is printed by the library", () => {
    const program = `
      import { Guard } from "qwen3guard";
      const guard = await Guard.load();
      const { safety, categories, scores } = await guard.moderate("How can I make a bomb?");
      console.log(JSON.stringify({ safety, categories, scores }));`;
    const { status, stdout, stderr } = runOn(node, ["--input-type=module", "--eval", program]);
    expect([status, stderr]).toEqual([0, ""]);
    expect(JSON.parse(stdout)).toMatchObject({ safety: "Unsafe", categories: ["Violent"] });
    expect(stdout).toMatchInlineSnapshot(`
      "{"safety":"Unsafe","categories":["Violent"],"scores":{"Safe":0.0003937864676117897,"Unsafe":0.9995303153991699,"Controversial":0.00007592155452584848}}
      "
    `);
  });

  test("the command works", () => {
    const command = join(user, "node_modules", ".bin", "qwen3guard");
    expect(
      JSON.parse(runOn(node, [command, "moderate", "How can I make a bomb?", "--json", "--quiet"]).stdout).safety,
    ).toBe("Unsafe");
    expect(runOn(node, [command, "moderate", "--nope"]).status).toBe(2);
  });

  test("it serves, with what is bundled, until it is told to stop", async () => {
    const command = join(user, "node_modules", ".bin", "qwen3guard");
    const child = spawn(node, [command, "serve", "--port", "0", "--quiet"]);
    const ended = new Promise(resolve => child.on("close", resolve));
    const line: string = await new Promise(resolve => child.stderr.once("data", chunk => resolve(String(chunk))));
    const [, url] = /^listening on (http:\/\/127\.0\.0\.1:\d+)\n$/.exec(line) ?? expect.fail(line);
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ messages: [{ role: "user", content: "How can I make a bomb?" }], stream: true });
    const stream = await (await fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body })).text();
    expect(stream).toContain('"content":" Unsafe"');
    expect(stream.endsWith("data: [DONE]\n\n")).toBe(true);
    expect(await (await fetch(url)).text()).toContain("<h1>qwen3guard</h1>");
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  });

  test("it pulls from a Hub, with what is bundled", async () => {
    const hub = await startHub();
    const command = join(user, "node_modules", ".bin", "qwen3guard");
    const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HOME: mkdtempSync(join(home, "hf ")) };
    const { stdout, stderr } = await promisify(execFile)(node, [command, "pull", hub.id], { env });
    expect(stderr).toBe("");
    expect(readFileSync(join(stdout.trim(), "config.json"))).toEqual(
      readFileSync(projectPath("models/tiny-guard-gen/config.json")),
    );
  });

  test("logits are the same bits on every version, for every form of weights: pinned", () => {
    const command = join(user, "node_modules", ".bin", "qwen3guard");
    const lines = readJsonLines<{ ids: number[] }>("test/goldens/tiny-guard-gen/logits.jsonl");
    const input = lines.map(({ ids }) => JSON.stringify({ ids })).join("\n");
    const hashes = ["checkpoint", "int8", "int4"].map(weights => {
      const record = [
        command,
        "golden",
        "record",
        "--input",
        "-",
        "--out",
        "-",
        "--max-new-tokens",
        "3",
        "--quiet",
        "--weights",
        weights,
      ];
      const { stdout } = runOn(node, record, input);
      expect(stdout.trimEnd().split("\n")).toHaveLength(lines.length);
      return createHash("sha256").update(stdout).digest("hex");
    });
    expect(hashes).toMatchInlineSnapshot(`
      [
        "06048bcbe2234d1ad3f8411d0bc94a050fc448513d5c6d73f7e8d578d2546e14",
        "90a461b88bf7b860e099ebdff797202a50e677b2bc64b35f1f61d4aba92bdc7d",
        "5cb7347751f7c5a6e800d408a89866e72865d035bf11129111e1278f17b71259",
      ]
    `);
  });

  test("200 random cases of threads, chunking and cache state give the readable engine's bits: pinned", () => {
    const program = `
      import { createHash } from "node:crypto";
      import { Qwen3 } from "qwen3guard/model";
      const [folder] = process.argv.slice(-1);
      const reference = (await Qwen3.load(folder, { engine: "reference" })).newSession();
      const models = await Promise.all([1, 2, 3].map(threads => Qwen3.load(folder, { engine: "wasm", threads })));
      const sessions = models.flatMap(model => [model.newSession(), model.newSession()]);
      let state = 1;
      const random = n => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % n;
      const hash = createHash("sha256");
      const sameBits = (a, b) => Buffer.compare(Buffer.from(a.buffer, a.byteOffset, a.byteLength), Buffer.from(b.buffer, b.byteOffset, b.byteLength)) === 0;
      for (let i = 0; i < 200; i++) {
        const session = sessions[random(sessions.length)];
        const family = random(4);
        const ids = Array.from({ length: 1 + random(60) }, (_, k) => (k * 37 + (k > 25 ? family * 11 : 3)) % 331);
        for (const s of [session, reference]) s.truncate(Math.min(s.commonPrefix(ids), ids.length - 1));
        let logits;
        while (session.position < ids.length) logits = session.forward(ids.slice(session.position, session.position + 1 + random(20)));
        if (!sameBits(logits, reference.forward(ids.slice(reference.position)))) throw new Error("case " + i + " differs");
        hash.update(new Uint8Array(logits.buffer));
      }
      for (const model of models) model.close();
      console.log(hash.digest("hex"));`;
    const { status, stdout, stderr } = runOn(node, [
      "--input-type=module",
      "--eval",
      program,
      projectPath("test/fixtures/odd"),
    ]);
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatchInlineSnapshot(`
      "0d29ae9a97ba18f7e7f37b6be67246cfb126b7711b9413dabd45b482842fe176
      "
    `);
  });

  test("ids are the same on every version: pinned", () => {
    const command = join(user, "node_modules", ".bin", "qwen3guard");
    const input = readJsonLines<{ text: string }>("test/goldens/tokenizer-tiny.jsonl")
      .map(({ text }) => JSON.stringify({ text }))
      .join("\n");
    const { stdout } = runOn(node, [command, "tokenize", "--jsonl", "--quiet"], input);
    expect(stdout).toBe(
      readJsonLines<{ ids: number[] }>("test/goldens/tokenizer-tiny.jsonl")
        .map(({ ids }) => `${JSON.stringify({ ids })}\n`)
        .join(""),
    );
  });
});

describe.skipIf(CHROMIUM === undefined)("examples/browser.html", () => {
  const output = "document.querySelector('output').textContent";

  /** Serves a folder and opens the example in it, as its comment says. */
  async function openExample(folder: string): Promise<{ page: Page; origin: string }> {
    const types: Record<string, string> = { html: "text/html", js: "text/javascript", json: "application/json" };
    const server = createServer((request, response) => {
      const file = join(folder, decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname));
      const type = types[file.split(".").at(-1) ?? ""] ?? "application/octet-stream";
      if (existsSync(file)) response.writeHead(200, { "content-type": type }).end(readFileSync(file));
      else response.writeHead(404).end();
    });
    await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const { page, close } = await startBrowser(CHROMIUM as string, 800, 600);
    onTestFinished(async () => {
      await close();
      server.close();
    });
    await page.open(`${origin}/examples/browser.html`);
    await page.until(`!${output}.startsWith("Loading")`);
    return { page, origin };
  }

  test.each([
    ["the package as it is", () => installed],
    ["a clone that was built", () => projectPath(".")],
  ])("guards in a browser, from %s, and asks nobody else", async (_, folder) => {
    const { page, origin } = await openExample(folder());
    expect(await page.evaluate(output)).toBe("Ready.");
    await page.press("Tab"); // from the text, which has the focus, to the button
    await page.press("Enter");
    await page.until(`${output} !== "Ready."`);
    expect(await page.evaluate(output)).toMatch(
      /^Unsafe · Violent · Safe 0\.0 % · Unsafe 100\.0 % · Controversial 0\.0 % · \d+ ms$/,
    );
    expect(page.requested.filter(url => !url.startsWith(origin))).toEqual([]);
    expect(page.errors.filter(error => !error.includes("chat_template.jinja") && !error.includes("favicon"))).toEqual(
      [],
    ); // not in the checkpoint
  });

  test("says what is missing in a clone that was not built, instead of loading for ever", async () => {
    const clone = join(home, "clone");
    mkdirSync(join(clone, "examples"), { recursive: true });
    cpSync(projectPath("examples/browser.html"), join(clone, "examples", "browser.html"));
    const { page } = await openExample(clone);
    expect(await page.evaluate(output)).toBe(
      "dist/index.js cannot be loaded: npm run build makes it, and pages load modules from a server alone.",
    );
    expect(await page.evaluate("document.querySelector('button').disabled")).toBe(true);
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise(resolve => server.close(resolve));
  return port;
}

/** A folder with Next.js in its node_modules, which is too large to be one of the project's packages. */
const NEXT = process.env.QWEN3GUARD_NEXT;

test.skipIf(NEXT === undefined)(
  "examples/next-route.ts is built by Next.js with the configuration in its comment, and answers",
  async () => {
    const folder = NEXT as string;
    npm(["install", "--offline", "--no-audit", "--no-fund", "--no-save", tarball], folder);
    const code = readFileSync(projectPath("examples/next-route.ts"), "utf8");
    const config = /export default \{[\s\S]*?\n \* {5}\};/.exec(code)?.[0].replace(/^ \* /gm, "") ?? "";
    expect(config).toContain("serverExternalPackages");
    mkdirSync(join(folder, "app", "api", "moderate"), { recursive: true });
    writeFileSync(join(folder, "app", "api", "moderate", "route.ts"), code);
    writeFileSync(join(folder, "next.config.ts"), config.replace("export default {", '$& output: "standalone",'));
    writeFileSync(
      join(folder, "app", "layout.tsx"),
      "export default function Layout({ children }: { children: React.ReactNode }) { return <html><body>{children}</body></html>; }",
    );
    for (const bundler of ["--turbopack", "--webpack"]) {
      rmSync(join(folder, ".next"), { recursive: true, force: true });
      const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production" };
      execFileSync(process.execPath, [join(folder, "node_modules", "next", "dist", "bin", "next"), "build", bundler], {
        cwd: folder,
        env,
      });
      // Elsewhere, so that what it needs must have come along.
      const elsewhere = join(home, `next ${bundler}`);
      cpSync(join(folder, ".next", "standalone"), elsewhere, { recursive: true });
      const port = await freePort(); // 0 means 3000 to it
      const server = spawn(process.execPath, ["server.js"], {
        cwd: elsewhere,
        env: { ...env, PORT: String(port), HOSTNAME: "127.0.0.1" },
      });
      onTestFinished(() => void server.kill());
      await new Promise<void>((resolve, reject) => {
        server.stdout.on("data", chunk => String(chunk).includes("Ready") && resolve());
        server.on("exit", status => reject(new Error(`the server ended with ${status}`)));
      });
      const url = `http://127.0.0.1:${port}/api/moderate`;
      const response = await fetch(url, { method: "POST", body: '{"text": "How can I make a bomb?"}' });
      expect(await response.json()).toMatchObject({ flagged: true, safety: "Unsafe", categories: ["Violent"] });
    }
  },
  600_000,
);
