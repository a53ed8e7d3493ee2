// The way of one PCI function's DMA (device-dma.ts): nothing while bus mastering is off or the function sleeps; a transaction that the IOMMU
// stalls is taken for refused, for no PCI function can wait. Also ATS and PRI, requester side: translation requests, translated requests,
// page requests. Whether a translated request is allowed is the IOMMU's decision.

import type { StateReader, StateRecord } from "../../base/state.ts";
import { COMMAND_BUS_MASTER } from "../../devices/pci-function.ts";
import {
  ATS_UNSUPPORTED_REQUEST,
  type AtsPort,
  type AtsStatus,
  noTranslation,
  type PciFunction,
} from "../../devices/ports.ts";
import { DeviceDma, type DeviceDmaParts } from "../device-dma.ts";
import type { HardwareIommu } from "../iommu/port.ts";
import { DmaWriteLog } from "./dma-write-log.ts";

const COMMAND = 0x04;

export interface FunctionDmaParts extends DeviceDmaParts {
  readonly function: PciFunction;
}

/** What an ATS request finds where there is nobody to translate. */
const NO_TRANSLATION = noTranslation();

export class FunctionDma extends DeviceDma {
  readonly ats: AtsPort;
  /** Where the function logs the pages it writes, while somebody asked for it. */
  writeLog: DmaWriteLog | null = null;
  readonly #function: PciFunction;

  constructor(parts: FunctionDmaParts) {
    super(parts);
    this.#function = parts.function;
    this.ats = this.#atsPort(parts.iommu, parts.deviceId);
  }

  protected override get mayMaster(): boolean {
    if (!this.plugged || this.#function.asleep === true) return false;
    return (this.#function.configRead(COMMAND, 2) & COMMAND_BUS_MASTER) !== 0;
  }

  protected override wrote(pfn: number): void {
    if (this.writeLog !== null) this.writeLog.wrote(pfn);
  }

  #atsPort(iommu: HardwareIommu | null, deviceId: number): AtsPort {
    return {
      translation: iommu === null ? NO_TRANSLATION : iommu.atsTranslation,
      translate: (pfn, pasid, noWrite, privileged, execute): AtsStatus =>
        iommu === null || !this.mayMaster
          ? ATS_UNSUPPORTED_REQUEST
          : iommu.translateForDevice(deviceId, pasid, pfn, noWrite, privileged, execute),
      readTranslated: (pfn, offset, into, at, length, pasid) =>
        this.transfer(false, pfn, offset, into, at, length, pasid, false, true),
      writeTranslated: (pfn, offset, from, at, length, pasid) =>
        this.transfer(true, pfn, offset, from, at, length, pasid, false, true),
      pageRequest: (pfn, pasid, group, flags) => {
        if (this.mayMaster) iommu?.pageRequest(deviceId, pasid, pfn, group, flags);
      },
      stopMarker: (pasid) => {
        if (this.mayMaster) iommu?.stopMarker(deviceId, pasid);
      },
      invalidationCompleted: (itag) => {
        if (this.plugged) iommu?.invalidationCompleted(deviceId, itag);
      },
    };
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), writeLog: this.writeLog?.saveState() ?? null };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    this.writeLog = state.optional("writeLog", (reader, name) => DmaWriteLog.of(reader.record(name)));
  }
}
