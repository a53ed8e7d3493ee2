// DMA of a device model on the VM's own bus, through the guest's tables: what the hardware does for assigned devices, done here with the parts it is made of
// (host/arch/vtd/parts), caches that wait for the guest's invalidations included. Faults are recorded by the translator.

import { inInterruptRange } from "../../../host/arch/vtd/interrupt-remapping.ts";
import type { Translator } from "../../../host/arch/vtd/parts/translation.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { MemoryPort } from "../../../host/base/memory.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { TRANSLATED } from "../../../host/base/transaction.ts";
import type { AtsPort } from "../../../host/devices/ports.ts";
import { EmulatedDma } from "../emulated-dma.ts";
import type { InterruptRequests } from "./interrupt-requests.ts";

/** What DMA of emulated devices needs of the unit. */
export interface EmulatedParts {
  readonly translator: Translator<GpaPfn>;
  readonly plugged: (guestId: number) => boolean;
  /** Attached to the translator's walkers while the trace is on. */
  readonly observe: (guestId: number) => void;
  readonly memory: MemoryPort<GpaPfn>;
  readonly trace: Trace;
  readonly interrupts: InterruptRequests;
  /** A transaction was refused. */
  readonly refused: () => void;
}

function dword(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

const ACCESS_READ = 1;
const ACCESS_WRITE = 2;

export class VtdEmulatedDma extends EmulatedDma {
  readonly #parts: EmulatedParts;

  constructor(deviceId: () => number, parts: EmulatedParts, ats?: AtsPort) {
    super(deviceId, parts.memory, parts.trace, ats);
    this.#parts = parts;
  }

  protected override access(
    deviceId: number,
    pasid: number,
    privileged: boolean,
    write: boolean,
    pfn: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
  ): boolean {
    const { translator, trace, plugged, observe, refused } = this.#parts;
    // Plugged out under a running model: nothing reaches memory.
    if (!plugged(deviceId)) return false;
    if (trace.on) observe(deviceId);
    if (pasid < 0 && inInterruptRange(pfn)) {
      const data = write && length === 4 ? dword(bytes, at) : -1;
      const outcome = this.#parts.interrupts.request(deviceId, write ? ACCESS_WRITE : ACCESS_READ, pfn, offset, data);
      if (outcome !== "no request") return outcome === "delivered";
    }
    const status = translator.translate(deviceId, pasid, privileged, write ? ACCESS_WRITE : ACCESS_READ, pfn, false);
    // What memory aborts is the device's own news.
    if (status === TRANSLATED) return this.copy(translator.resultPfn, write, offset, bytes, at, length);
    refused();
    return false;
  }
}
