// A virtual machine on a modelled host with one VT-d unit (../hosted-vm.ts), and its guest: 1 MiB of RAM, a guest-visible unit, and what a driver has to say
// to that. Offsets and bit positions are the specification's (VT-d §11.4), written out.

import type { VtdFeatures } from "../../../../host/arch/vtd/capabilities.ts";
import type { GpaPfn } from "../../../../host/base/address.ts";
import { ACCESS_FAULT, ACCESS_OK, PhysicalMemory } from "../../../../host/base/memory.ts";
import type { EduOptions } from "../../../../host/devices/edu/edu.ts";
import { VtdUnit } from "../../../../host/hw/iommu/vtd/unit.ts";
import { iommuHwInfoVtd } from "../../../../host/uapi/vtd-nesting.ts";
import type { IommufdHost } from "../../../../vmm/vfio/iommufd-host.ts";
import { VTD_NESTING } from "../../../../vmm/viommu/vtd/nested-codec.ts";
import { VtdViommu } from "../../../../vmm/viommu/vtd/viommu.ts";
import { type Machine, machine } from "../../../host/kernel/machine.ts";
import { HostedVm } from "../hosted-vm.ts";

export const RAM = 0x8000_0000n;
export const RAM_BYTES = 0x10_0000n;
/** Host frame of its interrupt files. */
export const DOORBELLS = 0xfee00;

export const PLACE = {
  root: RAM,
  contexts: RAM + 0x1000n,
  directory: RAM + 0x2000n,
  pasids: RAM + 0x3000n,
  queue: RAM + 0x4000n,
  status: RAM + 0x6000n,
  requests: RAM + 0x7000n,
  interrupts: RAM + 0x8000n,
  tables: RAM + 0x2_0000n,
  free: RAM + 0x4_0000n,
} as const;

export const REG = {
  ...{ CAP: 0x08, ECAP: 0x10, GCMD: 0x18, GSTS: 0x1c, RTADDR: 0x20, CCMD: 0x28, FSTS: 0x34, FECTL: 0x38, FEDATA: 0x3c },
  ...{ FEADDR: 0x40, IQH: 0x80, IQT: 0x88, IQA: 0x90, ICS: 0x9c, IECTL: 0xa0, IEDATA: 0xa4, IEADDR: 0xa8, IRTA: 0xb8 },
  ...{ PQH: 0xc0, PQT: 0xc8, PQA: 0xd0, PRS: 0xdc, PECTL: 0xe0, PEDATA: 0xe4, PEADDR: 0xe8 },
} as const;
export const TE = 0x8000_0000;
export const SRTP = 1 << 30;
export const QIE = 1 << 26;
export const IRE = 1 << 25;
export const SIRTP = 1 << 24;
/** GSTS without its one-shot bits. */
const LEVELS = 0x96ff_ffff;
const MSI_PAGE = 0x2_8000;

export class VtdGuest {
  readonly memory = new PhysicalMemory<GpaPfn>();
  /** RAM, to be mapped into a host's IOAS. */
  readonly buffer = new ArrayBuffer(Number(RAM_BYTES));
  readonly viommu: VtdViommu;
  /** As SRTP latched it: no register says. */
  latchedRoot = 0n;

  constructor(host: IommufdHost, { clock, trace }: Machine, info: Uint8Array) {
    this.memory.addBank(Number(RAM >> 12n) as GpaPfn, this.buffer);
    const { cap_reg: cap, ecap_reg: ecap } = iommuHwInfoVtd.decode(info);
    this.viommu = new VtdViommu({
      ...{ name: "viommu0", memory: this.memory, host, hardware: { cap, ecap }, clock, trace },
      interrupt: {
        wire: () => {},
        message: (pfn) => (pfn === MSI_PAGE ? ACCESS_OK : ACCESS_FAULT),
        receiver: (number) => (number === 0 ? ACCESS_OK : ACCESS_FAULT),
      },
    });
    this.#watchRoot();
  }

  /** SRTP latches, whoever writes it. */
  #watchRoot(): void {
    const { viommu } = this;
    const write = viommu.mmioWrite.bind(viommu);
    viommu.mmioWrite = (offset, size, lo, hi) => {
      const latches = offset === REG.GCMD && size >= 4 && (lo & SRTP) !== 0;
      if (latches) this.latchedRoot = this.read64(REG.RTADDR);
      write(offset, size, lo, hi);
    };
    const reset = viommu.reset.bind(viommu);
    viommu.reset = () => {
      this.latchedRoot = 0n;
      reset();
    };
  }

  settle(): void {
    if (this.viommu.flagged) this.viommu.service();
  }

  store64(address: bigint, value: bigint): void {
    const [lo, hi] = [Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn)];
    this.memory.store64(Number(address >> 12n) as GpaPfn, Number(address & 0xfffn), lo, hi);
  }

  load64(address: bigint): bigint {
    if (this.memory.load64(Number(address >> 12n) as GpaPfn, Number(address & 0xfffn)) !== ACCESS_OK) return 0n;
    return (BigInt(this.memory.hi >>> 0) << 32n) | BigInt(this.memory.lo >>> 0);
  }

  read32(offset: number): number {
    return this.viommu.mmioRead(offset, 4) >>> 0;
  }

  read64(offset: number): bigint {
    const low = this.viommu.mmioRead(offset, 8);
    return (BigInt(this.viommu.high >>> 0) << 32n) | BigInt(low >>> 0);
  }

  write32(offset: number, value: number): void {
    this.viommu.mmioWrite(offset, 4, value >>> 0, 0);
  }

  write64(offset: number, value: bigint): void {
    this.viommu.mmioWrite(offset, 8, Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn));
  }

  /** One bit of GCMD beside what is on, or without it. */
  command(bit: number, on = true): void {
    const levels = this.read32(REG.GSTS) & LEVELS;
    this.write32(REG.GCMD, (on ? levels | bit : levels & ~bit) >>> 0);
  }

  /** A queue of 256 descriptors, empty. True if the old one could be switched off. */
  freshQueue(): boolean {
    this.write64(REG.IQT, BigInt(this.read32(REG.IQH)));
    this.write32(REG.FSTS, 0x70);
    this.command(QIE, false);
    if ((this.read32(REG.GSTS) & QIE) !== 0) return false;
    this.write64(REG.IQA, PLACE.queue | 0x801n);
    this.write64(REG.IQT, 0n);
    this.command(QIE);
    return true;
  }

  /** Stores a descriptor where the guest's own registers say, and rings. */
  push(first: bigint, second: bigint): void {
    const iqa = this.read64(REG.IQA);
    const [step, size] = [(iqa & 0x800n) === 0n ? 16 : 32, 4096 << Number(iqa & 7n)];
    const tail = this.read32(REG.IQT) % size;
    const at = (iqa & ~0xfffn) + BigInt(tail - (tail % step));
    for (const [i, value] of [first, second, 0n, 0n].slice(0, step / 8).entries())
      this.store64(at + BigInt(8 * i), value);
    this.write64(REG.IQT, BigInt((tail - (tail % step) + step) % size));
  }

  /** Takes the fault records that wait, and the overflow. */
  takeRecords(): [bigint, bigint][] {
    const cap = this.read64(REG.CAP);
    const [first, count] = [Number((cap >> 24n) & 0x3ffn) * 16, Number((cap >> 40n) & 0xffn) + 1];
    const records: [bigint, bigint][] = [];
    let index = (this.read32(REG.FSTS) >>> 8) & 0xff;
    for (let i = 0; i < count; i++, index = (index + 1) % count) {
      const at = first + 16 * index;
      const record: [bigint, bigint] = [this.read64(at), this.read64(at + 8)];
      // Cleared out of turn, one may stand between others.
      if (record[1] >> 63n === 0n) continue;
      records.push(record);
      this.write32(at + 12, 0x8000_0000);
    }
    this.write32(REG.FSTS, 1);
    return records;
  }
}

export interface VtdVmOptions {
  readonly features: Partial<VtdFeatures>;
  readonly devices: readonly { readonly rid: number; readonly options: EduOptions }[];
}

export class VtdVm extends HostedVm<VtdGuest> {
  readonly unit: VtdUnit;

  constructor({ features, devices }: VtdVmOptions) {
    let unit: VtdUnit | null = null;
    const make = (parts: ConstructorParameters<typeof VtdUnit>[0]) => {
      unit = new VtdUnit(parts, { features, atsTimeoutNs: 20_000 });
      return unit;
    };
    const host = machine({ hardware: { make: [make], doorbells: DOORBELLS }, devices, ramPages: 2048 });
    super(host, VTD_NESTING, RAM);
    this.unit = unit!;
  }

  protected override makeGuest(info: Uint8Array): VtdGuest {
    return new VtdGuest(this.host, this.machine, info);
  }
}
