import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { alias: { nestbox: fileURLToPath(new URL("vmm/scenario/index.ts", import.meta.url)) } },
  test: {
    include: ["test/**/*.test.ts"],
    // As many as there are CPUs: vitest leaves one of them idle, which of two is half.
    maxWorkers: "100%",
    globalSetup: ["test/build.setup.ts"],
    // For tests that hang: however busy the machine is, none that is sound takes this long.
    testTimeout: 600_000,
    hookTimeout: 600_000,
  },
});
