// Stage 1 on a vIOMMU object: made with the first device on a second stage that suits it, with an event queue and the two HWPTs that all its
// devices share, blocked and bypass. Its devices are vDEVICEs.

import type { MmioPort } from "../../host/base/mmio.ts";
import { bytesOf, type StateReader, type StateRecord } from "../../host/base/state.ts";
import { ENODEV, EOPNOTSUPP } from "../../host/uapi/errno.ts";
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VIOMMU_ALLOC,
  iommuHwQueueAlloc,
  iommuVdeviceAlloc,
  iommuViommuAlloc,
} from "../../host/uapi/iommufd.ts";
import type { DeviceHandle, HardwareQueues, HostEvent, HwInfoReply } from "../viommu/host-port.ts";
import type { HardwareQueueFormat, ViommuNesting } from "../viommu/nested-codec.ts";
import { EventQueueFile } from "./event-queue-file.ts";
import type { DeviceRecord, HostDevices } from "./host-devices.ts";
import type { Stage1Place } from "./stage1-place.ts";

/** An event that says which queues stand at errors: two maps of 64 bits (host/uapi). */
const QUEUE_ERROR_BYTES = 16;
const QUEUE_ERROR_DEPTH = 16;

export class ViommuObject implements Stage1Place {
  /** Object id of the vIOMMU, 0 before the first device has entered. */
  parent = 0;
  readonly hardwareQueues: HardwareQueues | undefined;
  readonly #devices: HostDevices;
  readonly #codec: ViommuNesting;
  readonly #queueFormat: HardwareQueueFormat | undefined;
  readonly #eventDepth: number;
  #blocked = 0;
  #bypass = 0;
  /** The second stage that is this vIOMMU's alone; 0: it shares one. */
  #ownParent = 0;
  readonly #events: EventQueueFile;
  readonly #queueErrors: EventQueueFile;
  #reply = new Uint8Array(0);
  #page: MmioPort | null = null; // not state: mapped when it is asked for

  constructor(
    devices: HostDevices,
    codec: ViommuNesting,
    queues: HardwareQueueFormat | undefined,
    eventDepth: number,
    onEvents: () => void,
  ) {
    this.#devices = devices;
    this.#codec = codec;
    this.#eventDepth = eventDepth;
    this.#queueFormat = queues;
    this.#events = new EventQueueFile(devices, onEvents);
    this.#queueErrors = new EventQueueFile(devices, onEvents);
    this.hardwareQueues = queues === undefined ? undefined : this.#queues(queues);
  }

  enter(record: DeviceRecord): number {
    const ready = this.parent === 0 ? this.#create(record) : 0;
    if (ready < 0) return ready;
    const { calls, space } = this.#devices;
    const { result, out } = calls.ioctl(space.iommufd, IOMMU_VDEVICE_ALLOC, iommuVdeviceAlloc, {
      viommu_id: this.parent,
      dev_id: record.device.deviceId,
      virt_id: record.guestId,
    });
    if (result < 0) return this.#devices.refused("IOMMU_VDEVICE_ALLOC", record, result);
    record.vdevice = out.out_vdevice_id;
    return 0;
  }

  leave(record: DeviceRecord): number {
    if (record.vdevice === 0) return 0;
    const destroyed = this.#devices.space.destroy(record.vdevice);
    record.vdevice = 0;
    return destroyed < 0 ? this.#devices.refused("IOMMU_DESTROY of the vDEVICE", record, destroyed) : 0;
  }

  blocked(): number {
    return this.#blocked === 0 ? -ENODEV : this.#blocked;
  }

  bypass(record: DeviceRecord): number {
    if (this.#bypass === 0) {
      const hwpt = this.#allocate(record, this.#codec.bypass);
      if (hwpt < 0) return hwpt;
      this.#bypass = hwpt;
    }
    return this.#bypass;
  }

  invalidationTarget(): number {
    return this.parent;
  }

  readEvents(events: HostEvent[]): void {
    this.#events.read(this.#codec.eventBytes, events, (record) => ({ kind: "fault", record }));
    // Which queues, their registers say: that events of this kind were lost is no loss.
    const errors: HostEvent[] = [];
    this.#queueErrors.read(QUEUE_ERROR_BYTES, errors, () => ({ kind: "queue-errors" }));
    if (errors.length > 0) events.push({ kind: "queue-errors" });
  }

  releaseStage1s(): void {
    for (const hwpt of [this.#blocked, this.#bypass]) if (hwpt !== 0) this.#devices.space.destroy(hwpt);
    this.#blocked = this.#bypass = 0;
  }

  [Symbol.dispose](): void {
    this.releaseStage1s();
    this.#events.close();
    this.#queueErrors.close();
    const { space } = this.#devices;
    if (this.parent !== 0) space.destroy(this.parent);
    if (this.#ownParent !== 0) space.removeParent(this.#ownParent);
    this.parent = this.#ownParent = 0;
  }

  /** The vIOMMU on a second stage that suits the device's IOMMU, its event queue and the shared blocked HWPT. */
  #create(record: DeviceRecord): number {
    const { space } = this.#devices;
    let asked: HwInfoReply | number | undefined;
    const hardware = (): HwInfoReply | null => {
      asked ??= this.#devices.hwInfo(record.device.handle);
      return typeof asked === "number" ? null : asked;
    };
    let viommu = -ENODEV;
    const { ownParent } = this.#codec;
    for (const parent of ownParent === true ? [] : space.parents) {
      viommu = this.#allocateViommu(record, parent, hardware);
      if (viommu > 0) break;
    }
    if (viommu < 0) {
      const dirty = ((hardware()?.capabilities ?? 0n) & BigInt(IOMMU_HW_CAP_DIRTY_TRACKING)) !== 0n;
      const parent = space.addParent(record.device.deviceId, dirty);
      if (parent < 0) return this.#devices.refused("IOMMU_HWPT_ALLOC of the second stage", record, parent);
      viommu = this.#allocateViommu(record, parent, hardware);
      if (ownParent === true) this.#ownParent = parent;
      if (viommu < 0) return this.#giveUp(this.#devices.refused("IOMMU_VIOMMU_ALLOC", record, viommu));
    }
    this.parent = viommu;
    const opened = this.#events.open(viommu, this.#codec.eventType, this.#eventDepth);
    if (opened < 0) return this.#giveUp(this.#devices.refused("IOMMU_VEVENTQ_ALLOC", record, opened));
    const errorType = this.#reply.length > 0 ? this.#queueFormat?.eventType : undefined;
    if (errorType !== undefined) {
      const also = this.#queueErrors.open(viommu, errorType, QUEUE_ERROR_DEPTH);
      if (also < 0) return this.#giveUp(this.#devices.refused("IOMMU_VEVENTQ_ALLOC of queue errors", record, also));
    }
    const blocked = this.#allocate(record, this.#codec.blocked);
    if (blocked < 0) return this.#giveUp(blocked);
    this.#blocked = blocked;
    return 0;
  }

  /** On behalf of any device that will be behind it. */
  #createForAny(): number {
    const [record] = this.#devices.records;
    return record === undefined ? -ENODEV : this.#create(record);
  }

  /** A vIOMMU that could not be completed leaves nothing behind. */
  #giveUp(errno: number): number {
    this[Symbol.dispose]();
    return errno;
  }

  #allocate(record: DeviceRecord, data: Uint8Array): number {
    const type = this.#codec.stage1Type;
    return this.#devices.allocateNested(record, { on: this.parent, type, data, withFaults: false });
  }

  #allocateViommu(record: DeviceRecord, parent: number, hardware: () => HwInfoReply | null): number {
    const { space, calls } = this.#devices;
    const queues = this.#queueFormat;
    const withQueues = queues !== undefined && this.queueInfo(record.device.handle) !== null;
    const type = withQueues ? queues.viommuType : this.#codec.viommuType(hardware);
    const replyBytes = queues !== undefined && type === queues.viommuType ? queues.replyBytes : 0;
    calls.data(replyBytes).fill(0);
    const { result, out } = calls.ioctl(space.iommufd, IOMMU_VIOMMU_ALLOC, iommuViommuAlloc, {
      type,
      dev_id: record.device.deviceId,
      hwpt_id: parent,
      data_len: replyBytes,
      data_uptr: replyBytes === 0 ? 0n : calls.dataAddress,
    });
    if (result < 0) return result;
    this.#reply = calls.data(replyBytes).slice();
    return out.out_viommu_id;
  }

  /** GET_HW_INFO data of hardware with queues for a guest; null: it has none, or none that suit. */
  queueInfo(handle: DeviceHandle): Uint8Array | null {
    const { infoType, suits } = this.#queueFormat ?? {};
    if (infoType === undefined) return null;
    const info = this.#devices.hwInfo(handle, infoType);
    return typeof info !== "number" && suits?.(info.bytes) !== false ? info.bytes : null;
  }

  #queues(format: HardwareQueueFormat): HardwareQueues {
    const { space, calls } = this.#devices;
    return {
      allocate: (index, gpa, length) => {
        // A guest brings its IOMMU up before its bus has numbered what is behind it.
        const ready = this.parent === 0 ? this.#createForAny() : 0;
        if (ready < 0) return ready;
        if (this.#reply.length === 0) return -EOPNOTSUPP;
        const { result, out } = calls.ioctl(space.iommufd, IOMMU_HW_QUEUE_ALLOC, iommuHwQueueAlloc, {
          viommu_id: this.parent,
          type: format.queueType,
          index,
          nesting_parent_iova: gpa,
          length,
        });
        return result < 0 ? result : out.out_hw_queue_id;
      },
      free: (id) => space.destroy(id),
      page: (): MmioPort | number => {
        if (this.#reply.length === 0) return -EOPNOTSUPP;
        // Mapped once: what is mapped holds the vIOMMU.
        if (this.#page !== null) return this.#page;
        const { offset, length } = format.page(this.#reply);
        const page = calls.system.mmapRegion(space.iommufd, offset, length);
        if (typeof page !== "number") this.#page = page;
        return page;
      },
    };
  }

  saveState(): StateRecord {
    return {
      parent: this.parent,
      ownParent: this.#ownParent,
      blocked: this.#blocked,
      bypass: this.#bypass,
      events: this.#events.saveState(),
      queueErrors: this.#queueErrors.saveState(),
      reply: bytesOf(this.#reply),
    };
  }

  /** Ids and descriptors are the host's, who has the objects. */
  restoreState(state: StateReader): void {
    this.parent = state.number("parent");
    this.#ownParent = state.number("ownParent");
    this.#blocked = state.number("blocked");
    this.#bypass = state.number("bypass");
    this.#events.restoreState(state.record("events"));
    this.#queueErrors.restoreState(state.record("queueErrors"));
    this.#reply = state.bytes("reply").slice();
  }
}
