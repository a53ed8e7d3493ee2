// Programs of Debian's for guests that are measured: packages with all that they depend on, from the suite of the fixture and through the same signed
// index, as an initramfs to be put behind the fixture's. Nothing is configured; what nobody runs (manuals, translations) is left out.

import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join, relative } from "node:path";
import { type CpioEntry, cpio, DIRECTORY, SYMLINK } from "./cpio.ts";
import { DebianPackages, unpack } from "./debian-packages.ts";
import { type BootedArchitecture, cacheOf, SUITE } from "./recipe.ts";

const PACKAGES = ["xz-utils", "perl-base", "python3-minimal", "openssl", "mawk", "e2fsprogs"];
/** Folders of packages that hold programs and what they load: Debian has all of both below usr. */
const TAKEN = ["usr/bin", "usr/sbin", "usr/lib"];
/** Folders anywhere in them that none of the programs opens: a third of all. */
const LEFT_OUT = ["gconv", "locale"];
/** Where the programs' loader is looked for (base-files brings it: /lib is usr/lib). */
const LOADER_LINK: CpioEntry = { path: "lib", mode: SYMLINK, data: Buffer.from("usr/lib") };

const folderOf = (architecture: BootedArchitecture): string => `${cacheOf(architecture)}-programs`;
const archiveOf = (architecture: BootedArchitecture): string => join(folderOf(architecture), "programs.cpio");
const stampOf = (architecture: BootedArchitecture): string => join(folderOf(architecture), "programs.json");
/** What an archive was made by. */
const RECIPE = createHash("sha256")
  .update(JSON.stringify([SUITE, PACKAGES, TAKEN, LEFT_OUT]))
  .digest("hex");

/** The archive as it lies in the cache; null if it does not, or was made otherwise. */
export function cachedPrograms(architecture: BootedArchitecture): string | null {
  const [archive, stamp] = [archiveOf(architecture), stampOf(architecture)];
  if (!existsSync(archive) || !existsSync(stamp)) return null;
  return (JSON.parse(readFileSync(stamp, "utf8")) as { recipe: string }).recipe === RECIPE ? archive : null;
}

/** The archive, made or found in the cache. Throws MissingHere for what this machine lacks. */
export function programsArchive(
  architecture: BootedArchitecture,
  log: (line: string) => void,
  refresh = false,
): string {
  const cached = refresh ? null : cachedPrograms(architecture);
  if (cached !== null) return cached;
  const folder = folderOf(architecture);
  mkdirSync(folder, { recursive: true });
  const apt = new DebianPackages(folder, { suite: SUITE, architecture });
  log(`reading the package lists of ${SUITE}/${architecture}`);
  apt.update();
  log(`downloading ${PACKAGES.join(", ")} and what they depend on`);
  const tree = join(folder, "tree");
  rmSync(tree, { recursive: true, force: true });
  mkdirSync(tree);
  const debs = apt.downloadAll(PACKAGES, SUITE);
  for (const deb of debs) unpack(deb, tree);
  const archive = archiveOf(architecture);
  const entries = TAKEN.flatMap((path) => entriesBelow(tree, join(tree, path)));
  writeFileSync(archive, cpio([LOADER_LINK, { path: "usr", mode: DIRECTORY }, ...entries]));
  rmSync(tree, { recursive: true, force: true });
  writeFileSync(stampOf(architecture), JSON.stringify({ recipe: RECIPE, packages: debs.map((deb) => basename(deb)) }));
  return archive;
}

/** A folder of an unpacked tree with all in it, in the order of names. */
function entriesBelow(tree: string, path: string): CpioEntry[] {
  const { mode } = lstatSync(path);
  const name = relative(tree, path);
  if ((mode & 0o170000) === (SYMLINK & 0o170000)) {
    return [{ path: name, mode: SYMLINK, data: Buffer.from(readlinkSync(path)) }];
  }
  if ((mode & 0o170000) !== (DIRECTORY & 0o170000)) return [{ path: name, mode, data: readFileSync(path) }];
  const within = readdirSync(path)
    .filter((child) => !LEFT_OUT.includes(child))
    .sort();
  return [{ path: name, mode: DIRECTORY }, ...within.flatMap((child) => entriesBelow(tree, join(path, child)))];
}
