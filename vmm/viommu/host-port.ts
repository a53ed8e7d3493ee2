// What a guest-visible IOMMU asks of the host. vmm/vfio implements it over iommufd; tests bring hosts that do nothing, that fail,
// and that report odd capabilities; emulated devices implement the device side through the vIOMMU's own walks.
//
// A device is named by a handle that whoever plugged it in chose; `guestId` is the id the guest uses on this vIOMMU. Every stream of DMA is in one of three dispositions: blocked, bypass (stage 2 only), nested. Results are 0 or a
// negated errno. All addresses are guest-physical.
//
// Devices whose DMA the host cannot tell apart (one iommu group) are one stream: `setBlocked`, `setBypass` and `setNested` of one of them
// move all of them.

import type { MmioPort } from "../../host/base/mmio.ts";

/** Names an assigned (or emulated) device towards the host port. */
export type DeviceHandle = number;

export interface HwInfoReply {
  readonly type: number;
  readonly bytes: Uint8Array;
  readonly maxPasidLog2: number;
  readonly capabilities: bigint;
}

export interface InvalidationReply {
  /** Entries fully processed, counted from the start of the batch. */
  readonly done: number;
  /** 0, or the negated errno that stopped at entry `done`. */
  readonly errno: number;
}

export type HostEvent =
  /** Events were lost in the host; `count` if known from sequence numbers. */
  | { readonly kind: "lost"; readonly count: number }
  /** A fault record of the architecture's own format, carrying the guest's device id. */
  | { readonly kind: "fault"; readonly record: Uint8Array }
  /** Some of the guest's hardware queues stand at errors, as their registers say. */
  | { readonly kind: "queue-errors" }
  /** A page request; answer with `respond(cookie, …)` once per cookie. */
  | {
      readonly kind: "page-request";
      readonly device: DeviceHandle;
      readonly guestId: number;
      readonly cookie: number;
      readonly pasid: number | null;
      readonly group: number;
      readonly last: boolean;
      /** READ 1, WRITE 2, EXEC 4, PRIV 8. */
      readonly permissions: number;
      readonly address: bigint;
    };

/** Response codes of `respond`, as iommufd has them. */
export const RESPONSE_SUCCESS = 0;
export const RESPONSE_INVALID = 1;

/** Domains of a paravirtual guest, by numbers it chose: address spaces that it fills itself. */
export interface MappedDomains {
  /** Puts a device into a domain, which is made if it is new. */
  attach(device: DeviceHandle, domain: number): number;
  /** Maps [iova, +length) to [gpa, +length) of guest RAM; multiples of 4096. READ 1, WRITE 2. -EFAULT outside RAM. */
  map(domain: number, iova: bigint, gpa: bigint, length: bigint, permissions: number): number;
  /** Unmaps what lies in the range whole; -ENOENT if nothing does, -EBUSY if it would cut a mapping in two. */
  unmap(domain: number, iova: bigint, length: bigint): number;
  /** Forgets a domain that no device is in. */
  release(domain: number): number;
}

/** Queues in guest memory that the hardware reads by itself: after `allocate` no command passes through here. */
export interface HardwareQueues {
  /** Queue `index` at [gpa, +length): its id, or a negated errno. */
  allocate(index: number, gpa: bigint, length: bigint): number;
  free(id: number): number;
  /** The hardware's page of queue registers, to be mapped into the guest as it is; or a negated errno. */
  page(): MmioPort | number;
}

export interface ViommuHost {
  hwInfo(device: DeviceHandle): HwInfoReply | number;
  /** The guest will call this device `guestId` (creates the vDEVICE). -EEXIST, -EINVAL, … as iommufd. */
  attach(device: DeviceHandle, guestId: bigint): number;
  /** Ends what attach began: blocked, vDEVICE destroyed. */
  detach(device: DeviceHandle): number;
  /** Nothing passes; with a PASID, that PASID alone has no stage 1 of its own any more. Where PASIDs have stage 1s of their own, they keep them without. */
  setBlocked(device: DeviceHandle, pasid?: number): number;
  /** Second stage only, for every request, with a PASID or without; where PASIDs have stage 1s of their own, for those without or with that PASID. */
  setBypass(device: DeviceHandle, pasid?: number): number;
  /**
   * Installs the guest's stage 1: `data` in the architecture's nested HWPT format. `pageRequests`: the device's are to come to the guest, where the
   * data do not say it.
   */
  setNested(device: DeviceHandle, data: Uint8Array, pasid?: number, pageRequests?: boolean): number;
  /** Kinds without nesting: the guest's domains, filled and emptied by it. */
  readonly domains?: MappedDomains;
  /** Command queues of the guest's own, where host and kind have them. */
  readonly hardwareQueues?: HardwareQueues;
  /**
   * `count` invalidations in the kind's format, back to back, in order. `device` (and `pasid`): whose stage 1 they are for, where invalidation stands
   * on the nested HWPT; on a vIOMMU object they name their devices themselves.
   */
  invalidate(batch: Uint8Array, count: number, device?: DeviceHandle, pasid?: number): InvalidationReply;
  /** Memory for batches that need no copy: what is laid out from its start on is given to `invalidate` as it is. */
  readonly batch?: Uint8Array;
  respond(cookie: number, code: number): number;
  /** Takes the events that have arrived since the last call, oldest first; each costs at most one host read. */
  events(): readonly HostEvent[];
  /** Called from the host's side when events wait; only sets a flag. */
  onEvents: (() => void) | null;
}
