// A foreign process as the kernel's call handlers see it: its memory through /proc, its descriptors through /proc/PID/fd, its
// capabilities as it says them with each call.

import fs from "node:fs";
import {
  type CallContext,
  type Capabilities,
  type DescriptorTable,
  type FrameRun,
  OpenFile,
  type PageFile,
  type UserAccount,
} from "../kernel/file.ts";
import { EBADF, EINVAL } from "../uapi/errno.ts";
import { ClientEvents, ForeignEventFd } from "./client-events.ts";
import { ForeignMemory, identityOf } from "./foreign-memory.ts";
import type { FileIdentity, ForeignPages } from "./foreign-pages.ts";

const TMPFS = 0x01021994;
const HUGETLBFS = 0x958458f6;
const limitsBuffer = Buffer.alloc(8192);

/** A descriptor that the process's side will make when the call returns. */
export interface PendingDescriptor {
  readonly file: OpenFile;
  /** Where its number goes; null: it is the call's result. */
  readonly numberAt: bigint | null;
}

/** What a process needs of the server: the emulated files by the inode number of their sockets. */
export interface ForeignFiles {
  bySocket(inode: bigint): OpenFile | null;
}

export class ForeignProcess implements CallContext {
  readonly name: string;
  readonly pid: number;
  readonly memory: ForeignMemory;
  readonly frames: ForeignPages;
  readonly user: UserAccount;
  readonly descriptors: DescriptorTable;
  capabilities: Capabilities = { ipcLock: false, sysResource: false, sysRawio: false };
  /** Its eventfds that the kernel holds. */
  readonly events = new ClientEvents();
  /** Descriptors installed by the current call. */
  pending: PendingDescriptor[] = [];
  readonly #files: ForeignFiles;
  readonly #limits: number;

  /** Throws if the process is gone or may not be looked into. */
  constructor(pid: number, user: UserAccount, frames: ForeignPages, files: ForeignFiles) {
    this.name = `pid ${pid}`;
    this.pid = pid;
    this.user = user;
    this.frames = frames;
    this.#limits = fs.openSync(`/proc/${pid}/limits`, "r");
    try {
      this.memory = new ForeignMemory(pid, frames);
    } catch (error) {
      fs.closeSync(this.#limits);
      throw error;
    }
    this.#files = files;
    this.descriptors = {
      lookup: (fd) => this.#lookup(fd),
      // The number is made by the other side; until then there is nothing to hold.
      reserve: () => 0,
      install: (_fd, file, numberAt) => {
        this.pending.push({ file, numberAt });
      },
      cancel: () => {},
    };
  }

  get memlockLimit(): number {
    try {
      const length = fs.readSync(this.#limits, limitsBuffer, 0, limitsBuffer.length, 0);
      const line = /^Max locked memory\s+(\S+)/m.exec(limitsBuffer.toString("latin1", 0, length));
      return line === null || line[1] === "unlimited" ? Number.POSITIVE_INFINITY : Number(line[1]);
    } catch {
      return 0;
    }
  }

  /** The process is gone. */
  close(): void {
    this.memory.close();
    fs.closeSync(this.#limits);
  }

  #lookup(fd: number): OpenFile | number {
    if (fd < 0) return -EBADF;
    const path = `/proc/${this.pid}/fd/${fd}`;
    try {
      const target = fs.readlinkSync(path);
      const socket = /^socket:\[(\d+)\]$/.exec(target);
      if (socket !== null) {
        const file = this.#files.bySocket(BigInt(socket[1]!));
        if (file !== null) return file;
      }
      if (target === "anon_inode:[eventfd]") return new ForeignEventFd(this.events, fd);
      const { type } = fs.statfsSync(path);
      const { dev, ino } = fs.statSync(path);
      return new ForeignFile(path, identityOf(dev, ino), this.frames, type === TMPFS || type === HUGETLBFS);
    } catch {
      return -EBADF;
    }
  }
}

/** A file of the process's own, as IOAS_MAP_FILE uses it: open here from the first reference on. */
class ForeignFile extends OpenFile {
  readonly path: string;
  declare readonly pages?: PageFile;
  readonly #identity: FileIdentity;
  readonly #frames: ForeignPages;
  #open = false;

  constructor(path: string, identity: FileIdentity, frames: ForeignPages, pinnable: boolean) {
    super();
    this.path = path;
    this.#identity = identity;
    this.#frames = frames;
    if (pinnable) this.pages = { pageBytes: 4096, pin: (first, count) => this.#pin(first, count) };
  }

  override get(): this {
    if (!this.#open) this.#open = this.#frames.openFiles.open(this.#identity, this.path);
    return super.get();
  }

  override put(): void {
    super.put();
    // One reference is the lookup's own, which nobody gives back.
    if (this.references > 1 || !this.#open) return;
    this.#frames.openFiles.close(this.#identity);
    this.#open = false;
  }

  #pin(first: number, count: number): FrameRun[] | number {
    try {
      const descriptor = this.#frames.openFiles.descriptorOf(this.#identity);
      const { size } = descriptor === undefined ? fs.statSync(this.path) : fs.fstatSync(descriptor);
      if ((first + count) * 4096 > Math.ceil(size / 4096) * 4096) return -EINVAL;
    } catch {
      return -EINVAL;
    }
    const runs = this.#frames.fileRuns(this.#identity, first, count);
    if (typeof runs !== "number") for (const run of runs) this.#frames.pins.pin(run);
    return runs;
  }

  protected release(): void {}
}
