// What a guest-visible IOMMU asks of the host. vmm/vfio implements it over iommufd; tests bring hosts that do nothing, that fail,
// and that report odd capabilities; emulated devices implement the device side through the vIOMMU's own walks.
//
// A device is named by a handle that whoever plugged it in chose; `guestId` is the id the guest uses on this vIOMMU (RISC-V: device
// id, 24 bits). Every stream of DMA is in one of three dispositions: blocked, bypass (stage 2 only), nested. Results are 0 or a
// negated errno. All addresses are guest-physical.

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

export interface ViommuHost {
  hwInfo(device: DeviceHandle): HwInfoReply | number;
  /** The guest will call this device `guestId` (creates the vDEVICE). -EEXIST, -EINVAL, … as iommufd. */
  attach(device: DeviceHandle, guestId: bigint): number;
  /** Ends what attach began: blocked, vDEVICE destroyed. */
  detach(device: DeviceHandle): number;
  setBlocked(device: DeviceHandle): number;
  /** Second stage only, for every request, with a PASID or without. */
  setBypass(device: DeviceHandle): number;
  /** Installs the guest's stage 1: `data` in the architecture's nested HWPT format. */
  setNested(device: DeviceHandle, data: Uint8Array, pasid?: number): number;
  /** Paravirtual kinds only. */
  setMapped?(device: DeviceHandle, domain: number): number;
  map?(domain: number, iova: bigint, gpa: bigint, length: bigint, permissions: number): number;
  unmap?(domain: number, iova: bigint, length: bigint): number;
  /** The guest's own invalidation commands (RISC-V: 16 bytes each, back to back), in order. */
  invalidate(batch: Uint8Array, count: number): InvalidationReply;
  respond(cookie: number, code: number): number;
  /** Takes the events that have arrived since the last call, oldest first; each costs at most one host read. */
  events(): readonly HostEvent[];
  /** Called from the host's side when events wait; only sets a flag. */
  onEvents: (() => void) | null;
}
