/**
 * Tests the published package on every supported Node, and that quantised checkpoints give the same bits there and on
 * Deno and Bun: `npm run test:nodes`. The npm packages `node@NN`, `deno` and `bun` provide the binaries, in a temporary
 * folder.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const VERSIONS = ["20.19", "22", "24", "26"];

const folder = mkdtempSync(join(tmpdir(), "nodes-"));
try {
  const nodes = VERSIONS.map(version => fetchBinary("node", version));
  const others = [fetchBinary("deno", "2"), fetchBinary("bun", "1")];
  for (const binary of [...nodes, ...others])
    console.log(binary, execFileSync(binary, ["--version"], { encoding: "utf8" }).trim());
  vitest(["test/package.test.ts"], { QWEN3GUARD_NODES: nodes.join(":") });
  vitest(["--config", "vitest.slow.config.ts", "test/slow/shape-0.6B.slow.ts", "-t", "on every runtime"], {
    QWEN3GUARD_RUNTIMES: [...nodes, ...others].join(":"),
  });
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** Installs a package that contains a runtime, and returns the path of its binary. */
function fetchBinary(name: string, version: string): string {
  const prefix = join(folder, `${name}-${version}`);
  mkdirSync(prefix);
  // npm 11 asks which packages may run their install script, in which these fetch or place their binary. Older versions
  // do not ask.
  const manifest = { private: true, dependencies: { [name]: version }, allowScripts: { [name]: true } };
  writeFileSync(join(prefix, "package.json"), JSON.stringify(manifest));
  execFileSync("npm", ["install", "--no-audit", "--no-fund"], { cwd: prefix, stdio: "inherit" });
  return join(prefix, "node_modules", ".bin", name);
}

function vitest(args: readonly string[], env: Readonly<Record<string, string>>): void {
  execFileSync(process.execPath, [join("node_modules", "vitest", "vitest.mjs"), "run", ...args], {
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
}
