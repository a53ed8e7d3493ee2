// Debian's minimal system (packages that are required, apt, systemd, udev) as one tar archive that a guest unpacks on its drive: every package unpacked, none
// configured. What dpkg would have written down while unpacking (status, lists of files, scripts) is written here, so that the guest's own dpkg goes on from there,
// as a second stage of debootstrap does. Neither root nor the guest's instruction set is needed on this machine.

import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { DebianPackages, packageTar } from "./debian-packages.ts";
import { type BootedArchitecture, cacheOf, SUITE, sources } from "./recipe.ts";
import { readTar, tarEnd, tarFile } from "./tar.ts";

/** apt's patterns, and what a login prompt under systemd needs beyond. */
const PACKAGES = ["?priority(required)", "?essential", "apt", "systemd-sysv", "udev", "login", "passwd"];
/** A drive's file is whole blocks, and a page of the host's. */
const DRIVE_UNIT = 4096;

export interface RootArchive {
  readonly archive: string;
  readonly packages: number;
}

/** The archive, made or found in the cache. Throws MissingHere for what this machine lacks. */
export function rootArchive(architecture: BootedArchitecture, log: (line: string) => void): RootArchive {
  const cache = `${cacheOf(architecture)}-root`;
  const archive = join(cache, "root.tar");
  const stamp = join(cache, "root.json");
  const configure = readFileSync(join(sources, "configure-root.sh"));
  const id = createHash("sha256").update(configure).update(PACKAGES.join()).digest("hex");
  if (existsSync(stamp) && existsSync(archive)) {
    const made = JSON.parse(readFileSync(stamp, "utf8")) as { id: string; packages: number };
    if (made.id === id) return { archive, packages: made.packages };
  }
  mkdirSync(cache, { recursive: true });
  const apt = new DebianPackages(cache, { suite: SUITE, architecture });
  log(`reading the package lists of ${SUITE}/${architecture}`);
  apt.update();
  log(`downloading the packages of a minimal system: ${PACKAGES.join(", ")}`);
  const debs = apt.downloadAll(PACKAGES, SUITE);
  log(`writing ${debs.length} packages into ${archive}`);
  const unfinished = `${archive}.unfinished`;
  const fd = openSync(unfinished, "w");
  let length = 0;
  const write = (bytes: Buffer): void => {
    length += bytes.length;
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
  };
  const status: string[] = [];
  // base-files brings the links that others' files lie behind (/bin → usr/bin)
  const isBase = (deb: string): boolean => deb.includes("/base-files_");
  for (const deb of [...debs.filter(isBase), ...debs.filter((one) => !isBase(one))]) {
    const files = packageTar(deb, "--fsys-tarfile");
    const { entries, end } = readTar(files);
    write(files.subarray(0, end));
    const { stanza, info } = unpackedAs(entries, readTar(packageTar(deb, "--ctrl-tarfile")).entries);
    for (const file of info) write(file);
    status.push(stanza);
  }
  write(tarFile("./var/lib/dpkg/status", 0o644, Buffer.from(`${status.join("\n\n")}\n`)));
  // 1: names below info/ may have an architecture (dpkg, lib/dpkg/db-fsys-digest.c)
  write(tarFile("./var/lib/dpkg/info/format", 0o644, Buffer.from("1\n")));
  write(tarFile("./var/lib/dpkg/available", 0o644, Buffer.alloc(0)));
  write(tarFile("./nestbox-configure", 0o755, configure));
  write(tarEnd(length, DRIVE_UNIT));
  closeSync(fd);
  renameSync(unfinished, archive);
  writeFileSync(stamp, JSON.stringify({ id, packages: debs.length }));
  return { archive, packages: debs.length };
}

/** What dpkg keeps of a package that it has unpacked: its entry of the status file, and its files below info/. */
function unpackedAs(
  files: readonly { readonly name: string; readonly type: string; readonly data: Buffer }[],
  control: readonly { readonly name: string; readonly type: string; readonly data: Buffer }[],
): { readonly stanza: string; readonly info: readonly Buffer[] } {
  const part = (name: string): Buffer | undefined => control.find((entry) => entry.name === `./${name}`)?.data;
  const fields = part("control")!.toString("utf8").trimEnd();
  const field = (name: string): string => new RegExp(`^${name}: (.*)$`, "m").exec(fields)?.[1] ?? "";
  const own = field("Multi-Arch") === "same" ? `${field("Package")}:${field("Architecture")}` : field("Package");
  const info = (name: string, mode: number, data: Buffer): Buffer =>
    tarFile(`./var/lib/dpkg/info/${own}.${name}`, mode, data);
  // dpkg lists "/.", "/usr/bin/true"
  const names = files.map(({ name }) => (name === "./" ? "/." : name.slice(1).replace(/\/$/, "")));
  const contents = new Map(files.map(({ name, data }) => [name.slice(1), data]));
  const conffiles = (part("conffiles")?.toString("utf8") ?? "")
    .split("\n")
    .filter((line) => line.startsWith("/"))
    .map(
      (name) =>
        ` ${name} ${createHash("md5")
          .update(contents.get(name) ?? "")
          .digest("hex")}`,
    );
  const stanza = [
    fields.replace(/^(Package: .*)$/m, "$1\nStatus: install ok unpacked"),
    ...(conffiles.length === 0 ? [] : ["Conffiles:", ...conffiles]),
  ].join("\n");
  const scripts = control.filter(({ name, type }) => type === "0" && name !== "./control");
  return {
    stanza,
    info: [
      info("list", 0o644, Buffer.from(`${names.join("\n")}\n`)),
      ...scripts.map(({ name, data }) => info(name.slice(2), /(inst|rm|config)$/.test(name) ? 0o755 : 0o644, data)),
    ],
  };
}
