// The preload library, built from shim/ by the user's own C compiler when it is first needed, and kept in the user's cache.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const FLAGS = ["-O2", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-delete-null-pointer-checks"];
const COMPILERS = ["cc", "gcc", "clang"];

/** Something that this machine lacks: one sentence. */
export class ShimMissing extends Error {}

function sourceFolder(): string {
  // From dist/host/adapters, or from host/adapters.
  const places = ["../../../host/adapters/shim/", "shim/"].map((place) =>
    fileURLToPath(new URL(place, import.meta.url)),
  );
  const found = places.find((place) => existsSync(join(place, "proto.h")));
  if (found === undefined) throw new ShimMissing("the sources of the preload library are missing (host/adapters/shim)");
  return found;
}

function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "nestbox");
}

/** Path of the library. Throws ShimMissing. */
export function shimLibrary(folder = cacheFolder()): string {
  if (process.platform !== "linux")
    throw new ShimMissing("programs of other systems than Linux cannot be run on a modelled host");
  const source = sourceFolder();
  const files = readdirSync(source)
    .filter((file) => /\.[ch]$/.test(file))
    .sort();
  const hash = createHash("sha256").update(JSON.stringify([process.arch, FLAGS]));
  for (const file of files) hash.update(readFileSync(join(source, file)));
  const library = join(folder, `hostshim-${hash.digest("hex").slice(0, 16)}.so`);
  if (existsSync(library)) return library;
  const compiler = process.env.CC ?? COMPILERS.find((name) => spawnSync(name, ["--version"]).status === 0);
  if (compiler === undefined) {
    throw new ShimMissing(
      "no C compiler here (cc, gcc or clang, or CC): the preload library cannot be built (Debian: gcc and libc6-dev)",
    );
  }
  let work: string;
  try {
    mkdirSync(folder, { recursive: true });
    work = mkdtempSync(join(folder, "build-"));
  } catch (error) {
    throw new ShimMissing(`the preload library cannot be built: ${(error as Error).message}`);
  }
  try {
    const made = join(work, "hostshim.so");
    const sources = files.filter((file) => file.endsWith(".c")).map((file) => join(source, file));
    const run = spawnSync(compiler, [...FLAGS, "-o", made, ...sources, "-ldl", "-lpthread"], { encoding: "utf8" });
    if (run.status !== 0) {
      const said =
        run.error?.message ??
        run.stderr.split("\n").find((line) => /error|fatal/.test(line)) ??
        `exit status ${run.status}`;
      throw new ShimMissing(`${compiler} cannot build the preload library: ${said}`);
    }
    // Others may build it at the same time: the last one's is as good.
    renameSync(made, library);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return library;
}
