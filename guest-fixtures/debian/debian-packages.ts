// Gets Debian packages of another suite and architecture from the mirror this system is configured with, signature-checked by apt.
// Installs nothing and leaves the system's own apt state alone: apt runs with lists, cache and status of our own.

import { spawnSync } from "node:child_process";
import { accessSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** Something this machine lacks: the message is a sentence for the user; exit status 77. */
export class MissingHere extends Error {}

function run(command: string, args: readonly string[], cwd?: string): { status: number; output: string } {
  const result = spawnSync(command, args, { cwd, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (result.error !== undefined) throw new MissingHere(`${command} cannot be run here (${result.error.message})`);
  return { status: result.status ?? 1, output: result.stdout + (result.status === 0 ? "" : result.stderr) };
}

export interface DebianSuite {
  readonly suite: string;
  /** A suite beside it, whose packages are taken where they are asked for. */
  readonly backports?: string;
  readonly architecture: string;
}

/** Debian's name of this machine's architecture. */
export function nativeArchitecture(): string {
  return run("dpkg", ["--print-architecture"]).output.trim();
}

/** apt of its own state under `directory`. */
export class DebianPackages {
  readonly #directory: string;
  readonly #options: readonly string[];

  constructor(directory: string, { suite, backports, architecture }: DebianSuite) {
    this.#directory = directory;
    const targets = run("apt-get", ["indextargets", "--format", "$(REPO_URI)"]);
    const mirror = targets.output.split("\n").find((line) => line.endsWith("/debian/"));
    if (mirror === undefined) {
      throw new MissingHere("no Debian mirror in this system's apt sources (run apt-get update first?)");
    }
    try {
      accessSync(KEYRING);
    } catch {
      throw new MissingHere(`${KEYRING} is missing (package debian-archive-keyring)`);
    }
    const state = join(directory, "apt");
    mkdirSync(join(state, "lists/partial"), { recursive: true });
    mkdirSync(join(state, "cache/archives/partial"), { recursive: true });
    writeFileSync(join(state, "status"), "");
    const suites = backports === undefined ? [suite] : [suite, backports];
    const lines = suites.map((name) => `deb [signed-by=${KEYRING}] ${mirror} ${name} main\n`);
    writeFileSync(join(state, "sources.list"), lines.join(""));
    this.#options = Object.entries({
      "Dir::Etc::SourceList": join(state, "sources.list"),
      "Dir::Etc::SourceParts": "/dev/null",
      "Dir::State::Lists": join(state, "lists"),
      "Dir::State::status": join(state, "status"),
      "Dir::Cache": join(state, "cache"),
      "APT::Architecture": architecture,
      "APT::Architectures": architecture,
      "APT::Sandbox::User": "",
    }).flatMap(([key, value]) => ["-o", `${key}=${value}`]);
  }

  update(): void {
    const { status, output } = run("apt-get", ["-qq", ...this.#options, "update"]);
    if (status !== 0) throw new MissingHere(`the Debian mirror cannot be reached: ${lastLine(output)}`);
  }

  /** Names in the Depends field of `name`'s candidate, alternatives dropped, versions cut. */
  dependencies(name: string): string[] {
    const { status, output } = run("apt-cache", [...this.#options, "show", "--no-all-versions", name]);
    if (status !== 0) throw new MissingHere(`the suite has no package ${name}`);
    const depends = /^Depends: (.*)$/m.exec(output)?.[1] ?? "";
    return depends.split(", ").map((entry) => entry.replace(/[ (|].*$/, ""));
  }

  /** Downloads packages into the directory; paths of the .deb files, in the order asked for. */
  download(names: readonly string[]): string[] {
    // An older version from a download before would be found under the same name.
    const isOf = (name: string, file: string): boolean => file.startsWith(`${name}_`) && file.endsWith(".deb");
    for (const file of readdirSync(this.#directory)) {
      if (names.some((name) => isOf(name, file))) rmSync(join(this.#directory, file));
    }
    const { status, output } = run("apt-get", ["-qq", ...this.#options, "download", ...names], this.#directory);
    if (status !== 0) throw new MissingHere(`a package could not be downloaded: ${lastLine(output)}`);
    const files = readdirSync(this.#directory);
    return names.map((name) => {
      const file = files.find((candidate) => isOf(name, candidate));
      if (file === undefined) throw new MissingHere(`apt downloaded no file for ${name}`);
      return join(this.#directory, file);
    });
  }

  /** Downloads packages of a suite (names, or patterns of apt's) with everything they depend on; paths of all .deb files. */
  downloadAll(names: readonly string[], suite: string): string[] {
    const archives = join(this.#directory, "apt/cache/archives");
    for (const file of readdirSync(archives)) if (file.endsWith(".deb")) rmSync(join(archives, file));
    const install = ["--download-only", "--no-install-recommends", "-y", "-t", suite, "install", ...names];
    const { status, output } = run("apt-get", ["-qq", ...this.#options, ...install]);
    if (status !== 0)
      throw new MissingHere(`${names.join(", ")} of ${suite} could not be downloaded: ${lastLine(output)}`);
    return readdirSync(archives)
      .filter((file) => file.endsWith(".deb"))
      .map((file) => join(archives, file));
  }
}

/** Unpacks a .deb below `directory`. */
export function unpack(deb: string, directory: string): void {
  if (!existsSync(deb)) throw new MissingHere(`${deb}: no such file`);
  const { status, output } = run("dpkg-deb", ["-x", deb, directory]);
  if (status !== 0) throw new Error(`${deb}: not a Debian package (${lastLine(output)})`);
}

/** The tar archive of a .deb's files (--fsys-tarfile), or of its control files (--ctrl-tarfile). */
export function packageTar(deb: string, which: "--fsys-tarfile" | "--ctrl-tarfile"): Buffer {
  const { status, stdout, stderr, error } = spawnSync("dpkg-deb", [which, deb], { maxBuffer: 2 ** 30 });
  if (error !== undefined) throw new MissingHere(`dpkg-deb cannot be run here (${error.message})`);
  if (status !== 0) throw new Error(`${deb}: not a Debian package (${lastLine(stderr.toString())})`);
  return stdout;
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}
