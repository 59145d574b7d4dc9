import { defineConfig, type ViteUserConfig } from "vitest/config";

/** Checks too large for every run: `npm run test:slow`. */
const config: ViteUserConfig = defineConfig({
  test: {
    include: ["test/slow/**/*.slow.ts"],
    // One file at a time, however many cores there are: two of them take 4 and 10 GB of memory.
    maxWorkers: 1,
    testTimeout: 1_800_000,
    hookTimeout: 600_000,
  },
});
export default config;
