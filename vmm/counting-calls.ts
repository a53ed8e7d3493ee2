// System calls, counted by request: what the summary of a run shows of the VMM's dealings with the host.

import type { MmioPort } from "../host/base/mmio.ts";
import { ioctlName } from "../host/uapi/ioctl-names.ts";
import type { SystemCalls, UserMemory } from "../host/uapi/system-calls.ts";

/** Not state: what the shell counts of a run. */
export class CountingCalls implements SystemCalls {
  readonly memory: UserMemory;
  readonly #calls: SystemCalls;
  readonly #counts = new Map<number, { times: number }>();
  /** The request made last, and its count. */
  #request = Number.NaN;
  #count = { times: 0 };

  constructor(calls: SystemCalls) {
    this.#calls = calls;
    this.memory = calls.memory;
  }

  get openFiles(): number {
    return this.#calls.openFiles;
  }

  /** ioctls by name. */
  get counts(): Record<string, number> {
    return Object.fromEntries([...this.#counts].map(([request, { times }]) => [ioctlName(request), times]));
  }

  /** The counts as they are, and back to what they were. */
  mark(): ReadonlyMap<number, number> {
    return new Map([...this.#counts].map(([request, { times }]) => [request, times]));
  }

  return(mark: ReadonlyMap<number, number>): void {
    this.#counts.clear();
    for (const [request, times] of mark) this.#counts.set(request, { times });
    this.#request = Number.NaN;
  }

  ioctl(fd: number, request: number, argument: bigint | number): number {
    if (request !== this.#request) {
      // The same request comes many times in a row.
      this.#request = request;
      this.#count = this.#counts.get(request) ?? { times: 0 };
      this.#counts.set(request, this.#count);
    }
    this.#count.times++;
    return this.#calls.ioctl(fd, request, argument);
  }

  open(path: string, flags: number): number {
    return this.#calls.open(path, flags);
  }

  close(fd: number): number {
    return this.#calls.close(fd);
  }

  read(fd: number, va: bigint, length: number, position: bigint): number {
    return this.#calls.read(fd, va, length, position);
  }

  write(fd: number, va: bigint, length: number, position: bigint): number {
    return this.#calls.write(fd, va, length, position);
  }

  poll(fd: number): number {
    return this.#calls.poll(fd);
  }

  eventfd(): number {
    return this.#calls.eventfd();
  }

  mmapRegion(fd: number, offset: bigint, length: number): MmioPort | number {
    return this.#calls.mmapRegion(fd, offset, length);
  }

  mmap(fd: number, offset: bigint, length: number, prot: number, flags: number): bigint {
    return this.#calls.mmap(fd, offset, length, prot, flags);
  }

  munmap(va: bigint, length: number): number {
    return this.#calls.munmap(va, length);
  }

  watch(fd: number, ready: (() => void) | null): number {
    return this.#calls.watch(fd, ready);
  }
}
