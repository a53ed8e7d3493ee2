// The libraries in C: the preload library (shim/), and system calls for this process (native/). Built by the user's own C compiler when they
// are first needed, and kept in the user's cache.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { packageFile } from "./package-root.ts";

const FLAGS = ["-O2", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-delete-null-pointer-checks"];
const COMPILERS = ["cc", "gcc", "clang"];

/** Something that this machine lacks: one sentence. */
export class LibraryMissing extends Error {}

interface Library {
  readonly name: string;
  /** Folder of its sources. */
  readonly source: string;
  readonly what: string;
}

const PRELOAD: Library = { name: "hostshim", source: "shim", what: "the preload library" };
const SOCKETS: Library = { name: "sockets", source: "native", what: "the library of system calls" };

/** Path of the preload library. Throws LibraryMissing. */
export function preloadLibrary(folder = cacheFolder()): string {
  return built(PRELOAD, folder);
}

/** Path of what socket-calls.ts loads. Throws LibraryMissing. */
export function socketLibrary(folder = cacheFolder()): string {
  return built(SOCKETS, folder);
}

function sourceFolder({ source, what }: Library): string {
  const folder = packageFile(`host/adapters/${source}/`);
  if (!existsSync(folder)) throw new LibraryMissing(`the sources of ${what} are missing (host/adapters/${source})`);
  return folder;
}

function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "nestbox");
}

function built(wanted: Library, folder: string): string {
  if (process.platform !== "linux")
    throw new LibraryMissing("programs of other systems than Linux cannot be run on a modelled host");
  const { name, what } = wanted;
  const source = sourceFolder(wanted);
  const files = readdirSync(source)
    .filter((file) => /\.[ch]$/.test(file))
    .sort();
  const hash = createHash("sha256").update(JSON.stringify([process.arch, FLAGS]));
  for (const file of files) hash.update(readFileSync(join(source, file)));
  const library = join(folder, `${name}-${hash.digest("hex").slice(0, 16)}.so`);
  if (existsSync(library)) return library;
  const compiler = process.env.CC ?? COMPILERS.find((candidate) => spawnSync(candidate, ["--version"]).status === 0);
  if (compiler === undefined) {
    throw new LibraryMissing(
      `no C compiler here (cc, gcc or clang, or CC): ${what} cannot be built (Debian: gcc and libc6-dev)`,
    );
  }
  let work: string;
  try {
    mkdirSync(folder, { recursive: true });
    work = mkdtempSync(join(folder, "build-"));
  } catch (error) {
    throw new LibraryMissing(`${what} cannot be built: ${(error as Error).message}`);
  }
  try {
    const made = join(work, "library.so");
    const sources = files.filter((file) => file.endsWith(".c")).map((file) => join(source, file));
    const run = spawnSync(compiler, [...FLAGS, "-o", made, ...sources, "-ldl", "-lpthread"], { encoding: "utf8" });
    if (run.status !== 0) {
      const said =
        run.error?.message ??
        run.stderr.split("\n").find((line) => /error|fatal/.test(line)) ??
        `exit status ${run.status}`;
      throw new LibraryMissing(`${compiler} cannot build ${what}: ${said}`);
    }
    // Others may build it at the same time: the last one's is as good.
    renameSync(made, library);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return library;
}
