// Whether a program can be made to use a modelled host: it must call the C library that the preload library stands in front of.

import { closeSync, openSync, readSync } from "node:fs";

/** ELF's number of this machine (System V ABI, e_machine), by Node's name. */
const MACHINES: Readonly<Record<string, number>> = {
  x64: 62,
  arm64: 183,
  riscv64: 243,
  ppc64: 21,
  s390x: 22,
  loong64: 258,
};
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const PT_NOTE = 4;
const DT_SONAME = 14n;
const CLASS_64 = 2;

/** Why a program cannot be run on a modelled host: half a sentence that follows its name; null: it can, as far as its file tells. */
export function whyNotPreloadable(path: string): string | null {
  let descriptor: number;
  try {
    descriptor = openSync(path, "r");
  } catch (error) {
    return `cannot be read: ${(error as NodeJS.ErrnoException).code ?? error}`;
  }
  try {
    return whyNot(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function whyNot(descriptor: number): string | null {
  const header = bytesAt(descriptor, 0, 64);
  // A script: its interpreter is a program of its own, and so is what it starts.
  if (header.length < 64 || header.readUInt32BE(0) !== 0x7f454c46) return null;
  if (header[4] !== CLASS_64 || header.readUInt16LE(18) !== (MACHINES[process.arch] ?? header.readUInt16LE(18))) {
    return "is a program for another machine than this one, into which the preload library cannot be loaded";
  }
  const [offset, size, count] = [Number(header.readBigUInt64LE(32)), header.readUInt16LE(54), header.readUInt16LE(56)];
  const table = bytesAt(descriptor, offset, size * count);
  let interpreter = false;
  let go = false;
  for (let at = 0; at + 56 <= table.length; at += Math.max(size, 56)) {
    const type = table.readUInt32LE(at);
    // The dynamic loader has none either, but is a library by name: what it is given to run is loaded as ever.
    interpreter ||= type === PT_INTERP || (type === PT_DYNAMIC && hasName(segmentAt(descriptor, table, at)));
    if (type !== PT_NOTE) continue;
    const note = segmentAt(descriptor, table, at);
    go ||= note.includes("Go\0\0", 0, "latin1");
  }
  if (go) return "is a Go program, which makes its system calls itself: the model sees only those of the C library";
  if (!interpreter) return "is linked statically: the model sees only calls of a shared C library";
  return null;
}

/** Bytes of the segment whose program header is at a place of the table. */
function segmentAt(descriptor: number, table: Buffer, at: number): Buffer {
  const length = Math.min(Number(table.readBigUInt64LE(at + 32)), 65536);
  return bytesAt(descriptor, Number(table.readBigUInt64LE(at + 8)), length);
}

function hasName(dynamic: Buffer): boolean {
  for (let at = 0; at + 16 <= dynamic.length; at += 16) if (dynamic.readBigUInt64LE(at) === DT_SONAME) return true;
  return false;
}

function bytesAt(descriptor: number, position: number, length: number): Buffer {
  const bytes = Buffer.alloc(Math.min(length, 1 << 20));
  return bytes.subarray(0, readSync(descriptor, bytes, 0, bytes.length, position));
}
