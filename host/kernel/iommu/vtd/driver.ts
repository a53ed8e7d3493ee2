// The Intel VT-d driver: what it offers the iommu core, iommufd and VFIO (contract: ../driver.ts). One driver for all remapping units of a host; each is
// a unit (unit.ts). It does what Linux 7.2's does; README.md lists where not.

import type { Stateful, StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import { NO_PASID } from "../../../devices/ports.ts";
import type { HardwareIommu } from "../../../hw/iommu/port.ts";
import { EINVAL, ENODEV, EOPNOTSUPP } from "../../../uapi/errno.ts";
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
} from "../../../uapi/iommufd.ts";
import {
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17,
  IOMMU_HW_INFO_VTD_FAULT_VIOMMU,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_VIOMMU_TYPE_VTD,
  iommuHwInfoVtd,
  iommuHwptVtdS1,
} from "../../../uapi/vtd-nesting.ts";
import type { Erratum } from "../../inject.ts";
import type { RemappedMessage } from "../../interrupts.ts";
import type { LiveObjects } from "../../live-objects.ts";
import { AttachmentList } from "../attachments.ts";
import type { IommuCore } from "../core.ts";
import type {
  HwInfo,
  IommuCapability,
  IommuDevice,
  IommuDomain,
  IommuDriver,
  NestedDomain,
  PageRequest,
  PagingDomain,
  ReservedRegion,
  UserData,
  ViommuBackend,
  ViommuCore,
} from "../driver.ts";
import type { IommuDriverParts, IommuHardwareDriver } from "../hardware.ts";
import { PageTable, type TableAccounting } from "../page-table.ts";
import { waitForHardware } from "../wait.ts";
import { RELAY_FAULTS } from "./deviations.ts";
import { DeviceData, deviceDataOf } from "./device-data.ts";
import { FaultViommu } from "./fault-viommu.ts";
import { VtdNestedDomain } from "./nested-domain.ts";
import { unitLargestLeaf, VtdPagingDomain } from "./paging-domain.ts";
import { passThroughContext, passThroughEntry } from "./pasid-entries.ts";
import { PasidTable } from "./pasid-table.ts";
import { detach, prepare, setUp, setUpScalableContext, tearDown, tearDownScalableContext } from "./placement.ts";
import { answerRequest, handleFault, handlePageRequest } from "./records.ts";
import { type VtdShape, vtdShape } from "./table-shape.ts";
import { type UnitParts, VtdUnit } from "./unit.ts";

const PAGING_FLAGS = IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_PASID;

/** 0xFEE0_0000 to 0xFEEF_FFFF: a write there is an interrupt request and translated by no table (IOAPIC_RANGE_START, IOAPIC_RANGE_END). */
const MESSAGE_REGION: ReservedRegion = { start: 0xfee0_0000n, length: 0x0010_0000n, type: "MSI" };

// Not state: the driver names its attachments.
class FixedDomain implements IommuDomain {
  readonly kind: "identity" | "blocked";
  readonly owner: VtdDriver;
  readonly attachments = new AttachmentList();
  readonly setPasid?: (device: IommuDevice, pasid: number) => number;

  constructor(owner: VtdDriver, kind: "identity" | "blocked") {
    this.owner = owner;
    this.kind = kind;
    if (kind === "blocked") this.setPasid = detachPasid;
  }

  /** Blocked is an entry that is not present. So is the kernel's own domain where there is no pass-through: it maps nothing for itself. */
  attach(device: IommuDevice): number {
    const { unit } = deviceDataOf(device);
    tearDown(device, NO_PASID);
    if (this.kind === "blocked" || !unit.features.PT) return 0;
    const placement = {
      translates: false,
      pasidEntry: () => passThroughEntry(unit.traits),
      contextEntry: () => passThroughContext(unit.traits),
    };
    const prepared = prepare(device, NO_PASID, placement);
    if (prepared === 0) setUp(device, NO_PASID, placement);
    return prepared;
  }

  free(): void {}
  describe(): string {
    return this.kind;
  }
}

function detachPasid(device: IommuDevice, pasid: number): number {
  detach(device, pasid);
  return 0;
}

export class VtdDriver implements IommuHardwareDriver, IommuDriver, Stateful {
  readonly name = "vtd";
  readonly defaultDomain = "identity";
  readonly identityDomain: IommuDomain = new FixedDomain(this, "identity");
  readonly blockedDomain: IommuDomain = new FixedDomain(this, "blocked");
  readonly live: LiveObjects;
  readonly core: IommuCore;
  readonly trace: Trace;
  readonly #parts: IommuDriverParts;
  readonly #units: VtdUnit[] = [];
  readonly #viommus = new Set<FaultViommu>(); // not state: they are iommufd's, who has one for each
  readonly #placed = new Map<IommuDevice, VtdUnit>(); // not state: wiring

  constructor(parts: IommuDriverParts) {
    this.#parts = parts;
    this.live = parts.live;
    this.core = parts.core;
    this.trace = parts.trace;
  }

  get units(): readonly VtdUnit[] {
    return this.#units;
  }

  /** Probes one unit; the unit, or a negated errno. */
  addHardware(parts: Pick<UnitParts, "hardware" | "requestMessage" | "defer">): VtdUnit | number {
    const { clock, frames } = this.#parts;
    const unit: VtdUnit = new VtdUnit(
      { ...parts, frames, wait: (hardware, done, timeout) => waitForHardware(clock, hardware, done, timeout) },
      {
        fault: (words) => handleFault(this, unit, words),
        pageRequest: (words) => handlePageRequest(this, unit, words),
        pageRequestsLost: () => this.core.discardPartialRequests(unit.devices.values()),
      },
    );
    const probed = unit.probe();
    if (probed < 0) {
      unit.shutDown();
      return probed;
    }
    this.#units.push(unit);
    return unit;
  }

  /** The firmware's word on which unit a device sits behind; before the core probes the device. */
  place(device: IommuDevice, hardware: HardwareIommu): void {
    const unit = this.#units.find((known) => known.hardware === hardware);
    if (unit !== undefined) this.#placed.set(device, unit);
  }

  limitsOf(hardware: HardwareIommu): { readonly ats: boolean; readonly maxPasids: number } {
    const unit = this.#units.find((known) => known.hardware === hardware);
    if (unit === undefined) return { ats: false, maxPasids: 0 };
    return { ats: unit.features.DT, maxPasids: unit.pasidBits === 0 ? 0 : 2 ** unit.pasidBits };
  }

  // --- devices ---

  instanceOf(device: IommuDevice): object {
    return deviceDataOf(device).unit;
  }

  /** In scalable mode the device's services are on from here on, whatever it is attached to (intel_iommu_probe_finalize). */
  probeDevice(device: IommuDevice): number {
    const unit = this.#placed.get(device);
    if (unit === undefined) return -ENODEV;
    const pasids = unit.scalable ? this.#newPasidTable(device) : null;
    if (typeof pasids === "number") return pasids;
    const added = unit.addDevice(device);
    if (added < 0) {
      pasids?.free();
      return added;
    }
    const pageRequests = unit.takesPageRequests && device.hasPri;
    const data = new DeviceData(unit, pasids, pageRequests);
    device.driverData = data;
    if (pasids === null) return 0;
    data.ats = unit.features.DT && device.hasAts;
    setUpScalableContext(device, pasids, pageRequests);
    // PASID before ATS before page requests: PCIe leaves another order undefined.
    if (unit.pasidBits > 0) device.services?.setPasid(true);
    if (data.ats) device.services?.setAts(true);
    if (pageRequests) device.services?.setPri(true);
    return 0;
  }

  releaseDevice(device: IommuDevice): void {
    const { unit, pasids, ats, pageRequests } = deviceDataOf(device);
    if (pageRequests) device.services?.setPri(false);
    tearDown(device, NO_PASID);
    if (ats) device.services?.setAts(false);
    if (pasids !== null) {
      tearDownScalableContext(device);
      pasids.free();
    }
    unit.removeDevice(device);
    device.driverData = null;
    this.#placed.delete(device);
  }

  settle(device: IommuDevice): void {
    deviceDataOf(device).unit.drainRecords();
  }

  capable(device: IommuDevice, capability: IommuCapability): boolean {
    const { unit } = deviceDataOf(device);
    switch (capability) {
      case "CACHE_COHERENCY":
        return true;
      case "ENFORCE_CACHE_COHERENCY":
        return unit.features.SC;
      case "DIRTY_TRACKING":
        return unit.tracksDirty;
      case "PCI_ATS_SUPPORTED":
        return unit.features.DT && device.hasAts;
    }
  }

  reservedRegions(): readonly ReservedRegion[] {
    return [MESSAGE_REGION];
  }

  /** Without interrupt remapping a device could write any message (IRQ_DOMAIN_FLAG_ISOLATED_MSI). */
  isolatesMsi(device: IommuDevice): boolean {
    return deviceDataOf(device).unit.remapping !== null;
  }

  remapMessages(
    device: IommuDevice,
    messages: readonly { readonly address: bigint; readonly data: number }[],
  ): readonly RemappedMessage[] | null | number {
    return deviceDataOf(device).unit.remapping?.remap(device, messages) ?? null;
  }

  hwInfo(device: IommuDevice, requested: number): HwInfo | number {
    if (requested !== 0 && requested !== IOMMU_HW_INFO_TYPE_INTEL_VTD) return -EOPNOTSUPP;
    const { capabilities, extendedCapabilities } = deviceDataOf(device).unit;
    return {
      type: IOMMU_HW_INFO_TYPE_INTEL_VTD,
      bytes: iommuHwInfoVtd.encode({
        flags: IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 | (this.#relaysFaults ? IOMMU_HW_INFO_VTD_FAULT_VIOMMU : 0),
        cap_reg: capabilities,
        ecap_reg: extendedCapabilities,
      }),
    };
  }

  // --- domains ---

  /** intel_iommu_domain_alloc_paging_flags: a first stage where that can be, else a second stage. */
  allocPaging(device: IommuDevice, flags: number, data: UserData | null): PagingDomain | number {
    if (data !== null || (flags & ~PAGING_FLAGS) !== 0) return -EOPNOTSUPP;
    const { unit } = deviceDataOf(device);
    const nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
    const tracksDirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
    const first = unit.hasFirstStage && !nestParent && !tracksDirty;
    if (!first) {
      if ((nestParent && !unit.supportsNesting) || (tracksDirty && !unit.tracksDirty)) return -EOPNOTSUPP;
      if (!unit.hasSecondStage) return -EOPNOTSUPP;
    }
    const { SC: snoops, FS1GP, SSLPS } = unit.features;
    const shape = vtdShape({
      stage: first ? 1 : 2,
      ...(first ? unit.firstStageTable : unit.secondStageTable),
      largestLeaf: first ? (FS1GP ? 2 : 1) : unitLargestLeaf(SSLPS),
      snoops,
      mustWrite: nestParent,
    });
    const table = PageTable.create<VtdShape>(shape, this.#parts.frames, this.#tableAccounting);
    if (typeof table === "number") return table;
    this.live.created("paging domain");
    return new VtdPagingDomain(this, table, { nestParent, tracksDirty });
  }

  pagingDomainFreed(): void {
    this.live.destroyed("paging domain");
  }

  /** intel_iommu_domain_alloc_nested; what is in the data is looked at when the domain is attached. */
  allocNested(device: IommuDevice, parent: PagingDomain, flags: number, data: UserData): NestedDomain | number {
    if (!deviceDataOf(device).unit.supportsNesting || (flags & ~IOMMU_HWPT_ALLOC_PASID) !== 0) return -EOPNOTSUPP;
    if (data.type !== IOMMU_HWPT_DATA_VTD_S1) return -EOPNOTSUPP;
    if (!(parent instanceof VtdPagingDomain) || parent.stage !== 2 || !parent.nestParent) return -EINVAL;
    const bytes = data.copy(iommuHwptVtdS1.bytes, iommuHwptVtdS1.bytes);
    if (typeof bytes === "number") return bytes;
    this.live.created("nested domain");
    return new VtdNestedDomain(this, parent, iommuHwptVtdS1.decode(bytes));
  }

  nestedDomainFreed(): void {
    this.live.destroyed("nested domain");
  }

  // --- vIOMMUs for faults: a deviation ---

  supportsViommu(device: IommuDevice, type: number): boolean {
    return type === IOMMU_VIOMMU_TYPE_VTD && this.#relaysFaults && deviceDataOf(device).unit.supportsNesting;
  }

  get #relaysFaults(): boolean {
    return this.#parts.deviations.has(RELAY_FAULTS);
  }

  /** -EOPNOTSUPP for another type, and where no description asks for one; -EINVAL for a parent that nothing nests on. */
  allocViommu(
    device: IommuDevice,
    type: number,
    parent: PagingDomain,
    _data: UserData | null,
    core: ViommuCore,
  ): ViommuBackend | number {
    if (!this.supportsViommu(device, type)) return -EOPNOTSUPP;
    if (!(parent instanceof VtdPagingDomain) || !parent.nestParent) return -EINVAL;
    this.live.created("viommu backend");
    const viommu = new FaultViommu(core, (gone) => {
      this.#viommus.delete(gone);
      this.live.destroyed("viommu backend");
    });
    this.#viommus.add(viommu);
    return viommu;
  }

  /** Tells the guest that has the device; false: there is none. */
  relayFault(device: IommuDevice, words: readonly bigint[]): boolean {
    for (const viommu of this.#viommus) if (viommu.report(device, words)) return true;
    return false;
  }

  pageResponse(device: IommuDevice, request: PageRequest, code: number): void {
    answerRequest(device, request, code);
  }

  /** Made-up quirks of the hardware (inject.ts). */
  hasErratum(erratum: Erratum): boolean {
    return this.#parts.injector().erratum?.(erratum) ?? false;
  }

  /** Room for as many PASIDs as device and unit have (intel_pasid_alloc_table). */
  #newPasidTable(device: IommuDevice): PasidTable | number {
    const bits = device.maxPasids === 0 ? 0 : Math.ceil(Math.log2(device.maxPasids));
    return PasidTable.create(bits, this.#parts.frames, this.#tableAccounting);
  }

  readonly #tableAccounting: TableAccounting = {
    created: () => this.live.created("page-table page"),
    destroyed: () => this.live.destroyed("page-table page"),
    fails: () => this.#parts.injector().allocation("page-table page"),
  };

  // --- state: its domains are their holders' parts ---

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["on identity", this.identityDomain.attachments];
    yield ["blocked", this.blockedDomain.attachments];
    for (const unit of this.#units) yield [unit.name, unit];
  }
}
