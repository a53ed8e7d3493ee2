// DMA of a device model on the VM's own bus, through the guest's tables: what the hardware does for assigned devices, done here with
// the same walks. Nothing is cached, so there is nothing to invalidate; the device's context is the one installed at the last IODIR.
//
//   model's DmaPort ─▶ page by page: translate ─▶ guest memory (a store may be a message: an MSI page is memory's business)
//                                       └─ refused ─▶ fault record, the transfer ends

import { TC_DTF } from "../../../host/arch/riscv/device-context.ts";
import {
  suppressedByDtf,
  TTYP_UNTRANSLATED_READ,
  TTYP_UNTRANSLATED_WRITE,
} from "../../../host/arch/riscv/fault-records.ts";
import { accessFaultCause, KIND_READ, KIND_WRITE } from "../../../host/arch/riscv/two-stage-walk.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { ACCESS_OK, type MemoryPort } from "../../../host/base/memory.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { type AtsPort, DMA_ABORTED, DMA_OK, type DmaPort, type DmaStatus } from "../../../host/devices/ports.ts";
import type { Dispositions } from "../dispositions.ts";
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

export class EmulatedDma implements DmaPort {
  readonly ats?: AtsPort;
  readonly #deviceId: () => number;
  readonly #dispositions: Dispositions<CanonicalContext>;
  readonly #directories: GuestDirectories;
  readonly #faults: FaultQueue;
  readonly #memory: MemoryPort<GpaPfn>;
  readonly #trace: Trace;

  constructor(deviceId: () => number, parts: EmulatedParts, ats?: AtsPort) {
    this.#deviceId = deviceId;
    this.#dispositions = parts.dispositions;
    this.#directories = parts.directories;
    this.#faults = parts.faults;
    this.#memory = parts.memory;
    this.#trace = parts.trace;
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
    return this.#transfer(pfn, offset, into, at, length, pasid, privileged, KIND_READ);
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
    return this.#transfer(pfn, offset, from, at, length, pasid, privileged, KIND_WRITE);
  }

  #transfer(
    pfn: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged: boolean,
    kind: number,
  ): DmaStatus {
    // Without a process_id a request is a user's (§3.3).
    const supervisor = privileged && pasid >= 0;
    const memory = this.#memory;
    for (let done = 0; done < length; ) {
      const piece = Math.min(length - done, 4096 - offset);
      let cause = this.#translate(pfn, pasid, supervisor, kind);
      if (cause === 0) {
        const page = this.#directories.resultPfn;
        const status =
          kind === KIND_WRITE
            ? memory.write(page, offset, bytes, at + done, piece)
            : memory.read(page, offset, bytes, at + done, piece);
        if (status !== ACCESS_OK) cause = accessFaultCause(kind);
      }
      if (this.#trace.on) this.#emit(pfn, offset, piece, pasid, kind, cause === 0);
      if (cause !== 0) {
        this.#fault(cause, pfn, offset, pasid, supervisor, kind);
        return DMA_ABORTED;
      }
      done += piece;
      offset = 0;
      pfn++;
    }
    return DMA_OK;
  }

  #translate(pfn: number, pasid: number, supervisor: boolean, kind: number): number {
    const deviceId = this.#deviceId();
    const state = this.#dispositions.find(deviceId);
    // Plugged out under a running model: nothing reaches memory.
    if (state === undefined) return accessFaultCause(kind);
    if (state.disposition === "blocked") return state.cause;
    const context = state.context === DDTP_BARE_CONTEXT ? null : state.context;
    return this.#directories.translate(deviceId, context, pasid, supervisor, kind, pfn);
  }

  #fault(cause: number, pfn: number, offset: number, pasid: number, supervisor: boolean, kind: number): void {
    const deviceId = this.#deviceId();
    const state = this.#dispositions.find(deviceId);
    if (state === undefined) return;
    if (state.context !== null && (state.context.tc & TC_DTF) !== 0 && suppressedByDtf(cause)) return;
    this.#faults.report({
      cause,
      deviceId,
      processId: pasid,
      privileged: supervisor,
      ttyp: kind === KIND_WRITE ? TTYP_UNTRANSLATED_WRITE : TTYP_UNTRANSLATED_READ,
      iotval: (BigInt(pfn) << 12n) | BigInt(offset),
      iotval2: 0n,
    });
  }

  #emit(pfn: number, offset: number, length: number, pasid: number, kind: number, ok: boolean): void {
    this.#trace.emit({
      type: "dma",
      device: "emulated",
      deviceId: this.#deviceId(),
      ...(pasid >= 0 ? { pasid } : {}),
      iova: (BigInt(pfn) << 12n) | BigInt(offset),
      length,
      write: kind === KIND_WRITE,
      result: ok ? "ok" : "aborted",
    });
  }
}
