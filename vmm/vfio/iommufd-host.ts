// What a vIOMMU asks of the host, over iommufd: one IommufdHost is one vIOMMU's devices, behind one physical IOMMU. What the architecture's
// bytes and numbers are, its nested codec says (vmm/viommu/nested-codec.ts); where its stage 1s live, a Stage1Place.
//
//   plugged device ─▶ entered under the guest's id ─▶ attached to what its disposition is: blocked, bypass, or the guest's stage 1, in place
//   of the one before, which is then destroyed
//   invalidate ─▶ HWPT_INVALIDATE     events ◀─ vEVENTQ (faults), fault queue (page requests)
//
// A refusal is reported in one line; what happens then is the vIOMMU's decision.

import type { Stateful, StateRecord } from "../../host/base/state.ts";
import { EINVAL, EIO, ENODEV, errnoName } from "../../host/uapi/errno.ts";
import { IOMMU_HWPT_INVALIDATE, iommuHwptInvalidate, iommuHwptPageResponse } from "../../host/uapi/iommufd.ts";
import type {
  DeviceHandle,
  HardwareQueues,
  HostEvent,
  HwInfoReply,
  InvalidationReply,
  ViommuHost,
} from "../viommu/host-port.ts";
import { limitedReport } from "../viommu/limited-report.ts";
import type { NestedCodec } from "../viommu/nested-codec.ts";
import type { GuestAddressSpace } from "./guest-address-space.ts";
import { type BoundDevice, type HostCallCounters, HostDevices } from "./host-devices.ts";
import { HostRefusal } from "./host-refusal.ts";
import { PreparedCall } from "./kernel-calls.ts";
import { IoasDomains } from "./mapped-domains.ts";
import { SecondStage } from "./second-stage.ts";
import type { Stage1Place } from "./stage1-place.ts";
import { ViommuObject } from "./viommu-object.ts";

export interface IommufdHostOptions {
  readonly addressSpace: GuestAddressSpace;
  readonly codec: NestedCodec;
  /** Told of every refusal, one line each. */
  readonly report: (message: string) => void;
  /** Depth of the vEVENTQ. Default 1024. */
  readonly eventDepth?: number;
  /** Use the hardware's queues for guests, where it has any. Default true. */
  readonly hardwareQueues?: boolean;
}

/** Batches are copied whole: a queue's most entries. */
const BATCH_ENTRIES = 8192;

const ENTRY_NUM = iommuHwptInvalidate.fields.entry_num.offset;
const HWPT_ID = iommuHwptInvalidate.fields.hwpt_id.offset;

export class IommufdHost implements ViommuHost, Stateful {
  onEvents: (() => void) | null = null; // not state: wiring
  readonly domains?: IoasDomains;
  readonly hardwareQueues?: HardwareQueues;
  readonly #devices: HostDevices;
  readonly #queueObject: ViommuObject | null = null;
  readonly #codec: NestedCodec;
  readonly #place: Stage1Place;
  /** HWPT_INVALIDATE is what a guest waits for: its arguments stay in place. */
  readonly #invalidation: PreparedCall;
  readonly #entryBytes: number;
  /** In the process's memory, where HWPT_INVALIDATE finds it. */
  readonly batch: Uint8Array;
  readonly #reply = { done: 0, errno: 0 }; // not state: the last answer
  readonly #batchAddress: bigint;
  #disposed = false; // not state: what is closed is not written down

  constructor(options: IommufdHostOptions) {
    const { addressSpace, codec } = options;
    this.#codec = codec;
    this.#devices = new HostDevices(addressSpace, limitedReport(options.report));
    const notify = () => this.onEvents?.();
    this.#devices.onEvents = notify;
    const depth = options.eventDepth ?? 1024;
    if (codec.shape === "viommu") {
      const queues = options.hardwareQueues === false ? undefined : codec.hardwareQueues;
      const object = new ViommuObject(this.#devices, codec, queues, depth, notify);
      this.#queueObject = object;
      this.#place = object;
      if (object.hardwareQueues !== undefined) this.hardwareQueues = object.hardwareQueues;
    } else {
      this.#place = new SecondStage(this.#devices, codec.shape === "hwpt" ? codec : null, depth, notify);
      if (codec.shape === "mapped") this.domains = new IoasDomains(this.#devices);
    }
    const { system } = addressSpace.calls;
    this.#entryBytes = codec.shape === "mapped" ? 0 : codec.invalidationBytes;
    this.#batchAddress = system.memory.allocate(Math.max(this.#entryBytes * BATCH_ENTRIES, 1));
    if (this.#batchAddress < 0n) throw new HostRefusal("memory for invalidation commands", Number(this.#batchAddress));
    this.batch = system.memory.bytes(this.#batchAddress, this.#entryBytes * BATCH_ENTRIES);
    this.#invalidation = new PreparedCall(system, iommuHwptInvalidate);
    iommuHwptInvalidate.patch(bytesOf(this.#invalidation.view), {
      data_uptr: this.#batchAddress,
      data_type: codec.shape === "mapped" ? 0 : codec.invalidationType,
      entry_len: this.#entryBytes,
    });
  }

  get counters(): HostCallCounters {
    return this.#devices.counters;
  }

  /** Object id that stage 1s are allocated on (the vIOMMU's, where there is one), 0 before the first device is attached. */
  get viommuId(): number {
    return this.#place.parent;
  }

  /** Object id of a device's vDEVICE; 0: it has none. */
  vdeviceOf(handle: DeviceHandle): number {
    return this.#devices.find(handle)?.vdevice ?? 0;
  }

  /** Makes a bound device known under its handle. */
  register(device: BoundDevice): void {
    this.#devices.register(device);
  }

  /** Forgets a device; it has been detached. */
  unregister(handle: DeviceHandle): void {
    this.#devices.unregister(handle);
  }

  hwInfo(handle: DeviceHandle): HwInfoReply | number {
    return this.#devices.hwInfo(handle);
  }

  attach(handle: DeviceHandle, guestId: bigint): number {
    const record = this.#devices.find(handle);
    if (record === undefined) return -ENODEV;
    record.guestId = guestId;
    const entered = this.#place.enter(record);
    if (entered < 0) return entered;
    // One that joins a stream goes where that is: its kernel would take nothing else. A stream of its own may still be where a refused detach
    // has left it: that is not where it belongs now.
    const { attached, nested, members } = record.stream;
    const joins = [...members].some((member) => member !== record && member.attached);
    const errno = joins ? this.#devices.attachTo(record, attached, nested) : this.setBlocked(handle);
    if (errno < 0) this.#place.leave(record);
    return errno;
  }

  detach(handle: DeviceHandle): number {
    const record = this.#devices.find(handle);
    if (record === undefined) return -ENODEV;
    let errno = 0;
    for (const pasid of [...record.pasids.keys()]) errno = this.#devices.detachPasid(record, pasid) || errno;
    errno = this.#devices.detach(record) || errno;
    const left = this.#place.leave(record);
    return errno || left;
  }

  /** What the hardware behind a device has of queues for a guest (GET_HW_INFO data), or null. */
  queueInfo(handle: DeviceHandle): Uint8Array | null {
    return this.#queueObject?.queueInfo(handle) ?? null;
  }

  setBlocked(handle: DeviceHandle, pasid?: number): number {
    const record = this.#devices.find(handle);
    if (record === undefined) return -ENODEV;
    if (pasid !== undefined) return this.#devices.detachPasid(record, pasid);
    const hwpt = this.#place.blocked(record);
    if (hwpt < 0) return hwpt;
    if (hwpt !== 0) return this.#devices.attachTo(record, hwpt, 0);
    let errno = 0;
    for (const member of record.stream.members) errno = this.#devices.detach(member) || errno;
    return errno;
  }

  setBypass(handle: DeviceHandle, pasid?: number): number {
    const record = this.#devices.find(handle);
    if (record === undefined) return -ENODEV;
    const hwpt = this.#place.bypass(record);
    if (hwpt < 0) return hwpt;
    return pasid === undefined
      ? this.#devices.attachTo(record, hwpt, 0)
      : this.#devices.attachPasid(record, pasid, hwpt, 0);
  }

  get #countsUnissued(): boolean {
    return this.#codec.shape === "viommu" && this.#codec.countsUnissued === true;
  }

  setNested(handle: DeviceHandle, data: Uint8Array, pasid?: number, pageRequests?: boolean): number {
    const record = this.#devices.find(handle);
    if (record === undefined) return -ENODEV;
    const codec = this.#codec;
    if (codec.shape === "mapped" || this.#place.parent === 0) return -EINVAL;
    const hwpt = this.#devices.allocateNested(record, {
      on: this.#place.parent,
      type: codec.stage1Type,
      data,
      withFaults: record.device.faults && (pageRequests ?? codec.wantsPageRequests(data)),
      withPasids: codec.shape === "hwpt" && codec.ofPasids === true,
    });
    if (hwpt < 0) return hwpt;
    this.counters.nestedAllocated++;
    const errno =
      pasid === undefined
        ? this.#devices.attachTo(record, hwpt, hwpt)
        : this.#devices.attachPasid(record, pasid, hwpt, hwpt);
    if (errno < 0) this.#devices.space.destroy(hwpt);
    return errno;
  }

  invalidate(batch: Uint8Array, count: number, device?: DeviceHandle, pasid?: number): InvalidationReply {
    const record = device === undefined ? undefined : this.#devices.find(device);
    const target = this.#place.invalidationTarget(record, pasid);
    const reply = this.#reply;
    if (target === 0) {
      reply.done = count;
      reply.errno = 0;
      return reply;
    }
    const { counters } = this.#devices;
    counters.invalidations++;
    if (batch !== this.batch) this.batch.set(batch.subarray(0, this.#entryBytes * count));
    const { view } = this.#invalidation;
    view.setUint32(HWPT_ID, target, true);
    view.setUint32(ENTRY_NUM, count, true);
    const result = this.#invalidation.ioctl(this.#devices.space.iommufd, IOMMU_HWPT_INVALIDATE);
    const done = view.getUint32(ENTRY_NUM, true);
    if (result < 0) {
      counters.refusals++;
      this.#devices.report(`IOMMU_HWPT_INVALIDATE: command ${done} of ${count}: ${errnoName(result)}`);
      if (result === -EIO && done > 0 && this.#countsUnissued) {
        // What was issued is done twice, which does no harm.
        view.setUint32(ENTRY_NUM, done, true);
        this.#invalidation.ioctl(this.#devices.space.iommufd, IOMMU_HWPT_INVALIDATE);
      }
    }
    reply.done = done;
    reply.errno = Math.min(result, 0);
    return reply;
  }

  respond(cookie: number, code: number): number {
    const { faultFd, calls } = this.#devices;
    if (faultFd < 0) return -EINVAL;
    const written = calls.write(faultFd, iommuHwptPageResponse.encode({ cookie, code }));
    return written < 0 ? written : written === iommuHwptPageResponse.bytes ? 0 : -EIO;
  }

  events(): readonly HostEvent[] {
    const events: HostEvent[] = [];
    this.#place.readEvents(events);
    this.#devices.readPageRequests(events);
    return events;
  }

  /** Takes everything back: devices detached, HWPTs, queues, the vIOMMU. Devices' own descriptors are their owners'. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const { system } = this.#devices.space.calls;
    for (const handle of this.#devices.handles) this.detach(handle);
    this.domains?.[Symbol.dispose]();
    this.#place.releaseStage1s();
    this.#devices.closeFaultQueue();
    this.#place[Symbol.dispose]();
    this.#devices[Symbol.dispose]();
    this.#invalidation[Symbol.dispose]();
    system.memory.free(this.#batchAddress, Math.max(this.#entryBytes * BATCH_ENTRIES, 1));
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["devices", this.#devices];
    yield ["stage 1 place", this.#place];
    if (this.domains !== undefined) yield ["domains", this.domains];
  }
}

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
