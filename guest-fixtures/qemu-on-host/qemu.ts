// QEMU for the check: qemu-system-aarch64 from PATH if it is new enough for iommufd, else Debian's from trixie-backports, unpacked with everything it
// depends on under .cache/qemu and run by its own dynamic loader. Nothing is installed, and root is not needed.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { DebianPackages, MissingHere, nativeArchitecture, unpack } from "../debian-riscv64/debian-packages.ts";

const PROGRAM = "qemu-system-aarch64";
const PACKAGE = "qemu-system-arm";
const SUITE = "trixie";
const BACKPORTS = "trixie-backports";
/** First whose vfio-pci takes an iommufd object. */
const OLDEST = 9;

// This file runs from dist/guest-fixtures/qemu-on-host; the project is three folders up.
const cache = fileURLToPath(new URL("../../../.cache/qemu", import.meta.url));

export interface Qemu {
  /** Words that start it; arguments follow. */
  readonly command: readonly string[];
  /** First line of --version. */
  readonly version: string;
}

function tried(command: readonly string[]): Qemu | null {
  const [program, ...args] = command as [string, ...string[]];
  const { status, stdout } = spawnSync(program, [...args, "--version"], { encoding: "utf8" });
  const version = stdout?.split("\n")[0] ?? "";
  const major = Number(/version (\d+)/.exec(version)?.[1] ?? 0);
  return status === 0 && major >= OLDEST ? { command, version } : null;
}

/** Throws MissingHere where it cannot be had. */
export function findQemu(log: (line: string) => void): Qemu {
  const installed = tried([PROGRAM]);
  if (installed !== null) return installed;
  const tree = join(cache, "tree");
  if (!existsSync(join(cache, "complete"))) {
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
    writeFileSync(join(cache, "complete"), "");
  }
  const libraries = join(tree, "usr/lib");
  const folders = readdirSync(libraries)
    .filter((name) => name.endsWith("-linux-gnu"))
    .map((name) => join(libraries, name));
  const loader = folders
    .flatMap((folder) => readdirSync(folder).map((file) => join(folder, file)))
    .find((file) => /\/ld-linux-[^/]+\.so\.\d$/.test(file));
  if (loader === undefined) throw new MissingHere(`${PACKAGE} came without a dynamic loader`);
  const found = tried([
    loader,
    "--library-path",
    folders.join(":"),
    join(tree, `usr/bin/${PROGRAM}`),
    "-L",
    join(tree, "usr/share/qemu"),
  ]);
  if (found === null) throw new MissingHere(`${PROGRAM} of ${BACKPORTS} does not run here`);
  return found;
}
