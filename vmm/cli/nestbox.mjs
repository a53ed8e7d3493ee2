#!/usr/bin/env node
// The command. What it runs is bundled from vmm/cli/main.ts by `npm run build` (which `npm ci` does by itself).
import { existsSync } from "node:fs";

const main = new URL("../../dist/bundle/cli/main.js", import.meta.url);
if (!existsSync(main)) {
  console.error("nestbox: not built yet; run: npm run build");
  process.exit(2);
}
await import(main.href);
