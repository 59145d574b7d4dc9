/**
 * The lock file is whole, so that `npm ci` works everywhere, and says nothing of the registry that it was made with.
 */

import { expect, test } from "vitest";
import { readJson } from "./helpers.ts";

interface Package {
  readonly resolved?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const packages = Object.entries(readJson<{ packages: Record<string, Package> }>("package-lock.json").packages);

test("every optional dependency, of whatever platform, has its entry", () => {
  const missing = packages.flatMap(([, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(name => !packages.some(([path]) => path.endsWith(`node_modules/${name}`))),
  );
  expect(missing).toEqual([]);
  expect(packages.length).toBeGreaterThan(50);
});

test("no registry's address is in it", () => {
  expect(packages.filter(([, { resolved }]) => resolved !== undefined)).toEqual([]);
});
