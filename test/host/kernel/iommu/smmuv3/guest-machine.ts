// A machine whose SMMUv3s carry a guest: its RAM in an IOAS, devices bound, a nest parent and a vIOMMU, and verbs for what a VMM does for it.

import { type CommandName, encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import { decodeEvent, type EventRecord } from "../../../../../host/arch/smmuv3/event-records.ts";
import { REG } from "../../../../../host/arch/smmuv3/registers.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as S from "../../../../../host/uapi/smmuv3-nesting.ts";
import * as X from "../../../../../host/uapi/vfio.ts";
import { GuestRam, RAM_GPA } from "../../guest.ts";
import { GuestContexts, GuestStage1 } from "../../guest-smmuv3.ts";
import { type Machine, type MachineOptions, machine, name, type User } from "../../machine.ts";

export const [A, B] = [0x0108, 0x0110];
export const IOVA = 0x4000_0000n;
export const ASID = 7;
/** Config of the guest's stream table entry. */
export const V = 1n;
export const ABORT = V;
export const BYPASS = V | (4n << 1n);
export const eats = (value: number): bigint => BigInt(value) << 28n;
export const s1dss = (value: number): bigint => BigInt(value);

export interface Assigned {
  readonly rid: number;
  readonly vfio: number;
  readonly device: number;
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
  readonly viommu: number;
  readonly #eventFiles = new Map<number, number>();

  /** `options.devices` must have A behind the first SMMU. With a `host` that is there already it is one more process of that. */
  constructor(options: MachineOptions = {}, host: Machine | null = null) {
    this.host = host ?? machine({ smmus: [{}], devices: [{ rid: A }, { rid: B }], ...options });
    if (host === null) this.host.assign();
    this.user = this.host.user();
    this.va = this.user.process.memory.mapBuffer(this.ram.buffer, 0, this.ram.buffer.byteLength);
    this.iommufd = this.user.iommufd();
    this.ioas = this.user.ioas(this.iommufd);
    must(this.user.map(this.iommufd, this.ioas, this.va, this.ram.buffer.byteLength, RAM_GPA));
    this.a = this.take(A);
    this.parent = this.newParent();
    this.viommu = this.newViommu(this.parent);
  }

  take(rid: number): Assigned {
    const vfio = must(this.user.open(this.host.vfio.nodeOf(name(rid))!));
    const device = must(this.user.bind(vfio, this.iommufd));
    this.user.enableDevice(vfio);
    return { rid, vfio, device };
  }

  newParent(device = this.a): number {
    return must(this.user.hwpt(this.iommufd, device.device, this.ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT }));
  }

  newViommu(parent: number, device = this.a): number {
    return must(this.user.viommu(this.iommufd, device.device, parent, S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3));
  }

  vdevice(guestStream: bigint, device = this.a, viommu = this.viommu): number {
    return must(this.user.vdevice(this.iommufd, viommu, device.device, guestStream));
  }

  /** A nested HWPT: its id, or a negated errno. */
  nested(ste0: bigint, ste1 = 0n, options: { device?: Assigned; viommu?: number; fault?: number } = {}): number {
    const { device = this.a, viommu = this.viommu, fault } = options;
    return this.user.hwpt(this.iommufd, device.device, viommu, {
      type: S.IOMMU_HWPT_DATA_ARM_SMMUV3,
      data: S.iommuHwptArmSmmuv3.encode({ ste0, ste1 }),
      ...(fault === undefined ? {} : { fault }),
    });
  }

  /** Attaches a nested HWPT with this entry; its id. */
  install(ste0: bigint, ste1 = 0n, options: { device?: Assigned; viommu?: number; fault?: number } = {}): number {
    const hwpt = must(this.nested(ste0, ste1, options));
    must(this.user.attach((options.device ?? this.a).vfio, hwpt));
    return hwpt;
  }

  /** Attaches an HWPT at a PASID: 0 or a negated errno. */
  attachPasid(pasid: number, hwpt: number, device = this.a): number {
    const values = { flags: X.VFIO_DEVICE_ATTACH_PASID, pt_id: hwpt, pasid };
    return this.user.call(device.vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, values).result;
  }

  /** A guest's stage 1 with a context descriptor for requests without PASID, and nothing mapped. */
  stage1(options: { asid?: number; stalls?: boolean } = {}) {
    const stage = new GuestStage1(this.ram);
    const contexts = new GuestContexts(this.ram);
    contexts.set(0, stage, { asid: ASID, ...options });
    return { stage, contexts, entry: contexts.streamEntry() };
  }

  /** Forwards commands: how many were done, and the result. */
  invalidate(commands: readonly (readonly [bigint, bigint])[], viommu = this.viommu) {
    return this.user.invalidate(this.iommufd, viommu, commands, S.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3);
  }

  command(commandName: CommandName, fields: Readonly<Record<string, bigint | number>> = {}) {
    return this.invalidate([encodeCommand(commandName, fields)]);
  }

  /** Begins to listen to a vIOMMU's events. */
  listen(viommu = this.viommu, depth = 64): number {
    const [, fd] = this.user.veventq(this.iommufd, viommu, depth, S.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3);
    this.#eventFiles.set(viommu, fd);
    return fd;
  }

  /** Events since the last call, as the guest gets them. Interrupts that are on their way are let through first. */
  events(viommu = this.viommu): EventRecord[] {
    this.host.run(10_000);
    const bytes = this.user.readAll(this.#eventFiles.get(viommu)!);
    const records: EventRecord[] = [];
    for (let at = 8; at + 32 <= bytes.length; at += 40) {
      records.push(decodeEvent([...new BigUint64Array(bytes.slice(at, at + 32).buffer)]));
    }
    return records;
  }

  /** GERROR and GERRORN. */
  globalErrors(smmu = 0): readonly [number, number] {
    const { registers } = this.host.iommus[smmu]!;
    return [registers.mmioRead(REG.GERROR, 4), registers.mmioRead(REG.GERRORN, 4)];
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
