import { defineConfig, type ViteUserConfig } from "vitest/config";

const config: ViteUserConfig = defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Bounds for hangs only: no test's outcome depends on the machine's speed.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
export default config;
