// Builds the bare-metal RV64 image with Debian's cross compiler (package gcc-riscv64-linux-gnu) into ../build/riscv64-nested-dma.elf.
//
//     node guest-fixtures/riscv64-nested-dma/build.mjs     prints the path; exit status 77 if there is no compiler
//     npx nestbox boot --kernel guest-fixtures/build/riscv64-nested-dma.elf

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const COMPILER = "riscv64-linux-gnu-gcc";

/** Path of the image, built if it is out of date; null if this machine has no compiler for it. Throws if it does not compile. */
export function buildRiscv64NestedDma() {
  const sources = readdirSync(here).filter((name) => /\.(c|S|h|ld)$/.test(name));
  const output = resolve(here, "../build/riscv64-nested-dma.elf");
  const newest = Math.max(...[...sources, "build.mjs"].map((name) => statSync(resolve(here, name)).mtimeMs));
  const done = statSync(output, { throwIfNoEntry: false });
  if (done !== undefined && done.mtimeMs > newest) return output;
  mkdirSync(resolve(here, "../build"), { recursive: true });
  const result = spawnSync(
    COMPILER,
    [
      ...["-march=rv64imac_zicsr", "-mabi=lp64", "-mcmodel=medany", "-O2", "-g", "-Wall", "-Wextra", "-Werror"],
      ...["-ffreestanding", "-fno-builtin", "-fno-pic", "-nostdlib", "-static"],
      ...["-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-Wl,-T,link.ld", "-o", output],
      ...sources.filter((name) => /\.[cS]$/.test(name)),
    ],
    { cwd: here, encoding: "utf8" },
  );
  if (result.error !== undefined) return null;
  if (result.status !== 0) throw new Error(`riscv64-nested-dma does not compile:\n${result.stderr}`);
  return output;
}

if (process.argv[1] !== undefined && pathToFileURL(realpathSync(process.argv[1])).href === import.meta.url) {
  const image = buildRiscv64NestedDma();
  if (image === null) {
    console.error(`skipped: no ${COMPILER} here (Debian: apt install gcc-riscv64-linux-gnu)`);
    process.exit(77);
  }
  console.log(image);
}
