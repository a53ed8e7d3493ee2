// QEMU for the check: qemu-system-aarch64 from PATH if it is new enough for iommufd, else Debian's from trixie-backports, unpacked with everything it
// depends on under .cache/qemu and run by its own dynamic loader. Nothing is installed, and root is not needed.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { DebianPackages, MissingHere, nativeArchitecture, unpack } from "../debian/debian-packages.ts";
import type { DebianFixture } from "../debian/recipe.ts";

const PROGRAM = "qemu-system-aarch64";
const PACKAGE = "qemu-system-arm";
const SUITE = "trixie";
const BACKPORTS = "trixie-backports";
/** First whose vfio-pci takes an iommufd object. */
const OLDEST = 9;

// The project is two folders up, or three from dist/.
const built = !existsSync(new URL("../../package.json", import.meta.url));
const cache = fileURLToPath(new URL(`${built ? "../" : ""}../../.cache/qemu`, import.meta.url));

const tree = join(cache, "tree");
const complete = join(cache, "complete");

export interface Qemu {
  /** Words that start it; arguments follow. */
  readonly command: readonly string[];
  /** First line of --version. */
  readonly version: string;
  /** What its environment must add: where its modules lie. */
  readonly environment: Readonly<Record<string, string>>;
}

function tried(command: readonly string[], environment: Qemu["environment"] = {}): Qemu | null {
  const [program, ...args] = command as [string, ...string[]];
  const { status, stdout } = spawnSync(program, [...args, "--version"], { encoding: "utf8" });
  const version = stdout?.split("\n")[0] ?? "";
  const major = Number(/version (\d+)/.exec(version)?.[1] ?? 0);
  return status === 0 && major >= OLDEST ? { command, version, environment } : null;
}

/** What is installed, or was downloaded before; null: neither. */
export function qemuHere(): Qemu | null {
  return tried([PROGRAM]) ?? (existsSync(complete) ? tried(unpackedCommand(), unpackedModules()) : null);
}

/** Throws MissingHere where it cannot be had. */
export function findQemu(log: (line: string) => void): Qemu {
  const here = qemuHere();
  if (here !== null) return here;
  mkdirSync(cache, { recursive: true });
  rmSync(tree, { recursive: true, force: true });
  mkdirSync(tree);
  const packages = new DebianPackages(cache, {
    suite: SUITE,
    backports: BACKPORTS,
    architecture: nativeArchitecture(),
  });
  log(`no ${PROGRAM} ${OLDEST} or newer here: downloading ${PACKAGE} of ${BACKPORTS}`);
  packages.update();
  for (const deb of packages.downloadAll(PACKAGE, BACKPORTS)) unpack(deb, tree);
  rmSync(join(cache, "apt"), { recursive: true, force: true });
  writeFileSync(complete, "");
  const found = tried(unpackedCommand(), unpackedModules());
  if (found === null) throw new MissingHere(`${PROGRAM} of ${BACKPORTS} does not run here`);
  return found;
}

/** QEMU's arguments for the fixture with an iommufd object "iommufd0", without its machine type; `words` are for the guest's init. */
export function machineOf({ command }: Qemu, { kernel, initrd }: DebianFixture, words: string): string[] {
  return [
    ...command,
    ...["-cpu", "cortex-a57", "-smp", "1", "-m", "512M", "-no-reboot", "-nic", "none"],
    ...["-display", "none", "-monitor", "none", "-serial", "stdio"],
    ...["-kernel", kernel, "-initrd", initrd, "-append", `console=ttyAMA0 cryptomgr.notests quiet loglevel=6 ${words}`],
    ...["-object", "iommufd,id=iommufd0"],
  ];
}

/** Folders of architectures among its libraries. */
function libraryFolders(): string[] {
  const libraries = join(tree, "usr/lib");
  return readdirSync(libraries)
    .filter((name) => name.endsWith("-linux-gnu"))
    .map((name) => join(libraries, name));
}

function unpackedModules(): Record<string, string> {
  const modules = libraryFolders().map((folder) => join(folder, "qemu"));
  const found = modules.find((folder) => existsSync(folder));
  return found === undefined ? {} : { QEMU_MODULE_DIR: found };
}

/** The program by its own dynamic loader, with its own libraries. */
function unpackedCommand(): string[] {
  const folders = libraryFolders();
  const loader = folders
    .flatMap((folder) => readdirSync(folder).map((file) => join(folder, file)))
    .find((file) => /\/ld-linux-[^/]+\.so\.\d$/.test(file));
  if (loader === undefined) throw new MissingHere(`${PACKAGE} came without a dynamic loader`);
  const program = join(tree, `usr/bin/${PROGRAM}`);
  return [loader, "--library-path", folders.join(":"), program, "-L", join(tree, "usr/share/qemu")];
}
