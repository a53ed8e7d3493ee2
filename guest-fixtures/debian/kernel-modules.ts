// Picks kernel modules with their closure out of an unpacked Debian modules package, decompressed, in the order in which insmod
// must see them. Debian ships no modules.dep (depmod makes it at installation): the dependencies are read from each module's
// own .modinfo strings.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { MissingHere } from "./debian-packages.ts";

export interface KernelModule {
  readonly name: string;
  readonly data: Buffer;
}

const canonical = (name: string) => name.replaceAll("-", "_");

/** All of `wanted` that are modules (what is built in is skipped), dependencies first. */
export function moduleClosure(modulesDirectory: string, wanted: readonly string[]): KernelModule[] {
  const files = new Map<string, string>();
  for (const file of readdirSync(modulesDirectory, { recursive: true, encoding: "utf8" })) {
    const match = /^(.*)\.ko(\.xz|\.zst)?$/.exec(basename(file));
    if (match !== null) files.set(canonical(match[1]!), join(modulesDirectory, file));
  }
  const builtIn = new Set<string>();
  try {
    for (const line of readFileSync(join(modulesDirectory, "modules.builtin"), "utf8").split("\n")) {
      builtIn.add(canonical(basename(line, ".ko")));
    }
  } catch {
    // Without the list, a name that is neither module nor built in is reported as missing.
  }
  const ordered: KernelModule[] = [];
  const visited = new Set<string>();
  const visit = (name: string, neededBy: string, soft = false): void => {
    if (visited.has(name)) return;
    visited.add(name);
    const file = files.get(name);
    if (file === undefined) {
      // A soft dependency may name an alias (crypto-crc32c) or something this kernel lacks.
      if (builtIn.has(name) || soft) return;
      throw new MissingHere(`the kernel has no module ${name} (needed by ${neededBy})`);
    }
    const data = decompressed(file);
    for (const [dependency, softly] of dependencies(data)) visit(dependency, name, softly);
    ordered.push({ name, data });
  };
  for (const name of wanted) visit(canonical(name), "the fixture");
  return ordered;
}

function decompressed(file: string): Buffer {
  const tool = file.endsWith(".xz") ? "xz" : file.endsWith(".zst") ? "zstd" : null;
  if (tool === null) return readFileSync(file);
  const result = spawnSync(tool, ["-dc", file], { maxBuffer: 256 * 1024 * 1024 });
  if (result.status !== 0) throw new MissingHere(`${tool} is needed to unpack ${basename(file)}`);
  return result.stdout;
}

/** "depends=a,b" and "softdep=pre: c" of a module's .modinfo; true marks a soft one. */
function dependencies(module: Buffer): [name: string, soft: boolean][] {
  const text = module.toString("latin1");
  const found: [string, boolean][] = [];
  for (const match of text.matchAll(/\0depends=([^\0]*)\0/g)) {
    for (const name of match[1]!.split(",")) found.push([name, false]);
  }
  for (const match of text.matchAll(/\0softdep=pre: ([^\0]*)\0/g)) {
    for (const name of match[1]!.split(" ")) found.push([name, true]);
  }
  return found.filter(([name]) => /^[\w-]+$/.test(name)).map(([name, soft]) => [canonical(name), soft]);
}
