// The SMMUv3 driver: what it offers the iommu core, iommufd and VFIO (contract: ../driver.ts). One driver for all SMMUv3s of a host; each is an
// instance (instance.ts). It does what Linux 7.2's does; README.md lists where not.

import type { Stateful, StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import type { HardwareIommu } from "../../../hw/iommu/port.ts";
import { EBUSY, EINVAL, ENODEV, ENOSPC, EOPNOTSUPP } from "../../../uapi/errno.ts";
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
} from "../../../uapi/iommufd.ts";
import {
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
  IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV,
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
  iommuHwInfoArmSmmuv3,
  iommuHwInfoTegra241Cmdqv,
} from "../../../uapi/smmuv3-nesting.ts";
import type { AllocationKind, Erratum } from "../../inject.ts";
import type { LiveObjects } from "../../live-objects.ts";
import { AttachmentList } from "../attachments.ts";
import type { IommuCore } from "../core.ts";
import type {
  HwInfo,
  IommuCapability,
  IommuDevice,
  IommuDomain,
  IommuDriver,
  PageRequest,
  PagingDomain,
  ReservedRegion,
  UserData,
  ViommuBackend,
  ViommuCore,
} from "../driver.ts";
import type { IommuDriverParts, IommuHardwareDriver } from "../hardware.ts";
import { PageTable, type TableAccounting } from "../page-table.ts";
import { TagPool } from "../tags.ts";
import { waitForHardware } from "../wait.ts";
import { ContextTable, contextTableBits } from "./context-table.ts";
import { RELAY_PAGE_REQUESTS } from "./deviations.ts";
import { DeviceData, deviceDataOf } from "./device-data.ts";
import { type InstanceParts, Smmuv3Instance } from "./instance.ts";
import { Smmuv3PagingDomain } from "./paging-domain.ts";
import { answerRequest, handleEvent, handlePageRequest } from "./records.ts";
import { attachFixed, detachPasid, quiesce } from "./stream-switch.ts";
import { type Vmsav8Shape, vmsav8Shape } from "./table-shape.ts";
import type { Tegra241Cmdqv } from "./tegra241-cmdqv.ts";
import { Tegra241Viommu } from "./tegra241-viommu.ts";
import { Smmuv3Viommu } from "./viommu.ts";

/** Virtual addresses of the kernel, and so of stage 1, have no more bits (Linux: VA_BITS). */
const VIRTUAL_BITS = 48;
const PAGING_FLAGS = IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_ALLOC_NEST_PARENT;

// Not state: the driver names its attachments.
class FixedDomain implements IommuDomain {
  readonly kind: "identity" | "blocked";
  readonly owner: Smmuv3Driver;
  readonly attachments = new AttachmentList();
  readonly setPasid?: (device: IommuDevice, pasid: number) => number;

  constructor(owner: Smmuv3Driver, kind: "identity" | "blocked") {
    this.owner = owner;
    this.kind = kind;
    if (kind === "blocked") this.setPasid = detachPasid;
  }

  attach(device: IommuDevice): number {
    return attachFixed(device, this.kind);
  }
  free(): void {}
  describe(): string {
    return this.kind;
  }
}

export class Smmuv3Driver implements IommuHardwareDriver, IommuDriver, Stateful {
  readonly name = "smmuv3";
  readonly defaultDomain = "identity";
  readonly identityDomain: IommuDomain = new FixedDomain(this, "identity");
  readonly blockedDomain: IommuDomain = new FixedDomain(this, "blocked");
  readonly userPasidTable = true;
  readonly live: LiveObjects;
  readonly core: IommuCore;
  readonly trace: Trace;
  readonly #parts: IommuDriverParts;
  readonly #asids = new TagPool(16);
  readonly #instances: Smmuv3Instance[] = [];
  readonly #placed = new Map<IommuDevice, Smmuv3Instance>(); // not state: wiring

  constructor(parts: IommuDriverParts) {
    this.#parts = parts;
    this.live = parts.live;
    this.core = parts.core;
    this.trace = parts.trace;
  }

  get instances(): readonly Smmuv3Instance[] {
    return this.#instances;
  }

  /** Probes one SMMU; the instance, or a negated errno. */
  addHardware(parts: Pick<InstanceParts, "hardware" | "requestMessage" | "defer">): Smmuv3Instance | number {
    const { clock, frames } = this.#parts;
    const smmu: Smmuv3Instance = new Smmuv3Instance(
      { ...parts, frames, wait: (hardware, done, timeout) => waitForHardware(clock, hardware, done, timeout) },
      {
        event: (words) => handleEvent(this, smmu, words),
        pageRequest: (words) => handlePageRequest(this, smmu, words),
        eventsLost: () => {},
        pageRequestsLost: () => this.core.discardPartialRequests(smmu.devices.values()),
      },
    );
    const probed = smmu.probe();
    if (probed < 0) {
      smmu.shutDown();
      return probed;
    }
    this.#instances.push(smmu);
    return smmu;
  }

  /** The firmware's word on which SMMU a device sits behind; before the core probes the device. */
  place(device: IommuDevice, hardware: HardwareIommu): void {
    const smmu = this.#instances.find((instance) => instance.hardware === hardware);
    if (smmu !== undefined) this.#placed.set(device, smmu);
  }

  limitsOf(hardware: HardwareIommu): { readonly ats: boolean; readonly maxPasids: number } {
    const smmu = this.#instances.find((instance) => instance.hardware === hardware);
    if (smmu === undefined) return { ats: false, maxPasids: 0 };
    const bits = contextTableBits(smmu.substreamBits, smmu.features.CD2L);
    return { ats: smmu.features.ATS, maxPasids: bits === 0 ? 0 : 2 ** bits };
  }

  // --- devices ---

  instanceOf(device: IommuDevice): object {
    return deviceDataOf(device).smmu;
  }

  probeDevice(device: IommuDevice): number {
    const smmu = this.#placed.get(device);
    if (smmu === undefined) return -ENODEV;
    const added = smmu.addDevice(device);
    if (added < 0) return added;
    device.driverData = new DeviceData(smmu, device, this.deviates(RELAY_PAGE_REQUESTS));
    device.services?.setPasid(true);
    return 0;
  }

  releaseDevice(device: IommuDevice): void {
    quiesce(device);
    deviceDataOf(device).smmu.removeDevice(device);
    device.driverData = null;
    this.#placed.delete(device);
  }

  settle(device: IommuDevice): void {
    deviceDataOf(device).smmu.drainRecords();
  }

  capable(device: IommuDevice, capability: IommuCapability): boolean {
    const { smmu } = deviceDataOf(device);
    switch (capability) {
      case "CACHE_COHERENCY":
        return smmu.features.COHACC;
      case "DIRTY_TRACKING":
        return smmu.tracksDirty;
      case "PCI_ATS_SUPPORTED":
        return smmu.features.ATS && device.hasAts;
      case "ENFORCE_CACHE_COHERENCY":
        return false;
    }
  }

  reservedRegions(): readonly ReservedRegion[] {
    return [this.#parts.msiWindow];
  }

  hwInfo(device: IommuDevice, requested: number): HwInfo | number {
    const { cmdqv } = deviceDataOf(device).smmu;
    if (requested === IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV && cmdqv !== null) return cmdqvInfo(cmdqv);
    if (requested !== 0 && requested !== IOMMU_HW_INFO_TYPE_ARM_SMMUV3) return -EOPNOTSUPP;
    const [idr0, idr1, idr2, idr3, idr4, idr5, iidr, aidr] = deviceDataOf(device).smmu.identification as [...Eight];
    return {
      type: IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
      bytes: iommuHwInfoArmSmmuv3.encode({ idr0, idr1, idr2, idr3, idr4, idr5, iidr, aidr }),
    };
  }

  // --- domains ---

  /** arm_smmu_domain_alloc_paging_flags. */
  allocPaging(device: IommuDevice, flags: number, data: UserData | null): PagingDomain | number {
    if ((flags & ~PAGING_FLAGS) !== 0 || data !== null) return -EOPNOTSUPP;
    const { smmu } = deviceDataOf(device);
    const nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
    const tracksDirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
    // A nest parent is a second stage, dirty tracking and PASIDs are a first stage's.
    if (nestParent && (flags !== IOMMU_HWPT_ALLOC_NEST_PARENT || !smmu.supportsNesting)) return -EOPNOTSUPP;
    const stage = nestParent || (flags === 0 && !smmu.features.S1P) ? 2 : 1;
    if (stage === 1 && !smmu.features.S1P) return -EOPNOTSUPP;
    if (tracksDirty && !smmu.tracksDirty) return -EOPNOTSUPP;
    const tags = stage === 1 ? this.#asids : smmu.vmids;
    const tag = tags.take(stage === 1 ? smmu.asidBits : smmu.features.VMID16 ? 16 : 8);
    if (tag < 0) return stage === 1 && tag === -ENOSPC ? -EBUSY : tag;
    const shape = vmsav8Shape({
      granule: smmu.granule,
      stage,
      inputBits: stage === 1 ? VIRTUAL_BITS : smmu.addressBits,
      physicalBits: smmu.addressBits,
      tracksDirty,
      forcedWriteBack: nestParent && smmu.features.FWB,
    });
    const table = PageTable.create<Vmsav8Shape>(shape, this.#parts.frames, this.#tableAccounting);
    if (typeof table === "number") {
      tags.giveBack(tag);
      return table;
    }
    this.live.created("paging domain");
    return new Smmuv3PagingDomain(this, smmu, table, tag, nestParent);
  }

  pagingDomainFreed(domain: Smmuv3PagingDomain): void {
    (domain.stage === 1 ? this.#asids : domain.smmu.vmids).giveBack(domain.tag);
    this.live.destroyed("paging domain");
  }

  // --- nesting ---

  /**
   * Needs both stages, and that a guest's stage 1 cannot make accesses that go past the caches (Linux: CANWBS, which no device here has, or
   * S2FWB).
   */
  supportsViommu(device: IommuDevice, type: number): boolean {
    const { smmu } = deviceDataOf(device);
    const known =
      type === IOMMU_VIOMMU_TYPE_ARM_SMMUV3 || (type === IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV && smmu.cmdqv !== null);
    return known && smmu.supportsNesting && smmu.features.FWB;
  }

  /** -EOPNOTSUPP for another type or hardware without nesting, -EINVAL for a parent of another SMMU. */
  allocViommu(
    device: IommuDevice,
    type: number,
    parent: PagingDomain,
    data: UserData | null,
    core: ViommuCore,
  ): ViommuBackend | number {
    if (!this.supportsViommu(device, type)) return -EOPNOTSUPP;
    const { smmu } = deviceDataOf(device);
    if (!(parent instanceof Smmuv3PagingDomain) || parent.smmu !== smmu) return -EINVAL;
    if (type === IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV) return Tegra241Viommu.create(this, smmu, parent, data, core);
    return new Smmuv3Viommu(this, smmu, parent, core);
  }

  pageResponse(device: IommuDevice, request: PageRequest, code: number): void {
    answerRequest(device, request, code);
  }

  /** True for what a host's description asks for although Linux does not do it (deviations.ts). */
  deviates(deviation: string): boolean {
    return this.#parts.deviations.has(deviation);
  }

  allocationFails(what: AllocationKind): boolean {
    return this.#parts.injector().allocation(what);
  }

  /** Made-up quirks of the hardware (inject.ts). */
  hasErratum(erratum: Erratum): boolean {
    return this.#parts.injector().erratum?.(erratum) ?? false;
  }

  /** A table of context descriptors for as many PASIDs as device and SMMU have, or -ENOMEM. */
  readonly newContextTable = (device: IommuDevice): ContextTable | number => {
    const bits = device.maxPasids === 0 ? 0 : Math.ceil(Math.log2(device.maxPasids));
    return ContextTable.create(bits, this.#parts.frames, this.#tableAccounting);
  };

  readonly #tableAccounting: TableAccounting = {
    created: () => this.live.created("page-table page"),
    destroyed: () => this.live.destroyed("page-table page"),
    fails: () => this.#parts.injector().allocation("page-table page"),
  };

  // --- state: its domains and vIOMMUs are their holders' parts ---

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["ASIDs", this.#asids];
    yield ["on identity", this.identityDomain.attachments];
    yield ["blocked", this.blockedDomain.attachments];
    for (const smmu of this.#instances) yield [smmu.name, smmu];
  }
}

function cmdqvInfo({ version, log2Queues, log2Streams }: Tegra241Cmdqv): HwInfo {
  const bytes = iommuHwInfoTegra241Cmdqv.encode({ version, log2vcmdqs: log2Queues, log2vsids: log2Streams });
  return { type: IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV, bytes };
}

type Eight = [number, number, number, number, number, number, number, number];
