// Builds everything a run needs: TypeScript into dist/, parts of jco into dist/jco/, the command line in one into dist/bundle/, fuzzers into
// dist/fuzz/, guest images into guest-fixtures/build/, the vCPUs' cores into vmm/vcpu/*/build/.
// Each step is skipped when its outputs are newer than its inputs.
//
//     --clean         starts with an empty dist/, so that a package holds nothing whose source is gone
//     --if-possible   does nothing where the development dependencies are not installed (npm install --omit=dev)
import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const compiler = fileURLToPath(new URL("../../node_modules/typescript/bin/tsc", import.meta.url));
if (!existsSync(compiler)) {
  const possible = process.argv.includes("--if-possible");
  console.error(
    `nestbox: ${possible ? "nothing built" : "cannot build"}: the development dependencies are missing (npm ci)`,
  );
  process.exit(possible ? 0 : 1);
}
if (process.argv.includes("--clean")) rmSync(new URL("../../dist", import.meta.url), { recursive: true, force: true });

// On a terminal, what takes the time. What is printed next is printed over it.
const progress = (text) => {
  if (process.stderr.isTTY === true) process.stderr.write(`\r${text.padEnd(60)}\r`);
};
progress("build: TypeScript");
const { status } = spawnSync(process.execPath, [compiler, "-p", "."], { cwd: root, stdio: "inherit" });
if (status !== 0) process.exit(status ?? 1);
// The steps load development dependencies, and later ones what the first have made.
progress("build: parts of jco");
await (await import("./build-jco.mjs")).buildJco();
progress("build: command line");
await (await import("./build-bundle.mjs")).buildBundle();
progress("build: fuzzers");
await (await import("./build-fuzzers.mjs")).buildFuzzers();
const { buildFixtures } = await import("../../guest-fixtures/build.mjs");
await buildFixtures({ building: (name) => progress(`build: guest image ${name}`) });
progress("build: RV64 core");
await (await import("../vcpu/riscv64/build.mjs")).buildHart();
await (await import("../vcpu/aarch64/build.mjs")).buildCpu();
progress("build: walk theatre");
await (await import("./build-ui.mjs")).buildUi();
progress("");
