// ATS and page requests of a device model on the VM's own bus (IHI 0070 §3.9, §8): what the hardware does for assigned devices.
//
//   translation request ─▶ the guest's tables, walked here ─▶ rights and range; what is missing is rights not granted
//   translated request  ─▶ the address is guest-physical already; EATS must allow it, where CR0.ATSCHK asks
//   page request        ─▶ the guest's page-request queue, where the SMMU has one; else refused
//   CMD_ATC_INV         ─▶ the model; a CMD_SYNC waits until it has completed, or its time is up

import type { AtsTranslator } from "../../../host/arch/smmuv3/parts/ats-translation.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { ACCESS_OK } from "../../../host/base/memory.ts";
import { TRANSLATED } from "../../../host/base/transaction.ts";
import {
  ATS_UNSUPPORTED_REQUEST,
  type AtsPort,
  type AtsStatus,
  type AtsTarget,
  type AtsTranslation,
  DMA_ABORTED,
  DMA_OK,
  type DmaStatus,
  NO_PASID,
} from "../../../host/devices/ports.ts";
import type { DeviceInvalidations } from "../device-invalidations.ts";
import { ACCESS_READ, ACCESS_WRITE, type EmulatedParts } from "./emulated-devices.ts";

/** CMD_ATC_INV.Size that means everything (§4.5.1). */
const SIZE_ALL = 52;
const SSV = 1 << 11;
const GLOBAL = 1 << 9;

export interface EmulatedAtsParts extends EmulatedParts {
  readonly atsTranslator: AtsTranslator<GpaPfn>;
  /** A page request, or Stop Marker, of a device; `flags` as AtsPort.pageRequest. */
  readonly pageRequestArrived: (sid: number, ssid: number, pfn: number, group: number, flags: number) => void;
}

// Not state: what is under way is DeviceInvalidations'
export class EmulatedAts implements AtsPort {
  readonly invalidations: DeviceInvalidations;
  readonly target: AtsTarget;
  readonly #sid: () => number;
  readonly #parts: EmulatedAtsParts;

  constructor(sid: () => number, target: AtsTarget, invalidations: DeviceInvalidations, parts: EmulatedAtsParts) {
    this.#sid = sid;
    this.target = target;
    this.invalidations = invalidations;
    this.#parts = parts;
  }

  get sid(): number {
    return this.#sid();
  }

  get translation(): AtsTranslation {
    return this.#parts.atsTranslator.translation;
  }

  translate(pfn: number, pasid: number, noWrite: boolean, privileged: boolean, execute: boolean): AtsStatus {
    const { sid } = this;
    if (!this.#parts.plugged(sid)) return ATS_UNSUPPORTED_REQUEST;
    this.#parts.observe(sid);
    return this.#parts.atsTranslator.translate(sid, pasid, pfn, noWrite, privileged, execute);
  }

  readTranslated(pfn: number, offset: number, into: Uint8Array, at: number, length: number): DmaStatus {
    return this.#translated(pfn, offset, into, at, length, ACCESS_READ);
  }

  writeTranslated(pfn: number, offset: number, from: Uint8Array, at: number, length: number): DmaStatus {
    return this.#translated(pfn, offset, from, at, length, ACCESS_WRITE);
  }

  pageRequest(pfn: number, pasid: number, group: number, flags: number): void {
    this.#parts.pageRequestArrived(this.sid, pasid, pfn, group, flags);
  }

  /** §8.1: Last with neither read nor write. */
  stopMarker(pasid: number): void {
    this.#parts.pageRequestArrived(this.sid, pasid, 0, 0, 4);
  }

  /** CMD_ATC_INV for this device, by its words: as `DeviceInvalidations.begin`. */
  invalidate(word0: number, word2: number, word3: number): number {
    const size = word2 & 0x3f;
    const ssid = (word0 & SSV) !== 0 ? word0 >>> 12 : NO_PASID;
    const global = ssid >= 0 && (word0 & GLOBAL) !== 0;
    if (size >= SIZE_ALL) return this.invalidations.begin(0, Number.POSITIVE_INFINITY, ssid, global);
    const pages = 2 ** size;
    const pfn = (word3 >>> 0) * 0x10_0000 + (word2 >>> 12);
    return this.invalidations.begin(pfn - (pfn % pages), pages, ssid, global);
  }

  invalidationCompleted(itag: number): void {
    this.invalidations.completed(itag);
  }

  #translated(pfn: number, offset: number, bytes: Uint8Array, at: number, length: number, access: number): DmaStatus {
    const { translator, memory, plugged } = this.#parts;
    const { sid } = this;
    if (!plugged(sid)) return DMA_ABORTED;
    if (translator.translate(sid, NO_PASID, false, access, pfn, offset, true) !== TRANSLATED) return DMA_ABORTED;
    const page = translator.resultPfn;
    const status =
      access === ACCESS_WRITE
        ? memory.write(page, offset, bytes, at, length)
        : memory.read(page, offset, bytes, at, length);
    return status === ACCESS_OK ? DMA_OK : DMA_ABORTED;
  }
}
