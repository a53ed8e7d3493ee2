// The calls by which a process makes and drops objects in its kernel, written down, so that another process can make the same: what a machine's document
// finds by name is then there (vmm/whole-machine.ts). Calls that fail make nothing; those that only ask, read, write or invalidate are left out.

import { ioctlName } from "../../host/uapi/ioctl-names.ts";
import { IOMMU_HWPT_INVALIDATE } from "../../host/uapi/iommufd.ts";
import type { SystemCalls, UserMemory } from "../../host/uapi/system-calls.ts";

const PAGE = 4096n;
/** Calls of a guest that switches for ever: of more nothing is kept, and its machine is made anew by running again. */
const MOST = 8192;

type Call = (system: SystemCalls) => unknown;

export class CallLog implements SystemCalls {
  readonly memory: UserMemory;
  readonly #system: SystemCalls;
  readonly #log: Call[] = [];
  #made = 0;

  constructor(system: SystemCalls) {
    this.#system = system;
    this.memory = system.memory;
  }

  /** Calls so far: while their number stands, so does the set of objects. */
  get made(): number {
    return this.#made;
  }

  /** Makes the calls of another log from where this one ends, up to its first `made` ones. False: it does not have them any more. */
  follow(other: CallLog, made: number): boolean {
    if (made > other.#log.length || this.#made > made) return false;
    for (const call of other.#log.slice(this.#made, made)) call(this);
    return this.#made === made;
  }

  open(path: string, flags: number): number {
    return this.#note(this.#system.open(path, flags), () => (system) => system.open(path, flags));
  }

  close(fd: number): number {
    return this.#note(this.#system.close(fd), () => (system) => system.close(fd));
  }

  ioctl(fd: number, request: number, argument: bigint | number): number {
    if (request === IOMMU_HWPT_INVALIDATE || onlyAsks(request)) return this.#system.ioctl(fd, request, argument);
    const page = BigInt(argument) & -PAGE;
    // Structure and data, as the call finds them: both are in one page of the caller's scratch area, if it has one (kernel-calls.ts).
    const bytes = this.#made < MOST ? this.#pageAt(page) : null;
    const result = this.#system.ioctl(fd, request, argument);
    return this.#note(result, () => (system) => {
      if (bytes !== null) system.memory.bytes(page, Number(PAGE)).set(bytes);
      return system.ioctl(fd, request, argument);
    });
  }

  #pageAt(page: bigint): Uint8Array | null {
    try {
      return this.memory.bytes(page, Number(PAGE)).slice();
    } catch (error) {
      // An integer, not an address.
      if (error instanceof RangeError) return null;
      throw error;
    }
  }

  eventfd(): number {
    return this.#note(this.#system.eventfd(), () => (system) => system.eventfd());
  }

  mmapRegion(...region: Parameters<SystemCalls["mmapRegion"]>): ReturnType<SystemCalls["mmapRegion"]> {
    const result = this.#system.mmapRegion(...region);
    this.#note(typeof result === "number" ? result : 0, () => (system) => system.mmapRegion(...region));
    return result;
  }

  mmap(...mapping: Parameters<SystemCalls["mmap"]>): bigint {
    const va = this.#system.mmap(...mapping);
    this.#note(va < 0n ? -1 : 0, () => (system) => system.mmap(...mapping));
    return va;
  }

  munmap(va: bigint, length: number): number {
    return this.#note(this.#system.munmap(va, length), () => (system) => system.munmap(va, length));
  }

  read(fd: number, va: bigint, length: number, position: bigint): number {
    return this.#system.read(fd, va, length, position);
  }

  write(fd: number, va: bigint, length: number, position: bigint): number {
    return this.#system.write(fd, va, length, position);
  }

  poll(fd: number): number {
    return this.#system.poll(fd);
  }

  watch(fd: number, ready: (() => void) | null): number {
    return this.#system.watch(fd, ready);
  }

  get openFiles(): number {
    return this.#system.openFiles;
  }

  /** Notes a call that has been made, if it was. */
  #note(result: number, call: () => Call): number {
    if (result < 0) return result;
    if (this.#made === this.#log.length && this.#made < MOST) this.#log.push(call());
    this.#made++;
    return result;
  }
}

const onlyAsks = (request: number): boolean => /_GET_/.test(ioctlName(request));
