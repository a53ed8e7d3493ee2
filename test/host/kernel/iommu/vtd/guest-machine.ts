// A machine whose VT-d units carry a guest: its RAM in an IOAS, devices bound, a nest parent, and verbs for what a VMM does for it.

import * as R from "../../../../../host/devices/edu/registers.ts";
import type { VtdOptions } from "../../../../../host/hw/iommu/vtd/options.ts";
import { VtdUnit } from "../../../../../host/hw/iommu/vtd/unit.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as X from "../../../../../host/uapi/vfio.ts";
import * as V from "../../../../../host/uapi/vtd-nesting.ts";
import { GuestRam, RAM_GPA } from "../../guest.ts";
import { eduDma, eduOutcome, type Machine, type MachineOptions, machine, name, type User } from "../../machine.ts";

export const [A, B] = [0x0108, 0x0110];
export const IOVA = 0x4000_0000n;
const DOORBELLS = 0xfee00;

export interface Assigned {
  readonly rid: number;
  readonly vfio: number;
  readonly device: number;
}

export interface GuestMachineOptions extends Omit<MachineOptions, "hardware"> {
  readonly units?: readonly VtdOptions[];
}

/** A machine whose IOMMUs are VT-d units. */
export function vtdMachine({ units = [{}], ...options }: GuestMachineOptions = {}): Machine {
  const make = units.map((each) => (parts: ConstructorParameters<typeof VtdUnit>[0]) => new VtdUnit(parts, each));
  return machine({ ...options, hardware: { make, doorbells: DOORBELLS } });
}

export class GuestMachine {
  readonly host: Machine;
  readonly user: User;
  readonly ram = new GuestRam();
  readonly va: bigint;
  readonly iommufd: number;
  readonly ioas: number;
  readonly a: Assigned;
  readonly parent: number;

  /** `options.devices` must have A behind the first unit. */
  constructor(options: GuestMachineOptions = {}, parentFlags = I.IOMMU_HWPT_ALLOC_NEST_PARENT) {
    this.host = vtdMachine({ devices: [{ rid: A }, { rid: B }], ...options });
    this.host.assign();
    this.user = this.host.user();
    this.va = this.user.process.memory.mapBuffer(this.ram.buffer, 0, this.ram.buffer.byteLength);
    this.iommufd = this.user.iommufd();
    this.ioas = this.user.ioas(this.iommufd);
    must(this.user.map(this.iommufd, this.ioas, this.va, this.ram.buffer.byteLength, RAM_GPA));
    this.a = this.take(A);
    this.parent = must(this.user.hwpt(this.iommufd, this.a.device, this.ioas, { flags: parentFlags }));
  }

  take(rid: number): Assigned {
    const vfio = must(this.user.open(this.host.vfio.nodeOf(name(rid))!));
    const device = must(this.user.bind(vfio, this.iommufd));
    this.user.enableDevice(vfio);
    return { rid, vfio, device };
  }

  /** A nested HWPT: its id, or a negated errno. */
  nested(
    table: bigint,
    more: {
      width?: number;
      flags?: bigint;
      hwptFlags?: number;
      device?: Assigned;
      fault?: number;
      parent?: number;
    } = {},
  ): number {
    const { width = 48, flags = 0n, hwptFlags = 0, device = this.a, fault, parent = this.parent } = more;
    return this.user.hwpt(this.iommufd, device.device, parent, {
      flags: hwptFlags,
      type: V.IOMMU_HWPT_DATA_VTD_S1,
      data: V.iommuHwptVtdS1.encode({ flags, pgtbl_addr: table, addr_width: width }),
      ...(fault === undefined ? {} : { fault }),
    });
  }

  /** Attaches a nested HWPT for a first stage; its id. */
  install(table: bigint, more: Parameters<GuestMachine["nested"]>[1] = {}): number {
    const hwpt = must(this.nested(table, more));
    must(this.user.attach((more.device ?? this.a).vfio, hwpt));
    return hwpt;
  }

  attachPasid(pasid: number, hwpt: number, device = this.a): number {
    const values = { flags: X.VFIO_DEVICE_ATTACH_PASID, pt_id: hwpt, pasid };
    return this.user.call(device.vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, values).result;
  }

  detachPasid(pasid: number, device = this.a): number {
    const values = { flags: X.VFIO_DEVICE_DETACH_PASID, pasid };
    return this.user.call(device.vfio, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, values).result;
  }

  /** HWPT_INVALIDATE with entries [addr, npages, flags, reserved]: the result, and how many were done. */
  invalidate(
    hwpt: number,
    entries: readonly (readonly [addr: bigint, npages: bigint, flags?: number, reserved?: number])[],
    more: { type?: number; length?: number; address?: bigint } = {},
  ): { result: number; done: number } {
    const { type = V.IOMMU_HWPT_INVALIDATE_DATA_VTD_S1, length = 24 } = more;
    const at = this.user.scratch + 4096n;
    const bytes = this.user.process.memory.bytes(at, 24 * Math.max(1, entries.length));
    for (const [i, [addr, npages, flags = 0, __reserved = 0]] of entries.entries()) {
      bytes.set(V.iommuHwptVtdS1Invalidate.encode({ addr, npages, flags, __reserved }), 24 * i);
    }
    const reply = this.user.call(this.iommufd, I.IOMMU_HWPT_INVALIDATE, I.iommuHwptInvalidate, {
      hwpt_id: hwpt,
      data_uptr: more.address ?? at,
      data_type: type,
      entry_len: length,
      entry_num: entries.length,
    });
    return { result: reply.result, done: reply.entry_num };
  }

  /** One DMA of an edu, from memory or to it: true if it came through. */
  dma(address: bigint, toRam = false, device = this.a): boolean {
    const bar = this.user.bar0(device.vfio);
    eduDma(bar, address, 64, toRam);
    this.host.run(100_000);
    return eduOutcome(bar) === R.OUTCOME_DONE;
  }

  /** DMA past the device model, at a PASID or (-1) without: what the bus said. */
  bus(address: bigint, pasid: number, write = false, rid = A): number {
    const { dma } = this.host.root.slot(rid)!;
    const pfn = Number(address >> 12n);
    const bytes = new Uint8Array(4);
    return write ? dma.write(pfn, 0, bytes, 0, 4, pasid) : dma.read(pfn, 0, bytes, 0, 4, pasid);
  }

  /** Reasons of the faults that the kernel printed since recording began. */
  faults(): number[] {
    return this.host.events.flatMap((event) =>
      event.type === "fault" && event.where === "kernel" ? [event.faultCause] : [],
    );
  }

  /** The process ends; what is left of it. */
  end(): readonly (readonly [string, number])[] {
    this.user.process.exit();
    return this.host.kernel.liveKinds;
  }
}

export function must(result: number): number {
  if (result < 0) throw new Error(`refused: ${result}`);
  return result;
}
