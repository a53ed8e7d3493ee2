// ioctls with structures, over a process's raw system calls: the argument is laid out in the process's own memory, the kernel
// reads and writes it there, what came back is decoded. One scratch area an owner; calls do not nest.

import type { Layout, LayoutField, LayoutValues } from "../../host/base/layout.ts";
import type { SystemCalls } from "../../host/uapi/system-calls.ts";
import { HostRefusal } from "./host-refusal.ts";

/** Structures go at the start of the scratch area, data they point to behind. */
const DATA_OFFSET = 1024;

/** One ioctl that is made over and over: its structure stays in the process's memory, only what changes is written. */
export class PreparedCall {
  /** The structure; fields by their byte offsets. */
  readonly view: DataView; // not state: arguments in the process's memory, written before each call
  readonly #system: SystemCalls;
  readonly #address: bigint;
  /** The address as the call takes it: a number, if a double holds it. */
  readonly #argument: bigint | number;
  readonly #length: number;

  /** Throws HostRefusal if the process has no memory left. */
  constructor(system: SystemCalls, structure: { readonly bytes: number }) {
    this.#system = system;
    this.#length = structure.bytes;
    this.#address = system.memory.allocate(structure.bytes);
    if (this.#address < 0n) throw new HostRefusal("memory for system call arguments", Number(this.#address));
    this.#argument = this.#address < BigInt(Number.MAX_SAFE_INTEGER) ? Number(this.#address) : this.#address;
    const bytes = system.memory.bytes(this.#address, structure.bytes);
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.view.setUint32(0, structure.bytes, true);
  }

  ioctl(fd: number, request: number): number {
    return this.#system.ioctl(fd, request, this.#argument);
  }

  [Symbol.dispose](): void {
    this.#system.memory.free(this.#address, this.#length);
  }
}

export class KernelCalls {
  readonly system: SystemCalls;
  readonly #scratch: bigint;
  readonly #size: number;

  /** `dataBytes`: the most that one call's pointed-to data takes. Throws HostRefusal if the process has no memory left. */
  constructor(system: SystemCalls, dataBytes = 3072) {
    this.system = system;
    this.#size = DATA_OFFSET + dataBytes;
    this.#scratch = system.memory.allocate(this.#size);
    if (this.#scratch < 0n) throw new HostRefusal("memory for system call arguments", Number(this.#scratch));
  }

  /** User address of the data area. */
  get dataAddress(): bigint {
    return this.#scratch + BigInt(DATA_OFFSET);
  }

  /** A view of `length` bytes of the data area. */
  data(length: number): Uint8Array {
    return this.system.memory.bytes(this.dataAddress, length);
  }

  /**
   * One ioctl. `values` go in (a `size` or `argsz` field is filled in), the structure as the kernel left it comes back in `out`;
   * `result` is the kernel's, >= 0 or a negated errno.
   */
  ioctl<T extends Record<string, LayoutField>>(
    fd: number,
    request: number,
    structure: Layout<T>,
    values: Partial<LayoutValues<T>>,
    trailing?: Uint8Array,
  ): { readonly result: number; readonly out: LayoutValues<T> } {
    const total = structure.bytes + (trailing?.length ?? 0);
    const bytes = this.system.memory.bytes(this.#scratch, total);
    bytes.set(structure.encode(values));
    const first = bytes.length >= 4 ? new DataView(bytes.buffer, bytes.byteOffset, 4) : null;
    if ("size" in structure.fields || "argsz" in structure.fields) first?.setUint32(0, total, true);
    if (trailing !== undefined) bytes.set(trailing, structure.bytes);
    const result = this.system.ioctl(fd, request, this.#scratch);
    return { result, out: structure.decode(this.system.memory.bytes(this.#scratch, structure.bytes)) };
  }

  /** Reads up to `length` bytes into the data area: the bytes (a view, valid until the next call), or a negated errno. */
  read(fd: number, length: number, position = -1n): Uint8Array | number {
    const count = this.system.read(fd, this.dataAddress, length, position);
    return count < 0 ? count : this.data(count);
  }

  /** Writes bytes; the count, or a negated errno. */
  write(fd: number, bytes: Uint8Array, position = -1n): number {
    this.data(bytes.length).set(bytes);
    return this.system.write(fd, this.dataAddress, bytes.length, position);
  }

  [Symbol.dispose](): void {
    this.system.memory.free(this.#scratch, this.#size);
  }
}
