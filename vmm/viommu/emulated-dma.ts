// DMA of a device model on the VM's own bus: a transfer goes page by page through what its kind's IOMMU makes of each, for the guest's tables alone.
//
//   model's DmaPort ─▶ page by page: access() of the kind ─▶ guest memory (a store may be a message: an MSI page is memory's business)
//                                        └─ refused ─▶ the kind reports it to the guest, the transfer ends

import type { GpaPfn } from "../../host/base/address.ts";
import { ACCESS_OK, type MemoryPort } from "../../host/base/memory.ts";
import type { Trace } from "../../host/base/trace.ts";
import { type AtsPort, DMA_ABORTED, DMA_OK, type DmaPort, type DmaStatus } from "../../host/devices/ports.ts";

export abstract class EmulatedDma implements DmaPort {
  readonly ats?: AtsPort;
  /** The id that the device's transactions carry at its IOMMU: a PCI function's follows its bus number. */
  readonly #deviceId: () => number;
  readonly #memory: MemoryPort<GpaPfn>;
  readonly #trace: Trace;

  constructor(deviceId: () => number, memory: MemoryPort<GpaPfn>, trace: Trace, ats?: AtsPort) {
    this.#deviceId = deviceId;
    this.#memory = memory;
    this.#trace = trace;
    if (ats !== undefined) this.ats = ats;
  }

  /**
   * Takes the request for `length` bytes within one page through the IOMMU, to `copy` where it translates; true if the device may go on.
   * What is refused is reported to the guest here, as the kind does it.
   */
  protected abstract access(
    deviceId: number,
    pasid: number,
    privileged: boolean,
    write: boolean,
    pfn: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
  ): boolean;

  /** Moves bytes of one page of guest memory; false if memory aborts. */
  protected copy(page: GpaPfn, write: boolean, offset: number, bytes: Uint8Array, at: number, length: number): boolean {
    const status = write
      ? this.#memory.write(page, offset, bytes, at, length)
      : this.#memory.read(page, offset, bytes, at, length);
    return status === ACCESS_OK;
  }

  read(
    pfn: number,
    offset: number,
    into: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged = false,
  ): DmaStatus {
    return this.#transfer(false, pfn, offset, into, at, length, pasid, privileged);
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
    return this.#transfer(true, pfn, offset, from, at, length, pasid, privileged);
  }

  #transfer(
    write: boolean,
    pfn: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged: boolean,
  ): DmaStatus {
    const deviceId = this.#deviceId();
    // Without a PASID a request is a user's (Privileged Mode Requested is a bit of the PASID prefix).
    const asPrivileged = privileged && pasid >= 0;
    for (let done = 0; done < length; ) {
      const piece = Math.min(length - done, 4096 - offset);
      const passed = this.access(deviceId, pasid, asPrivileged, write, pfn, offset, bytes, at + done, piece);
      if (this.#trace.on) this.#emit(deviceId, pfn, offset, piece, pasid, write, passed);
      if (!passed) return DMA_ABORTED;
      done += piece;
      offset = 0;
      pfn++;
    }
    return DMA_OK;
  }

  #emit(
    deviceId: number,
    pfn: number,
    offset: number,
    length: number,
    pasid: number,
    write: boolean,
    passed: boolean,
  ): void {
    this.#trace.emit({
      type: "dma",
      device: "emulated",
      deviceId,
      ...(pasid >= 0 ? { pasid } : {}),
      iova: (BigInt(pfn) << 12n) | BigInt(offset),
      length,
      write,
      result: passed ? "ok" : "aborted",
    });
  }
}
