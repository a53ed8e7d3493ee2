// The compiled core, for tests, bench and fuzzer. `npm run build` makes it (bench and fuzz run it first, so does the tests' set-up); this file runs from
// the sources, from dist/, and bundled from dist/fuzz/: wherever it is, the project's root is a folder above it.
import { existsSync, readFileSync } from "node:fs";

let module: WebAssembly.Module | undefined;

export function coreModule(): WebAssembly.Module {
  if (module === undefined) {
    let root = new URL(".", import.meta.url);
    while (!existsSync(new URL("package.json", root))) {
      const above = new URL("..", root);
      if (above.href === root.href) throw new Error("no package.json above this file");
      root = above;
    }
    module = new WebAssembly.Module(readFileSync(new URL("vmm/vcpu/aarch64/build/cpu.wasm", root)));
  }
  return module;
}
