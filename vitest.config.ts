import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { alias: { nestbox: fileURLToPath(new URL("vmm/scenario/index.ts", import.meta.url)) } },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/build.setup.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
