// DMA of a device model on the VM's own bus, through the guest's tables: what the hardware does for assigned devices, done here with the parts it is
// made of (host/arch/smmuv3/parts), caches that wait for the guest's invalidations included.
//
//   model's DmaPort ─▶ page by page: Translator ─▶ guest memory (a store may be a message: an MSI page is memory's business)
//                                       └─ refused ─▶ event record, the transfer ends
//
// A model cannot wait: what stalls is refused to it (as to every PCI function), its record stands, and a CMD_RESUME ends nothing but that.

import type { Translator } from "../../../host/arch/smmuv3/parts/translation.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { ACCESS_OK, type MemoryPort } from "../../../host/base/memory.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { DISCARDED, TRANSLATED } from "../../../host/base/transaction.ts";
import { type AtsPort, DMA_ABORTED, DMA_OK, type DmaPort, type DmaStatus } from "../../../host/devices/ports.ts";

/** What DMA of emulated devices needs of the SMMU. */
export interface EmulatedParts {
  readonly translator: Translator<GpaPfn>;
  /** True if a device with this StreamID is plugged in. */
  readonly plugged: (sid: number) => boolean;
  /** Attached to the translator's walkers while the trace is on. */
  readonly observe: (sid: number) => void;
  readonly memory: MemoryPort<GpaPfn>;
  readonly trace: Trace;
}

export const ACCESS_READ = 1;
export const ACCESS_WRITE = 2;

export class EmulatedDma implements DmaPort {
  readonly ats?: AtsPort;
  readonly #sid: () => number;
  readonly #parts: EmulatedParts;

  constructor(sid: () => number, parts: EmulatedParts, ats?: AtsPort) {
    this.#sid = sid;
    this.#parts = parts;
    if (ats !== undefined) this.ats = ats;
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
    return this.#transfer(pfn, offset, into, at, length, pasid, privileged, ACCESS_READ);
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
    return this.#transfer(pfn, offset, from, at, length, pasid, privileged, ACCESS_WRITE);
  }

  #transfer(
    pfn: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged: boolean,
    access: number,
  ): DmaStatus {
    const { translator, memory, trace, plugged, observe } = this.#parts;
    const sid = this.#sid();
    // Plugged out under a running model: nothing reaches memory.
    if (!plugged(sid)) return DMA_ABORTED;
    // Without a SubstreamID a request is a user's (§3.4.3).
    const asPrivileged = privileged && pasid >= 0;
    for (let done = 0; done < length; ) {
      const piece = Math.min(length - done, 4096 - offset);
      if (trace.on) observe(sid);
      const status = translator.translate(sid, pasid, asPrivileged, access, pfn, offset, false);
      let passed = status === TRANSLATED || status === DISCARDED;
      if (status === TRANSLATED) {
        // What memory aborts is the device's own news (§7.3 has no event for it).
        const page = translator.resultPfn;
        passed =
          (access === ACCESS_WRITE
            ? memory.write(page, offset, bytes, at + done, piece)
            : memory.read(page, offset, bytes, at + done, piece)) === ACCESS_OK;
      } else if (status === DISCARDED && access === ACCESS_READ) bytes.fill(0, at + done, at + done + piece);
      if (trace.on) this.#emit(sid, pfn, offset, piece, pasid, access, passed);
      if (!passed) return DMA_ABORTED;
      done += piece;
      offset = 0;
      pfn++;
    }
    return DMA_OK;
  }

  #emit(sid: number, pfn: number, offset: number, length: number, pasid: number, access: number, ok: boolean): void {
    this.#parts.trace.emit({
      type: "dma",
      device: "emulated",
      deviceId: sid,
      ...(pasid >= 0 ? { pasid } : {}),
      iova: (BigInt(pfn) << 12n) | BigInt(offset),
      length,
      write: access === ACCESS_WRITE,
      result: ok ? "ok" : "aborted",
    });
  }
}
