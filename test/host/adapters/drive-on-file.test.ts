// An NVMe drive on a file that goes wrong underneath: the guest sees a media error, the user a message.

import { chmodSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { BlockFile } from "../../../host/adapters/block-file.ts";
import { DATA, kind, NvmeTestDriver } from "../devices/nvme/test-driver.ts";

const UNRECOVERED_READ_ERROR = 0x281;
const WRITE_FAULT = 0x280;

let directory: string;
let path: string;
let store: BlockFile | null = null;
const problems: string[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "drive-on-file-"));
  path = join(directory, "disk.img");
  writeFileSync(path, new Uint8Array(1024 * 512));
  problems.length = 0;
});

afterEach(() => {
  store?.close();
  rmSync(directory, { recursive: true, force: true });
});

function drive(): NvmeTestDriver {
  store = new BlockFile({ path, onProblem: (message) => problems.push(message) });
  const nvme = new NvmeTestDriver(store);
  nvme.enable();
  nvme.createIoQueue(1);
  return nvme;
}

it("a write is in the file when it has completed", () => {
  const nvme = drive();
  nvme.bus.memory.fill(0x5a, DATA, DATA + 512);
  expect(nvme.transfer(true, 7, 1).status).toBe(0);
  expect(
    readFileSync(path)
      .subarray(7 * 512, 8 * 512)
      .every((byte) => byte === 0x5a),
  ).toBe(true);
  expect(problems).toEqual([]);
});

it("a truncated file gives media errors for what is gone, and works for the rest", () => {
  const nvme = drive();
  truncateSync(path, 100 * 512);
  expect(kind(nvme.transfer(false, 100, 1))).toBe(UNRECOVERED_READ_ERROR);
  expect(kind(nvme.transfer(true, 99, 2))).toBe(WRITE_FAULT);
  expect(nvme.transfer(false, 99, 1).status).toBe(0);
  expect(problems).toHaveLength(2);
  expect(problems.every((problem) => problem.startsWith(path) && problem.includes("media error"))).toBe(true);
});

it("an unwritable file gives media errors for writes, and can be read", () => {
  chmodSync(path, 0o444);
  chmodSync(directory, 0o555);
  // The superuser may write anything; be somebody else while opening.
  const superuser = process.geteuid?.() === 0;
  if (superuser) process.seteuid?.(65534);
  try {
    const nvme = drive();
    expect(nvme.transfer(false, 0, 1).status).toBe(0);
    expect(kind(nvme.transfer(true, 0, 1))).toBe(WRITE_FAULT);
    expect(problems[0]).toContain("cannot be written");
  } finally {
    if (superuser) process.seteuid?.(0);
    chmodSync(directory, 0o755);
  }
});
