// The way of one device's DMA: page by page through its IOMMU (or straight, where there is none), then the bytes move in physical
// memory. Whether the device may send anything, and whether it can wait for an IOMMU that stalls it, is its bus's to say (pci/function-dma.ts,
// platform/platform-dma.ts). Nothing here allocates while the trace is off.
//
//     device model → DeviceDma.read/write → HardwareIommu.translate → PhysicalMemory (a page that is an interrupt file: an MSI)

import { addressOf, type HpaPfn, type IovaPfn, PFN_LIMIT } from "../base/address.ts";
import { ACCESS_OK, type AccessStatus, type PhysicalMemory } from "../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../base/state.ts";
import type { Trace } from "../base/trace.ts";
import { DMA_ABORTED, DMA_OK, type DmaPort, type DmaStatus, NO_PASID } from "../devices/ports.ts";
import {
  ACCESS_READ,
  ACCESS_WRITE,
  CONSUMED,
  DISCARDED,
  type HardwareIommu,
  STALLED,
  TRANSLATED,
} from "./iommu/port.ts";

export interface DeviceDmaParts {
  /** Name in traces. */
  readonly name: string;
  /** What its IOMMU calls it. */
  readonly deviceId: number;
  /** Null: DMA addresses are physical. */
  readonly iommu: HardwareIommu | null;
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly trace: Trace;
  /** Says which messages the device may send; absent: all. */
  readonly messages?: MessageFilter;
}

export interface MessageFilter {
  /** `requester`: the device's name. Asked for writes to pages that are devices. */
  accepts(pfn: HpaPfn, offset: number, length: number, data: number, requester: string): boolean;
}

/** What a device's DMA amounted to: page-sized pieces of transfers; a write that rang a doorbell counts as a message only. */
export interface TransferCounters {
  transfers: number;
  bytes: number;
  aborted: number;
  messages: number;
  /** Of those aborted: what the IOMMU did not translate. */
  faults: number;
}

export abstract class DeviceDma implements DmaPort, Stateful {
  readonly counters: TransferCounters = { transfers: 0, bytes: 0, aborted: 0, messages: 0, faults: 0 };
  readonly #parts: DeviceDmaParts;
  readonly #iommu: HardwareIommu | null;
  readonly #memory: PhysicalMemory<HpaPfn>;
  #plugged = true; // not state: who is not plugged in is not asked

  constructor(parts: DeviceDmaParts) {
    this.#parts = parts;
    this.#iommu = parts.iommu;
    this.#memory = parts.memory;
  }

  /** The device is gone: nothing of it gets through any more. */
  unplug(): void {
    this.#plugged = false;
  }

  protected get plugged(): boolean {
    return this.#plugged;
  }

  /** The device may send requests now. */
  protected abstract get mayMaster(): boolean;

  /** A transfer waits in the IOMMU, whose `stallTag` it has. */
  protected stalled(_iommu: HardwareIommu): DmaStatus {
    return DMA_ABORTED;
  }

  /** The device wrote to a page, by an address that was translated. */
  protected wrote(_pfn: number): void {}

  read(
    pfn: number,
    offset: number,
    into: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged = false,
  ): DmaStatus {
    return this.transfer(false, pfn, offset, into, at, length, pasid, privileged, false);
  }

  write(
    pfn: number,
    offset: number,
    from: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged = false,
  ): DmaStatus {
    return this.transfer(true, pfn, offset, from, at, length, pasid, privileged, false);
  }

  protected transfer(
    write: boolean,
    startPfn: number,
    startOffset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged: boolean,
    translated: boolean,
  ): DmaStatus {
    if (!this.mayMaster) return DMA_ABORTED;
    let pfn = startPfn;
    let offset = startOffset;
    let position = at;
    for (let left = length; left > 0; ) {
      const piece = Math.min(left, 4096 - offset);
      const status = this.#piece(write, pfn, offset, bytes, position, piece, pasid, privileged, translated);
      if (status !== DMA_OK) return status;
      position += piece;
      left -= piece;
      offset = 0;
      // Past the last page of the address space there is nothing.
      if (++pfn >= PFN_LIMIT && left > 0) return DMA_ABORTED;
    }
    return DMA_OK;
  }

  /** One transfer within a page. */
  #piece(
    write: boolean,
    pfn: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged: boolean,
    translated: boolean,
  ): DmaStatus {
    const iommu = this.#iommu;
    const counters = this.counters;
    let page = pfn as HpaPfn;
    if (iommu !== null) {
      // Only a write of 4 bytes can be a message.
      const data = !write ? 0 : length === 4 ? loadWord(bytes, at) : -1;
      const access = write ? ACCESS_WRITE : ACCESS_READ;
      const status = iommu.translate(
        this.#parts.deviceId,
        pasid,
        privileged,
        access,
        pfn as IovaPfn,
        offset,
        translated,
        data,
      );
      if (status === DISCARDED) {
        if (!write) bytes.fill(0, at, at + length);
        return DMA_OK;
      }
      if (status !== TRANSLATED) {
        const answer = status === STALLED ? this.stalled(iommu) : DMA_ABORTED;
        if (answer !== DMA_ABORTED) {
          if (this.#parts.trace.on) this.#traceTransfer(write, pfn, offset, length, pasid, null, "stalled");
          return answer;
        }
        const consumed = status === CONSUMED;
        if (this.#parts.trace.on)
          this.#traceTransfer(write, pfn, offset, length, pasid, null, consumed ? "msi" : "aborted");
        if (consumed) {
          counters.messages++;
        } else {
          counters.aborted++;
          counters.faults++;
        }
        return consumed ? DMA_OK : DMA_ABORTED;
      }
      page = iommu.resultPfn;
    }
    const message = write && this.#memory.isStoreTarget(page);
    if (message && !this.#mayRing(page, offset, bytes, at, length)) {
      if (this.#parts.trace.on) this.#traceTransfer(write, pfn, offset, length, pasid, page, "aborted");
      counters.aborted++;
      return DMA_ABORTED;
    }
    const moved = this.#parts.trace.on
      ? this.#tracedMove(write, pfn, page, offset, bytes, at, length, pasid)
      : write
        ? this.#memory.write(page, offset, bytes, at, length)
        : this.#memory.read(page, offset, bytes, at, length);
    if (moved !== ACCESS_OK) {
      counters.aborted++;
      return DMA_ABORTED;
    }
    if (message) {
      counters.messages++;
    } else {
      counters.transfers++;
      counters.bytes += length;
      // A translated request carries no IOVA to log by.
      if (write && !translated) this.wrote(pfn);
    }
    return DMA_OK;
  }

  #mayRing(page: HpaPfn, offset: number, bytes: Uint8Array, at: number, length: number): boolean {
    const { messages, name } = this.#parts;
    if (messages === undefined) return true;
    return messages.accepts(page, offset, length, length === 4 ? loadWord(bytes, at) : 0, name);
  }

  #tracedMove(
    write: boolean,
    pfn: number,
    page: HpaPfn,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    pasid: number,
  ): AccessStatus {
    const memory = this.#memory;
    if (write && memory.isStoreTarget(page)) {
      // The interrupt is a consequence of this transfer, so the transfer's event comes first.
      const previous = this.#parts.trace.cause;
      this.#parts.trace.cause = this.#traceTransfer(write, pfn, offset, length, pasid, page, "msi");
      const rung = memory.write(page, offset, bytes, at, length);
      this.#parts.trace.leave(previous);
      return rung;
    }
    const moved = write ? memory.write(page, offset, bytes, at, length) : memory.read(page, offset, bytes, at, length);
    this.#traceTransfer(write, pfn, offset, length, pasid, page, moved === ACCESS_OK ? "ok" : "aborted");
    return moved;
  }

  #traceTransfer(
    write: boolean,
    pfn: number,
    offset: number,
    length: number,
    pasid: number,
    page: HpaPfn | null,
    result: "ok" | "aborted" | "msi" | "stalled",
  ): number {
    const { name, deviceId, trace } = this.#parts;
    return trace.emit({
      type: "dma",
      device: name,
      deviceId,
      ...(pasid === NO_PASID ? {} : { pasid }),
      iova: addressOf(pfn as IovaPfn, offset),
      ...(page === null ? {} : { spa: addressOf(page, offset) }),
      length,
      write,
      result,
    });
  }

  saveState(): StateRecord {
    return { counters: { ...this.counters } };
  }

  restoreState(state: StateReader): void {
    const counters = state.record("counters");
    for (const name of ["transfers", "bytes", "aborted", "messages", "faults"] as const) {
      this.counters[name] = counters.number(name);
    }
  }
}

function loadWord(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}
