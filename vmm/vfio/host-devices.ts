// The devices behind one vIOMMU as iommufd knows them, and the calls about them that every shape of nesting makes: attach or replace,
// detach, a nested HWPT. Every refusal becomes one line with the call's name and both names of the device.

import { hex } from "../../host/base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import { ENODEV, EOPNOTSUPP, errnoName } from "../../host/uapi/errno.ts";
import {
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  iommuFaultAlloc,
  iommuHwInfo,
  iommuHwptAlloc,
  iommuHwptPgfault,
} from "../../host/uapi/iommufd.ts";
import { POLLIN } from "../../host/uapi/system-calls.ts";
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_PASID,
  vfioDeviceAttachIommufdPt,
  vfioDeviceDetachIommufdPt,
} from "../../host/uapi/vfio.ts";
import type { DeviceHandle, HostEvent, HwInfoReply } from "../viommu/host-port.ts";
import type { GuestAddressSpace } from "./guest-address-space.ts";
import { KernelCalls } from "./kernel-calls.ts";

/** A bound device, as its owner (assigned-device.ts) registers it. */
export interface BoundDevice {
  readonly handle: DeviceHandle;
  /** Descriptor of the VFIO cdev. */
  readonly fd: number;
  /** iommufd's id of the device. */
  readonly deviceId: number;
  readonly guestName: string;
  readonly hostName: string;
  /** The device can send page requests: its nested HWPTs get a fault queue. */
  /** Its faults may be answered: it has page requests, or its transactions can wait. */
  readonly faults: boolean;
  /** Devices of one iommu group of more than one name it here: the kernel attaches them together. */
  readonly stream?: string;
}

/**
 * What the kernel attaches as one: an iommu group (iommufd: the first device that attaches moves all, the last that detaches leaves it
 * blocked).
 */
export interface AttachedStream {
  readonly members: Set<DeviceRecord>;
  /** HWPT or IOAS it is attached to, 0: none. */
  attached: number;
  /** A nested HWPT of its own, 0: none (blocked and bypass are shared). */
  nested: number;
}

export interface DeviceRecord {
  readonly device: BoundDevice;
  readonly stream: AttachedStream;
  /** Object id of the vDEVICE, 0: none. */
  vdevice: number;
  guestId: bigint;
  /** Whether it has a part in what its stream is attached to. */
  attached: boolean;
  /** Nested HWPTs of its PASIDs; 0: attached to one that is not theirs alone (bypass). */
  readonly pasids: Map<number, number>;
}

/** Counts of calls made, for the summary. */
export interface HostCallCounters {
  nestedAllocated: number;
  attaches: number;
  invalidations: number;
  refusals: number;
}

/** What a nested HWPT is made of. */
export interface Stage1Request {
  /** A vIOMMU, or a second stage. */
  readonly on: number;
  readonly type: number;
  readonly data: Uint8Array;
  readonly withFaults: boolean;
  /** It may be attached at PASIDs, or beside such as are. */
  readonly withPasids?: boolean;
}

const READ_BYTES = 64 * 1024;

export class HostDevices implements Stateful {
  readonly space: GuestAddressSpace;
  readonly calls: KernelCalls;
  readonly counters: HostCallCounters = { nestedAllocated: 0, attaches: 0, invalidations: 0, refusals: 0 };
  readonly report: (message: string) => void;
  /** Called when the fault queue has become readable. */
  onEvents: () => void = () => {}; // not state: wiring
  readonly #records = new Map<DeviceHandle, DeviceRecord>();
  #faultQueue = 0;
  #faultFd = -1;

  constructor(space: GuestAddressSpace, report: (message: string) => void) {
    this.space = space;
    this.report = report;
    this.calls = new KernelCalls(space.calls.system, READ_BYTES);
  }

  register(device: BoundDevice): void {
    const neighbour = [...this.#records.values()].find(
      (known) => device.stream !== undefined && known.device.stream === device.stream,
    );
    const stream = neighbour?.stream ?? { members: new Set<DeviceRecord>(), attached: 0, nested: 0 };
    const pasids = new Map<number, number>();
    const record: DeviceRecord = { device, stream, vdevice: 0, guestId: 0n, attached: false, pasids };
    stream.members.add(record);
    this.#records.set(device.handle, record);
  }

  /** Forgets a device; it has been detached. */
  unregister(handle: DeviceHandle): void {
    const record = this.#records.get(handle);
    record?.stream.members.delete(record);
    this.#records.delete(handle);
  }

  find(handle: DeviceHandle): DeviceRecord | undefined {
    return this.#records.get(handle);
  }

  get records(): IterableIterator<DeviceRecord> {
    return this.#records.values();
  }

  get handles(): IterableIterator<DeviceHandle> {
    return this.#records.keys();
  }

  /** Descriptor of the fault queue, -1: none was needed so far. */
  get faultFd(): number {
    return this.#faultFd;
  }

  /** `type`: what to ask for; left out, what the IOMMU is. Hardware that has no such part is no refusal to be told of. */
  hwInfo(handle: DeviceHandle, type?: number): HwInfoReply | number {
    const record = this.#records.get(handle);
    if (record === undefined) return -ENODEV;
    const { result, out } = this.calls.ioctl(this.space.iommufd, IOMMU_GET_HW_INFO, iommuHwInfo, {
      flags: type === undefined ? 0 : IOMMU_HW_INFO_FLAG_INPUT_TYPE,
      dev_id: record.device.deviceId,
      data_len: 64,
      data_uptr: this.calls.dataAddress,
      data_type: type ?? 0,
    });
    if (result === -EOPNOTSUPP && type !== undefined) return result;
    if (result < 0) return this.refused("IOMMU_GET_HW_INFO", record, result);
    return {
      type: out.data_type,
      bytes: this.calls.data(Math.min(out.data_len, 64)).slice(),
      maxPasidLog2: out.out_max_pasid_log2,
      capabilities: out.out_capabilities,
    };
  }

  /** A nested HWPT: its id, or a negated errno. */
  allocateNested(record: DeviceRecord, { on, type, data, withFaults, withPasids }: Stage1Request): number {
    if (withFaults) {
      const errno = this.#ensureFaultQueue(record);
      if (errno < 0) return errno;
    }
    this.calls.data(data.length).set(data);
    const { result, out } = this.calls.ioctl(this.space.iommufd, IOMMU_HWPT_ALLOC, iommuHwptAlloc, {
      flags: (withFaults ? IOMMU_HWPT_FAULT_ID_VALID : 0) | (withPasids === true ? IOMMU_HWPT_ALLOC_PASID : 0),
      dev_id: record.device.deviceId,
      pt_id: on,
      data_type: type,
      data_len: data.length,
      data_uptr: this.calls.dataAddress,
      fault_id: withFaults ? this.#faultQueue : 0,
    });
    return result < 0 ? this.refused("IOMMU_HWPT_ALLOC of a nested stage 1", record, result) : out.out_hwpt_id;
  }

  /** Attaches, or replaces what its stream is attached to; `own` is the HWPT if it is the stream's own. The one before is destroyed. */
  attachTo(record: DeviceRecord, hwpt: number, own: number): number {
    const { stream } = record;
    if (record.attached && stream.attached === hwpt) return 0;
    this.counters.attaches++;
    const { result } = this.calls.ioctl(record.device.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, vfioDeviceAttachIommufdPt, {
      pt_id: hwpt,
    });
    if (result < 0) return this.refused("VFIO_DEVICE_ATTACH_IOMMUFD_PT", record, result);
    const previous = stream.nested;
    record.attached = true;
    stream.attached = hwpt;
    stream.nested = own;
    if (previous !== 0 && previous !== own) this.space.destroy(previous);
    return 0;
  }

  /** The same for one PASID. */
  attachPasid(record: DeviceRecord, pasid: number, hwpt: number, own: number): number {
    this.counters.attaches++;
    const { result } = this.calls.ioctl(record.device.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, vfioDeviceAttachIommufdPt, {
      flags: VFIO_DEVICE_ATTACH_PASID,
      pt_id: hwpt,
      pasid,
    });
    if (result < 0) return this.refused(`VFIO_DEVICE_ATTACH_IOMMUFD_PT of PASID ${pasid}`, record, result);
    const previous = record.pasids.get(pasid);
    record.pasids.set(pasid, own);
    if (previous !== undefined && previous !== 0) this.space.destroy(previous);
    return 0;
  }

  detachPasid(record: DeviceRecord, pasid: number): number {
    const hwpt = record.pasids.get(pasid);
    if (hwpt === undefined) return 0;
    const { result } = this.calls.ioctl(record.device.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, vfioDeviceDetachIommufdPt, {
      flags: VFIO_DEVICE_DETACH_PASID,
      pasid,
    });
    if (result < 0) return this.refused(`VFIO_DEVICE_DETACH_IOMMUFD_PT of PASID ${pasid}`, record, result);
    record.pasids.delete(pasid);
    if (hwpt !== 0) this.space.destroy(hwpt);
    return 0;
  }

  /** Detaches the device; with the last of its stream goes what that was attached to. */
  detach(record: DeviceRecord): number {
    const { stream } = record;
    let errno = 0;
    if (record.attached) {
      const { result } = this.calls.ioctl(
        record.device.fd,
        VFIO_DEVICE_DETACH_IOMMUFD_PT,
        vfioDeviceDetachIommufdPt,
        {},
      );
      if (result < 0) errno = this.refused("VFIO_DEVICE_DETACH_IOMMUFD_PT", record, result);
      else record.attached = false;
    }
    if ([...stream.members].some((member) => member.attached)) return errno;
    if (stream.nested !== 0) this.space.destroy(stream.nested);
    stream.attached = stream.nested = 0;
    return errno;
  }

  refused(call: string, record: DeviceRecord, errno: number, guestId = record.guestId): number {
    this.counters.refusals++;
    const { guestName, hostName } = record.device;
    this.report(`${call} for guest device ${guestName} (id ${hex(guestId)}, host ${hostName}): ${errnoName(errno)}`);
    return errno;
  }

  /** Takes the page requests that have arrived, as many as one read gives. */
  readPageRequests(events: HostEvent[]): void {
    if (this.#faultFd < 0) return;
    const bytes = this.calls.read(this.#faultFd, READ_BYTES - (READ_BYTES % iommuHwptPgfault.bytes));
    if (typeof bytes === "number" || bytes.length === 0) return;
    for (let at = 0; at + iommuHwptPgfault.bytes <= bytes.length; at += iommuHwptPgfault.bytes) {
      const message = iommuHwptPgfault.decode(bytes, at);
      const record = [...this.#records.values()].find(({ device }) => device.deviceId === message.dev_id);
      events.push({
        kind: "page-request",
        device: record === undefined ? -1 : record.device.handle,
        guestId: record === undefined ? -1 : Number(record.guestId),
        cookie: message.cookie,
        pasid: (message.flags & IOMMU_PGFAULT_FLAGS_PASID_VALID) !== 0 ? message.pasid : null,
        group: message.grpid,
        last: (message.flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE) !== 0,
        permissions: message.perm,
        address: message.addr,
      });
    }
    // The kernel's list has no bound: what did not fit into one read is the next call's.
    if ((this.calls.system.poll(this.#faultFd) & POLLIN) !== 0) this.onEvents();
  }

  /** Devices have been detached, and the nested HWPTs that referred to it destroyed. */
  closeFaultQueue(): void {
    if (this.#faultFd >= 0) this.calls.system.close(this.#faultFd);
    if (this.#faultQueue !== 0) this.space.destroy(this.#faultQueue);
    this.#faultFd = -1;
    this.#faultQueue = 0;
  }

  [Symbol.dispose](): void {
    this.#records.clear();
    this.closeFaultQueue();
    this.calls[Symbol.dispose]();
  }

  /** The fault queue, made when the first stage 1 wants page requests. */
  #ensureFaultQueue(record: DeviceRecord): number {
    if (this.#faultQueue !== 0) return 0;
    const { result, out } = this.calls.ioctl(this.space.iommufd, IOMMU_FAULT_QUEUE_ALLOC, iommuFaultAlloc, {});
    if (result < 0) return this.refused("IOMMU_FAULT_QUEUE_ALLOC", record, result);
    this.#faultQueue = out.out_fault_id;
    this.#faultFd = out.out_fault_fd;
    this.#watchFaults();
    return 0;
  }

  #watchFaults(): void {
    this.calls.system.watch(this.#faultFd, () => this.onEvents());
  }

  /** Ids are iommufd's; devices are those that are registered, by handle. */
  saveState(): StateRecord {
    return {
      counters: { ...this.counters },
      records: [...this.#records.values()].map((record) => ({
        handle: record.device.handle,
        vdevice: record.vdevice,
        guestId: record.guestId,
        attached: record.attached,
        pasids: [...record.pasids].map(([pasid, hwpt]) => ({ pasid, hwpt })),
        streamAttached: record.stream.attached,
        streamNested: record.stream.nested,
      })),
      faultQueue: this.#faultQueue,
      faultFd: this.#faultFd,
    };
  }

  restoreState(state: StateReader): void {
    const counters = state.record("counters");
    const saved = state.records("records");
    if (saved.length !== this.#records.size) state.fail("records", `are not ${this.#records.size} devices`);
    for (const each of saved) {
      const record = this.#records.get(each.number("handle")) ?? each.fail("handle", "is no device's here");
      record.vdevice = each.number("vdevice");
      record.guestId = each.bigint("guestId");
      record.attached = each.boolean("attached");
      record.pasids.clear();
      for (const pasid of each.records("pasids")) record.pasids.set(pasid.number("pasid"), pasid.number("hwpt"));
      record.stream.attached = each.number("streamAttached");
      record.stream.nested = each.number("streamNested");
    }
    this.counters.nestedAllocated = counters.number("nestedAllocated");
    this.counters.attaches = counters.number("attaches");
    this.counters.invalidations = counters.number("invalidations");
    this.counters.refusals = counters.number("refusals");
    this.#faultQueue = state.number("faultQueue");
    this.#faultFd = state.number("faultFd");
    if (this.#faultFd >= 0) this.#watchFaults();
  }
}
