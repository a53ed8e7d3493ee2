// A compiled core, for tests, bench and fuzzers. `npm run build` makes it (bench and fuzz run it first, so does the tests' set-up); this file runs from
// the sources, from dist/, and bundled from dist/fuzz/: wherever it is, the project's root is a folder above it.
import { existsSync, readFileSync } from "node:fs";

const modules = new Map<string, WebAssembly.Module>();

/** `path`: of the module, from the project's root. */
export function compiledCore(path: string): WebAssembly.Module {
  const known = modules.get(path);
  if (known !== undefined) return known;
  let root = new URL(".", import.meta.url);
  while (!existsSync(new URL("package.json", root))) {
    const above = new URL("..", root);
    if (above.href === root.href) throw new Error("no package.json above this file");
    root = above;
  }
  const module = new WebAssembly.Module(readFileSync(new URL(path, root)));
  modules.set(path, module);
  return module;
}
