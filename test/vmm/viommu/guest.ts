// A guest driver for tests: the verbs a driver of the RISC-V IOMMU has, on a vIOMMU over 1 MiB of guest memory at 2 GiB.

import { encodeCapabilities, type RiscvCapabilities } from "../../../host/arch/riscv/capabilities.ts";
import { type CommandName, encodeCommand } from "../../../host/arch/riscv/commands.ts";
import { decodeFaultRecord, encodeFaultRecord, type FaultRecord } from "../../../host/arch/riscv/fault-records.ts";
import { DDTP_1LVL, DDTP_2LVL, DDTP_3LVL, REG } from "../../../host/arch/riscv/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { Clock } from "../../../host/base/clock.ts";
import { ACCESS_FAULT, ACCESS_OK, PhysicalMemory } from "../../../host/base/memory.ts";
import { Trace } from "../../../host/base/trace.ts";
import type { ViommuHost } from "../../../vmm/viommu/host-port.ts";
import type { PluggedDevice } from "../../../vmm/viommu/kind.ts";
import type { HardwareCapabilities, RiscvConfiguration } from "../../../vmm/viommu/riscv/capabilities.ts";
import { RiscvViommu } from "../../../vmm/viommu/riscv/viommu.ts";
import { RecordingHost } from "./hosts.ts";

/** RAM: [RAM, RAM + 1 MiB). */
export const RAM = 0x8000_0000n;
const PAGES = 256;

/** Where the test driver keeps its structures. */
export const PLACE = {
  root: RAM,
  middle: RAM + 0x1000n,
  leaf: RAM + 0x2000n,
  commands: RAM + 0x4000n,
  faults: RAM + 0x8000n,
  pages: RAM + 0xc000n,
  tables: RAM + 0x1_0000n,
  free: RAM + 0x2_0000n,
} as const;

/** A page that takes messages. */
export const MSI_PAGE = 0x2800_0000n;

export const TC = { V: 1n, EN_ATS: 2n, EN_PRI: 4n, DTF: 16n, PDTV: 32n, PRPR: 64n, GADE: 128n, SADE: 256n, DPE: 512n };
export const SV39 = 8n << 60n;

/** A well-equipped host: everything the model can do. */
export const FULL_HOST: RiscvCapabilities = {
  version: 0x10,
  Sv32: true,
  Sv39: true,
  Sv48: true,
  Sv57: true,
  Svrsw60t59b: true,
  Svpbmt: true,
  Sv32x4: true,
  Sv39x4: true,
  Sv48x4: true,
  Sv57x4: true,
  AMO_MRIF: true,
  MSI_FLAT: true,
  MSI_MRIF: true,
  AMO_HWAD: true,
  ATS: true,
  T2GPA: true,
  END: true,
  IGS: 2,
  HPM: true,
  DBG: true,
  PAS: 56,
  PD8: true,
  PD17: true,
  PD20: true,
  QOSID: true,
  NL: true,
  S: true,
  custom: 0,
};

export interface GuestOptions {
  readonly host?: ViommuHost | null;
  readonly capabilities?: Partial<RiscvCapabilities>;
  readonly configuration?: RiscvConfiguration;
  /** Parts shared with a host model; by default the guest has its own. */
  readonly clock?: Clock;
  readonly trace?: Trace;
  /** What the host's hardware reports, instead of `capabilities`. */
  readonly hardware?: HardwareCapabilities;
  readonly name?: string;
  /** A guest on another vIOMMU of the same VM shares its memory. */
  readonly memoryOf?: Guest;
  /** Shifts PLACE for this driver's structures, so that two can live in one memory. */
  readonly at?: bigint;
}

export class Guest {
  readonly memory: PhysicalMemory<GpaPfn>;
  /** RAM, to be mapped into a host's IOAS. */
  readonly buffer: ArrayBuffer;
  readonly clock: Clock;
  readonly trace: Trace;
  readonly host: RecordingHost;
  readonly viommu: RiscvViommu;
  /** Messages that reached MSI_PAGE: [offset, data]. */
  readonly messages: [number, number][] = [];
  /** Level of each wire, and every change of one. */
  readonly wires = new Map<number, boolean>();
  readonly wireChanges: [number, boolean][] = [];
  readonly reports: string[] = [];
  readonly #at: bigint;
  #commandTail = 0;

  constructor(options: GuestOptions = {}) {
    this.clock = options.clock ?? new Clock();
    this.trace = options.trace ?? new Trace(this.clock);
    this.memory = options.memoryOf?.memory ?? new PhysicalMemory<GpaPfn>();
    this.buffer = options.memoryOf?.buffer ?? new ArrayBuffer(PAGES * 4096);
    this.#at = options.at ?? 0n;
    if (options.memoryOf === undefined) {
      this.memory.addBank(Number(RAM >> 12n) as GpaPfn, this.buffer);
      this.memory.addStoreTarget(Number(MSI_PAGE >> 12n) as GpaPfn, {
        store32: (offset, value) => this.messages.push([offset, value]),
      });
    }
    this.host = options.host instanceof RecordingHost ? options.host : new RecordingHost();
    const host = options.host === undefined ? this.host : options.host;
    const capabilities = encodeCapabilities({ ...FULL_HOST, ...options.capabilities });
    this.viommu = new RiscvViommu({
      name: options.name ?? "viommu0",
      memory: this.memory,
      host,
      hardware: options.hardware ?? (host === null ? null : { capabilities, fctl: 0 }),
      interrupt: {
        wire: (vector, asserted) => {
          this.wires.set(vector, asserted);
          this.wireChanges.push([vector, asserted]);
        },
        message: (pfn, offset, data) => {
          if (pfn !== Number(MSI_PAGE >> 12n)) return ACCESS_FAULT;
          this.messages.push([offset, data]);
          return ACCESS_OK;
        },
      },
      clock: this.clock,
      trace: this.trace,
      ...(options.configuration === undefined ? {} : { configuration: options.configuration }),
      report: (message) => this.reports.push(message),
    });
  }

  // Registers.

  read32(offset: number): number {
    return this.viommu.mmioRead(offset, 4);
  }

  read64(offset: number): bigint {
    const low = this.viommu.mmioRead(offset, 8);
    return (BigInt(this.viommu.high) << 32n) | BigInt(low);
  }

  write32(offset: number, value: number): void {
    this.viommu.mmioWrite(offset, 4, value >>> 0, 0);
  }

  write64(offset: number, value: bigint): void {
    this.viommu.mmioWrite(offset, 8, Number(value & 0xffff_ffffn), Number(value >> 32n));
  }

  // Memory.

  store64(address: bigint, value: bigint): void {
    this.memory.store64(
      Number(address >> 12n) as GpaPfn,
      Number(address & 0xfffn),
      Number(value & 0xffff_ffffn),
      Number((value >> 32n) & 0xffff_ffffn),
    );
  }

  load64(address: bigint): bigint {
    this.memory.load64(Number(address >> 12n) as GpaPfn, Number(address & 0xfffn));
    return (BigInt(this.memory.hi) << 32n) | BigInt(this.memory.lo);
  }

  load32(address: bigint): number {
    this.memory.load32(Number(address >> 12n) as GpaPfn, Number(address & 0xfffn));
    return this.memory.lo;
  }

  /** PLACE, shifted for this driver. */
  get place(): Record<keyof typeof PLACE, bigint> {
    return Object.fromEntries(Object.entries(PLACE).map(([name, at]) => [name, at + this.#at])) as Record<
      keyof typeof PLACE,
      bigint
    >;
  }

  // What a driver does.

  /** Queues of 64 commands, `faults` fault records and 16 page requests, on, with interrupts enabled unless `quiet`. */
  enableQueues(options: { quiet?: boolean; faultsLog2?: number; pageRequests?: boolean } = {}): void {
    const enable = options.quiet === true ? 1 : 3;
    for (let vector = 0; vector < 4; vector++) {
      this.write64(REG.msi_cfg_tbl + 16 * vector, MSI_PAGE);
      this.write32(REG.msi_cfg_tbl + 16 * vector + 8, 0x100 + vector);
    }
    this.write64(REG.cqb, ((this.place.commands >> 12n) << 10n) | 5n);
    this.write32(REG.cqt, 0);
    this.write32(REG.cqcsr, enable);
    this.write64(REG.fqb, ((this.place.faults >> 12n) << 10n) | BigInt((options.faultsLog2 ?? 4) - 1));
    this.write32(REG.fqh, 0);
    this.write32(REG.fqcsr, enable);
    if (options.pageRequests === true) {
      this.write64(REG.pqb, ((this.place.pages >> 12n) << 10n) | 3n);
      this.write32(REG.pqh, 0);
      this.write32(REG.pqcsr, enable);
    }
    this.#commandTail = 0;
  }

  /** ddtp with the directory at this.place.root; the tables between it and the leaf at this.place.leaf are made. */
  enableDirectory(levels: 1 | 2 | 3 = 3): void {
    const entry = (address: bigint) => ((address >> 12n) << 10n) | 1n;
    if (levels === 3) {
      this.store64(this.place.root, entry(this.place.middle));
      this.store64(this.place.middle, entry(this.place.leaf));
    } else if (levels === 2) {
      this.store64(this.place.root, entry(this.place.leaf));
    }
    const mode = { 1: DDTP_1LVL, 2: DDTP_2LVL, 3: DDTP_3LVL }[levels];
    const root = levels === 1 ? this.place.leaf : this.place.root;
    this.write64(REG.ddtp, ((root >> 12n) << 10n) | BigInt(mode));
  }

  /** Stores a device context (ids below 128) and leaves the caches alone. */
  storeContext(deviceId: number, words: { tc?: bigint; iohgatp?: bigint; ta?: bigint; fsc?: bigint }): void {
    const at = this.place.leaf + BigInt(deviceId * 32);
    this.store64(at + 8n, words.iohgatp ?? 0n);
    this.store64(at + 16n, words.ta ?? 0n);
    this.store64(at + 24n, words.fsc ?? 0n);
    this.store64(at, words.tc ?? 0n);
  }

  /** Stores a context and has the IOMMU read it. */
  installContext(deviceId: number, words: { tc?: bigint; iohgatp?: bigint; ta?: bigint; fsc?: bigint }): void {
    this.storeContext(deviceId, words);
    this.run(["IODIR.INVAL_DDT", { DV: 1, DID: deviceId }], ["IOFENCE.C", {}]);
  }

  /** Stores commands without telling the IOMMU. */
  writeCommands(...commands: readonly (readonly [CommandName, Record<string, bigint | number>])[]): void {
    for (const [name, fields] of commands) this.writeRaw(encodeCommand(name, fields));
  }

  writeRaw([word0, word1]: readonly [bigint, bigint]): void {
    const at = this.place.commands + BigInt(16 * this.#commandTail);
    this.store64(at, word0);
    this.store64(at + 8n, word1);
    this.#commandTail = (this.#commandTail + 1) % 64;
  }

  ringDoorbell(): void {
    this.write32(REG.cqt, this.#commandTail);
  }

  /** Stores commands and rings. */
  run(...commands: readonly (readonly [CommandName, Record<string, bigint | number>])[]): void {
    this.writeCommands(...commands);
    this.ringDoorbell();
  }

  get cqh(): number {
    return this.read32(REG.cqh);
  }

  /** Takes the records the fault queue holds. */
  takeFaults(): FaultRecord[] {
    const mask = 2 ** (Number(this.read64(REG.fqb) & 31n) + 1) - 1;
    const records: FaultRecord[] = [];
    for (let head = this.read32(REG.fqh); head !== this.read32(REG.fqt); head = (head + 1) & mask) {
      const at = this.place.faults + BigInt(32 * head);
      records.push(decodeFaultRecord([0n, 8n, 16n, 24n].map((word) => this.load64(at + word))));
      this.write32(REG.fqh, (head + 1) & mask);
    }
    return records;
  }

  plug(guestId: number, more: Partial<PluggedDevice> = {}): number {
    return this.viommu.plug({
      handle: guestId,
      guestId,
      name: `device ${guestId}`,
      ats: false,
      pri: false,
      emulated: false,
      ...more,
    });
  }

  /** A fault record arrives from the host, and the machine's loop hands it over. */
  hostFault(record: Partial<FaultRecord>): void {
    const words = encodeFaultRecord({
      cause: 13,
      deviceId: 0,
      processId: -1,
      privileged: false,
      ttyp: 2,
      iotval: 0n,
      iotval2: 0n,
      ...record,
    });
    const bytes = new Uint8Array(32);
    words.forEach((word, i) => {
      new DataView(bytes.buffer).setBigUint64(8 * i, word, true);
    });
    this.host.deliver({ kind: "fault", record: bytes });
    this.settle();
  }

  settle(): void {
    if (this.viommu.flagged) this.viommu.service();
  }
}
