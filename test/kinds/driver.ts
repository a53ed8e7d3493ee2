// The test kind's kernel driver: paging domains are lists of runs in the kernel's memory, nested ones a page number of the guest's; both on a
// parent itself and on a vIOMMU.

import type { MmioPort } from "../../host/base/mmio.ts";
import type { HardwareIommu } from "../../host/hw/iommu/port.ts";
import { AttachmentList } from "../../host/kernel/iommu/attachments.ts";
import type {
  HwInfo,
  HwQueueBackend,
  HwQueueOperations,
  InvalidationBatch,
  IommuCapability,
  IommuDevice,
  IommuDomain,
  NestedDomain,
  PagingDomain,
  ReservedRegion,
  UserData,
  VdeviceBackendView,
  ViommuBackend,
  ViommuCore,
} from "../../host/kernel/iommu/driver.ts";
import type { HardwareInterrupts, IommuDriverParts, IommuHardwareDriver } from "../../host/kernel/iommu/hardware.ts";
import { EINVAL, ENOSPC, EOPNOTSUPP } from "../../host/uapi/errno.ts";
import {
  ALL,
  BYPASS,
  EVENTS,
  eventData,
  HW,
  HW_INFO,
  INVALIDATION,
  invalidationData,
  MODE_BLOCKED,
  MODE_IDENTITY,
  MODE_NESTED,
  MODE_STAGE2,
  QUEUE,
  QUEUE_ENTRIES,
  queueReply,
  READ,
  RUN_BYTES,
  RUNS,
  STAGE1,
  stage1Data,
  VIOMMU,
  VIOMMU_QUEUES,
  WRITE,
} from "./formats.ts";
import type { TrivialHardware } from "./hardware.ts";

interface Run {
  from: number;
  to: number;
  pages: number;
  permissions: number;
}

/** What a device is to have: a mode and its two lists. */
interface Setting {
  readonly mode: number;
  readonly stage1: number;
  readonly stage2: number;
}

export class TrivialDriver implements IommuHardwareDriver {
  readonly name = "trivial";
  readonly defaultDomain = "identity";
  readonly identityDomain: IommuDomain;
  readonly blockedDomain: IommuDomain;
  readonly parts: IommuDriverParts;
  readonly #placed = new Map<IommuDevice, TrivialHardware>();
  readonly #devices = new Map<number, IommuDevice>();

  constructor(parts: IommuDriverParts) {
    this.parts = parts;
    this.identityDomain = new TrivialDomain(this, "identity", { mode: MODE_IDENTITY, stage1: 0, stage2: 0 });
    this.blockedDomain = new TrivialDomain(this, "blocked", { mode: MODE_BLOCKED, stage1: 0, stage2: 0 });
  }

  addHardware({ hardware, defer }: { readonly hardware: HardwareIommu } & HardwareInterrupts): object {
    hardware.onWire = (_vector, asserted) => {
      if (!asserted) return;
      const fire = () => this.#refused(hardware as TrivialHardware);
      defer({ owner: hardware.name, name: "refused", fire });
    };
    return hardware;
  }

  place(device: IommuDevice, hardware: HardwareIommu): void {
    this.#placed.set(device, hardware as TrivialHardware);
    this.#devices.set(device.deviceId, device);
  }

  limitsOf(): { readonly ats: boolean; readonly maxPasids: number } {
    return { ats: false, maxPasids: 0 };
  }

  instanceOf(device: IommuDevice): TrivialHardware {
    return this.#placed.get(device)!;
  }
  probeDevice(): number {
    return 0;
  }
  releaseDevice(device: IommuDevice): void {
    this.#placed.delete(device);
    this.#devices.delete(device.deviceId);
  }
  capable(_device: IommuDevice, capability: IommuCapability): boolean {
    return capability === "CACHE_COHERENCY";
  }
  reservedRegions(): readonly ReservedRegion[] {
    return [{ start: 0x0800_0000n, length: 0x0010_0000n, type: "SW_MSI" }];
  }
  hwInfo(_device: IommuDevice, requested: number): HwInfo | number {
    return requested === 0 || requested === HW_INFO ? { type: HW_INFO, bytes: new Uint8Array(8) } : -EOPNOTSUPP;
  }

  allocPaging(_device: IommuDevice, flags: number, data: UserData | null): PagingDomain | number {
    if (data !== null || (flags & ~1) !== 0) return -EOPNOTSUPP;
    const page = this.parts.frames.allocate();
    return page < 0 ? page : new TrivialPaging(this, page, flags === 1);
  }

  allocNested(_device: IommuDevice, parent: PagingDomain, flags: number, data: UserData): NestedDomain | number {
    return this.nested(parent as TrivialPaging, null, flags, data);
  }

  supportsViommu(_device: IommuDevice, type: number): boolean {
    return type === VIOMMU || type === VIOMMU_QUEUES;
  }

  allocViommu(
    device: IommuDevice,
    type: number,
    parent: PagingDomain,
    data: UserData | null,
    core: ViommuCore,
  ): ViommuBackend | number {
    const viommu = new TrivialViommuObject(this, this.instanceOf(device), parent as TrivialPaging, core);
    if (type === VIOMMU) return viommu;
    if (data === null) return -EINVAL;
    const offset =
      core.exportRegion?.({ registers: viommu.hardware.guestPage, registerStart: 0, registerBytes: 4096 }) ??
      -EOPNOTSUPP;
    if (typeof offset === "number") return offset;
    viommu.reply = queueReply.encode({ offset, length: 4096n });
    return viommu;
  }

  nested(
    parent: TrivialPaging,
    viommu: TrivialViommuObject | null,
    flags: number,
    data: UserData,
  ): NestedDomain | number {
    if (flags !== 0) return -EOPNOTSUPP;
    if (data.type !== STAGE1) return -EINVAL;
    const bytes = data.copy(stage1Data.bytes, stage1Data.bytes);
    if (typeof bytes === "number") return bytes;
    return new TrivialNested(this, parent, viommu, stage1Data.decode(bytes).table);
  }

  /** Writes a device's setting, and nothing of the one before stays cached. */
  set(device: IommuDevice, { mode, stage1, stage2 }: Setting): void {
    const { registers } = this.instanceOf(device);
    write(registers, HW.DEVICE, device.deviceId);
    write(registers, HW.STAGE1, stage1);
    write(registers, HW.STAGE2, stage2);
    write(registers, HW.MODE, mode);
    write(registers, HW.INVALIDATE, device.deviceId);
  }

  /** Refusals go to the guest whose device it is; others are nobody's. */
  #refused(hardware: TrivialHardware): void {
    const { registers } = hardware;
    for (;;) {
      const deviceId = registers.mmioRead(HW.FAULT_DEVICE, 4);
      if (deviceId === ALL) return;
      const device = this.#devices.get(deviceId);
      const domain = device?.attachments.requester?.domain;
      const guestId = domain instanceof TrivialNested ? domain.viommu?.core.virtualIdOf(device!) : null;
      if (domain instanceof TrivialNested && typeof guestId === "bigint") {
        const event = eventData.encode({
          device: Number(guestId),
          write: registers.mmioRead(HW.FAULT_WRITE, 4),
          page: BigInt(registers.mmioRead(HW.FAULT_PAGE, 8)) + (BigInt(registers.high) << 32n),
        });
        domain.viommu?.core.reportEvent(EVENTS, event);
      }
      write(registers, HW.FAULT_DEVICE, 0);
    }
  }
}

function write(registers: MmioPort, offset: number, value: number): void {
  registers.mmioWrite(offset, 8, value >>> 0, Math.floor(value / 2 ** 32));
}

class TrivialDomain implements IommuDomain {
  readonly kind: IommuDomain["kind"];
  readonly owner: TrivialDriver;
  readonly attachments = new AttachmentList();
  readonly #setting: Setting;

  constructor(owner: TrivialDriver, kind: IommuDomain["kind"], setting: Setting) {
    this.owner = owner;
    this.kind = kind;
    this.#setting = setting;
  }

  attach(device: IommuDevice): number {
    this.owner.set(device, this.#setting);
    return 0;
  }

  free(): void {}
}

class TrivialPaging extends TrivialDomain implements PagingDomain {
  declare readonly kind: "paging";
  readonly pageSizes = BigInt.asUintN(48, ~0xfffn);
  readonly aperture = { start: 0n, last: (1n << 40n) - 1n };
  readonly forceAperture = true;
  readonly enforcesCoherency = false;
  readonly nestParent: boolean;
  readonly page: number;
  readonly #runs: Run[] = [];

  constructor(owner: TrivialDriver, page: number, nestParent: boolean) {
    super(owner, "paging", { mode: MODE_STAGE2, stage1: 0, stage2: page });
    this.page = page;
    this.nestParent = nestParent;
  }

  map(iova: bigint, paddr: bigint, size: bigint, prot: number): number {
    const run = {
      from: Number(iova >> 12n),
      to: Number(paddr >> 12n),
      pages: Number(size >> 12n),
      permissions: ((prot & 1) === 0 ? 0 : READ) | ((prot & 2) === 0 ? 0 : WRITE),
    };
    const before = this.#runs.find(
      ({ from, to, pages, permissions }) =>
        from + pages === run.from && to + pages === run.to && permissions === run.permissions,
    );
    if (before !== undefined) before.pages += run.pages;
    else if (this.#runs.length === RUNS - 1) return -ENOSPC;
    else this.#runs.push(run);
    this.#store();
    return 0;
  }

  unmap(iova: bigint, size: bigint): bigint {
    const first = Number(iova >> 12n);
    const end = first + Number(size >> 12n);
    let unmapped = 0;
    for (const run of this.#runs.splice(0)) {
      const from = Math.max(first, run.from);
      const to = Math.min(end, run.from + run.pages);
      if (from >= to) {
        this.#runs.push(run);
        continue;
      }
      unmapped += to - from;
      if (from > run.from) this.#runs.push({ ...run, pages: from - run.from });
      const left = run.from + run.pages - to;
      if (left > 0) this.#runs.push({ ...run, from: to, to: run.to + (to - run.from), pages: left });
    }
    this.#store();
    return BigInt(unmapped) << 12n;
  }

  sync(): void {
    for (const { device } of this.attachments.items) this.#forget(device);
    for (const nested of this.children) for (const { device } of nested.attachments.items) this.#forget(device);
  }

  /** Nested domains on it: an unmap here concerns their devices. */
  readonly children = new Set<TrivialNested>();

  iovaToPhys(iova: bigint): bigint | null {
    const page = Number(iova >> 12n);
    const run = this.#runs.find(({ from, pages }) => page >= from && page < from + pages);
    return run === undefined ? null : (BigInt(run.to + page - run.from) << 12n) | (iova & 0xfffn);
  }

  override free(): void {
    this.owner.parts.frames.release(this.page as never);
  }

  #forget(device: IommuDevice): void {
    write(this.owner.instanceOf(device).registers, HW.INVALIDATE, device.deviceId);
  }

  #store(): void {
    const bytes = this.owner.parts.frames.view(this.page as never, 1);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    bytes.fill(0);
    this.#runs.forEach(({ from, to, pages, permissions }, i) => {
      [from, to, pages, permissions].forEach((value, field) => {
        view.setBigUint64(i * RUN_BYTES + field * 8, BigInt(value), true);
      });
    });
  }
}

class TrivialNested extends TrivialDomain implements NestedDomain {
  declare readonly kind: "nested";
  readonly parent: TrivialPaging;
  readonly viommu: TrivialViommuObject | null;

  constructor(owner: TrivialDriver, parent: TrivialPaging, viommu: TrivialViommuObject | null, table: bigint) {
    const mode = table === 0n ? MODE_BLOCKED : table === BYPASS ? MODE_STAGE2 : MODE_NESTED;
    super(owner, "nested", { mode, stage1: Number(table & 0xf_ffff_ffffn), stage2: parent.page });
    this.parent = parent;
    this.viommu = viommu;
    parent.children.add(this);
  }

  /** Invalidation on the HWPT itself: whose device is meant is clear, the entry names none. */
  invalidate(batch: InvalidationBatch): number {
    batch.done = 0;
    if (this.viommu !== null) return -EOPNOTSUPP;
    if (batch.type !== INVALIDATION) return -EINVAL;
    for (; batch.done < batch.count; batch.done++) {
      const bytes = batch.fetch(batch.done, invalidationData.bytes);
      if (typeof bytes === "number") return bytes;
      for (const { device } of this.attachments.items) {
        write(this.owner.instanceOf(device).registers, HW.INVALIDATE, device.deviceId);
      }
    }
    return 0;
  }

  override free(): void {
    this.parent.children.delete(this);
  }
}

class TrivialViommuObject implements ViommuBackend {
  reply: Uint8Array = new Uint8Array(0);
  readonly hardware: TrivialHardware;
  readonly core: ViommuCore;
  readonly hwQueue: HwQueueOperations = {
    supports: (type) => type === QUEUE,
    init: (index, _iova, length, physicalBase): HwQueueBackend | number => {
      if (index !== 0 || length !== BigInt(QUEUE_ENTRIES * 4) || this.reply.length === 0) return -EINVAL;
      write(this.hardware.registers, HW.QUEUE, Number(physicalBase >> 12n));
      return { destroy: () => write(this.hardware.registers, HW.QUEUE, 0) };
    },
  };
  readonly #driver: TrivialDriver;
  readonly #parent: TrivialPaging;

  constructor(driver: TrivialDriver, hardware: TrivialHardware, parent: TrivialPaging, core: ViommuCore) {
    this.#driver = driver;
    this.hardware = hardware;
    this.#parent = parent;
    this.core = core;
  }

  allocNested(_device: IommuDevice, flags: number, data: UserData): NestedDomain | number {
    return this.#driver.nested(this.#parent, this, flags, data);
  }

  invalidate(batch: InvalidationBatch): number {
    batch.done = 0;
    if (batch.type !== INVALIDATION) return -EINVAL;
    for (; batch.done < batch.count; batch.done++) {
      const bytes = batch.fetch(batch.done, invalidationData.bytes);
      if (typeof bytes === "number") return bytes;
      const device = this.core.findDevice(BigInt(invalidationData.decode(bytes).device));
      if (device === null) return -EINVAL;
      write(this.hardware.registers, HW.INVALIDATE, device.deviceId);
    }
    return 0;
  }

  /** The hardware learns which device a guest's id names: its queue is run without the kernel. */
  vdeviceInit({ device, virtualId }: VdeviceBackendView): number {
    if (virtualId >= BigInt(ALL)) return -EINVAL;
    write(this.hardware.registers, HW.GUEST_ID, Number(virtualId));
    write(this.hardware.registers, HW.GUEST_DEVICE, device.deviceId);
    return 0;
  }

  vdeviceDestroy({ virtualId }: VdeviceBackendView): void {
    write(this.hardware.registers, HW.GUEST_ID, Number(virtualId));
    write(this.hardware.registers, HW.GUEST_DEVICE, ALL);
  }

  destroy(): void {}
}
