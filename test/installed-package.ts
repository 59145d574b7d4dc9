/** The package as a stranger gets it: packed, and installed into an empty folder. */

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { projectPath } from "./helpers.ts";

export interface InstalledPackage {
  readonly tarball: string;
  /** The stranger's own folder, below whose node_modules the package lies. */
  readonly user: string;
}

export function npm(args: readonly string[], cwd: string): string {
  return execFileSync("npm", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Needs no network: the package has no dependencies. */
export function installPackage(home: string): InstalledPackage {
  const [packed] = JSON.parse(
    npm(["pack", "--json", "--pack-destination", home], projectPath(".")).replace(/^[^[]*(?=\[)/, ""),
  );
  const tarball = join(home, packed.filename);
  const user = join(home, "user");
  mkdirSync(user);
  writeFileSync(join(user, "package.json"), '{"name": "user", "private": true, "type": "module"}');
  npm(["install", "--offline", "--no-audit", "--no-fund", tarball], user);
  return { tarball, user };
}
