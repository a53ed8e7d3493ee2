// A guest driver for tests of the guest-visible SMMUv3: the verbs a driver has, on an SMMU over 1 MiB of guest memory at 2 GiB. Brings the SMMU up as
// Linux does (arm_smmu_device_reset), with small queues.

import { type CommandName, encodeCommand } from "../../../../host/arch/smmuv3/commands.ts";
import { CD } from "../../../../host/arch/smmuv3/context-descriptor.ts";
import { decodeEvent, EVENT_RECORD, type EventRecord } from "../../../../host/arch/smmuv3/event-records.ts";
import { encodeIdentification, type SmmuFeatures } from "../../../../host/arch/smmuv3/identification.ts";
import {
  CR0_CMDQEN,
  CR0_EVENTQEN,
  CR0_SMMUEN,
  IRQ_EVENTQ,
  IRQ_GERROR,
  REG,
} from "../../../../host/arch/smmuv3/registers.ts";
import { STE } from "../../../../host/arch/smmuv3/stream-table-entry.ts";
import type { GpaPfn } from "../../../../host/base/address.ts";
import { Clock } from "../../../../host/base/clock.ts";
import { ACCESS_FAULT, ACCESS_OK, PhysicalMemory } from "../../../../host/base/memory.ts";
import { Trace } from "../../../../host/base/trace.ts";
import type { ViommuHost } from "../../../../vmm/viommu/host-port.ts";
import type { PluggedDevice } from "../../../../vmm/viommu/kind.ts";
import type { HardwareIdentification, Smmuv3Configuration } from "../../../../vmm/viommu/smmuv3/capabilities.ts";
import { Smmuv3Viommu } from "../../../../vmm/viommu/smmuv3/viommu.ts";
import { RecordingHost } from "../hosts.ts";

/** RAM: [RAM, RAM + 1 MiB). */
export const RAM = 0x8000_0000n;
const PAGES = 256;
/** A page that takes messages. */
export const MSI_PAGE = 0x2800_0000n;

export const PLACE = {
  streams: RAM,
  commands: RAM + 0x4000n,
  events: RAM + 0x8000n,
  contexts: RAM + 0x1_0000n,
  tables: RAM + 0x2_0000n,
  free: RAM + 0x4_0000n,
} as const;

/** log2 of the queues' entries, and of the linear stream table's. */
export const COMMANDS_LOG2 = 8;
export const EVENTS_LOG2 = 4;
const STREAMS_LOG2 = 6;

/** A well-equipped host, as the hardware model is by default. */
export const FULL_HOST: SmmuFeatures = {
  ...{ S2P: true, S1P: true, COHACC: true, BTM: true, HTTU: 2, Hyp: true, ATS: true, NS1ATS: false, ASID16: true },
  ...{ MSI: true, SEV: true, PRI: true, VMW: true, VMID16: true, CD2L: true, TTENDIAN: 2, ATSRECERR: true },
  ...{ STALL_MODEL: 0, TERM_MODEL: true, ST_LEVEL: 1, SIDSIZE: 24, SSIDSIZE: 20, PRIQS: 15, EVENTQS: 15, CMDQS: 15 },
  ...{ ATTR_PERMS_OVR: true, ATTR_TYPES_OVR: true, HAD: true, XNX: true, PPS: true, FWB: true, STT: true, RIL: true },
  ...{ BBML: 2, E0PD: true, PTWNNC: true, EPAN: true, OAS: 5, GRAN4K: true, GRAN16K: true, GRAN64K: true },
  ...{ STALL_MAX: 16, ArchRev: 3 },
};

export interface GuestOptions {
  readonly host?: ViommuHost | null;
  readonly features?: Partial<SmmuFeatures>;
  readonly configuration?: Smmuv3Configuration;
  readonly stalls?: boolean;
  /** What the host's hardware reports, instead of `features`. */
  readonly hardware?: HardwareIdentification | null;
  /** Parts shared with a host model; by default the guest has its own. */
  readonly clock?: Clock;
  readonly trace?: Trace;
}

type StreamFields = Partial<Record<keyof typeof STE.fields, bigint | number>>;
type ContextFields = Partial<Record<keyof typeof CD.fields, bigint | number>>;

/** A command by name, with its fields. */
export type GuestCommand = readonly [CommandName, Readonly<Record<string, bigint | number>>?];

export class Guest {
  readonly memory = new PhysicalMemory<GpaPfn>();
  /** RAM, to be mapped into a host's IOAS. */
  readonly buffer = new ArrayBuffer(PAGES * 4096);
  readonly clock: Clock;
  readonly trace: Trace;
  readonly host: RecordingHost;
  readonly smmu: Smmuv3Viommu;
  /** Messages that reached MSI_PAGE: [offset, data]. */
  readonly messages: [number, number][] = [];
  readonly wires = new Map<number, boolean>();
  readonly wireChanges: [number, boolean][] = [];
  readonly reports: string[] = [];
  #prod = 0;

  constructor(options: GuestOptions = {}) {
    this.clock = options.clock ?? new Clock();
    this.trace = options.trace ?? new Trace(this.clock);
    this.memory.addBank(Number(RAM >> 12n) as GpaPfn, this.buffer);
    this.memory.addStoreTarget(Number(MSI_PAGE >> 12n) as GpaPfn, {
      store32: (offset, value) => this.messages.push([offset, value]),
    });
    this.host = options.host instanceof RecordingHost ? options.host : new RecordingHost();
    const host = options.host === undefined ? this.host : options.host;
    const described = encodeIdentification({ ...FULL_HOST, ...options.features });
    this.smmu = new Smmuv3Viommu({
      name: "viommu0",
      memory: this.memory,
      host,
      hardware: options.hardware !== undefined ? options.hardware : host === null ? null : described,
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
      ...(options.stalls === undefined ? {} : { stalls: options.stalls }),
      report: (message) => this.reports.push(message),
    });
  }

  get viommu(): Smmuv3Viommu {
    return this.smmu;
  }

  // Memory.

  store64(address: bigint, value: bigint): void {
    const status = this.memory.store64(
      Number(address >> 12n) as GpaPfn,
      Number(address & 0xfffn),
      Number(value & 0xffff_ffffn),
      Number((value >> 32n) & 0xffff_ffffn),
    );
    if (status !== ACCESS_OK) throw new Error(`no memory at 0x${address.toString(16)}`);
  }

  load64(address: bigint): bigint {
    if (this.memory.load64(Number(address >> 12n) as GpaPfn, Number(address & 0xfffn)) !== ACCESS_OK) {
      throw new Error(`no memory at 0x${address.toString(16)}`);
    }
    return (BigInt(this.memory.hi) << 32n) | BigInt(this.memory.lo);
  }

  // Registers.

  read32(offset: number): number {
    return this.smmu.mmioRead(offset, 4);
  }

  read64(offset: number): bigint {
    const low = this.smmu.mmioRead(offset, 8);
    return (BigInt(this.smmu.high) << 32n) | BigInt(low >>> 0);
  }

  write32(offset: number, value: number): void {
    this.smmu.mmioWrite(offset, 4, value >>> 0, 0);
  }

  write64(offset: number, value: bigint): void {
    this.smmu.mmioWrite(offset, 8, Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn));
  }

  /** Linux's order. */
  bringUp(options: { readonly enable?: boolean; readonly messages?: boolean } = {}): void {
    this.write32(REG.CR0, 0);
    this.write32(REG.CR2, 2);
    this.write64(REG.STRTAB_BASE, PLACE.streams | (1n << 62n));
    this.write32(REG.STRTAB_BASE_CFG, STREAMS_LOG2);
    this.write64(REG.CMDQ_BASE, PLACE.commands | BigInt(COMMANDS_LOG2));
    this.write32(REG.CMDQ_PROD, 0);
    this.write32(REG.CMDQ_CONS, 0);
    this.#prod = 0;
    this.write32(REG.CR0, CR0_CMDQEN);
    this.write64(REG.EVENTQ_BASE, PLACE.events | BigInt(EVENTS_LOG2));
    this.write32(REG.EVENTQ_PROD, 0);
    this.write32(REG.EVENTQ_CONS, 0);
    this.write32(REG.CR0, CR0_CMDQEN | CR0_EVENTQEN);
    if (options.messages === true) {
      this.write64(REG.EVENTQ_IRQ_CFG0, MSI_PAGE);
      this.write32(REG.EVENTQ_IRQ_CFG1, 1);
      this.write64(REG.GERROR_IRQ_CFG0, MSI_PAGE + 4n);
      this.write32(REG.GERROR_IRQ_CFG1, 2);
    }
    this.write32(REG.IRQ_CTRL, IRQ_EVENTQ | IRQ_GERROR);
    if (options.enable !== false) this.write32(REG.CR0, CR0_CMDQEN | CR0_EVENTQEN | CR0_SMMUEN);
  }

  // Structures.

  writeStream(sid: number, fields: StreamFields, at = PLACE.streams + BigInt(sid * 64)): void {
    const words = new Array<bigint>(8).fill(0n);
    for (const [name, value] of Object.entries(fields)) STE.set(words, name as keyof typeof STE.fields, BigInt(value));
    for (const [i, word] of words.entries()) this.store64(at + BigInt(8 * i), word);
  }

  /** A legal entry with stage 1 and one context descriptor at `context`. */
  writeStage1Stream(sid: number, context = PLACE.contexts, fields: StreamFields = {}): void {
    this.writeStream(sid, { V: 1, Config: 5, S1ContextPtr: context >> 6n, ...fields });
  }

  writeContext(at: bigint, fields: ContextFields): void {
    const words = new Array<bigint>(8).fill(0n);
    for (const [name, value] of Object.entries(fields)) CD.set(words, name as keyof typeof CD.fields, BigInt(value));
    for (const [i, word] of words.entries()) this.store64(at + BigInt(8 * i), word);
  }

  // Commands.

  /** Puts commands into the queue, without telling the SMMU. */
  queue(...commands: readonly GuestCommand[]): void {
    this.queueWords(...commands.map(([name, fields]) => encodeCommand(name, fields)));
  }

  queueWords(...commands: readonly (readonly [bigint, bigint])[]): void {
    for (const [word0, word1] of commands) {
      const at = PLACE.commands + BigInt((this.#prod & (2 ** COMMANDS_LOG2 - 1)) * 16);
      this.store64(at, word0);
      this.store64(at + 8n, word1);
      this.#prod = (this.#prod + 1) & (2 ** (COMMANDS_LOG2 + 1) - 1);
    }
  }

  /** The SMMU was taken back from a document: the queue is where its registers say. */
  takeOver(): void {
    this.#prod = this.read32(REG.CMDQ_PROD);
  }

  ring(): void {
    this.write32(REG.CMDQ_PROD, this.#prod);
  }

  /** Commands and a CMD_SYNC behind them. */
  run(...commands: readonly GuestCommand[]): void {
    this.queue(...commands, ["SYNC"]);
    this.ring();
  }

  get prod(): number {
    return this.#prod;
  }

  /** CMDQ_CONS's index with its wrap bit. */
  get cons(): number {
    return this.read32(REG.CMDQ_CONS) & 0xfffff;
  }

  /** CMDQ_CONS.ERR if CMDQ_ERR is active, else 0. */
  get commandError(): number {
    const active = (this.read32(REG.GERROR) ^ this.read32(REG.GERRORN)) & 1;
    return active === 0 ? 0 : (this.read32(REG.CMDQ_CONS) >>> 24) & 0x7f;
  }

  /** As Linux does: GERRORN takes the value of GERROR. */
  acknowledgeErrors(): void {
    this.write32(REG.GERRORN, this.read32(REG.GERROR));
  }

  // Events.

  /** Takes the records out of the event queue. */
  takeEvents(): EventRecord[] {
    return this.takeRecords().map(decodeEvent);
  }

  /** The same, as four doublewords each. */
  takeRecords(): bigint[][] {
    const mask = 2 ** (EVENTS_LOG2 + 1) - 1;
    const taken: bigint[][] = [];
    let cons = this.read32(REG.EVENTQ_CONS);
    while (((this.read32(REG.EVENTQ_PROD) ^ cons) & mask) !== 0) {
      const at = PLACE.events + BigInt((cons & (mask >>> 1)) * 32);
      taken.push([0n, 8n, 16n, 24n].map((offset) => this.load64(at + offset)));
      cons = ((cons & 0x80000000) | ((cons + 1) & mask)) >>> 0;
      this.write32(REG.EVENTQ_CONS, cons);
    }
    return taken;
  }

  /** True if EVENTQ_PROD.OVFLG and EVENTQ_CONS.OVACKFLG differ. */
  get eventsLost(): boolean {
    return ((this.read32(REG.EVENTQ_PROD) ^ this.read32(REG.EVENTQ_CONS)) & 0x80000000) !== 0;
  }

  /** The host relays an event record. */
  hostEvent(fields: Partial<Record<keyof typeof EVENT_RECORD.fields, bigint | number>>): void {
    const words = [0n, 0n, 0n, 0n];
    for (const [name, value] of Object.entries(fields))
      EVENT_RECORD.set(words, name as keyof typeof EVENT_RECORD.fields, BigInt(value));
    const record = new Uint8Array(32);
    const view = new DataView(record.buffer);
    for (const [i, word] of words.entries()) view.setBigUint64(8 * i, word, true);
    this.host.deliver({ kind: "fault", record });
    this.smmu.service();
  }

  /** The machine's loop around a trap. */
  settle(): void {
    if (this.smmu.flagged) this.smmu.service();
  }

  // Devices.

  plug(guestId: number, fields: Partial<PluggedDevice> = {}): number {
    const name = `00:${(guestId >> 3).toString(16).padStart(2, "0")}.${guestId & 7}`;
    return this.smmu.plug({ handle: 100 + guestId, guestId, name, ats: false, pri: false, emulated: false, ...fields });
  }
}
