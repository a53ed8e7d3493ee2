// What a RISC-V vIOMMU asks of the host, over iommufd: one IommufdHost is one vIOMMU object, a slice of one physical IOMMU.
//
//   plugged device ─▶ vDEVICE (guest's id) ─▶ nested HWPT of the moment: blocked (tc.V=0), bypass (fsc Bare), or the guest's stage 1,
//   allocated on the vIOMMU, attached in place of the one before, which is then destroyed
//   invalidate ─▶ HWPT_INVALIDATE on the vIOMMU     events ◀─ vEVENTQ (faults), fault queue (page requests)
//
// Every refusal becomes one line with the call's name and both names of the device; what happens then is the vIOMMU's decision.

import { TC_EN_PRI, TC_PDTV, TC_V } from "../../host/arch/riscv/device-context.ts";
import { hex } from "../../host/base/address.ts";
import { EINVAL, EIO, ENODEV, errnoName } from "../../host/uapi/errno.ts";
import {
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VIOMMU_ALLOC,
  iommuFaultAlloc,
  iommufdVeventHeader,
  iommuHwInfo,
  iommuHwptAlloc,
  iommuHwptInvalidate,
  iommuHwptPageResponse,
  iommuHwptPgfault,
  iommuVdeviceAlloc,
  iommuVeventqAlloc,
  iommuViommuAlloc,
} from "../../host/uapi/iommufd.ts";
import {
  IOMMU_HWPT_DATA_RISCV,
  IOMMU_VEVENTQ_TYPE_RISCV,
  IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
  IOMMU_VIOMMU_TYPE_RISCV,
  iommuHwptRiscv,
} from "../../host/uapi/riscv-nesting.ts";
import { POLLIN } from "../../host/uapi/system-calls.ts";
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  vfioDeviceAttachIommufdPt,
  vfioDeviceDetachIommufdPt,
} from "../../host/uapi/vfio.ts";
import type { DeviceHandle, HostEvent, HwInfoReply, InvalidationReply, ViommuHost } from "../viommu/host-port.ts";
import { limitedReport } from "../viommu/limited-report.ts";
import type { GuestAddressSpace } from "./guest-address-space.ts";
import { KernelCalls, PreparedCall } from "./kernel-calls.ts";

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
  readonly pri: boolean;
}

export interface IommufdHostOptions {
  readonly addressSpace: GuestAddressSpace;
  /** Told of every refusal, one line each. */
  readonly report: (message: string) => void;
  /** Depth of the vEVENTQ. Default 1024. */
  readonly eventDepth?: number;
}

interface DeviceRecord {
  readonly device: BoundDevice;
  /** Object id of the vDEVICE, 0: none. */
  vdevice: number;
  guestId: bigint;
  /** HWPT it is attached to, 0: none. */
  attached: number;
  /** A nested HWPT of its own, 0: none (blocked and bypass are shared). */
  nested: number;
}

/** Counts of calls made, for the summary. */
export interface HostCallCounters {
  nestedAllocated: number;
  attaches: number;
  invalidations: number;
  refusals: number;
}

/** Batches are copied whole: the queue's size times a command. */
const BATCH_BYTES = 8192 * 16;
const READ_BYTES = 64 * 1024;
const SEQUENCE_MODULUS = 2 ** 31;

const ENTRY_NUM = iommuHwptInvalidate.fields.entry_num.offset;

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

export class IommufdHost implements ViommuHost {
  onEvents: (() => void) | null = null;
  readonly counters: HostCallCounters = { nestedAllocated: 0, attaches: 0, invalidations: 0, refusals: 0 };
  readonly #space: GuestAddressSpace;
  readonly #calls: KernelCalls;
  /** HWPT_INVALIDATE is what a guest waits for: its arguments stay in place. */
  readonly #invalidation: PreparedCall;
  readonly #batch: Uint8Array;
  readonly #batchAddress: bigint;
  readonly #report: (message: string) => void;
  readonly #eventDepth: number;
  readonly #devices = new Map<DeviceHandle, DeviceRecord>();
  #viommu = 0;
  #blocked = 0;
  #bypass = 0;
  #eventQueue = 0;
  #eventFd = -1;
  #faultQueue = 0;
  #faultFd = -1;
  #nextSequence = 0;
  #disposed = false;

  constructor(options: IommufdHostOptions) {
    this.#space = options.addressSpace;
    const { system } = this.#space.calls;
    this.#calls = new KernelCalls(system, READ_BYTES);
    this.#batchAddress = system.memory.allocate(BATCH_BYTES);
    if (this.#batchAddress < 0n) throw new Error("no memory for invalidation commands");
    this.#batch = system.memory.bytes(this.#batchAddress, BATCH_BYTES);
    this.#invalidation = new PreparedCall(system, iommuHwptInvalidate);
    iommuHwptInvalidate.patch(bytesOf(this.#invalidation.view), {
      data_uptr: this.#batchAddress,
      data_type: IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
      entry_len: 16,
    });
    this.#report = limitedReport(options.report);
    this.#eventDepth = options.eventDepth ?? 1024;
  }

  /** Object id of the vIOMMU, 0 before the first device is attached. */
  get viommuId(): number {
    return this.#viommu;
  }

  /** Makes a bound device known under its handle. */
  register(device: BoundDevice): void {
    this.#devices.set(device.handle, { device, vdevice: 0, guestId: 0n, attached: 0, nested: 0 });
  }

  /** Forgets a device; it has been detached. */
  unregister(handle: DeviceHandle): void {
    this.#devices.delete(handle);
  }

  hwInfo(handle: DeviceHandle): HwInfoReply | number {
    const record = this.#devices.get(handle);
    if (record === undefined) return -ENODEV;
    const { result, out } = this.#calls.ioctl(this.#space.iommufd, IOMMU_GET_HW_INFO, iommuHwInfo, {
      dev_id: record.device.deviceId,
      data_len: 64,
      data_uptr: this.#calls.dataAddress,
    });
    if (result < 0) return this.#refused("IOMMU_GET_HW_INFO", record, result);
    return {
      type: out.data_type,
      bytes: this.#calls.data(Math.min(out.data_len, 64)).slice(),
      maxPasidLog2: out.out_max_pasid_log2,
      capabilities: out.out_capabilities,
    };
  }

  attach(handle: DeviceHandle, guestId: bigint): number {
    const record = this.#devices.get(handle);
    if (record === undefined) return -ENODEV;
    const ready = this.#viommu === 0 ? this.#createViommu(record) : 0;
    if (ready < 0) return ready;
    const { result, out } = this.#calls.ioctl(this.#space.iommufd, IOMMU_VDEVICE_ALLOC, iommuVdeviceAlloc, {
      viommu_id: this.#viommu,
      dev_id: record.device.deviceId,
      virt_id: guestId,
    });
    if (result < 0) return this.#refused("IOMMU_VDEVICE_ALLOC", record, result, guestId);
    record.vdevice = out.out_vdevice_id;
    record.guestId = guestId;
    const errno = this.#attachTo(record, this.#blocked, 0);
    if (errno < 0) {
      this.#space.destroy(record.vdevice);
      record.vdevice = 0;
    }
    return errno;
  }

  detach(handle: DeviceHandle): number {
    const record = this.#devices.get(handle);
    if (record === undefined) return -ENODEV;
    let errno = 0;
    if (record.attached !== 0) {
      const { result } = this.#calls.ioctl(
        record.device.fd,
        VFIO_DEVICE_DETACH_IOMMUFD_PT,
        vfioDeviceDetachIommufdPt,
        {},
      );
      if (result < 0) errno = this.#refused("VFIO_DEVICE_DETACH_IOMMUFD_PT", record, result);
      else record.attached = 0;
    }
    if (record.attached === 0 && record.nested !== 0) {
      this.#space.destroy(record.nested);
      record.nested = 0;
    }
    if (record.vdevice !== 0) {
      const destroyed = this.#space.destroy(record.vdevice);
      if (destroyed < 0) errno ||= this.#refused("IOMMU_DESTROY of the vDEVICE", record, destroyed);
      record.vdevice = 0;
    }
    return errno;
  }

  setBlocked(handle: DeviceHandle): number {
    const record = this.#devices.get(handle);
    if (record === undefined) return -ENODEV;
    if (this.#blocked === 0) return -EINVAL;
    return this.#attachTo(record, this.#blocked, 0);
  }

  setBypass(handle: DeviceHandle): number {
    const record = this.#devices.get(handle);
    if (record === undefined) return -ENODEV;
    if (this.#bypass === 0) {
      // PDTV with a Bare directory: requests pass with and without a process_id (§3.3 step 7).
      const hwpt = this.#allocateNested(record, iommuHwptRiscv.encode({ tc: BigInt(TC_V | TC_PDTV) }), false);
      if (hwpt < 0) return hwpt;
      this.#bypass = hwpt;
    }
    return this.#attachTo(record, this.#bypass, 0);
  }

  setNested(handle: DeviceHandle, data: Uint8Array): number {
    const record = this.#devices.get(handle);
    if (record === undefined) return -ENODEV;
    const wantsFaults = record.device.pri && (data[0]! & TC_EN_PRI) !== 0;
    const hwpt = this.#allocateNested(record, data, wantsFaults);
    if (hwpt < 0) return hwpt;
    this.counters.nestedAllocated++;
    const errno = this.#attachTo(record, hwpt, hwpt);
    if (errno < 0) this.#space.destroy(hwpt);
    return errno;
  }

  invalidate(batch: Uint8Array, count: number): InvalidationReply {
    if (this.#viommu === 0) return { done: count, errno: 0 };
    this.counters.invalidations++;
    this.#batch.set(batch.length === 16 * count ? batch : batch.subarray(0, 16 * count));
    const { view } = this.#invalidation;
    view.setUint32(ENTRY_NUM, count, true);
    const result = this.#invalidation.ioctl(this.#space.iommufd, IOMMU_HWPT_INVALIDATE);
    const done = view.getUint32(ENTRY_NUM, true);
    if (result < 0) {
      this.counters.refusals++;
      this.#report(`IOMMU_HWPT_INVALIDATE: command ${done} of ${count}: ${errnoName(result)}`);
    }
    return { done, errno: Math.min(result, 0) };
  }

  respond(cookie: number, code: number): number {
    if (this.#faultFd < 0) return -EINVAL;
    const written = this.#calls.write(this.#faultFd, iommuHwptPageResponse.encode({ cookie, code }));
    return written < 0 ? written : written === iommuHwptPageResponse.bytes ? 0 : -EIO;
  }

  events(): readonly HostEvent[] {
    const events: HostEvent[] = [];
    if (this.#eventFd >= 0) this.#readVevents(events);
    if (this.#faultFd >= 0) this.#readPageRequests(events);
    return events;
  }

  /** Takes everything back: devices detached, HWPTs, queues, the vIOMMU. Devices' own descriptors are their owners'. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const { system } = this.#calls;
    for (const handle of this.#devices.keys()) this.detach(handle);
    this.#devices.clear();
    for (const hwpt of [this.#blocked, this.#bypass]) if (hwpt !== 0) this.#space.destroy(hwpt);
    if (this.#faultFd >= 0) system.close(this.#faultFd);
    if (this.#faultQueue !== 0) this.#space.destroy(this.#faultQueue);
    if (this.#eventFd >= 0) system.close(this.#eventFd);
    if (this.#eventQueue !== 0) this.#space.destroy(this.#eventQueue);
    if (this.#viommu !== 0) this.#space.destroy(this.#viommu);
    this.#blocked = this.#bypass = this.#viommu = this.#eventQueue = this.#faultQueue = 0;
    this.#eventFd = this.#faultFd = -1;
    this.#invalidation[Symbol.dispose]();
    system.memory.free(this.#batchAddress, BATCH_BYTES);
    this.#calls[Symbol.dispose]();
  }

  /** The vIOMMU on a second stage that suits the device's IOMMU, its event queue and the shared blocked HWPT. */
  #createViommu(record: DeviceRecord): number {
    let viommu = -EINVAL;
    for (const parent of this.#space.parents) {
      viommu = this.#allocateViommu(record, parent);
      if (viommu > 0) break;
    }
    if (viommu < 0) {
      const info = this.hwInfo(record.device.handle);
      const dirty = typeof info !== "number" && (info.capabilities & BigInt(IOMMU_HW_CAP_DIRTY_TRACKING)) !== 0n;
      const parent = this.#space.addParent(record.device.deviceId, dirty);
      if (parent < 0) return this.#refused("IOMMU_HWPT_ALLOC of the second stage", record, parent);
      viommu = this.#allocateViommu(record, parent);
      if (viommu < 0) return this.#refused("IOMMU_VIOMMU_ALLOC", record, viommu);
    }
    this.#viommu = viommu;
    iommuHwptInvalidate.patch(bytesOf(this.#invalidation.view), { hwpt_id: viommu });
    const queue = this.#calls.ioctl(this.#space.iommufd, IOMMU_VEVENTQ_ALLOC, iommuVeventqAlloc, {
      viommu_id: viommu,
      type: IOMMU_VEVENTQ_TYPE_RISCV,
      veventq_depth: this.#eventDepth,
    });
    if (queue.result < 0) return this.#giveUp(this.#refused("IOMMU_VEVENTQ_ALLOC", record, queue.result));
    this.#eventQueue = queue.out.out_veventq_id;
    this.#eventFd = queue.out.out_veventq_fd;
    this.#calls.system.watch(this.#eventFd, () => this.onEvents?.());
    const blocked = this.#allocateNested(record, iommuHwptRiscv.encode({}), false);
    if (blocked < 0) return this.#giveUp(blocked);
    this.#blocked = blocked;
    return 0;
  }

  /** A vIOMMU that could not be completed leaves nothing behind. */
  #giveUp(errno: number): number {
    if (this.#eventFd >= 0) this.#calls.system.close(this.#eventFd);
    if (this.#eventQueue !== 0) this.#space.destroy(this.#eventQueue);
    this.#space.destroy(this.#viommu);
    this.#viommu = this.#eventQueue = 0;
    this.#eventFd = -1;
    return errno;
  }

  #allocateViommu(record: DeviceRecord, parent: number): number {
    const { result, out } = this.#calls.ioctl(this.#space.iommufd, IOMMU_VIOMMU_ALLOC, iommuViommuAlloc, {
      type: IOMMU_VIOMMU_TYPE_RISCV,
      dev_id: record.device.deviceId,
      hwpt_id: parent,
    });
    return result < 0 ? result : out.out_viommu_id;
  }

  /** The fault queue, made when the first context wants page requests. */
  #ensureFaultQueue(record: DeviceRecord): number {
    if (this.#faultQueue !== 0) return 0;
    const { result, out } = this.#calls.ioctl(this.#space.iommufd, IOMMU_FAULT_QUEUE_ALLOC, iommuFaultAlloc, {});
    if (result < 0) return this.#refused("IOMMU_FAULT_QUEUE_ALLOC", record, result);
    this.#faultQueue = out.out_fault_id;
    this.#faultFd = out.out_fault_fd;
    this.#calls.system.watch(this.#faultFd, () => this.onEvents?.());
    return 0;
  }

  #allocateNested(record: DeviceRecord, data: Uint8Array, withFaults: boolean): number {
    if (withFaults) {
      const errno = this.#ensureFaultQueue(record);
      if (errno < 0) return errno;
    }
    this.#calls.data(data.length).set(data);
    const { result, out } = this.#calls.ioctl(this.#space.iommufd, IOMMU_HWPT_ALLOC, iommuHwptAlloc, {
      flags: withFaults ? IOMMU_HWPT_FAULT_ID_VALID : 0,
      dev_id: record.device.deviceId,
      pt_id: this.#viommu,
      data_type: IOMMU_HWPT_DATA_RISCV,
      data_len: data.length,
      data_uptr: this.#calls.dataAddress,
      fault_id: withFaults ? this.#faultQueue : 0,
    });
    return result < 0 ? this.#refused("IOMMU_HWPT_ALLOC of a nested stage 1", record, result) : out.out_hwpt_id;
  }

  /** Attaches, or replaces what is attached; `own` is the HWPT if it is the device's own. The one before is destroyed. */
  #attachTo(record: DeviceRecord, hwpt: number, own: number): number {
    if (record.attached === hwpt) return 0;
    this.counters.attaches++;
    const { result } = this.#calls.ioctl(record.device.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, vfioDeviceAttachIommufdPt, {
      pt_id: hwpt,
    });
    if (result < 0) return this.#refused("VFIO_DEVICE_ATTACH_IOMMUFD_PT", record, result);
    const previous = record.nested;
    record.attached = hwpt;
    record.nested = own;
    if (previous !== 0) this.#space.destroy(previous);
    return 0;
  }

  #refused(call: string, record: DeviceRecord, errno: number, guestId = record.guestId): number {
    this.counters.refusals++;
    const { guestName, hostName } = record.device;
    this.#report(`${call} for guest device ${guestName} (id ${hex(guestId)}, host ${hostName}): ${errnoName(errno)}`);
    return errno;
  }

  #readVevents(events: HostEvent[]): void {
    const bytes = this.#calls.read(this.#eventFd, READ_BYTES);
    if (typeof bytes === "number") return;
    const record = 32;
    for (let at = 0; at + iommufdVeventHeader.bytes <= bytes.length; ) {
      const { flags, sequence } = iommufdVeventHeader.decode(bytes, at);
      at += iommufdVeventHeader.bytes;
      // Sequence numbers count lost events too: a gap is a loss even where its header was overtaken.
      const missing = (sequence - this.#nextSequence + SEQUENCE_MODULUS) % SEQUENCE_MODULUS;
      this.#nextSequence = (sequence + 1) % SEQUENCE_MODULUS;
      if ((flags & IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0) {
        events.push({ kind: "lost", count: missing + 1 });
        continue;
      }
      if (missing > 0) events.push({ kind: "lost", count: missing });
      if (at + record > bytes.length) break;
      events.push({ kind: "fault", record: bytes.slice(at, at + record) });
      at += record;
    }
  }

  #readPageRequests(events: HostEvent[]): void {
    const bytes = this.#calls.read(this.#faultFd, READ_BYTES - (READ_BYTES % iommuHwptPgfault.bytes));
    if (typeof bytes === "number" || bytes.length === 0) return;
    for (let at = 0; at + iommuHwptPgfault.bytes <= bytes.length; at += iommuHwptPgfault.bytes) {
      const message = iommuHwptPgfault.decode(bytes, at);
      const record = [...this.#devices.values()].find(({ device }) => device.deviceId === message.dev_id);
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
    if ((this.#calls.system.poll(this.#faultFd) & POLLIN) !== 0) this.onEvents?.();
  }
}
