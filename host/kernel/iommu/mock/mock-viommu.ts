// The selftest driver's vIOMMU: nested domains, cache invalidations by guest device id, a two-page region to map, and two hardware
// queues of which the second needs the first.

import { EEXIST, EFAULT, EINVAL, EIO, EOPNOTSUPP } from "../../../uapi/errno.ts";
import type {
  HwQueueBackend,
  HwQueueCore,
  HwQueueOperations,
  InvalidationBatch,
  IommuDevice,
  NestedDomain,
  PagingDomain,
  UserData,
  ViommuBackend,
  ViommuCore,
} from "../driver.ts";
import { MOCK_CACHE_ENTRIES, mockDeviceOf } from "./mock-device.ts";

export const IOMMU_VIOMMU_TYPE_SELFTEST = 0xdeadbeef;
const INVALIDATE_DATA = 0xdeadbeef;
const INVALIDATE_BYTES = 12;
const INVALIDATE_ALL = 1;
const HW_QUEUE_TYPE = 0xdeadbeef;
const HW_QUEUES = 2;
const REGION_BYTES = 2 * 4096;
const DATA_BYTES = 24;

class MockHwQueue implements HwQueueBackend {
  readonly #slots: (MockHwQueue | null)[];
  readonly #index: number;

  constructor(slots: (MockHwQueue | null)[], index: number) {
    this.#slots = slots;
    this.#index = index;
    slots[index] = this;
  }

  destroy(): void {
    this.#slots[this.#index] = null;
  }
}

export class MockViommu implements ViommuBackend {
  readonly core: ViommuCore;
  readonly parent: PagingDomain;
  readonly reply?: Uint8Array;
  readonly hwQueue: HwQueueOperations;
  readonly #allocNested: (viommu: MockViommu, flags: number, data: UserData) => NestedDomain | number;
  readonly #queues: (MockHwQueue | null)[] = new Array(HW_QUEUES).fill(null);

  private constructor(
    parent: PagingDomain,
    core: ViommuCore,
    reply: Uint8Array | null,
    allocNested: (viommu: MockViommu, flags: number, data: UserData) => NestedDomain | number,
  ) {
    this.parent = parent;
    this.core = core;
    if (reply !== null) this.reply = reply;
    this.#allocNested = allocNested;
    this.hwQueue = {
      supports: (type) => type === HW_QUEUE_TYPE,
      init: (index, iova, _length, physicalBase, queue) => this.#initQueue(index, iova, physicalBase, queue),
    };
  }

  /** With user data the number in it comes back in the reply and in an exported region. */
  static create(
    parent: PagingDomain,
    core: ViommuCore,
    data: UserData | null,
    allocNested: (viommu: MockViommu, flags: number, data: UserData) => NestedDomain | number,
  ): MockViommu | number {
    if (data === null) return new MockViommu(parent, core, null, allocNested);
    const given = data.copy(8, DATA_BYTES);
    if (typeof given === "number") return given;
    const region = new Uint8Array(REGION_BYTES);
    region.set(given.subarray(0, 4));
    const offset = core.exportRegion?.({ memory: region }) ?? -EOPNOTSUPP;
    if (typeof offset === "number") return offset;
    const reply = new Uint8Array(DATA_BYTES);
    reply.set(given.subarray(0, 4), 0);
    reply.set(given.subarray(0, 4), 4);
    const view = new DataView(reply.buffer);
    view.setBigUint64(8, offset, true);
    view.setBigUint64(16, BigInt(REGION_BYTES), true);
    return new MockViommu(parent, core, reply, allocNested);
  }

  allocNested(_device: IommuDevice, flags: number, data: UserData): NestedDomain | number {
    return this.#allocNested(this, flags, data);
  }

  invalidate(batch: InvalidationBatch): number {
    // An empty batch of the right type is a question, whether the type exists.
    if (batch.type !== INVALIDATE_DATA) return -EINVAL;
    if (batch.count === 0) return 0;
    // All entries are copied before the first one counts.
    const entries: DataView[] = [];
    for (let i = 0; i < batch.count; i++) {
      const entry = batch.fetch(i, INVALIDATE_BYTES);
      if (typeof entry === "number") return entry;
      entries.push(new DataView(entry.slice().buffer));
    }
    for (const entry of entries) {
      const flags = entry.getUint32(0, true);
      const cacheId = entry.getUint32(8, true);
      if ((flags & ~INVALIDATE_ALL) !== 0) return -EOPNOTSUPP;
      if (cacheId >= MOCK_CACHE_ENTRIES) return -EINVAL;
      const device = this.core.findDevice(BigInt(entry.getUint32(4, true)));
      if (device === null) return -EINVAL;
      const { cache } = mockDeviceOf(device);
      if ((flags & INVALIDATE_ALL) !== 0) cache.fill(0);
      else cache[cacheId] = 0;
      batch.done++;
    }
    return 0;
  }

  #initQueue(index: number, iova: bigint, physicalBase: bigint, queue: HwQueueCore): HwQueueBackend | number {
    if (index >= HW_QUEUES) return -EINVAL;
    if (this.#queues[index] !== null) return -EEXIST;
    const previous = index > 0 ? this.#queues[index - 1]! : null;
    if (index > 0 && previous === null) return -EIO;
    if (this.parent.iovaToPhys(iova) !== physicalBase) return -EFAULT;
    if (previous !== null) {
      const depends = queue.dependOn(previous);
      if (depends < 0) return depends;
    }
    return new MockHwQueue(this.#queues, index);
  }

  destroy(): void {}
}
