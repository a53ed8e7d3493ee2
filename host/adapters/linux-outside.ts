// The world outside of a served host on this Linux machine: its monotonic clock, processes through /proc, files.

import fs from "node:fs";
import type { BlockStore } from "../devices/nvme/block-store.ts";
import { BlockFile } from "./block-file.ts";
import type { FileIdentity, Outside, OutsideDescriptor, OutsideFile, OutsideProcess } from "./outside.ts";

const TMPFS = 0x01021994;
const HUGETLBFS = 0x958458f6;
const O_PATH = 0o10000000;
/** Shared by all processes: nothing of these is kept from one call to the next. */
const limitsBuffer = Buffer.alloc(8192);
let mapsBuffer = Buffer.alloc(65536);

export class LinuxOutside implements Outside {
  onWake: () => void = () => {};
  readonly #say: (line: string) => void;
  readonly #start = performance.now();
  #timer: NodeJS.Timeout | null = null;
  #immediate: NodeJS.Immediate | null = null;

  /** `say`: gets a line for the user when a drive's file has a problem. */
  constructor(say: (line: string) => void) {
    this.#say = say;
  }

  now(): number {
    return Math.floor((performance.now() - this.#start) * 1e6);
  }

  /** A timer has a millisecond's grain: what is due sooner is looked for again and again. */
  wake(ms: number | null): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    this.#timer = null;
    this.#immediate = null;
    if (ms === null) return;
    if (ms < 1) this.#immediate = setImmediate(() => this.onWake());
    else this.#timer = setTimeout(() => this.onWake(), Math.min(ms, 0x7fff_ffff));
  }

  process(pid: number): OutsideProcess | null {
    try {
      return new LinuxProcess(pid);
    } catch {
      return null;
    }
  }

  openBlockFile(path: string, blockBytes: 512 | 4096): BlockStore & { close(): void } {
    return new BlockFile({ path, blockBytes, onProblem: this.#say });
  }

  putFile(path: string, bytes: Uint8Array): boolean {
    try {
      fs.writeFileSync(path, bytes, { mode: 0o600 });
      return true;
    } catch {
      // No room in the file system, or no descriptor.
      fs.rmSync(path, { force: true });
      return false;
    }
  }

  removeFile(path: string): void {
    fs.rmSync(path, { force: true });
  }
}

class LinuxProcess implements OutsideProcess {
  readonly #pid: number;
  readonly #memory: number;
  readonly #maps: number;
  readonly #limits: number;

  /** Throws if the process is gone or may not be looked into. */
  constructor(pid: number) {
    this.#pid = pid;
    const opened: number[] = [];
    const open = (name: string, mode: string): number => {
      const descriptor = fs.openSync(`/proc/${pid}/${name}`, mode);
      opened.push(descriptor);
      return descriptor;
    };
    try {
      this.#limits = open("limits", "r");
      this.#memory = open("mem", "r+");
      this.#maps = open("maps", "r");
    } catch (error) {
      for (const descriptor of opened) fs.closeSync(descriptor);
      throw error;
    }
  }

  close(): void {
    for (const descriptor of [this.#limits, this.#memory, this.#maps]) fs.closeSync(descriptor);
  }

  read(address: number, into: Uint8Array): boolean {
    return copy(this.#memory, address, into, false);
  }

  write(address: number, from: Uint8Array): boolean {
    return copy(this.#memory, address, from, true);
  }

  maps(): Buffer {
    let length = 0;
    try {
      for (;;) {
        if (length === mapsBuffer.length) mapsBuffer = Buffer.concat([mapsBuffer], 2 * mapsBuffer.length);
        const got = fs.readSync(this.#maps, mapsBuffer, length, mapsBuffer.length - length, length);
        if (got === 0) break;
        length += got;
        // The kernel's own page is always the last line where there is one: no need to read on to find the end.
        if (mapsBuffer.subarray(Math.max(0, length - 16), length).includes("[vsyscall]")) break;
      }
    } catch {
      length = 0;
    }
    return mapsBuffer.subarray(0, length);
  }

  memlockLimit(): number {
    try {
      const length = fs.readSync(this.#limits, limitsBuffer, 0, limitsBuffer.length, 0);
      const line = /^Max locked memory\s+(\S+)/m.exec(limitsBuffer.toString("latin1", 0, length));
      return line === null || line[1] === "unlimited" ? Number.POSITIVE_INFINITY : Number(line[1]);
    } catch {
      return 0;
    }
  }

  descriptor(fd: number): OutsideDescriptor | null {
    const path = this.#path(fd);
    try {
      const target = fs.readlinkSync(path);
      const socket = /^socket:\[(\d+)\]$/.exec(target);
      if (socket !== null) return { kind: "socket", inode: BigInt(socket[1]!) };
      if (target === "anon_inode:[eventfd]") return { kind: "eventfd" };
      if (this.#isPlace(fd)) return null;
      const { type } = fs.statfsSync(path);
      const { dev, ino } = fs.statSync(path);
      return { kind: "file", identity: identityOf(dev, ino), pinnable: type === TMPFS || type === HUGETLBFS };
    } catch {
      return null;
    }
  }

  /** Opened with O_PATH: no call on files takes it. Throws if it is gone. */
  #isPlace(fd: number): boolean {
    const flags = /^flags:\s+([0-7]+)/m.exec(fs.readFileSync(`/proc/${this.#pid}/fdinfo/${fd}`, "latin1"))?.[1];
    return (Number.parseInt(flags ?? "0", 8) & O_PATH) !== 0;
  }

  openFile(fd: number): OutsideFile | null {
    try {
      return new LinuxFile(fs.openSync(this.#path(fd), "r+"));
    } catch {
      return null;
    }
  }

  fileSize(fd: number): number {
    try {
      return fs.statSync(this.#path(fd)).size;
    } catch {
      return -1;
    }
  }

  #path(fd: number): string {
    return `/proc/${this.#pid}/fd/${fd}`;
  }
}

class LinuxFile implements OutsideFile {
  readonly #descriptor: number;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  read(position: number, into: Uint8Array): boolean {
    return copy(this.#descriptor, position, into, false);
  }

  write(position: number, from: Uint8Array): boolean {
    return copy(this.#descriptor, position, from, true);
  }

  size(): number {
    try {
      return fs.fstatSync(this.#descriptor).size;
    } catch {
      return -1;
    }
  }

  close(): void {
    fs.closeSync(this.#descriptor);
  }
}

function copy(descriptor: number, position: number, bytes: Uint8Array, write: boolean): boolean {
  try {
    const moved = write
      ? fs.writeSync(descriptor, bytes, 0, bytes.length, position)
      : fs.readSync(descriptor, bytes, 0, bytes.length, position);
    return moved === bytes.length;
  } catch {
    return false;
  }
}

/** A file's identity as /proc/PID/maps writes it, from its stat numbers. */
function identityOf(device: number, inode: number): FileIdentity {
  const major = (device >>> 8) & 0xfff;
  const minor = (device & 0xff) | ((device >>> 12) & 0xfff00);
  return `${major.toString(16).padStart(2, "0")}:${minor.toString(16).padStart(2, "0")}:${inode}`;
}
