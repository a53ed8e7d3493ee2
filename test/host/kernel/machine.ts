// A host for kernel tests: memory, IOMMUs of one kind (RISC-V unless others are asked for), edu devices behind them, a booted kernel, and a user process with verbs for the
// system calls, so that tests speak of HWPTs and contexts rather than of bytes.

import type { HpaPfn } from "../../../host/base/address.ts";
import { Clock } from "../../../host/base/clock.ts";
import type { Layout, LayoutField, LayoutValues } from "../../../host/base/layout.ts";
import { PhysicalMemory } from "../../../host/base/memory.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import { Trace, type TracedEvent } from "../../../host/base/trace.ts";
import { Edu, type EduOptions } from "../../../host/devices/edu/edu.ts";
import { PlatformEdu } from "../../../host/devices/edu/platform-edu.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { InterruptFiles } from "../../../host/hw/interrupt-files.ts";
import type { HardwareIommu, IommuParts } from "../../../host/hw/iommu/port.ts";
import { RiscvIommu } from "../../../host/hw/iommu/riscv/iommu.ts";
import type { RiscvIommuOptions } from "../../../host/hw/iommu/riscv/options.ts";
import type { Smmuv3Options } from "../../../host/hw/iommu/smmuv3/options.ts";
import { Smmuv3 } from "../../../host/hw/iommu/smmuv3/smmu.ts";
import { BarWindow } from "../../../host/hw/pci/bar-window.ts";
import { RootComplex } from "../../../host/hw/pci/root-complex.ts";
import { Interconnect } from "../../../host/hw/platform/interconnect.ts";
import { bootKernel } from "../../../host/kernel/boot.ts";
import type { IommufdOptions } from "../../../host/kernel/iommufd/in-kernel.ts";
import type { Process, ProcessOptions } from "../../../host/kernel/process.ts";
import type { VfioOptions } from "../../../host/kernel/vfio/in-kernel.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import * as N from "../../../host/uapi/riscv-nesting.ts";
import { O_RDWR } from "../../../host/uapi/system-calls.ts";
import * as X from "../../../host/uapi/vfio.ts";
import * as C from "../../../host/uapi/vfio-container.ts";

const RAM_BASE = 0x10_0000 as HpaPfn;
const DOORBELLS = 0x2_8000 as HpaPfn;

export interface EduPlace {
  readonly rid: number;
  /** Index of the IOMMU in front of it; null: none. */
  readonly iommu?: number | null;
  readonly options?: EduOptions;
}

export interface MachineOptions {
  readonly iommus?: readonly RiscvIommuOptions[];
  /** SMMUv3s in their place. */
  readonly smmus?: readonly Smmuv3Options[];
  /** Others in their place, made by whoever asks; `doorbells`: page frame of the machine's interrupt files. */
  readonly hardware?: {
    readonly make: readonly ((parts: IommuParts) => HardwareIommu)[];
    readonly doorbells?: number;
  };
  readonly devices?: readonly EduPlace[];
  /** An edu on no bus each. */
  readonly platform?: readonly {
    readonly name: string;
    readonly deviceId: number;
    readonly iommu?: number | null;
    readonly canStall?: boolean;
  }[];
  readonly ramPages?: number;
  readonly deviations?: readonly string[];
  /** Requester ids that share a group. */
  readonly groups?: readonly (readonly number[])[];
  readonly iommufd?: IommufdOptions;
  readonly vfio?: VfioOptions;
}

export const name = (rid: number): string => {
  const two = (value: number) => value.toString(16).padStart(2, "0");
  return `0000:${two(rid >> 8)}:${two((rid >> 3) & 31)}.${rid & 7}`;
};

/** The kind of IOMMU of machines that ask for none (vfio/behind-smmuv3.test.ts has another). */
export const KIND: "riscv" | "smmuv3" | "vtd" = "riscv";
/** Where its devices' messages go, and how far: nothing can be mapped there. */
export const MESSAGES: { readonly base: bigint; readonly bytes: bigint } = { base: 0x0800_0000n, bytes: 0x0010_0000n };
/** Nesting by way of a vIOMMU object. */
export const HAS_VIOMMU: boolean = true;

export function machine(options: MachineOptions = {}) {
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const memory = new PhysicalMemory<HpaPfn>();
  const ramPages = options.ramPages ?? 4096;
  memory.addBank(RAM_BASE, new ArrayBuffer(ramPages * 4096));
  const basePfn = (options.hardware?.doorbells ?? DOORBELLS) as HpaPfn;
  const interruptFiles = new InterruptFiles({ memory, clock, trace, basePfn, files: 2 });
  const partsOf = (i: number) => ({ name: `iommu${i}`, memory, clock, trace });
  const iommus: HardwareIommu[] =
    options.hardware?.make.map((make, i) => make(partsOf(i))) ??
    options.smmus?.map((each, i) => new Smmuv3(partsOf(i), each)) ??
    (options.iommus ?? [{}]).map((each, i) => new RiscvIommu(partsOf(i), each));
  const root = new RootComplex({
    segment: 0,
    memory,
    clock,
    trace,
    window32: new BarWindow(0x4000_0000, 0x1000_0000),
    window64: new BarWindow(0x4_0000_0000, 0x1_0000_0000),
  });
  const places = options.devices ?? [{ rid: 0x0108 }];
  const edus = new Map<number, Edu>();
  for (const { rid, iommu = 0, options: eduOptions = {} } of places) {
    const edu = new Edu({ name: name(rid), ...eduOptions });
    edus.set(rid, edu);
    root.plug(rid, edu, iommu === null ? null : iommus[iommu]!);
  }
  const interconnect = new Interconnect({ memory, clock, trace, window: new BarWindow(0x3000_0000, 0x1000_0000) });
  for (const { name: platformName, deviceId, iommu = 0, canStall = false } of options.platform ?? []) {
    interconnect.plug(new PlatformEdu({ name: platformName }), {
      name: platformName,
      iommu: iommu === null ? null : iommus[iommu]!,
      deviceId,
      canStall,
    });
  }
  const groupOf = (rid: number): string | null => {
    const index = options.groups?.findIndex((members) => members.includes(rid)) ?? -1;
    return index < 0 ? null : `group ${index}`;
  };
  const { kernel, vfio, problems } = bootKernel({
    memory,
    ram: { base: RAM_BASE, pages: ramPages },
    clock,
    trace,
    interruptFiles,
    iommus,
    roots: [{ root, groupKey: (slot) => groupOf(slot.requesterId) }],
    interconnect,
    deviations: options.deviations ?? [],
    ...(options.iommufd === undefined ? {} : { iommufd: options.iommufd }),
    ...(options.vfio === undefined ? {} : { vfio: options.vfio }),
  });
  const events: TracedEvent[] = [];
  return {
    clock,
    trace,
    memory,
    iommus,
    root,
    interconnect,
    edus,
    kernel,
    vfio,
    problems,
    interruptFiles,
    events,
    /** Starts recording trace events. */
    record() {
      trace.addSink({ event: (event) => events.push(event) });
    },
    /** Lets virtual time pass, firing what falls due. */
    run(ns: number) {
      for (const end = clock.now + ns; clock.nextDeadline <= end; ) {
        clock.advanceTo(clock.nextDeadline);
        clock.fireDue();
      }
    },
    /** Binds every edu to vfio-pci. */
    assign(...rids: number[]) {
      if (problems.length > 0) throw new Error(problems.join("; "));
      for (const rid of rids.length === 0 ? [...edus.keys()] : rids) {
        const result = kernel.pci.bind(name(rid), "vfio-pci");
        if (result < 0) throw new Error(`vfio-pci does not bind: ${result}`);
      }
    },
    user(processOptions: ProcessOptions = {}) {
      return new User(kernel.createProcess("test", processOptions));
    },
  };
}

export type Machine = ReturnType<typeof machine>;

type Fields<T extends Record<string, LayoutField>> = Partial<LayoutValues<T>>;

/** A process and its scratch page for structures. */
export class User {
  readonly process: Process;
  readonly scratch: bigint;

  constructor(process: Process) {
    this.process = process;
    this.scratch = process.memory.allocate(4 * 4096);
  }

  open(path: string): number {
    return this.process.open(path, O_RDWR);
  }

  /** One ioctl with a structure: result and the structure afterwards. `tail` follows it (VFIO), `extra` lies at scratch + 4096. */
  call<T extends Record<string, LayoutField>>(
    fd: number,
    request: number,
    layout: Layout<T>,
    values: Fields<T>,
    tail: Uint8Array = new Uint8Array(0),
  ): { readonly result: number } & LayoutValues<T> {
    const total = layout.bytes + tail.length;
    const bytes = this.process.memory.bytes(this.scratch, 4 * 4096);
    const sized = layout.fields as Record<string, LayoutField>;
    const size = sized.size?.offset === 0 ? { size: layout.bytes } : sized.argsz !== undefined ? { argsz: total } : {};
    bytes.set(layout.encode({ ...size, ...values } as Fields<T>));
    bytes.set(tail, layout.bytes);
    const result = this.process.ioctl(fd, request, this.scratch);
    return { ...layout.decode(bytes), result };
  }

  /** As `call`, but a refusal is a failed test. */
  must<T extends Record<string, LayoutField>>(
    fd: number,
    request: number,
    layout: Layout<T>,
    values: Fields<T>,
    tail?: Uint8Array,
  ): LayoutValues<T> {
    const reply = this.call(fd, request, layout, values, tail);
    if (reply.result < 0) throw new Error(`${layout.name}: ${reply.result}`);
    return reply;
  }

  // --- iommufd ---

  iommufd(): number {
    return this.open("/dev/iommu");
  }

  ioas(iommufd: number): number {
    return this.must(iommufd, I.IOMMU_IOAS_ALLOC, I.iommuIoasAlloc, {}).out_ioas_id;
  }

  /** Maps [va, +length) at a fixed IOVA, readable and writable. */
  map(iommufd: number, ioas: number, va: bigint, length: number, iova: bigint): number {
    return this.call(iommufd, I.IOMMU_IOAS_MAP, I.iommuIoasMap, {
      flags: I.IOMMU_IOAS_MAP_FIXED_IOVA | I.IOMMU_IOAS_MAP_READABLE | I.IOMMU_IOAS_MAP_WRITEABLE,
      ioas_id: ioas,
      user_va: va,
      length: BigInt(length),
      iova,
    }).result;
  }

  unmap(iommufd: number, ioas: number, iova: bigint, length: bigint): number {
    return this.call(iommufd, I.IOMMU_IOAS_UNMAP, I.iommuIoasUnmap, { ioas_id: ioas, iova, length }).result;
  }

  /** An HWPT of `parent` (IOAS, or vIOMMU with data): its id or a negated errno. */
  hwpt(
    iommufd: number,
    device: number,
    parent: number,
    options: { flags?: number; type?: number; data?: Uint8Array; fault?: number } = {},
  ): number {
    const dataAt = this.scratch + 4096n;
    if (options.data !== undefined) this.process.memory.bytes(dataAt, options.data.length).set(options.data);
    const reply = this.call(iommufd, I.IOMMU_HWPT_ALLOC, I.iommuHwptAlloc, {
      flags: (options.flags ?? 0) | (options.fault === undefined ? 0 : I.IOMMU_HWPT_FAULT_ID_VALID),
      dev_id: device,
      pt_id: parent,
      data_type: options.type ?? 0,
      data_len: options.data?.length ?? 0,
      data_uptr: options.data === undefined ? 0n : dataAt,
      fault_id: options.fault ?? 0,
    });
    return reply.result < 0 ? reply.result : reply.out_hwpt_id;
  }

  /** A nested HWPT with the guest's device-context words. */
  nested(
    iommufd: number,
    device: number,
    viommu: number,
    words: { tc: bigint; fsc?: bigint; ta?: bigint },
    fault?: number,
  ): number {
    return this.hwpt(iommufd, device, viommu, {
      type: N.IOMMU_HWPT_DATA_RISCV,
      data: N.iommuHwptRiscv.encode(words),
      ...(fault === undefined ? {} : { fault }),
    });
  }

  viommu(iommufd: number, device: number, parent: number, type = N.IOMMU_VIOMMU_TYPE_RISCV): number {
    const reply = this.call(iommufd, I.IOMMU_VIOMMU_ALLOC, I.iommuViommuAlloc, {
      type,
      dev_id: device,
      hwpt_id: parent,
    });
    return reply.result < 0 ? reply.result : reply.out_viommu_id;
  }

  vdevice(iommufd: number, viommu: number, device: number, virtualId: bigint): number {
    const reply = this.call(iommufd, I.IOMMU_VDEVICE_ALLOC, I.iommuVdeviceAlloc, {
      viommu_id: viommu,
      dev_id: device,
      virt_id: virtualId,
    });
    return reply.result < 0 ? reply.result : reply.out_vdevice_id;
  }

  /** [id, fd] of a vEVENTQ. */
  veventq(iommufd: number, viommu: number, depth = 64, type = N.IOMMU_VEVENTQ_TYPE_RISCV): [number, number] {
    const reply = this.must(iommufd, I.IOMMU_VEVENTQ_ALLOC, I.iommuVeventqAlloc, {
      viommu_id: viommu,
      type,
      veventq_depth: depth,
    });
    return [reply.out_veventq_id, reply.out_veventq_fd];
  }

  /** [id, fd] of a fault queue. */
  faultQueue(iommufd: number): [number, number] {
    const reply = this.must(iommufd, I.IOMMU_FAULT_QUEUE_ALLOC, I.iommuFaultAlloc, {});
    return [reply.out_fault_id, reply.out_fault_fd];
  }

  /** Forwards guest commands to a vIOMMU: how many were done, and the result. */
  invalidate(
    iommufd: number,
    viommu: number,
    commands: readonly (readonly [bigint, bigint])[],
    type = N.IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
  ) {
    const at = this.scratch + 4096n;
    const bytes = this.process.memory.bytes(at, 16 * commands.length);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (const [i, [word0, word1]] of commands.entries()) {
      view.setBigUint64(16 * i, word0, true);
      view.setBigUint64(16 * i + 8, word1, true);
    }
    const reply = this.call(iommufd, I.IOMMU_HWPT_INVALIDATE, I.iommuHwptInvalidate, {
      hwpt_id: viommu,
      data_uptr: at,
      data_type: type,
      entry_len: 16,
      entry_num: commands.length,
    });
    return { result: reply.result, done: reply.entry_num };
  }

  destroy(iommufd: number, id: number): number {
    return this.call(iommufd, I.IOMMU_DESTROY, I.iommuDestroy, { id }).result;
  }

  // --- VFIO ---

  bind(device: number, iommufd: number): number {
    const reply = this.call(device, X.VFIO_DEVICE_BIND_IOMMUFD, X.vfioDeviceBindIommufd, { iommufd });
    return reply.result < 0 ? reply.result : reply.out_devid;
  }

  /** Attaches, or replaces what is attached: the HWPT's id or a negated errno. */
  attach(device: number, id: number): number {
    const reply = this.call(device, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, { pt_id: id });
    return reply.result < 0 ? reply.result : reply.pt_id;
  }

  detach(device: number): number {
    return this.call(device, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, {}).result;
  }

  regionOffset(device: number, index: number): bigint {
    return this.must(device, X.VFIO_DEVICE_GET_REGION_INFO, X.vfioRegionInfo, { index }).offset;
  }

  configRead(device: number, at: number, size: 1 | 2 | 4): number {
    const offset = this.regionOffset(device, X.VFIO_PCI_CONFIG_REGION_INDEX);
    const result = this.process.read(device, this.scratch, size, offset + BigInt(at));
    if (result !== size) throw new Error(`config read: ${result}`);
    const bytes = this.process.memory.bytes(this.scratch, size);
    return bytes.reduceRight((sum, byte) => sum * 256 + byte, 0);
  }

  configWrite(device: number, at: number, size: 1 | 2 | 4, value: number): void {
    const offset = this.regionOffset(device, X.VFIO_PCI_CONFIG_REGION_INDEX);
    const bytes = this.process.memory.bytes(this.scratch, size);
    for (let i = 0; i < size; i++) bytes[i] = (value >>> (8 * i)) & 0xff;
    const result = this.process.write(device, this.scratch, size, offset + BigInt(at));
    if (result !== size) throw new Error(`config write: ${result}`);
  }

  /** Memory and bus master on, as a guest driver does it. */
  enableDevice(device: number): void {
    this.configWrite(device, 4, 2, 0x6);
  }

  /** SET_IRQS with its data: bytes (BOOL) or descriptors (EVENTFD). */
  setIrqs(
    device: number,
    flags: number,
    index: number,
    options: { start?: number; count?: number; bytes?: readonly number[]; fds?: readonly number[] } = {},
  ): number {
    const { start = 0, count = 1, bytes = [], fds = [] } = options;
    const tail = fds.length > 0 ? new Uint8Array(Int32Array.from(fds).buffer) : Uint8Array.from(bytes);
    return this.call(device, X.VFIO_DEVICE_SET_IRQS, X.vfioIrqSet, { flags, index, start, count }, tail).result;
  }

  /** BAR 0 as registers. */
  bar0(device: number): MmioPort {
    const offset = this.regionOffset(device, X.VFIO_PCI_BAR0_REGION_INDEX);
    const registers = this.process.mmapRegion(device, offset, R.EDU_BAR_BYTES);
    if (typeof registers === "number") throw new Error(`mmap of BAR 0: ${registers}`);
    return registers;
  }

  /** An eventfd bound to vector 0 of an interrupt index. */
  irq(device: number, index: number): { readonly eventfd: number; readonly result: number } {
    const eventfd = this.process.eventfd();
    const tail = new Uint8Array(4);
    new DataView(tail.buffer).setInt32(0, eventfd, true);
    const flags = X.VFIO_IRQ_SET_DATA_EVENTFD | X.VFIO_IRQ_SET_ACTION_TRIGGER;
    const values = { flags, index, start: 0, count: 1 };
    const { result } = this.call(device, X.VFIO_DEVICE_SET_IRQS, X.vfioIrqSet, values, tail);
    return { eventfd, result };
  }

  /** Counter of an eventfd since the last read; 0 if none. */
  count(eventfd: number): number {
    const result = this.process.read(eventfd, this.scratch, 8, -1n);
    if (result < 0) return 0;
    const bytes = this.process.memory.bytes(this.scratch, 8);
    return Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
  }

  // --- VFIO groups and containers ---

  setContainer(group: number, container: number): number {
    const bytes = this.process.memory.bytes(this.scratch, 4);
    new DataView(bytes.buffer, bytes.byteOffset, 4).setInt32(0, container, true);
    return this.process.ioctl(group, C.VFIO_GROUP_SET_CONTAINER, this.scratch);
  }

  groupFlags(group: number): number {
    return this.must(group, C.VFIO_GROUP_GET_STATUS, C.vfioGroupStatus, {}).flags;
  }

  deviceFd(group: number, device: string): number {
    const bytes = this.process.memory.bytes(this.scratch, device.length + 1);
    for (let i = 0; i < device.length; i++) bytes[i] = device.charCodeAt(i);
    bytes[device.length] = 0;
    return this.process.ioctl(group, C.VFIO_GROUP_GET_DEVICE_FD, this.scratch);
  }

  mapDma(container: number, va: bigint, iova: bigint, size: bigint, flags = 3): number {
    const values = { flags, vaddr: va, iova, size };
    return this.call(container, C.VFIO_IOMMU_MAP_DMA, C.vfioIommuType1DmaMap, values).result;
  }

  /** [result, bytes unmapped]. */
  unmapDma(container: number, iova: bigint, size: bigint, flags = 0): [number, bigint] {
    const values = { flags, iova, size };
    const reply = this.call(container, C.VFIO_IOMMU_UNMAP_DMA, C.vfioIommuType1DmaUnmap, values);
    return [reply.result, reply.size];
  }

  /** Everything that a read gives now. */
  readAll(fd: number): Uint8Array {
    // A multiple of both 40 (page requests) and 8.
    const result = this.process.read(fd, this.scratch, 4000, -1n);
    if (result < 0) throw new Error(`read: ${result}`);
    return this.process.memory.bytes(this.scratch, result).slice();
  }
}

/** Starts an edu command: `toRam` moves the device's buffer to DMA address `address`, else the other way. */
export function eduDma(bar: MmioPort, address: bigint, count: number, toRam: boolean, interrupt = false): void {
  const low = Number(address & 0xffffffffn);
  const high = Number(address >> 32n);
  const set = (register: number, lo: number, hi: number) => bar.mmioWrite(register, 8, lo, hi);
  set(R.DMA_SOURCE, toRam ? R.BUFFER : low, toRam ? 0 : high);
  set(R.DMA_DESTINATION, toRam ? low : R.BUFFER, toRam ? high : 0);
  set(R.DMA_COUNT, count, 0);
  set(R.DMA_COMMAND, R.COMMAND_RUN | (toRam ? R.COMMAND_TO_RAM : 0) | (interrupt ? R.COMMAND_INTERRUPT : 0), 0);
}

/** How the last edu command ended. */
export function eduOutcome(bar: MmioPort): number {
  return bar.mmioRead(R.DMA_OUTCOME, 4);
}
