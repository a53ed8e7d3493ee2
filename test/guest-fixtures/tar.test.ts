// Archives of the Debian root, read and written: tar itself is the other party.

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { readTar, tarEnd, tarFile } from "../../guest-fixtures/debian/tar.ts";

it("what tar writes is read: folders, files, links, names of more than a hundred bytes", () => {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-tar-"));
  const long = `${"a-long-name-".repeat(15)}end`;
  mkdirSync(join(folder, "d"));
  writeFileSync(join(folder, "d/file"), "x".repeat(700));
  writeFileSync(join(folder, "d", long), "content");
  symlinkSync("file", join(folder, "d/link"));
  const { stdout } = spawnSync("tar", ["--format=gnu", "--sort=name", "-C", folder, "-cf", "-", "./d"]);
  rmSync(folder, { recursive: true });
  const { entries, end } = readTar(stdout);
  const seen = entries.map(({ name, type, data }) => [name, type, data.length]);
  expect(seen).toEqual([
    ["./d/", "5", 0],
    [`./d/${long}`, "0", 7],
    ["./d/file", "0", 700],
    ["./d/link", "2", 0],
  ]);
  // what is behind are the two blocks of zeros that end an archive, and padding
  expect(stdout.subarray(end).every((byte) => byte === 0)).toBe(true);
  // The last header is the link's; before it stands the second half of the file, which is cut off here.
  expect(() => readTar(stdout.subarray(0, end - 1024))).toThrow(RangeError);
});

it("tar reads what is written, as root's, of whole blocks of a drive", () => {
  const files = [tarFile("./etc/one", 0o644, Buffer.from("first\n")), tarFile("./two", 0o755, Buffer.alloc(512, 0x41))];
  const length = files[0]!.length + files[1]!.length;
  const archive = Buffer.concat([...files, tarEnd(length, 4096)]);
  expect(archive.length % 4096).toBe(0);
  const { stdout, status } = spawnSync("tar", ["--numeric-owner", "-tvf", "-"], { input: archive });
  expect(status).toBe(0);
  const lines = stdout.toString().trim().split("\n");
  expect(lines[0]).toMatch(/^-rw-r--r-- 0\/0 +6 .* \.\/etc\/one$/);
  expect(lines[1]).toMatch(/^-rwxr-xr-x 0\/0 +512 .* \.\/two$/);
  expect(lines).toHaveLength(2);
});
