import { defineConfig, type ViteUserConfig } from "vitest/config";

/** Checks too large for every run: `npm run test:slow`. */
const config: ViteUserConfig = defineConfig({
  test: { include: ["test/slow/**/*.slow.ts"], testTimeout: 1_800_000, hookTimeout: 600_000 },
});
export default config;
