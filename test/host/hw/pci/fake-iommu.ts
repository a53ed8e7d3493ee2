// A hardware IOMMU that does what a test tells it: page n goes to `map(n)`, undefined is refused. Messages are written down.

import type { HpaPfn } from "../../../../host/base/address.ts";
import type { MmioPort } from "../../../../host/base/mmio.ts";
import {
  ATS_SUCCESS,
  ATS_UNSUPPORTED_REQUEST,
  type AtsStatus,
  type AtsTarget,
} from "../../../../host/devices/ports.ts";
import {
  CONSUMED,
  DISCARDED,
  type HardwareIommu,
  REFUSED,
  STALLED,
  TRANSLATED,
  type TranslationStatus,
} from "../../../../host/hw/iommu/port.ts";

export interface SeenRequest {
  readonly deviceId: number;
  readonly pasid: number;
  readonly privileged: boolean;
  readonly access: number;
  readonly pfn: number;
  readonly offset: number;
  readonly translated: boolean;
  readonly data: number;
}

export class FakeIommu implements HardwareIommu {
  readonly name = "fake";
  readonly kind = "fake";
  readonly registers: MmioPort = { high: 0, mmioRead: () => 0, mmioWrite: () => {} };
  readonly registerBytes = 0;
  resultPfn = 0 as HpaPfn;
  readonly atsTranslation = {
    pfn: 0,
    sizeLog2: 12,
    read: true,
    write: true,
    execute: false,
    privileged: false,
    global: false,
    untranslatedOnly: false,
  };
  findTarget: (deviceId: number) => AtsTarget | undefined = () => undefined;
  onWire = (): void => {};
  map: (pfn: number) => number | undefined = (pfn) => pfn;
  /** Page whose writes the IOMMU takes itself. */
  consumes = -1;
  /** Page that ends transactions so, or where they stall. */
  discards = -1;
  stalls = -1;
  allowTranslated = true;
  readonly seen: SeenRequest[] = [];
  readonly messages: string[] = [];

  translate(
    deviceId: number,
    pasid: number,
    privileged: boolean,
    access: number,
    pfn: number,
    offset: number,
    translated: boolean,
    data: number,
  ): TranslationStatus {
    this.seen.push({ deviceId, pasid, privileged, access, pfn, offset, translated, data });
    if (pfn === this.consumes) return CONSUMED;
    if (pfn === this.discards) return DISCARDED;
    if (pfn === this.stalls) return STALLED;
    if (translated) {
      this.resultPfn = pfn as HpaPfn;
      return this.allowTranslated ? TRANSLATED : REFUSED;
    }
    const page = this.map(pfn);
    if (page === undefined) return REFUSED;
    this.resultPfn = page as HpaPfn;
    return TRANSLATED;
  }

  translateForDevice(_deviceId: number, _pasid: number, pfn: number): AtsStatus {
    const page = this.map(pfn);
    this.atsTranslation.pfn = page ?? 0;
    return page === undefined ? ATS_UNSUPPORTED_REQUEST : ATS_SUCCESS;
  }

  pageRequest(deviceId: number, pasid: number, pfn: number, group: number, flags: number): void {
    this.messages.push(`request ${deviceId} ${pasid} ${pfn} ${group} ${flags}`);
  }

  stopMarker(deviceId: number, pasid: number): void {
    this.messages.push(`stop ${deviceId} ${pasid}`);
  }

  invalidationCompleted(deviceId: number, itag: number): void {
    this.messages.push(`completed ${deviceId} ${itag}`);
  }

  step(): boolean {
    return false;
  }

  drain(): void {}

  reset(): void {}
}
