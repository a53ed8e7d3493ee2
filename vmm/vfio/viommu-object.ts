// Stage 1 on a vIOMMU object: made with the first device on a second stage that suits it, with an event queue and the two HWPTs that all its
// devices share, blocked and bypass. Its devices are vDEVICEs.

import type { MmioPort } from "../../host/base/mmio.ts";
import { bytesOf, type StateReader, type StateRecord } from "../../host/base/state.ts";
import { ENODEV, EOPNOTSUPP } from "../../host/uapi/errno.ts";
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VIOMMU_ALLOC,
  iommufdVeventHeader,
  iommuHwQueueAlloc,
  iommuVdeviceAlloc,
  iommuVeventqAlloc,
  iommuViommuAlloc,
} from "../../host/uapi/iommufd.ts";
import type { HardwareQueues, HostEvent, HwInfoReply } from "../viommu/host-port.ts";
import type { ViommuNesting } from "../viommu/nested-codec.ts";
import type { DeviceRecord, HostDevices } from "./host-devices.ts";
import type { Stage1Place } from "./stage1-place.ts";

const READ_BYTES = 64 * 1024;
const SEQUENCE_MODULUS = 2 ** 31;

export class ViommuObject implements Stage1Place {
  /** Object id of the vIOMMU, 0 before the first device has entered. */
  parent = 0;
  readonly hardwareQueues: HardwareQueues | undefined;
  readonly #devices: HostDevices;
  readonly #codec: ViommuNesting;
  readonly #eventDepth: number;
  /** Called when events wait, and when the vIOMMU has been made. */
  readonly #onEvents: () => void;
  #blocked = 0;
  #bypass = 0;
  #eventQueue = 0;
  #eventFd = -1;
  #nextSequence = 0;
  #reply = new Uint8Array(0);

  constructor(devices: HostDevices, codec: ViommuNesting, eventDepth: number, onEvents: () => void) {
    this.#devices = devices;
    this.#codec = codec;
    this.#eventDepth = eventDepth;
    this.#onEvents = onEvents;
    this.hardwareQueues = codec.hardwareQueues === undefined ? undefined : this.#queues(codec.hardwareQueues);
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
    if (this.#eventFd < 0) return;
    const bytes = this.#devices.calls.read(this.#eventFd, READ_BYTES);
    if (typeof bytes === "number") return;
    const record = this.#codec.eventBytes;
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

  releaseStage1s(): void {
    for (const hwpt of [this.#blocked, this.#bypass]) if (hwpt !== 0) this.#devices.space.destroy(hwpt);
    this.#blocked = this.#bypass = 0;
  }

  [Symbol.dispose](): void {
    this.releaseStage1s();
    const { space, calls } = this.#devices;
    if (this.#eventFd >= 0) calls.system.close(this.#eventFd);
    if (this.#eventQueue !== 0) space.destroy(this.#eventQueue);
    if (this.parent !== 0) space.destroy(this.parent);
    this.parent = this.#eventQueue = 0;
    this.#eventFd = -1;
  }

  /** The vIOMMU on a second stage that suits the device's IOMMU, its event queue and the shared blocked HWPT. */
  #create(record: DeviceRecord): number {
    const { space, calls } = this.#devices;
    let asked: HwInfoReply | number | undefined;
    const hardware = (): HwInfoReply | null => {
      asked ??= this.#devices.hwInfo(record.device.handle);
      return typeof asked === "number" ? null : asked;
    };
    let viommu = -ENODEV;
    for (const parent of space.parents) {
      viommu = this.#allocateViommu(record, parent, hardware);
      if (viommu > 0) break;
    }
    if (viommu < 0) {
      const dirty = ((hardware()?.capabilities ?? 0n) & BigInt(IOMMU_HW_CAP_DIRTY_TRACKING)) !== 0n;
      const parent = space.addParent(record.device.deviceId, dirty);
      if (parent < 0) return this.#devices.refused("IOMMU_HWPT_ALLOC of the second stage", record, parent);
      viommu = this.#allocateViommu(record, parent, hardware);
      if (viommu < 0) return this.#devices.refused("IOMMU_VIOMMU_ALLOC", record, viommu);
    }
    this.parent = viommu;
    const queue = calls.ioctl(space.iommufd, IOMMU_VEVENTQ_ALLOC, iommuVeventqAlloc, {
      viommu_id: viommu,
      type: this.#codec.eventType,
      veventq_depth: this.#eventDepth,
    });
    if (queue.result < 0) return this.#giveUp(this.#devices.refused("IOMMU_VEVENTQ_ALLOC", record, queue.result));
    this.#eventQueue = queue.out.out_veventq_id;
    this.#eventFd = queue.out.out_veventq_fd;
    calls.system.watch(this.#eventFd, this.#onEvents);
    const blocked = this.#allocate(record, this.#codec.blocked);
    if (blocked < 0) return this.#giveUp(blocked);
    this.#blocked = blocked;
    return 0;
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
    const type = this.#codec.viommuType(hardware);
    const queues = this.#codec.hardwareQueues;
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

  #queues(format: NonNullable<ViommuNesting["hardwareQueues"]>): HardwareQueues {
    const { space, calls } = this.#devices;
    return {
      allocate: (index, gpa, length) => {
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
        const { offset, length } = format.page(this.#reply);
        return calls.system.mmapRegion(space.iommufd, offset, length);
      },
    };
  }

  saveState(): StateRecord {
    return {
      parent: this.parent,
      blocked: this.#blocked,
      bypass: this.#bypass,
      eventQueue: this.#eventQueue,
      eventFd: this.#eventFd,
      nextSequence: this.#nextSequence,
      reply: bytesOf(this.#reply),
    };
  }

  /** Ids and the descriptor are the host's, who has the objects; the descriptor is watched from here on as it was. */
  restoreState(state: StateReader): void {
    const { system } = this.#devices.calls;
    const eventFd = state.number("eventFd");
    if (eventFd !== this.#eventFd) {
      if (this.#eventFd >= 0) system.watch(this.#eventFd, null);
      if (eventFd >= 0) system.watch(eventFd, this.#onEvents);
    }
    this.parent = state.number("parent");
    this.#blocked = state.number("blocked");
    this.#bypass = state.number("bypass");
    this.#eventQueue = state.number("eventQueue");
    this.#eventFd = eventFd;
    this.#nextSequence = state.number("nextSequence");
    this.#reply = state.bytes("reply").slice();
  }
}
