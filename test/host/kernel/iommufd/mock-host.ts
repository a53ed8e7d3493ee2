// A host for iommufd's tests: a kernel with 64 MiB of RAM, the selftest driver, and a process that calls iommufd by name.

import type { HpaPfn } from "../../../../host/base/address.ts";
import { Clock } from "../../../../host/base/clock.ts";
import type { Layout, LayoutField, LayoutValues } from "../../../../host/base/layout.ts";
import { PhysicalMemory } from "../../../../host/base/memory.ts";
import { Trace } from "../../../../host/base/trace.ts";
import { MockDevice } from "../../../../host/kernel/iommu/mock/mock-device.ts";
import { MockDriver } from "../../../../host/kernel/iommu/mock/mock-driver.ts";
import { selftestCommands } from "../../../../host/kernel/iommu/mock/selftest-commands.ts";
import {
  addIommufd,
  type BoundDevice,
  bindDevice,
  contextOf,
  type IommufdContext,
} from "../../../../host/kernel/iommufd/in-kernel.ts";
import { Kernel } from "../../../../host/kernel/kernel.ts";
import type { Process, ProcessOptions } from "../../../../host/kernel/process.ts";
import * as uapi from "../../../../host/uapi/iommufd.ts";
import { O_RDWR } from "../../../../host/uapi/system-calls.ts";

export const PAGE = 4096;

/** A host with the selftest driver and its requests. */
export class MockHost {
  readonly memory = new PhysicalMemory<HpaPfn>();
  readonly driver = new MockDriver();
  readonly kernel: Kernel;
  #nextDevice = 1000;
  readonly #added = new Set<object>();

  constructor(options: { ramBytes?: number } = {}) {
    const base = 0x80000 as HpaPfn;
    const bytes = options.ramBytes ?? 64 * 1024 * 1024;
    this.memory.addBank(base, new ArrayBuffer(bytes));
    const clock = new Clock();
    this.kernel = new Kernel({
      memory: this.memory,
      ram: { base, pages: bytes / PAGE },
      clock,
      trace: new Trace(clock),
    });
    addIommufd(this.kernel, {
      extraRequests: selftestCommands(this.driver),
      // What a test adds stands for a real device: bound, it keeps its context alive. The selftest's own devices do not.
      isTestDevice: (device) => device instanceof MockDevice && !this.#added.has(device),
    });
  }

  process(name = "test", options: ProcessOptions = {}): Iommufd {
    return new Iommufd(this, this.kernel.createProcess(name, options));
  }

  /** A mock device in a group of its own, or in the group named. */
  addDevice<T extends MockDevice = MockDevice>(
    options: { flags?: number; group?: string; driver?: MockDriver; make?: (id: number, flags: number) => T } = {},
  ): T {
    const make = options.make ?? ((id, flags) => new MockDevice(id, flags) as T);
    const device = make(this.#nextDevice++, options.flags ?? 0);
    this.#added.add(device);
    const added = this.kernel.iommu.addDevice(device, options.driver ?? this.driver, options.group ?? null);
    if (added < 0) throw new Error(`the device was refused: ${added}`);
    return device;
  }
}

type Fields = Record<string, LayoutField>;

/** A process with an open /dev/iommu. Calls return the filled structure; a refusal throws unless `expect` is asked for. */
export class Iommufd {
  readonly host: MockHost;
  readonly process: Process;
  readonly fd: number;
  readonly scratch: bigint;

  constructor(host: MockHost, process: Process) {
    this.host = host;
    this.process = process;
    this.fd = process.open("/dev/iommu", O_RDWR);
    if (this.fd < 0) throw new Error(`open: ${this.fd}`);
    this.scratch = process.memory.allocate(PAGE);
  }

  /** The raw result of a request with a structure. */
  result<T extends Fields>(request: number, structure: Layout<T>, values: Partial<LayoutValues<T>>): number {
    const bytes = structure.encode(values);
    new DataView(bytes.buffer).setUint32(0, bytes.length, true);
    this.process.memory.bytes(this.scratch, bytes.length).set(bytes);
    return this.process.ioctl(this.fd, request, this.scratch);
  }

  /** The structure after a request that must succeed. */
  call<T extends Fields>(request: number, structure: Layout<T>, values: Partial<LayoutValues<T>>): LayoutValues<T> {
    const result = this.result(request, structure, values);
    if (result < 0) throw new Error(`${structure.name}: ${result}`);
    return structure.decode(this.process.memory.bytes(this.scratch, structure.bytes));
  }

  get context(): IommufdContext {
    const context = contextOf(this.process.descriptors.lookup(this.fd));
    if (typeof context === "number") throw new Error("not an iommufd");
    context.file.put();
    return context;
  }

  bind(device: MockDevice): BoundDevice {
    const bound = bindDevice(this.context, device);
    if (typeof bound === "number") throw new Error(`bind: ${bound}`);
    return bound;
  }

  ioas(): number {
    return this.call(uapi.IOMMU_IOAS_ALLOC, uapi.iommuIoasAlloc, {}).out_ioas_id;
  }

  /** Maps at a fixed IOVA, readable and writeable. */
  map(ioas: number, va: bigint, length: number, iova: bigint): number {
    return this.result(uapi.IOMMU_IOAS_MAP, uapi.iommuIoasMap, {
      flags: uapi.IOMMU_IOAS_MAP_FIXED_IOVA | uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE,
      ioas_id: ioas,
      user_va: va,
      length: BigInt(length),
      iova,
    });
  }

  unmap(ioas: number, iova: bigint, length: bigint): number {
    return this.result(uapi.IOMMU_IOAS_UNMAP, uapi.iommuIoasUnmap, { ioas_id: ioas, iova, length });
  }

  hwpt(device: number, parent: number, flags = 0, data?: { type: number; bytes: Uint8Array }, fault = 0): number {
    return this.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommuHwptAlloc, this.hwptFields(device, parent, flags, data, fault))
      .out_hwpt_id;
  }

  hwptFields(device: number, parent: number, flags = 0, data?: { type: number; bytes: Uint8Array }, fault = 0) {
    const va = this.scratch + 512n;
    if (data !== undefined) this.process.memory.bytes(va, data.bytes.length).set(data.bytes);
    return {
      flags,
      dev_id: device,
      pt_id: parent,
      fault_id: fault,
      ...(data === undefined ? {} : { data_type: data.type, data_len: data.bytes.length, data_uptr: va }),
    };
  }

  destroy(id: number): number {
    return this.result(uapi.IOMMU_DESTROY, uapi.iommuDestroy, { id });
  }

  viommu(device: number, parent: number): number {
    return this.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommuViommuAlloc, {
      type: 0xdeadbeef,
      dev_id: device,
      hwpt_id: parent,
    }).out_viommu_id;
  }

  vdevice(viommu: number, device: number, virtualId: bigint): number {
    return this.call(uapi.IOMMU_VDEVICE_ALLOC, uapi.iommuVdeviceAlloc, {
      viommu_id: viommu,
      dev_id: device,
      virt_id: virtualId,
    }).out_vdevice_id;
  }

  veventq(viommu: number, depth: number): { id: number; fd: number } {
    const reply = this.call(uapi.IOMMU_VEVENTQ_ALLOC, uapi.iommuVeventqAlloc, {
      viommu_id: viommu,
      type: 0xbeefbeef,
      veventq_depth: depth,
    });
    return { id: reply.out_veventq_id, fd: reply.out_veventq_fd };
  }

  faultQueue(): { id: number; fd: number } {
    const reply = this.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, uapi.iommuFaultAlloc, {});
    return { id: reply.out_fault_id, fd: reply.out_fault_fd };
  }

  /** Reads up to `length` bytes from a file of the context. */
  read(fd: number, length: number): { result: number; bytes: Uint8Array } {
    const va = this.scratch + 1024n;
    const result = this.process.read(fd, va, length, -1n);
    return { result, bytes: this.process.memory.bytes(va, Math.max(result, 0)).slice() };
  }

  write(fd: number, bytes: Uint8Array): number {
    const va = this.scratch + 1024n;
    this.process.memory.bytes(va, bytes.length).set(bytes);
    return this.process.write(fd, va, bytes.length, -1n);
  }
}

/** User data of the mock's nested HWPTs and paging HWPTs. */
export function mockHwptData(iotlb: number, pageTable = 0): { type: number; bytes: Uint8Array } {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setUint32(0, iotlb, true);
  new DataView(bytes.buffer).setUint32(4, pageTable, true);
  return { type: 0xdead, bytes };
}
