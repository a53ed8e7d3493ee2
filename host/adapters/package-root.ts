// Where this package stands: its folder holds package.json, whether the code runs as written, as compiled (dist/) or bundled (dist/bundle/).

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

let root: URL | undefined;

function packageRoot(): URL {
  for (let place = new URL("./", import.meta.url); ; place = new URL("../", place)) {
    if (existsSync(new URL("package.json", place))) return place;
    if (place.pathname === "/") throw new Error(`no folder above ${import.meta.url} holds a package.json`);
  }
}

/** Absolute path of a file or folder of the package, named from its root. */
export function packageFile(path: string): string {
  root ??= packageRoot();
  return fileURLToPath(new URL(path, root));
}
