// QEMU for checks and comparisons: what NESTBOX_QEMU names (the program, or the folder that it is in), or qemu-system-ARCH from PATH, if it is new enough; else
// Debian's from trixie-backports, unpacked with everything it depends on under .cache/qemu and run by its own dynamic loader. Nothing is installed, and root is not needed.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { DebianPackages, MissingHere, nativeArchitecture, unpack } from "../debian/debian-packages.ts";
import type { DebianFixture } from "../debian/recipe.ts";

/** Debian's packages of the programs. */
const PACKAGES = { aarch64: "qemu-system-arm", riscv64: "qemu-system-riscv", x86_64: "qemu-system-x86" } as const;
/** Folders of firmware; PCs need the one of SeaBIOS. */
const FIRMWARE = ["qemu", "seabios"];
export type QemuArchitecture = keyof typeof PACKAGES;

const SUITE = "trixie";
const BACKPORTS = "trixie-backports";
/** First whose vfio-pci takes an iommufd object. */
const WITH_IOMMUFD = 9;

// The project is two folders up, or three from dist/.
const built = !existsSync(new URL("../../package.json", import.meta.url));
const cache = fileURLToPath(new URL(`${built ? "../" : ""}../../.cache/qemu`, import.meta.url));

const treeOf = (architecture: QemuArchitecture): string => join(cache, PACKAGES[architecture]);
/** Written when all of a tree is there. */
const stampOf = (architecture: QemuArchitecture): string => `${treeOf(architecture)}.complete`;

export interface Qemu {
  /** Words that start it; arguments follow. */
  readonly command: readonly string[];
  /** First line of --version. */
  readonly version: string;
  /** What its environment must add: where its modules lie. */
  readonly environment: Readonly<Record<string, string>>;
}

function tried(command: readonly string[], oldest: number, environment: Qemu["environment"] = {}): Qemu | null {
  const [program, ...args] = command as [string, ...string[]];
  const { status, stdout } = spawnSync(program, [...args, "--version"], { encoding: "utf8" });
  const version = stdout?.split("\n")[0] ?? "";
  const major = Number(/version (\d+)/.exec(version)?.[1] ?? 0);
  return status === 0 && major >= oldest ? { command, version, environment } : null;
}

/** What is installed, or was downloaded before, of version `oldest` or newer; null: neither. */
export function qemuHere(architecture: QemuArchitecture = "aarch64", oldest = WITH_IOMMUFD): Qemu | null {
  const program = `qemu-system-${architecture}`;
  const named = process.env.NESTBOX_QEMU;
  const installed = named === undefined ? null : tried([programAt(named, program)], oldest);
  return (
    installed ?? tried([program], oldest) ?? (existsSync(stampOf(architecture)) ? unpacked(architecture, oldest) : null)
  );
}

/** A folder's program, or the one that is named; beside one of another architecture its own. */
function programAt(place: string, program: string): string {
  if (statSync(place, { throwIfNoEntry: false })?.isDirectory() === true) return join(place, program);
  const other = basename(place) !== program && basename(place).startsWith("qemu-system-");
  return other ? join(dirname(place), program) : place;
}

/** As `qemuHere`, but downloads it where there is none. Throws MissingHere where it cannot be had. */
export function findQemu(
  log: (line: string) => void,
  architecture: QemuArchitecture = "aarch64",
  oldest = WITH_IOMMUFD,
): Qemu {
  const here = qemuHere(architecture, oldest);
  if (here !== null) return here;
  const name = PACKAGES[architecture];
  const tree = treeOf(architecture);
  rmSync(stampOf(architecture), { force: true });
  rmSync(tree, { recursive: true, force: true });
  mkdirSync(tree, { recursive: true });
  const packages = new DebianPackages(cache, {
    suite: SUITE,
    backports: BACKPORTS,
    architecture: nativeArchitecture(),
  });
  log(`no qemu-system-${architecture} ${oldest} or newer here: downloading ${name} of ${BACKPORTS}`);
  packages.update();
  for (const deb of packages.downloadAll([name], BACKPORTS)) unpack(deb, tree);
  rmSync(join(cache, "apt"), { recursive: true, force: true });
  writeFileSync(stampOf(architecture), "");
  const found = unpacked(architecture, oldest);
  if (found === null) throw new MissingHere(`qemu-system-${architecture} of ${BACKPORTS} does not run here`);
  return found;
}

/** What a machine is by architecture: its CPU, and its console as the guest's kernel names it. */
const MACHINES: Readonly<Record<"aarch64" | "x86_64", { readonly cpu: string; readonly console: string }>> = {
  aarch64: { cpu: "cortex-a57", console: "ttyAMA0" },
  x86_64: { cpu: "max", console: "ttyS0" },
};

/** QEMU's arguments for the fixture with an iommufd object "iommufd0", without its machine type; `words` are for the guest's kernel and init. */
export function machineOf(
  { command }: Qemu,
  { kernel, initrd }: Pick<DebianFixture, "kernel" | "initrd">,
  words: string,
  architecture: keyof typeof MACHINES = "aarch64",
): string[] {
  const { cpu, console } = MACHINES[architecture];
  return [
    ...command,
    ...["-cpu", cpu, "-smp", "1", "-m", "512M", "-no-reboot", "-nic", "none"],
    ...["-display", "none", "-monitor", "none", "-serial", "stdio"],
    ...[
      "-kernel",
      kernel,
      "-initrd",
      initrd,
      "-append",
      `console=${console} cryptomgr.notests quiet loglevel=6 ${words}`,
    ],
    ...["-object", "iommufd,id=iommufd0"],
  ];
}

/** What was unpacked: the program by its own dynamic loader, with its own libraries, modules and firmware. */
function unpacked(architecture: QemuArchitecture, oldest: number): Qemu | null {
  const tree = treeOf(architecture);
  const libraries = join(tree, "usr/lib");
  const folders = readdirSync(libraries)
    .filter((name) => name.endsWith("-linux-gnu"))
    .map((name) => join(libraries, name));
  const loader = folders
    .flatMap((folder) => readdirSync(folder).map((file) => join(folder, file)))
    .find((file) => /\/ld-linux-[^/]+\.so\.\d$/.test(file));
  if (loader === undefined) throw new MissingHere(`${PACKAGES[architecture]} came without a dynamic loader`);
  const program = join(tree, `usr/bin/qemu-system-${architecture}`);
  const modules = folders.map((folder) => join(folder, "qemu")).find((folder) => existsSync(folder));
  const firmware = FIRMWARE.map((name) => join(tree, "usr/share", name)).filter((folder) => existsSync(folder));
  const data = firmware.flatMap((folder) => ["-L", folder]);
  const command = [loader, "--library-path", folders.join(":"), program, ...data];
  return tried(command, oldest, modules === undefined ? {} : { QEMU_MODULE_DIR: modules });
}
