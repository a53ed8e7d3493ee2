// What VFIO leaves to the driver of a device's bus (Linux: struct vfio_device_ops). What all assigned devices share - opens, groups, binding to
// an iommufd, attaching - is device.ts and device-file.ts.

import type { Stateful } from "../../base/state.ts";
import type { CallContext, FileMapping, MmapRequest, PostedWrites } from "../file.ts";
import type { IommuDevice } from "../iommu/driver.ts";

export interface VfioDeviceOperations {
  /** Kernel name of the device. */
  readonly name: string;
  readonly iommuDevice: IommuDevice;
  /** ATTACH and DETACH may name a PASID (pasid_attach_ioas); else -EOPNOTSUPP. */
  readonly attachesPasids: boolean;
  /** read and write without a position go on where the last one ended. */
  readonly advancesPosition: boolean;
  /** GROUP_GET_DEVICE_FD with this text means the device; a negated errno refuses it (match; the default compares names). */
  matches(text: string): boolean | number;
  /** First open: the device is put into a known state. */
  open(): void;
  /** Last close. */
  close(): void;
  /** User space is asked to give the device back, if it said how to ask (request). */
  askBack(): void;
  /** Requests that are not VFIO's own; `byNode`: the device was opened by its node, not through its group. */
  ioctl(call: CallContext, request: number, argument: bigint, byNode: boolean): number;
  /** DEVICE_FEATURE after its header was checked; `data` is the address behind the header, `size` how much the caller says is there. */
  feature(call: CallContext, feature: number, flags: number, data: bigint, size: number): number;
  /** read or write at an offset of the file: bytes moved, or a negated errno. */
  access(call: CallContext, va: bigint, length: number, position: bigint, write: boolean): number;
  /** As `OpenFile.postedWrites`. */
  postedWrites(position: bigint): PostedWrites | null;
  map(request: MmapRequest): FileMapping | number;
  /** Of what it keeps. */
  stateParts(): Iterable<readonly [string, Stateful]>;
}
