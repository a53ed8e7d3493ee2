// DMA of a device model on the VM's own bus, through the guest's tables: what the hardware does for assigned devices, done here with the parts it is
// made of (host/arch/smmuv3/parts), caches that wait for the guest's invalidations included.
//
// A model cannot wait: what stalls is refused to it (as to every PCI function), its record stands, and a CMD_RESUME ends nothing but that.

import type { Translator } from "../../../host/arch/smmuv3/parts/translation.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { MemoryPort } from "../../../host/base/memory.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { DISCARDED, TRANSLATED } from "../../../host/base/transaction.ts";
import { type AtsPort, NO_PASID } from "../../../host/devices/ports.ts";
import type { DeviceInvalidations } from "../device-invalidations.ts";
import { EmulatedDma } from "../emulated-dma.ts";

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

const ACCESS_READ = 1;
const ACCESS_WRITE = 2;

/** CMD_ATC_INV.Size that means everything (§4.5.1). */
const SIZE_ALL = 52;
const SSV = 1 << 11;
const GLOBAL = 1 << 9;

/** CMD_ATC_INV for a model, by its words: as `DeviceInvalidations.begin`. */
export function beginInvalidation(
  invalidations: DeviceInvalidations,
  word0: number,
  word2: number,
  word3: number,
): number {
  const size = word2 & 0x3f;
  const ssid = (word0 & SSV) !== 0 ? word0 >>> 12 : NO_PASID;
  const global = ssid >= 0 && (word0 & GLOBAL) !== 0;
  if (size >= SIZE_ALL) return invalidations.begin(0, Number.POSITIVE_INFINITY, ssid, global);
  const pages = 2 ** size;
  const pfn = (word3 >>> 0) * 0x10_0000 + (word2 >>> 12);
  return invalidations.begin(pfn - (pfn % pages), pages, ssid, global);
}

export class Smmuv3EmulatedDma extends EmulatedDma {
  readonly #parts: EmulatedParts;

  constructor(sid: () => number, parts: EmulatedParts, ats?: AtsPort) {
    super(sid, parts.memory, parts.trace, ats);
    this.#parts = parts;
  }

  protected override access(
    sid: number,
    pasid: number,
    privileged: boolean,
    write: boolean,
    pfn: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
  ): boolean {
    const { translator, trace, plugged, observe } = this.#parts;
    // Plugged out under a running model: nothing reaches memory.
    if (!plugged(sid)) return false;
    if (trace.on) observe(sid);
    const status = translator.translate(sid, pasid, privileged, write ? ACCESS_WRITE : ACCESS_READ, pfn, offset, false);
    // What memory aborts is the device's own news (§7.3 has no event for it).
    if (status === TRANSLATED) return this.copy(translator.resultPfn, write, offset, bytes, at, length);
    if (status !== DISCARDED) return false;
    if (!write) bytes.fill(0, at, at + length);
    return true;
  }
}
