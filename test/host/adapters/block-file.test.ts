import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BlockFile, BlockFileError, type BlockFileOptions } from "../../../host/adapters/block-file.ts";
import { BLOCK_FAILED, BLOCK_OK } from "../../../host/devices/nvme/block-store.ts";

let directory: string;
let path: string;
const problems: string[] = [];
const onProblem = (message: string) => problems.push(message);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "block-file-"));
  path = join(directory, "disk.img");
  writeFileSync(path, new Uint8Array(64 * 512));
  problems.length = 0;
});

const stores: BlockFile[] = [];

/** Opens a store that is closed after the test. */
function opened(options: BlockFileOptions): BlockFile {
  const store = new BlockFile(options);
  stores.push(store);
  return store;
}

afterEach(() => {
  for (const store of stores.splice(0)) store[Symbol.dispose]();
  rmSync(directory, { recursive: true, force: true });
});

const block = (fill: number) => new Uint8Array(512).fill(fill);

/** A process id that no process has. */
const NOBODY = 4194304 + 1000;

describe("a block store in a file", () => {
  it("has as many blocks as fit, and refuses a file without one", () => {
    writeFileSync(path, new Uint8Array(5 * 4096 + 100));
    const store = opened({ path, blockBytes: 4096, onProblem });
    expect(store.blocks).toBe(5);
    const empty = join(directory, "empty.img");
    writeFileSync(empty, "");
    expect(() => new BlockFile({ path: empty, onProblem })).toThrow(/empty\.img: holds no block/);
  });

  it("writes through: the file has the bytes as soon as the write is done", () => {
    const store = opened({ path, onProblem });
    expect(store.write(3, 2, new Uint8Array(1024).fill(7), 0)).toBe(BLOCK_OK);
    const bytes = readFileSync(path);
    expect([bytes[3 * 512 - 1], bytes[3 * 512], bytes[5 * 512 - 1], bytes[5 * 512]]).toEqual([0, 7, 7, 0]);
    const back = new Uint8Array(2048);
    expect(store.read(3, 2, back, 512)).toBe(BLOCK_OK);
    expect([back[511], back[512], back[1535], back[1536]]).toEqual([0, 7, 7, 0]);
    expect(store.flush()).toBe(BLOCK_OK);
  });

  it("writes zeroes to the blocks named", () => {
    const store = opened({ path, onProblem });
    store.write(0, 3, new Uint8Array(1536).fill(9), 0);
    expect(store.zero(1, 1)).toBe(BLOCK_OK);
    const bytes = readFileSync(path);
    expect([bytes[511], bytes[512], bytes[1023], bytes[1024]]).toEqual([9, 0, 0, 9]);
  });

  it("fails reads and writes beyond the end of a truncated file, and says so once a kind", () => {
    const store = opened({ path, onProblem });
    truncateSync(path, 10 * 512);
    const buffer = block(1);
    expect(store.read(9, 1, buffer, 0)).toBe(BLOCK_OK);
    expect(store.read(10, 1, buffer, 0)).toBe(BLOCK_FAILED);
    expect(store.read(11, 1, buffer, 0)).toBe(BLOCK_FAILED);
    expect(store.write(20, 1, buffer, 0)).toBe(BLOCK_FAILED);
    expect(store.zero(10, 1)).toBe(BLOCK_FAILED);
    expect(readFileSync(path)).toHaveLength(10 * 512);
    expect(problems).toHaveLength(2);
    expect(problems[0]).toMatch(/disk\.img: is shorter than it was when it was opened; the guest's read/);
  });

  it("opens an unwritable file for reading, with a message, and fails writes", () => {
    chmodSync(path, 0o444);
    chmodSync(directory, 0o555);
    // The superuser may write anything; be somebody else meanwhile.
    const superuser = process.geteuid?.() === 0;
    if (superuser) process.seteuid?.(65534);
    try {
      const store = opened({ path, onProblem });
      expect(problems).toHaveLength(1);
      expect(problems[0]).toMatch(/cannot be written/);
      expect(store.read(0, 1, block(0), 0)).toBe(BLOCK_OK);
      expect(store.write(0, 1, block(1), 0)).toBe(BLOCK_FAILED);
      expect(store.flush()).toBe(BLOCK_OK);
    } finally {
      if (superuser) process.seteuid?.(0);
      chmodSync(directory, 0o755);
    }
  });

  it("refuses what is not a regular file", () => {
    expect(() => new BlockFile({ path: "/dev/null", onProblem })).toThrow(/not a regular file/);
  });

  it("names a missing file and what to do", () => {
    expect(() => new BlockFile({ path: join(directory, "none"), onProblem })).toThrow(/none: no such file; make one/);
  });

  it("fails everything after it was closed", () => {
    const store = new BlockFile({ path, onProblem });
    store[Symbol.dispose]();
    store[Symbol.dispose]();
    expect(store.read(0, 1, block(0), 0)).toBe(BLOCK_FAILED);
  });
});

describe("its lock", () => {
  it("keeps a second opener out, by another name too, until the first closes", () => {
    const first = new BlockFile({ path, onProblem });
    expect(() => new BlockFile({ path, onProblem })).toThrow(BlockFileError);
    symlinkSync(path, join(directory, "link.img"));
    expect(() => new BlockFile({ path: join(directory, "link.img"), onProblem })).toThrow(
      new RegExp(`in use by process ${process.pid}`),
    );
    first[Symbol.dispose]();
    expect(existsSync(`${path}.lock`)).toBe(false);
    new BlockFile({ path, onProblem })[Symbol.dispose]();
  });

  it("of a dead process is taken over", () => {
    writeFileSync(`${path}.lock`, `${hostname()} ${NOBODY} 1\n`);
    const store = opened({ path, onProblem });
    expect(store.blocks).toBe(64);
    expect(readFileSync(`${path}.lock`, "utf8")).toContain(` ${process.pid} `);
  });

  if (!existsSync("/proc/self/stat")) console.warn("SKIPPED: no /proc here, reused process ids are not told apart");
  it.skipIf(!existsSync("/proc/self/stat"))("of a dead process whose id another process has now is taken over", () => {
    writeFileSync(`${path}.lock`, `${hostname()} ${process.ppid} 1\n`);
    const store = opened({ path, onProblem });
    expect(store.blocks).toBe(64);
  });

  it("of a living process holds, whoever it is", () => {
    writeFileSync(`${path}.lock`, `${hostname()} ${process.ppid} -\n`);
    expect(() => new BlockFile({ path, onProblem })).toThrow(new RegExp(`process ${process.ppid}`));
  });

  it("that names nobody is taken over once it is clear that nobody is writing it", () => {
    writeFileSync(`${path}.lock`, "");
    const longAgo = Date.now() / 1000 - 60;
    utimesSync(`${path}.lock`, longAgo, longAgo);
    expect(opened({ path, onProblem }).blocks).toBe(64);
  });

  it("of another machine, or one that cannot be read yet, holds", () => {
    writeFileSync(`${path}.lock`, `elsewhere.example ${NOBODY} 1\n`);
    expect(() => new BlockFile({ path, onProblem })).toThrow(/on elsewhere\.example/);
    writeFileSync(`${path}.lock`, "");
    expect(() => new BlockFile({ path, onProblem })).toThrow(BlockFileError);
  });
});
