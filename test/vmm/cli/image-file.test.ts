// Files that go into RAM (vmm/cli/image-file.ts).

import { existsSync, mkdtempSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { UsageError } from "../../../vmm/cli/exit-codes.ts";
import { ImageFile } from "../../../vmm/cli/image-file.ts";

const CONTENTS = Uint8Array.from({ length: 5000 }, (_, index) => index % 251);
let folder: string;
let path: string;
let file: ImageFile;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-image-"));
  path = join(folder, "image");
  writeFileSync(path, CONTENTS);
  file = new ImageFile(path, 1e6, "--kernel image");
});

afterEach(() => {
  file.close();
  rmSync(folder, { recursive: true });
});

function copied(): Uint8Array {
  const ram = new Uint8Array(file.length + 2).fill(0xff);
  file.copyTo(ram.subarray(1, -1));
  expect([ram[0], ram.at(-1)]).toEqual([0xff, 0xff]);
  return ram.subarray(1, -1);
}

describe("a file for RAM", () => {
  it("goes there whole, as often as a machine starts", () => {
    expect(file.head(4)).toEqual(CONTENTS.subarray(0, 4));
    expect(copied()).toEqual(CONTENTS);
    expect(copied()).toEqual(CONTENTS);
  });

  it("has a head no longer than itself", () => {
    expect(file.head(1e6)).toEqual(CONTENTS);
  });

  it("that is another by now goes there as it was opened", () => {
    rmSync(path);
    writeFileSync(path, "another");
    expect(copied()).toEqual(CONTENTS);
  });

  it.each([
    ["has been written to", () => writeFileSync(path, CONTENTS.toReversed())],
    ["is shorter", () => truncateSync(path, 4999)],
    ["is longer", () => truncateSync(path, 5001)],
  ])("that %s since it was opened is refused", (_what, change) => {
    change();
    // Clocks of file systems are coarse.
    utimesSync(path, 1, 1);
    expect(() => copied()).toThrow(UsageError);
    expect(() => copied()).toThrow("--kernel image: has changed since it was opened");
  });

  it("whose bytes were asked for stays as they were", () => {
    expect(Uint8Array.from(file.bytes)).toEqual(CONTENTS);
    truncateSync(path, 0);
    expect(copied()).toEqual(CONTENTS);
  });

  it("beyond the limit, or not there, is refused", () => {
    expect(() => new ImageFile(path, 4999, "--initrd x")).toThrow("--initrd x: longer than 4999 bytes");
    expect(() => new ImageFile(join(folder, "none"), 1, "--initrd x")).toThrow("--initrd x: no such file or folder");
    expect(() => new ImageFile(folder, 1, "--initrd x")).toThrow("--initrd x: is a folder");
  });

  it.skipIf(!existsSync("/proc/version"))("that does not say how long it is is read at once", () => {
    file.close();
    file = new ImageFile("/proc/version", 1e6, "--kernel image");
    expect(file.length).toBeGreaterThan(0);
    expect(copied()).toEqual(Uint8Array.from(file.bytes));
  });
});
