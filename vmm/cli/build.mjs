// Builds everything a run needs: TypeScript into dist/, fuzzers into dist/fuzz/, guest images into
// guest-fixtures/build/, the RV64 vCPU's core into vmm/vcpu/riscv64/build/.
// Each step is skipped when its outputs are newer than its inputs.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { buildHart } from "../vcpu/riscv64/build.mjs";
import { buildFuzzers } from "./build-fuzzers.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const run = (command, ...args) => {
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (result.status !== 0) process.exit(result.status ?? 1);
};
// On a terminal, what takes the time. What is printed next is printed over it.
const progress = (text) => {
  if (process.stderr.isTTY === true) process.stderr.write(`\r${text.padEnd(60)}\r`);
};
progress("build: TypeScript");
run(process.execPath, "node_modules/typescript/bin/tsc", "-p", ".");
progress("build: fuzzers");
await buildFuzzers();
await buildFixtures({ building: (name) => progress(`build: guest image ${name}`) });
progress("build: RV64 core");
await buildHart();
progress("");
