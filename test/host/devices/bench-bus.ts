// A bus for one function under test: flat memory at DMA addresses, messages and pin changes written down, a clock that the test moves.

import { Clock } from "../../../host/base/clock.ts";
import {
  type AtsPort,
  DMA_ABORTED,
  DMA_OK,
  type DmaPort,
  type DmaStatus,
  type PciFunction,
} from "../../../host/devices/ports.ts";

export interface Transfer {
  readonly write: boolean;
  readonly address: bigint;
  readonly length: number;
  readonly pasid: number;
}

/** Address range in which writes are messages. */
export const MESSAGE_PAGE = 0xfee00n;

export class BenchBus implements DmaPort {
  readonly clock = new Clock();
  readonly memory: Uint8Array;
  readonly transfers: Transfer[] = [];
  readonly messages: { address: bigint; data: number }[] = [];
  readonly pins: boolean[] = [];
  ats?: AtsPort;
  /** Addresses that are refused. */
  refuse: (address: bigint) => boolean = () => false;
  /** Addresses past the memory are swallowed and read 0 instead of being refused. */
  boundless = false;
  readonly #function: PciFunction;

  constructor(pciFunction: PciFunction, memoryBytes = 1 << 20) {
    this.memory = new Uint8Array(memoryBytes);
    this.#function = pciFunction;
    pciFunction.connect({
      dma: this,
      clock: this.clock,
      interrupt: { intx: (asserted) => this.pins.push(asserted) },
    });
  }

  read(pfn: number, offset: number, into: Uint8Array, at: number, length: number, pasid: number): DmaStatus {
    return this.#transfer(false, pfn, offset, into, at, length, pasid);
  }

  write(pfn: number, offset: number, from: Uint8Array, at: number, length: number, pasid: number): DmaStatus {
    return this.#transfer(true, pfn, offset, from, at, length, pasid);
  }

  #transfer(
    write: boolean,
    pfn: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    pasid: number,
  ): DmaStatus {
    const address = (BigInt(pfn) << 12n) | BigInt(offset);
    if (BigInt(pfn) === MESSAGE_PAGE) {
      const view = new DataView(bytes.buffer, bytes.byteOffset + at, length);
      this.messages.push({ address, data: view.getUint32(0, true) });
      return DMA_OK;
    }
    this.transfers.push({ write, address, length, pasid });
    if (this.refuse(address)) return DMA_ABORTED;
    if (address + BigInt(length) > BigInt(this.memory.length)) return this.boundless ? DMA_OK : DMA_ABORTED;
    const start = Number(address);
    if (write) this.memory.set(bytes.subarray(at, at + length), start);
    else bytes.set(this.memory.subarray(start, start + length), at);
    return DMA_OK;
  }

  /** Lets `ns` pass, firing what falls due on the way, each at its time. */
  run(ns: number): void {
    const end = this.clock.now + ns;
    while (this.clock.nextDeadline <= end) {
      this.clock.advanceTo(this.clock.nextDeadline);
      this.clock.fireDue();
    }
    this.clock.advanceTo(end);
  }

  /** Offset of the capability `id` in the function's configuration space, 0 if it has none. */
  findCapability(id: number): number {
    let at = this.#function.configRead(0x34, 1);
    for (let i = 0; i < 48 && at !== 0; i++) {
      if (this.#function.configRead(at, 1) === id) return at;
      at = this.#function.configRead(at + 1, 1);
    }
    return 0;
  }

  /** Offset of the extended capability `id`, 0 if it has none. */
  findExtendedCapability(id: number): number {
    let at = 0x100;
    for (let i = 0; i < 200 && at !== 0; i++) {
      const header = this.#function.configRead(at, 4);
      if ((header & 0xffff) === id) return at;
      at = header >>> 20;
    }
    return 0;
  }

  /** Turns on memory decoding and bus mastering. */
  enable(): void {
    this.#function.configWrite(0x04, 2, 0x0006);
  }

  /** Sets MSI to MESSAGE_PAGE with `data` and enables it. */
  enableMsi(data: number): void {
    const at = this.findCapability(0x05);
    this.#function.configWrite(at + 4, 4, Number(MESSAGE_PAGE << 12n));
    this.#function.configWrite(at + 8, 4, 0);
    this.#function.configWrite(at + 12, 2, data);
    this.#function.configWrite(at + 2, 2, 1);
  }
}
