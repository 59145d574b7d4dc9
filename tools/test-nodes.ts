/**
 * Tests the published package on every supported Node: `npm run test:nodes`. The binaries come from the npm packages `node@NN`, into a
 * temporary folder.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const VERSIONS = ["20.19", "22", "24", "26"];

const folder = mkdtempSync(join(tmpdir(), "nodes-"));
try {
  const binaries = VERSIONS.map(version => {
    const prefix = join(folder, version);
    mkdirSync(prefix);
    // npm 11 asks which packages may run their install script; this one fetches its binary in it. Older ones do not ask.
    const manifest = { private: true, dependencies: { node: version }, allowScripts: { node: true } };
    writeFileSync(join(prefix, "package.json"), JSON.stringify(manifest));
    execFileSync("npm", ["install", "--no-audit", "--no-fund"], { cwd: prefix, stdio: "inherit" });
    return join(prefix, "node_modules", "node", "bin", "node");
  });
  for (const binary of binaries) console.log(execFileSync(binary, ["--version"], { encoding: "utf8" }).trim());
  execFileSync(process.execPath, [join("node_modules", "vitest", "vitest.mjs"), "run", "test/package.test.ts"], {
    stdio: "inherit",
    env: { ...process.env, QWEN3GUARD_NODES: binaries.join(":") },
  });
} finally {
  rmSync(folder, { recursive: true, force: true });
}
