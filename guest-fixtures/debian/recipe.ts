// The Debian fixture of a port: stock kernel, the modules it needs for the drive, static busybox, as kernel image and initramfs.
// Everything comes from the user's own Debian mirror (or from .deb files by name) and is cached under .cache/debian-ARCHITECTURE.

import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { CHARACTER_DEVICE, type CpioEntry, cpio, DIRECTORY, EXECUTABLE, FILE } from "./cpio.ts";
import { DebianPackages, MissingHere, unpack } from "./debian-packages.ts";
import { moduleClosure } from "./kernel-modules.ts";

export { MissingHere } from "./debian-packages.ts";

// This file runs from dist/guest-fixtures/debian; the project is three folders up.
const projectRoot = fileURLToPath(new URL("../../..", import.meta.url));
export const sources = join(projectRoot, "guest-fixtures/debian");
export const SUITE = "forky";
const MODULES = ["nvme", "ext4", "vfat", "nls_cp437", "nls_iso8859_1", "nls_ascii"];

/** Debian's ports that `nestbox boot` runs, and those that only another VMM does. */
export const BOOTED_ARCHITECTURES = ["riscv64", "arm64"] as const;
export const FIXTURE_ARCHITECTURES = [...BOOTED_ARCHITECTURES, "amd64"] as const;
export type BootedArchitecture = (typeof BOOTED_ARCHITECTURES)[number];
export type FixtureArchitecture = (typeof FIXTURE_ARCHITECTURES)[number];

export function cacheOf(architecture: FixtureArchitecture): string {
  return join(projectRoot, `.cache/debian-${architecture}`);
}

function stampOf(architecture: FixtureArchitecture): string {
  return join(cacheOf(architecture), "fixture.json");
}

export interface DebianFixture {
  /** Kernel image ("Image" format, or what the architecture's boot loaders take) and initramfs. */
  readonly kernel: string;
  readonly initrd: string;
  /** Version of the kernel, such as 7.2.12+deb14-riscv64. */
  readonly release: string;
}

export interface DebianFixtureOptions {
  /** Default riscv64. */
  readonly architecture?: FixtureArchitecture;
  readonly suite?: string;
  /** .deb files to use instead of the mirror: kernel binary, modules, base and busybox-static. */
  readonly debs?: readonly string[];
  readonly refresh?: boolean;
  readonly log?: (line: string) => void;
}

/** The fixture as it lies in the cache; null if it does not, or was made by other sources or of another suite. */
export function cachedFixture(suite = SUITE, architecture: FixtureArchitecture = "riscv64"): DebianFixture | null {
  const stamp = stampOf(architecture);
  if (!existsSync(stamp)) return null;
  const cached = JSON.parse(readFileSync(stamp, "utf8")) as DebianFixture & { sourcesId: string; suite: string | null };
  // What was made from files given by name serves for every suite.
  const fits = cached.sourcesId === sourcesId() && (cached.suite === null || cached.suite === suite);
  return fits && existsSync(cached.kernel) && existsSync(cached.initrd) ? cached : null;
}

/** What the initramfs is made of besides packages. */
function sourcesId(): string {
  return createHash("sha256")
    .update(readFileSync(join(sources, "init.sh")))
    .digest("hex");
}

/** Builds the fixture, or finds it in the cache. Throws MissingHere for what this machine lacks. */
export function debianFixture(options: DebianFixtureOptions = {}): DebianFixture {
  const log = options.log ?? (() => {});
  const { architecture = "riscv64", suite = SUITE } = options;
  const cache = cacheOf(architecture);
  const mayBeCached = options.refresh !== true && options.debs === undefined;
  const cached = mayBeCached ? cachedFixture(suite, architecture) : null;
  if (cached !== null) return cached;
  mkdirSync(cache, { recursive: true });
  const tree = join(cache, "tree");
  rmSync(tree, { recursive: true, force: true });
  mkdirSync(tree);
  for (const deb of options.debs ?? downloaded(cache, suite, architecture, log)) {
    log(`unpacking ${basename(deb)}`);
    unpack(deb, tree);
  }
  const fixture = assemble(tree, cache, log);
  rmSync(tree, { recursive: true, force: true });
  const made = { sourcesId: sourcesId(), suite: options.debs === undefined ? suite : null };
  writeFileSync(stampOf(architecture), JSON.stringify({ ...fixture, ...made }));
  return fixture;
}

function downloaded(
  cache: string,
  suite: string,
  architecture: FixtureArchitecture,
  log: (line: string) => void,
): string[] {
  const packages = new DebianPackages(cache, { suite, architecture });
  log(`reading the package lists of ${suite}/${architecture}`);
  packages.update();
  const image = packages.dependencies(`linux-image-${architecture}`).find((name) => name.startsWith("linux-image-"));
  if (image === undefined) throw new MissingHere(`${suite} has no kernel behind linux-image-${architecture}`);
  const parts = packages.dependencies(image).filter((name) => /^linux-(base|binary|modules)-\d/.test(name));
  log(`downloading ${[image, ...parts].join(", ")} and busybox-static`);
  return packages.download([image, ...parts, "busybox-static"]);
}

function assemble(tree: string, cache: string, log: (line: string) => void): DebianFixture {
  const modulesRoot = ["usr/lib/modules", "lib/modules"].map((path) => join(tree, path)).find(existsSync);
  const release = modulesRoot === undefined ? undefined : readdirSync(modulesRoot)[0];
  if (modulesRoot === undefined || release === undefined) throw new MissingHere("the packages hold no kernel modules");
  const image = [
    join(modulesRoot, release, "vmlinuz"),
    join(tree, `boot/vmlinux-${release}`),
    join(tree, `boot/vmlinuz-${release}`),
  ].find(existsSync);
  if (image === undefined) throw new MissingHere(`the packages hold no kernel image for ${release}`);
  const busybox = ["usr/bin/busybox", "bin/busybox"].map((path) => join(tree, path)).find(existsSync);
  if (busybox === undefined) throw new MissingHere("the packages hold no busybox");

  const modules = moduleClosure(join(modulesRoot, release), MODULES);
  log(`initramfs with ${modules.map((module) => module.name).join(", ")}`);
  const entries: CpioEntry[] = [
    ...["bin", "dev", "modules"].map((path) => ({ path, mode: DIRECTORY })),
    { path: "dev/console", mode: CHARACTER_DEVICE, device: [5, 1] },
    { path: "bin/busybox", mode: EXECUTABLE, data: readFileSync(busybox) },
    { path: "init", mode: EXECUTABLE, data: readFileSync(join(sources, "init.sh")) },
    { path: "modules/order", mode: FILE, data: Buffer.from(modules.map((module) => `${module.name}\n`).join("")) },
    ...modules.map(({ name, data }) => ({ path: `modules/${name}.ko`, mode: FILE, data })),
  ];
  const kernel = join(cache, "Image");
  const initrd = join(cache, "initrd.cpio");
  cpSync(image, kernel);
  writeFileSync(initrd, cpio(entries));
  return { kernel, initrd, release };
}
