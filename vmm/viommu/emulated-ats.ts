// ATS and page requests of a device model on the VM's own bus, for kinds whose own walks answer as their hardware's do: what the hardware does for
// assigned devices.
//
//   translation request ─▶ the guest's tables, walked here ─▶ rights and range; what is missing is rights not granted
//   translated request  ─▶ the address is guest-physical already; the device's set-up must allow it
//   page request        ─▶ the guest's page-request queue, where there is one; else refused
//   invalidation        ─▶ the model; a fence waits until it has completed, or its time is up

import type { GpaPfn } from "../../host/base/address.ts";
import { ACCESS_OK, type MemoryPort } from "../../host/base/memory.ts";
import {
  ATS_UNSUPPORTED_REQUEST,
  type AtsPort,
  type AtsStatus,
  type AtsTarget,
  type AtsTranslation,
  DMA_ABORTED,
  DMA_OK,
  type DmaStatus,
} from "../../host/devices/ports.ts";
import type { DeviceInvalidations } from "./device-invalidations.ts";

const ACCESS_READ = 1;
const ACCESS_WRITE = 2;

/** What ATS of device models needs of its IOMMU. */
export interface EmulatedAtsParts {
  readonly plugged: (deviceId: number) => boolean;
  readonly observe: (deviceId: number) => void;
  readonly memory: MemoryPort<GpaPfn>;
  readonly translator: {
    /** Of the last request. */
    readonly translation: AtsTranslation;
    translate(
      deviceId: number,
      pasid: number,
      pfn: number,
      noWrite: boolean,
      privileged: boolean,
      execute: boolean,
    ): AtsStatus;
  };
  /** Where a translated request goes: a page, or -1; `access` READ 1, WRITE 2. */
  readonly pass: (deviceId: number, access: number, pfn: number, offset: number) => number;
  /** A page request, or Stop Marker, of a device; `flags` as AtsPort.pageRequest. */
  readonly pageRequestArrived: (deviceId: number, pasid: number, pfn: number, group: number, flags: number) => void;
}

// Not state: what is under way is DeviceInvalidations'
export class EmulatedAts implements AtsPort {
  readonly invalidations: DeviceInvalidations;
  readonly target: AtsTarget;
  readonly #deviceId: () => number;
  readonly #parts: EmulatedAtsParts;

  constructor(deviceId: () => number, target: AtsTarget, invalidations: DeviceInvalidations, parts: EmulatedAtsParts) {
    this.#deviceId = deviceId;
    this.target = target;
    this.invalidations = invalidations;
    this.#parts = parts;
  }

  get deviceId(): number {
    return this.#deviceId();
  }

  get translation(): AtsTranslation {
    return this.#parts.translator.translation;
  }

  translate(pfn: number, pasid: number, noWrite: boolean, privileged: boolean, execute: boolean): AtsStatus {
    const { deviceId } = this;
    if (!this.#parts.plugged(deviceId)) return ATS_UNSUPPORTED_REQUEST;
    this.#parts.observe(deviceId);
    return this.#parts.translator.translate(deviceId, pasid, pfn, noWrite, privileged, execute);
  }

  readTranslated(pfn: number, offset: number, into: Uint8Array, at: number, length: number): DmaStatus {
    return this.#translated(pfn, offset, into, at, length, ACCESS_READ);
  }

  writeTranslated(pfn: number, offset: number, from: Uint8Array, at: number, length: number): DmaStatus {
    return this.#translated(pfn, offset, from, at, length, ACCESS_WRITE);
  }

  pageRequest(pfn: number, pasid: number, group: number, flags: number): void {
    this.#parts.pageRequestArrived(this.deviceId, pasid, pfn, group, flags);
  }

  /** Last with neither read nor write (PCIe 6.0 §10.4.1.2). */
  stopMarker(pasid: number): void {
    this.#parts.pageRequestArrived(this.deviceId, pasid, 0, 0, 4);
  }

  invalidationCompleted(itag: number): void {
    this.invalidations.completed(itag);
  }

  #translated(pfn: number, offset: number, bytes: Uint8Array, at: number, length: number, access: number): DmaStatus {
    const { memory, plugged, pass } = this.#parts;
    const { deviceId } = this;
    if (!plugged(deviceId)) return DMA_ABORTED;
    const page = pass(deviceId, access, pfn, offset) as GpaPfn;
    if (page < 0) return DMA_ABORTED;
    const status =
      access === ACCESS_WRITE
        ? memory.write(page, offset, bytes, at, length)
        : memory.read(page, offset, bytes, at, length);
    return status === ACCESS_OK ? DMA_OK : DMA_ABORTED;
  }
}
