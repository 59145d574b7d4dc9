/**
 * Builds dist/ for publishing: `node tools/build.ts`.
 *
 * Each of our modules becomes one JavaScript file with types, so that the published package reads like the source and
 * relative paths stay valid. The few packages that they import are each bundled into one file under dist/vendor/, with
 * their licences, so that installing this package installs nothing else.
 */

import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Plugin } from "esbuild";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const DIST = join(ROOT, "dist");

/** A package that is bundled. `node` means that only code for Node uses it, and that it may call `require`. */
interface Vendored {
  readonly name: string;
  readonly file: string;
  readonly why: string;
  readonly exports: string;
  readonly node?: boolean;
}

const VENDORED: readonly Vendored[] = [
  {
    name: "@hono/node-server",
    file: "hono-node-server.js",
    why: "answers Node's requests with web-standard responses",
    exports: "{ getRequestListener }",
    node: true,
  },
  {
    name: "@huggingface/hub",
    file: "hub.js",
    why: "asks the Hugging Face Hub for a model's commit and files",
    exports: "{ listFiles, modelInfo }",
    node: true,
  },
  {
    name: "@huggingface/jinja",
    file: "jinja.js",
    why: "renders the chat template that the checkpoint carries",
    exports: "{ Template }",
  },
  { name: "commander", file: "commander.js", why: "parses the command line", exports: "*", node: true },
  { name: "hono", file: "hono.js", why: "finds the route of a request", exports: "{ Hono }" },
  { name: "picocolors", file: "picocolors.js", why: "colours the verdict card", exports: "{ default }", node: true },
];

const require = createRequire(import.meta.url);

function filesUnder(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name));
}

function compile(): void {
  const tsc = join(dirname(require.resolve("typescript/package.json")), "bin", "tsc");
  execFileSync(process.execPath, [tsc, "-p", join(ROOT, "tsconfig.build.json")], { stdio: "inherit" });
}

/** Nobody imports the command line, and its types would need Commander's. */
function removeCommandTypes(): void {
  for (const path of filesUnder(join(DIST, "cli"))) if (path.endsWith(".d.ts")) rmSync(path);
}

async function bundleVendored(): Promise<void> {
  for (const { name, file, node, exports } of VENDORED) {
    const { metafile } = await build({
      stdin: { contents: `export ${exports} from "${name}"`, resolveDir: ROOT },
      outfile: join(DIST, "vendor", file),
      bundle: true,
      format: "esm",
      platform: node ? "node" : "neutral",
      mainFields: ["module", "main"],
      target: "es2022",
      legalComments: "inline",
      logLevel: "warning",
      metafile: true,
      plugins: [pureDependencies(name)],
      ...(node
        ? {
            banner: {
              js: 'import { createRequire as makeRequire } from "node:module";\nconst require = makeRequire(import.meta.url);',
            },
          }
        : {}),
    });
    // The bundle carries the licences of the packages named above, so it may contain no other code.
    const inputs = Object.values(metafile.outputs).flatMap(output => Object.entries(output.inputs));
    const others = inputs.filter(
      ([path, { bytesInOutput }]) =>
        bytesInOutput > 0 && path !== "<stdin>" && !VENDORED.some(({ name }) => path.includes(`node_modules/${name}/`)),
    );
    if (others.length > 0)
      throw new Error(
        `${file}: expected code of packages that are named, got ${others.map(([path]) => path).join(", ")}`,
      );
  }
}

/**
 * Lets esbuild leave out the dependencies of a package if the parts that we use do not need them. They do not declare
 * that importing them has no side effects, and `@huggingface/hub` would bring 50 kB of hash functions for uploads.
 */
function pureDependencies(name: string): Plugin {
  return {
    name: "pure-dependencies",
    setup: ({ onResolve, resolve }) => {
      onResolve({ filter: /^[@\w]/ }, async ({ path, kind, resolveDir, pluginData }) => {
        if (path === name || kind === "entry-point" || pluginData === "resolved") return undefined;
        return { ...(await resolve(path, { kind, resolveDir, pluginData: "resolved" })), sideEffects: false };
      });
    },
  };
}

/** Points our modules at dist/vendor/, and checks that they import nothing else from outside. */
function rewriteImports(): void {
  for (const path of filesUnder(DIST).filter(
    path => /\.(js|d\.ts)$/.test(path) && !relative(DIST, path).startsWith("vendor"),
  )) {
    let code = readFileSync(path, "utf8");
    for (const { name, file } of VENDORED) {
      const target = relative(dirname(path), join(DIST, "vendor", file)).replaceAll("\\", "/");
      code = code.replaceAll(`from "${name}"`, `from "${target.startsWith(".") ? target : `./${target}`}"`);
    }
    // Declarations keep the .ts of the source.
    if (path.endsWith(".d.ts")) code = code.replace(/(from |import\()"(\.[^"]*)\.ts"/g, '$1"$2.js"');
    const outside = [...code.matchAll(/^\s*(?:import|export)\b[^;"']*?\bfrom\s*"([^"]+)"/gm)]
      .map(m => m[1])
      .filter(s => !/^(\.|node:)/.test(s));
    if (outside.length > 0)
      throw new Error(`${relative(ROOT, path)}: expected no imports from outside, got ${outside.join(", ")}`);
    if (path.endsWith(".d.ts") && code.includes("/vendor/")) {
      throw new Error(`${relative(ROOT, path)}: expected types that need no other package, got an import of one`);
    }
    writeFileSync(path, code);
  }
}

function collectLicences(): void {
  const parts = ["# Packages bundled into this one\n"];
  for (const { name, why } of VENDORED) {
    const folder = join(ROOT, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find(entry => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name}: expected a licence file in the package, got none`);
    parts.push(`## ${name} ${version} (${license}): ${why}\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`);
  }
  writeFileSync(join(DIST, "vendor", "LICENCES.md"), parts.join("\n"));
}

if (existsSync(DIST)) rmSync(DIST, { recursive: true });
compile();
removeCommandTypes();
await bundleVendored();
rewriteImports();
collectLicences();
chmodSync(join(DIST, "cli", "main.js"), 0o755);
