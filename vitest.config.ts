import { availableParallelism } from "node:os";
import { defineConfig, type ViteUserConfig } from "vitest/config";

const config: ViteUserConfig = defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // On two cores the default is one, which leaves half of the machine idle where a test waits.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    // Bounds for hangs only: no test's outcome depends on the machine's speed.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
export default config;
