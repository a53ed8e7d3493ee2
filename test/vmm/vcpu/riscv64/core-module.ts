// The compiled core, for tests, bench and fuzzer. `npm run build` makes it (bench and fuzz run it first, so does the tests' set-up); this file runs from
// the sources and from dist/.
import { existsSync, readFileSync } from "node:fs";

let module: WebAssembly.Module | undefined;

export function coreModule(): WebAssembly.Module {
  if (module === undefined) {
    const roots = ["../../../../", "../../../../../"].map((up) => new URL(up, import.meta.url));
    const root = roots.find((it) => existsSync(new URL("package.json", it)));
    if (root === undefined) throw new Error("this file has moved: the project's root is not where it was");
    module = new WebAssembly.Module(readFileSync(new URL("vmm/vcpu/riscv64/build/hart.wasm", root)));
  }
  return module;
}
