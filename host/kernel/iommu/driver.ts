// What an IOMMU driver offers the iommu core, iommufd and VFIO (Linux: struct iommu_ops, iommu_domain_ops, iommufd_viommu_ops).
// One folder a driver beside this file, a kind of hardware each, and mock/ for Linux's selftests. All results are 0, a value, or a
// negated errno; object-returning calls return the object or a negated errno.
//
// Addresses and sizes are bigints in bytes. A "frame" is a page of memory the kernel can name: a host page-frame number for
// simulated memory, an identity of a foreign process's page under `host run --selftest`; drivers pass frames through.

import type { MmioPort } from "../../base/mmio.ts";
import type { RemappedMessage } from "../interrupts.ts";
import type { Attachment, AttachmentList, DeviceAttachments } from "./attachments.ts";
import type { WaitingCall } from "./wait.ts";

export const IOMMU_READ = 1;
export const IOMMU_WRITE = 2;
export const IOMMU_CACHE = 4;
export const IOMMU_NOEXEC = 8;
export const IOMMU_MMIO = 16;

export type IommuCapability = "CACHE_COHERENCY" | "ENFORCE_CACHE_COHERENCY" | "DIRTY_TRACKING" | "PCI_ATS_SUPPORTED";

export interface ReservedRegion {
  readonly start: bigint;
  readonly length: bigint;
  readonly type: "DIRECT" | "DIRECT_RELAXABLE" | "RESERVED" | "MSI" | "SW_MSI";
}

/** Switches in a device that its IOMMU's driver turns: they mean nothing without the IOMMU's side. */
export interface IommuTranslationServices {
  setPasid(on: boolean): void;
  setAts(on: boolean): void;
  setPri(on: boolean): void;
}

/** A device as the iommu core knows it (driver core's struct device plus dev_iommu). */
export interface IommuDevice {
  /** Kernel name: a PCI BDF such as "0000:00:01.0", or a mock's. */
  readonly name: string;
  /** Requester id on its IOMMU. */
  readonly deviceId: number;
  /** Largest PASID count the device and IOMMU can do together (0: none). */
  readonly maxPasids: number;
  /** Requests with a PASID may ask to execute, and may be privileged: enabled with PASIDs where a PCI function has them. */
  readonly pasidExecutes?: boolean;
  readonly pasidPrivileged?: boolean;
  readonly hasAts: boolean;
  readonly hasPri: boolean;
  /** Its transactions may wait for software (Linux: the firmware's dma-can-stall). Absent: no, as for every PCI function. */
  readonly canStall?: boolean;
  /** The virtual function's physical function has PRI (iommufd refuses fault-capable HWPTs then). */
  readonly isVirtualFunction: boolean;
  /** Absent: the device has no such switches (mocks). */
  readonly services?: IommuTranslationServices;
  /** What its requester id and its PASIDs are attached to: the core's record, for drivers to read. */
  readonly attachments: DeviceAttachments;
  /** What the driver keeps for the device (Linux: dev_iommu->priv). */
  driverData: unknown;
}

/** Anything a device (or one of its PASIDs) can be attached to. */
export interface IommuDomain {
  readonly kind: "paging" | "nested" | "identity" | "blocked";
  readonly owner: IommuDriver;
  /** What is attached: the core's record, for the driver to read. Domains under one tag may share a list. */
  readonly attachments: AttachmentList;
  /**
   * Points the device's DMA at this domain; `old` is what it was attached to. `device.attachments` says how things are to be, with
   * this domain in it. Page requests are on while some attachment of the device wants them: with `old` this domain itself, that is
   * what has changed. On an error nothing has changed. A driver switches without passing through blocking where its hardware can.
   */
  attach(device: IommuDevice, old: IommuDomain | null): number;
  /** As `attach` for one PASID; of a blocking domain: the PASID has nothing, which cannot fail. Absent: the driver cannot. */
  setPasid?(device: IommuDevice, pasid: number, old: IommuDomain | null): number;
  /** A place has left the domain; `attachments` no longer has it. */
  left?(gone: Attachment): void;
  /** Frees what the driver holds. Only when nothing is attached. */
  free(): void;
  /** One line for traces: table format, root, tags. */
  describe?(): string;
}

export interface PagingDomain extends IommuDomain {
  readonly kind: "paging";
  /** Bit n set: pages of 2^n bytes. */
  readonly pageSizes: bigint;
  readonly aperture: { readonly start: bigint; readonly last: bigint };
  readonly forceAperture: boolean;
  /** The domain answers CACHE_COHERENCY-enforcing (Linux: enforce_cache_coherency succeeded). */
  readonly enforcesCoherency: boolean;
  /** Maps [iova, +size) to the physically contiguous [paddr, +size); all multiples of the smallest page size. All or nothing. */
  map(iova: bigint, paddr: bigint, size: bigint, prot: number): number;
  /** Unmaps what is mapped in the range (whole leaves; splits larger leaves where it must); returns the bytes unmapped. */
  unmap(iova: bigint, size: bigint): bigint;
  /** Makes earlier unmaps of the range visible to hardware (Linux: iotlb_sync). Pages may be freed only after it. */
  sync(iova: bigint, size: bigint): void;
  /** Physical address that iova maps to, or null. */
  iovaToPhys(iova: bigint): bigint | null;
  /** Present where DIRTY_TRACKING was asked for. */
  readonly dirty?: DirtyOperations;
  /** NEST_PARENT domain: can carry nested ones. */
  readonly nestParent: boolean;
}

export interface DirtyOperations {
  setTracking(on: boolean): number;
  /** Calls `report(iova, size)` for each dirty leaf in the range; clears the bits unless `keep`. */
  readAndClear(iova: bigint, size: bigint, keep: boolean, report: (iova: bigint, size: bigint) => void): number;
}

export interface NestedDomain extends IommuDomain {
  readonly kind: "nested";
  readonly parent: PagingDomain;
  /** Nested HWPTs that take invalidations themselves (VT-d, mock). Shapes as ViommuBackend.invalidate. */
  invalidate?(batch: InvalidationBatch): number;
}

/** User data of an ioctl: type and bytes as copied from user space (trailing zeroes beyond the kernel's struct already checked). */
export interface UserData {
  readonly type: number;
  /** Bytes that user space gave, at most a page; empty if unreadable. */
  readonly bytes: Uint8Array;
  /**
   * The structure of `size` bytes, zero-extended (Linux: iommu_copy_struct_from_user): -EINVAL if user space gave fewer than
   * `minimum` bytes or more than `size`, -EFAULT if they cannot be read. Check the type first.
   */
  copy(minimum: number, size: number): Uint8Array | number;
}

/** Array of fixed-size entries from user space. `done` counts fully processed ones. */
export interface InvalidationBatch {
  readonly type: number;
  readonly entryLength: number;
  readonly count: number;
  done: number;
  /**
   * Copies entries under copy_struct rules from `index` on, each as `length` bytes (a multiple of 4): they stand in `words`, one behind the other from
   * its beginning, until the next call. How many, as many as fit and at least 1; a negated errno where not even the first can be had (EFAULT,
   * E2BIG). Nothing is allocated.
   */
  load(index: number, length: number): number;
  /** Signed: what is a number and not a set of bits is made unsigned where it is used. */
  readonly words: Int32Array;
  /** One entry, as bytes of its own. */
  fetch(index: number, length: number): Uint8Array | number;
}

/** A driver's half of a vIOMMU object. */
export interface ViommuBackend {
  /** Extra reply data for VIOMMU_ALLOC, if the type has any. */
  readonly reply?: Uint8Array;
  allocNested(device: IommuDevice, flags: number, data: UserData): NestedDomain | number;
  invalidate?(batch: InvalidationBatch): number;
  /** A vDEVICE appeared: 0 or a negated errno that refuses it. The driver may keep private data per vDEVICE. */
  vdeviceInit?(vdevice: VdeviceBackendView): number;
  vdeviceDestroy?(vdevice: VdeviceBackendView): void;
  hwQueue?: HwQueueOperations;
  destroy(): void;
}

export interface VdeviceBackendView {
  readonly device: IommuDevice;
  /** The guest's id for the device, u64. */
  readonly virtualId: bigint;
  driverData: unknown;
}

export interface HwQueueOperations {
  /** True if `type` exists. */
  supports(type: number): boolean;
  /** The range's physical base is given; a negated errno refuses. `queue` is opaque to the core. */
  init(
    index: number,
    nestingParentIova: bigint,
    length: bigint,
    physicalBase: bigint,
    core: HwQueueCore,
  ): HwQueueBackend | number;
}

export interface HwQueueCore {
  /** Makes the new queue depend on an earlier one (Linux: _iommufd_object_depend). */
  dependOn(earlier: HwQueueBackend): number;
}

export interface HwQueueBackend {
  destroy(): void;
}

/**
 * What a driver lets user space map through the iommufd: memory, or registers of the hardware as they are, from `registerStart` on. Whole
 * pages.
 */
export type ExportedRegion =
  | { readonly memory: Uint8Array }
  | { readonly registers: MmioPort; readonly registerStart: number; readonly registerBytes: number };

/** What iommufd gives a driver's vIOMMU: lookups and event reporting (Linux: iommufd_viommu_find_dev, _report_event, …). */
export interface ViommuCore {
  /** Device behind a guest's id, or null. */
  findDevice(virtualId: bigint | number): IommuDevice | null;
  /** Guest's id of a device in this vIOMMU, or null. */
  virtualIdOf(device: IommuDevice): bigint | null;
  /** Calls for every vDEVICE of this vIOMMU. */
  eachVdevice(visit: (vdevice: VdeviceBackendView) => void): void;
  /** Queues an event on the vEVENTQ of `type`; -EOPNOTSUPP if there is none. */
  reportEvent(type: number, data: Uint8Array): number;
  /** Lets user space map memory or a page of the hardware's registers; returns its offset token, or a negated errno. */
  exportRegion?(region: ExportedRegion): bigint | number;
}

/** Page request from a device, as drivers report it (Linux: iopf_fault). */
export interface PageRequest {
  /** NO_PASID (-1) for a request without one. */
  readonly pasid: number;
  /** The device's own index of the group: not to be trusted, never to index anything. */
  readonly group: number;
  readonly last: boolean;
  /** READ 1, WRITE 2, EXEC 4, PRIV 8. */
  readonly permissions: number;
  readonly address: bigint;
  /** The device expects the PASID in the answer (PCIe 6.0: PRG Response PASID Required). For the driver that reported the request. */
  readonly answerWithPasid?: boolean;
}

export interface HwInfo {
  readonly type: number;
  readonly bytes: Uint8Array;
}

export interface IommuDriver {
  readonly name: string;
  /** The driver's instance behind this device; two devices share an instance iff behind one IOMMU. */
  instanceOf(device: IommuDevice): object;
  probeDevice(device: IommuDevice): number;
  releaseDevice(device: IommuDevice): void;
  /**
   * Reports what the hardware has queued about the device: called before the device is attached elsewhere, so that it is told to whom
   * it concerns.
   */
  settle?(device: IommuDevice): void;
  capable(device: IommuDevice, capability: IommuCapability): boolean;
  reservedRegions(device: IommuDevice): readonly ReservedRegion[];
  /** No DMA write of the device can raise an interrupt that is not its own; absent: true (Linux: iommu_group_has_isolated_msi). */
  isolatesMsi?(device: IommuDevice): boolean;
  /** Messages that reach the device's interrupts through the IOMMU's table of them (MessageRemapper). Absent: there is none. */
  remapMessages?(
    device: IommuDevice,
    messages: readonly { readonly address: bigint; readonly data: number }[],
  ): readonly RemappedMessage[] | null | number;
  /** Under a nested domain the guest owns the PASID table: page requests of any PASID go to the nested domain's handler. */
  readonly userPasidTable?: boolean;
  /** Domain type the core gives a group at boot. */
  readonly defaultDomain: "identity" | "blocked";
  readonly identityDomain: IommuDomain | null;
  readonly blockedDomain: IommuDomain;
  /** GET_HW_INFO; `requested` 0 is the default type. -EOPNOTSUPP for a type it does not know. */
  hwInfo?(device: IommuDevice, requested: number): HwInfo | number;
  /** Paging domain with IOMMU_HWPT_ALLOC_* flags and optional user data. */
  allocPaging(device: IommuDevice, flags: number, data: UserData | null): PagingDomain | number;
  /** Nested domain directly on a parent HWPT (VT-d, mock). */
  allocNested?(device: IommuDevice, parent: PagingDomain, flags: number, data: UserData): NestedDomain | number;
  /** False for a vIOMMU type that does not exist: it is refused before the parent is looked up. Absent: allocViommu decides. */
  supportsViommu?(device: IommuDevice, type: number): boolean;
  /** vIOMMU of `type`; -EOPNOTSUPP when unknown. */
  allocViommu?(
    device: IommuDevice,
    type: number,
    parent: PagingDomain,
    data: UserData | null,
    core: ViommuCore,
  ): ViommuBackend | number;
  /**
   * Answers a request, for its whole group if it is the last; code 0 SUCCESS, 1 INVALID (iommufd), 0xf FAILURE. One that is not the
   * last is answered only where nobody takes it: whether the device is to hear of that is the driver's matter.
   */
  pageResponse?(device: IommuDevice, request: PageRequest, code: number): void;
  /** Waits until the hardware has done what was asked; see wait.ts. */
  readonly waiting?: WaitingCall;
}
