// The RISC-V IOMMU driver: what it offers the iommu core, iommufd and VFIO (contract: ../driver.ts). One driver for all RISC-V IOMMUs
// of a host; each is an instance (instance.ts). What it does beyond Linux 7.2, and why, stands in the room's README.

import {
  encodeCommand,
  PRGR_INVALID_REQUEST,
  PRGR_RESPONSE_FAILURE,
  PRGR_SUCCESS,
} from "../../../arch/riscv/commands.ts";
import { TC_V } from "../../../arch/riscv/device-context.ts";
import type { Stateful, StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import type { HardwareIommu } from "../../../hw/iommu/port.ts";
import { EINVAL, ENODEV, EOPNOTSUPP } from "../../../uapi/errno.ts";
import { IOMMU_HW_INFO_TYPE_RISCV, IOMMU_VIOMMU_TYPE_RISCV, iommuHwInfoRiscv } from "../../../uapi/riscv-nesting.ts";
import type { Erratum } from "../../inject.ts";
import type { LiveObjects } from "../../live-objects.ts";
import { AttachmentList } from "../attachments.ts";
import type { IommuCore } from "../core.ts";
import type {
  HwInfo,
  IommuCapability,
  IommuDevice,
  IommuDriver,
  PageRequest,
  PagingDomain,
  ReservedRegion,
  UserData,
  ViommuBackend,
  ViommuCore,
} from "../driver.ts";
import type { IommuDriverParts } from "../hardware.ts";
import { PageTable, type TableAccounting } from "../page-table.ts";
import { TagPool } from "../tags.ts";
import { waitForHardware } from "../wait.ts";
import type { Context } from "./context-switch.ts";
import { INVALID_CONTEXT } from "./context-switch.ts";
import { clearPasid, type DeviceData, deviceDataOf, moveDevice, type RiscvDomain } from "./device-data.ts";
import { relayFault, takePageRequest } from "./faults.ts";
import { type InstanceParts, RiscvIommu } from "./instance.ts";
import { RiscvPagingDomain } from "./paging-domain.ts";
import { type ProcessContext, ProcessDirectory } from "./process-directory.ts";
import { MODE_LEVELS, riscvTableShape } from "./table-shape.ts";
import { RiscvViommu } from "./viommu.ts";

/** IOMMU_HWPT_ALLOC_* flags of include/uapi/linux/iommufd.h that this driver knows. */
const NEST_PARENT = 1;
const DIRTY_TRACKING = 2;
const PASID = 8;

/** A fixed domain: every device's context is the same. */
// Not state: the driver names its attachments.
class FixedDomain implements RiscvDomain {
  readonly kind: "identity" | "blocked";
  readonly owner: RiscvDriver;
  readonly attachments = new AttachmentList();
  readonly #context: Context;

  constructor(owner: RiscvDriver, kind: "identity" | "blocked", context: Context) {
    this.owner = owner;
    this.kind = kind;
    this.#context = context;
  }

  contextFor(): Context {
    return this.#context;
  }
  attach(device: IommuDevice): number {
    return moveDevice(device, this);
  }
  /** Blocked: the PASID (or, in a directory, the requester id) has nothing. */
  readonly processContext = (): ProcessContext => (this.kind === "blocked" ? null : [0n, 0n]);
  setPasid(device: IommuDevice, pasid: number): number {
    return this.kind === "blocked" ? clearPasid(device, pasid) : -EOPNOTSUPP;
  }
  free(): void {}
  describe(): string {
    return this.kind;
  }
}

export class RiscvDriver implements IommuDriver, Stateful {
  readonly name = "riscv";
  readonly defaultDomain = "identity";
  /** V = 1, both stages Bare. */
  readonly identityDomain: RiscvDomain = new FixedDomain(this, "identity", [BigInt(TC_V), 0n, 0n, 0n]);
  /** V = 0: every transaction is refused with cause 258. */
  readonly blockedDomain: RiscvDomain = new FixedDomain(this, "blocked", INVALID_CONTEXT);
  readonly userPasidTable = true;
  readonly live: LiveObjects;
  readonly core: IommuCore;
  readonly trace: Trace;
  readonly #parts: IommuDriverParts;
  readonly #pscids = new TagPool(20);
  readonly #gscids = new TagPool(16);
  readonly #instances: RiscvIommu[] = [];
  readonly #placed = new Map<IommuDevice, RiscvIommu>(); // not state: wiring

  constructor(parts: IommuDriverParts) {
    this.#parts = parts;
    this.live = parts.live;
    this.core = parts.core;
    this.trace = parts.trace;
  }

  get instances(): readonly RiscvIommu[] {
    return this.#instances;
  }

  /** Probes one IOMMU; the instance, or a negated errno. */
  addHardware(parts: Pick<InstanceParts, "hardware" | "requestMessage" | "defer">): RiscvIommu | number {
    const { clock, frames } = this.#parts;
    const iommu: RiscvIommu = new RiscvIommu(
      {
        ...parts,
        frames,
        tags: { pscids: this.#pscids, gscids: this.#gscids },
        wait: (hardware, done, timeout) => waitForHardware(clock, hardware, done, timeout),
      },
      {
        fault: (words) => relayFault(this, iommu, words),
        pageRequest: (words) => takePageRequest(this, iommu, words),
        pageRequestsLost: () => this.core.discardPartialRequests(iommu.devices.values()),
      },
    );
    const probed = iommu.probe();
    if (probed < 0) {
      iommu.shutDown();
      return probed;
    }
    this.#instances.push(iommu);
    return iommu;
  }

  /** The firmware's word on which IOMMU a device sits behind; before the core probes the device. */
  place(device: IommuDevice, hardware: HardwareIommu): void {
    const iommu = this.#instances.find((instance) => instance.hardware === hardware);
    if (iommu !== undefined) this.#placed.set(device, iommu);
  }

  limitsOf(hardware: HardwareIommu): { readonly ats: boolean; readonly maxPasids: number } {
    const iommu = this.#instances.find((instance) => instance.hardware === hardware);
    if (iommu === undefined) return { ats: false, maxPasids: 0 };
    const bits = iommu.processIdBits;
    return { ats: iommu.capabilities.ATS, maxPasids: bits === 0 ? 0 : 2 ** bits };
  }

  // --- devices ---

  instanceOf(device: IommuDevice): object {
    return deviceDataOf(device).iommu;
  }

  probeDevice(device: IommuDevice): number {
    const iommu = this.#placed.get(device);
    if (iommu === undefined) return -ENODEV;
    const added = iommu.addDevice(device);
    if (added < 0) return added;
    const data: DeviceData = { iommu, directory: null };
    device.driverData = data;
    device.services?.setPasid(true);
    return 0;
  }

  releaseDevice(device: IommuDevice): void {
    deviceDataOf(device).iommu.removeDevice(device);
    device.driverData = null;
    this.#placed.delete(device);
  }

  settle(device: IommuDevice): void {
    deviceDataOf(device).iommu.drainRecords();
  }

  capable(device: IommuDevice, capability: IommuCapability): boolean {
    const { capabilities } = deviceDataOf(device).iommu;
    switch (capability) {
      case "CACHE_COHERENCY":
        return true;
      case "DIRTY_TRACKING":
        return capabilities.AMO_HWAD;
      case "PCI_ATS_SUPPORTED":
        return capabilities.ATS;
      case "ENFORCE_CACHE_COHERENCY":
        return false;
    }
  }

  reservedRegions(): readonly ReservedRegion[] {
    return [this.#parts.msiWindow];
  }

  hwInfo(device: IommuDevice, requested: number): HwInfo | number {
    if (requested !== 0 && requested !== IOMMU_HW_INFO_TYPE_RISCV) return -EOPNOTSUPP;
    const { capabilitiesWord, fctl } = deviceDataOf(device).iommu;
    return {
      type: IOMMU_HW_INFO_TYPE_RISCV,
      bytes: iommuHwInfoRiscv.encode({ capabilities: capabilitiesWord, fctl }),
    };
  }

  // --- domains ---

  allocPaging(device: IommuDevice, flags: number, data: UserData | null): PagingDomain | number {
    if ((flags & ~(NEST_PARENT | DIRTY_TRACKING | PASID)) !== 0) return -EOPNOTSUPP;
    if (data !== null && (data.type !== 0 || data.bytes.length !== 0)) return -EOPNOTSUPP;
    const { iommu } = deviceDataOf(device);
    const nestParent = (flags & NEST_PARENT) !== 0;
    const tracksDirty = (flags & DIRTY_TRACKING) !== 0;
    const pasid = (flags & PASID) !== 0;
    if (nestParent && (pasid || !iommu.supportsNesting)) return -EOPNOTSUPP;
    if (pasid && iommu.processIdBits === 0) return -EOPNOTSUPP;
    if (tracksDirty && !iommu.capabilities.AMO_HWAD) return -EOPNOTSUPP;
    const mode = nestParent ? iommu.secondStageMode : iommu.firstStageMode;
    const tags = nestParent ? this.#gscids : this.#pscids;
    const tag = tags.take();
    if (tag < 0) return tag;
    const physicalBits = iommu.capabilities.PAS;
    const shape = riscvTableShape({ levels: MODE_LEVELS[mode]!, secondStage: nestParent, tracksDirty, physicalBits });
    const table = PageTable.create(shape, this.#parts.frames, this.#tableAccounting);
    if (typeof table === "number") {
      tags.giveBack(tag);
      return table;
    }
    this.live.created("paging domain");
    return new RiscvPagingDomain(this, table, mode, tag, pasid);
  }

  /** Made-up quirks of the hardware (inject.ts). */
  hasErratum(erratum: Erratum): boolean {
    return this.#parts.injector().erratum?.(erratum) ?? false;
  }

  newProcessDirectory(device: IommuDevice): ProcessDirectory | number {
    const { iommu } = deviceDataOf(device);
    return ProcessDirectory.create(iommu.processIdBits, this.#parts.frames, this.#tableAccounting);
  }

  readonly #tableAccounting: TableAccounting = {
    created: () => this.live.created("page-table page"),
    destroyed: () => this.live.destroyed("page-table page"),
    fails: () => this.#parts.injector().allocation("page-table page"),
  };

  pagingDomainFreed(domain: RiscvPagingDomain): void {
    (domain.nestParent ? this.#gscids : this.#pscids).giveBack(domain.tag);
    this.live.destroyed("paging domain");
  }

  supportsViommu(device: IommuDevice, type: number): boolean {
    return type === IOMMU_VIOMMU_TYPE_RISCV && deviceDataOf(device).iommu.supportsNesting;
  }

  /** -EOPNOTSUPP for another type or hardware without a second stage, -EINVAL for a parent that this IOMMU cannot use. */
  allocViommu(
    device: IommuDevice,
    type: number,
    parent: PagingDomain,
    data: UserData | null,
    core: ViommuCore,
  ): ViommuBackend | number {
    const { iommu } = deviceDataOf(device);
    if (!this.supportsViommu(device, type)) return -EOPNOTSUPP;
    if (data !== null && data.bytes.length > 0) return -EOPNOTSUPP;
    if (!(parent instanceof RiscvPagingDomain) || parent.owner !== this || !parent.nestParent) return -EINVAL;
    const compatible = parent.compatibleWith(iommu);
    if (compatible < 0) return compatible;
    const gscid = this.#gscids.take();
    if (gscid < 0) return gscid;
    this.live.created("viommu backend");
    return new RiscvViommu(this, iommu, parent, gscid, core);
  }

  viommuDestroyed(viommu: RiscvViommu): void {
    this.#gscids.giveBack(viommu.gscid);
    this.live.destroyed("viommu backend");
  }

  // --- page requests ---

  /** Code 0 success, 1 invalid, anything else failure; as ATS.PRGR (§4.1.4). Only a last request gets an answer (PCIe 6.0 §10.4.2). */
  pageResponse(device: IommuDevice, request: PageRequest, code: number): void {
    if (!request.last) return;
    const { iommu } = deviceDataOf(device);
    // The response carries the PASID when the device asks for it (§3.7); one that asked without gets none.
    const withPasid = request.pasid >= 0 && request.answerWithPasid === true;
    const codes = [PRGR_SUCCESS, PRGR_INVALID_REQUEST];
    iommu.queue.push(
      encodeCommand("ATS.PRGR", {
        DSV: 1,
        RID: device.deviceId & 0xffff,
        DSEG: device.deviceId >>> 16,
        PRGI: request.group,
        code: codes[code] ?? PRGR_RESPONSE_FAILURE,
        ...(withPasid ? { PV: 1, PID: request.pasid } : {}),
      }),
    );
    iommu.queue.fence();
  }

  // --- state: its domains and vIOMMUs are their holders' parts ---

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["PSCIDs", this.#pscids];
    yield ["GSCIDs", this.#gscids];
    yield ["on identity", this.identityDomain.attachments];
    yield ["blocked", this.blockedDomain.attachments];
    for (const iommu of this.#instances) yield [iommu.name, iommu];
  }
}
