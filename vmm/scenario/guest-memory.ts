// Guest RAM as a scenario's guest driver uses it: loads and stores by guest-physical address (bigint), and a page allocator.
// These are the guest's own stores to RAM: no trap, no time.

import { type Gpa, type GpaPfn, offsetOf, pfnOf } from "../../host/base/address.ts";
import { ACCESS_OK, type PhysicalMemory } from "../../host/base/memory.ts";
import type { Trace } from "../../host/base/trace.ts";
import type { GuestMemory } from "../viommu/guest-driver.ts";

export class GuestRam implements GuestMemory {
  readonly memory: PhysicalMemory<GpaPfn>;
  readonly base: bigint;
  readonly bytes: bigint;
  /** Who is told of 8-byte stores, those to tables and queues; and as whose. */
  readonly #told: { readonly trace: Trace; readonly process: string } | null;
  #next: bigint;

  constructor(
    memory: PhysicalMemory<GpaPfn>,
    base: bigint,
    bytes: bigint,
    told: { readonly trace: Trace; readonly process: string } | null = null,
  ) {
    this.#told = told;
    this.memory = memory;
    this.base = base;
    this.bytes = bytes;
    this.#next = base;
  }

  /** Zeroed pages, contiguous, aligned to `alignment` bytes (a power of two >= 4096). Throws RangeError when RAM is used up. */
  allocate(pages = 1, alignment = 4096n): bigint {
    const start = (this.#next + alignment - 1n) & ~(alignment - 1n);
    const end = start + BigInt(pages) * 4096n;
    if (end > this.base + this.bytes) throw new RangeError(`guest RAM is used up: ${pages} more pages do not fit`);
    this.#next = end;
    this.write(start, new Uint8Array(pages * 4096));
    return start;
  }

  read64(address: bigint): bigint {
    this.#check(this.memory.load64(pfnOf(address as Gpa), offsetOf(address)), address);
    return (BigInt(this.memory.hi) << 32n) | BigInt(this.memory.lo);
  }

  write64(address: bigint, value: bigint): void {
    const lo = Number(value & 0xffffffffn);
    const hi = Number((value >> 32n) & 0xffffffffn);
    this.#check(this.memory.store64(pfnOf(address as Gpa), offsetOf(address), lo, hi), address);
    if (this.#told?.trace.on === true) {
      const { trace, process } = this.#told;
      trace.emit({ type: "store", process, address, value: BigInt.asUintN(64, value) });
    }
  }

  read(address: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.#check(this.memory.read(pfnOf(address as Gpa), offsetOf(address), bytes, 0, length), address);
    return bytes;
  }

  write(address: bigint, bytes: Uint8Array): void {
    this.#check(this.memory.write(pfnOf(address as Gpa), offsetOf(address), bytes, 0, bytes.length), address);
  }

  #check(status: number, address: bigint): void {
    if (status !== ACCESS_OK) throw new RangeError(`guest-physical 0x${address.toString(16)} is not RAM`);
  }
}
