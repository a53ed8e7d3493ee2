// DMA of a device model on the VM's own bus, through the guest's tables: what the hardware does for assigned devices, done here with
// the same walks. Nothing is cached, so there is nothing to invalidate; the device's context is the one installed at the last IODIR.

import { TC_DTF } from "../../../host/arch/riscv/device-context.ts";
import {
  suppressedByDtf,
  TTYP_UNTRANSLATED_READ,
  TTYP_UNTRANSLATED_WRITE,
} from "../../../host/arch/riscv/fault-records.ts";
import { accessFaultCause, KIND_READ, KIND_WRITE } from "../../../host/arch/riscv/two-stage-walk.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { MemoryPort } from "../../../host/base/memory.ts";
import type { Trace } from "../../../host/base/trace.ts";
import type { AtsPort } from "../../../host/devices/ports.ts";
import type { Dispositions } from "../dispositions.ts";
import { EmulatedDma } from "../emulated-dma.ts";
import { type CanonicalContext, DDTP_BARE_CONTEXT } from "./context.ts";
import type { FaultQueue } from "./fault-queue.ts";
import type { GuestDirectories } from "./guest-directories.ts";

/** What DMA of emulated devices needs of the IOMMU. */
export interface EmulatedParts {
  /** The vIOMMU's. */
  readonly name: string;
  readonly dispositions: Dispositions<CanonicalContext>;
  readonly directories: GuestDirectories;
  readonly faults: FaultQueue;
  readonly memory: MemoryPort<GpaPfn>;
  readonly trace: Trace;
}

export class RiscvEmulatedDma extends EmulatedDma {
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
    const { dispositions, directories, faults } = this.#parts;
    const state = dispositions.find(deviceId);
    // Plugged out under a running model: nothing reaches memory.
    if (state === undefined) return false;
    const { context, disposition } = state;
    const kind = write ? KIND_WRITE : KIND_READ;
    let cause = state.cause;
    if (disposition !== "blocked") {
      const tables = context === DDTP_BARE_CONTEXT ? null : context;
      cause = directories.translate(deviceId, tables, pasid, privileged, kind, pfn);
      if (cause === 0) {
        if (this.copy(directories.resultPfn, write, offset, bytes, at, length)) return true;
        cause = accessFaultCause(kind);
      }
    }
    if (context !== null && (context.tc & TC_DTF) !== 0 && suppressedByDtf(cause)) return false;
    faults.report({
      cause,
      deviceId,
      processId: pasid,
      privileged,
      ttyp: write ? TTYP_UNTRANSLATED_WRITE : TTYP_UNTRANSLATED_READ,
      iotval: (BigInt(pfn) << 12n) | BigInt(offset),
      iotval2: 0n,
    });
    return false;
  }
}
