// The guest's SMMUv3 driver, as a scenario plays it: brings the SMMU up as Linux does (each step by traps, so that every access costs what a guest's
// would), keeps stream table, context descriptors and queues in guest RAM (IHI 0070 §3.5, §4, §5, §6.3, §7).
//
// Stalled transactions arrive in the event queue and are answered by CMD_RESUME; page requests of PCIe arrive in their own queue, where the SMMU has one,
// and are answered by CMD_PRI_RESP. `takeRequests` gives both, `takeFaults` what else the event queue holds.

import {
  ATC_SIZE_ALL,
  type CommandName,
  CS_SEV,
  describeCommand,
  encodeCommand,
  RANGE_ALL,
  RESP_FAILURE,
  RESP_INVALID,
  RESP_SUCCESS,
} from "../../../../host/arch/smmuv3/commands.ts";
import { decodeIdentification, type SmmuFeatures } from "../../../../host/arch/smmuv3/identification.ts";
import {
  CMDQ_CONS,
  CR0_ATSCHK,
  CR0_CMDQEN,
  CR0_EVENTQEN,
  CR0_PRIQEN,
  CR0_SMMUEN,
  CR2_PTM,
  CR2_RECINVSID,
  GBPA_ABORT,
  GBPA_UPDATE,
  IRQ_EVENTQ,
  IRQ_GERROR,
  IRQ_PRIQ,
  REG,
} from "../../../../host/arch/smmuv3/registers.ts";
import { S1DSS_BYPASS, S1DSS_SSID0 } from "../../../../host/arch/smmuv3/stream-table-entry.ts";
import type { VcpuPort } from "../../../vcpu/port.ts";
import type {
  DeviceTranslation,
  DriverSurroundings,
  GuestDriver,
  GuestMemory,
  InvalidationScope,
  PageAnswer,
  PageRequest,
  TranslationOffer,
} from "../../guest-driver.ts";
import { GuestCommandQueues, isForOwnQueue } from "./command-queues.ts";
import {
  CONTEXT_FORMATS,
  type ContextFormat,
  ContextTable,
  type DescriptorFields,
  descriptorOf,
} from "./context-table.ts";
import { decodePageRequest, type GuestEvent, guestEvent, type ReceivedPageRequest } from "./received-records.ts";
import { Stage1 } from "./stage1.ts";
import { type StreamFields, StreamTable } from "./stream-table.ts";

/** One page of commands, one of page requests, two of events. */
const COMMANDS_LOG2 = 8;
const EVENTS_LOG2 = 8;
const REQUESTS_LOG2 = 8;
const RA_WA = 1n << 62n;
/** Reads of a register before a wait is given up; each costs a trap's time. */
const PATIENCE = 1000;
/** All queues and tables inner shareable, write-back. */
const CR1_WRITE_BACK = 0xd75;
/** Device-nGnRE, as Linux has messages stored. */
const MESSAGE_ATTRIBUTES = 1;
/** Shape of the streams' contexts where nothing else is asked: a linear table that fits a page. */
const LINEAR_CD_MAX = 6;
const ANSWERS: Readonly<Record<PageAnswer, number>> = {
  success: RESP_SUCCESS,
  invalid: RESP_INVALID,
  failure: RESP_FAILURE,
};

/** What only this kind's translations have. */
export interface TranslationExtra {
  /** Further fields of the stream table entry, and of the descriptors of its first stages. */
  readonly stream?: StreamFields;
  readonly descriptor?: DescriptorFields;
  /** How context descriptors are laid out. Default: one, or with PASIDs a linear table of 64, or two levels of 64 KiB where 64 are too few. */
  readonly contexts?: { readonly format: ContextFormat; readonly cdMax: number };
}

/** Not state: a scenario plays the guest, and what it knows is its own. */
export class GuestSmmu implements GuestDriver {
  /** IDR0 to IDR5 and AIDR as the guest reads them. */
  readonly features: SmmuFeatures;
  readonly streams: StreamTable;
  /** Its CMDQV's queue, where firmware describes one. */
  readonly ownQueues: GuestCommandQueues | null;
  readonly #port: VcpuPort;
  readonly #ram: GuestMemory;
  readonly #base: number;
  readonly #commandQueue: bigint;
  readonly #eventQueue: bigint;
  readonly #requestQueue: bigint;
  readonly #contextTables = new Map<number, ContextTable>();
  readonly #faults: GuestEvent[] = [];
  readonly #stalls: GuestEvent[] = [];
  #cr0 = 0;
  #prod = 0;

  /** Finds the SMMU at guest-physical `base` and brings it up. Throws for one that Linux's driver would not take, or that does not answer. */
  constructor({ port, ram, base, messageAddress, firstMessage, hardwareQueues = false }: DriverSurroundings) {
    this.#port = port;
    this.#ram = ram;
    this.#base = base;
    const identification = (register: number): bigint => BigInt(this.read32(register) >>> 0);
    this.features = decodeIdentification({
      ...{ IDR0: identification(REG.IDR0), IDR1: identification(REG.IDR1), IDR3: identification(REG.IDR3) },
      ...{ IDR5: identification(REG.IDR5), AIDR: identification(REG.AIDR) },
    });
    checkProbe(this.features);
    const { SIDSIZE, ST_LEVEL } = this.features;
    this.streams = new StreamTable(ram, Math.min(SIDSIZE, 25), ST_LEVEL !== 0 && SIDSIZE > 8);
    this.#commandQueue = ram.allocate(1);
    this.#eventQueue = ram.allocate(2, 8192n);
    this.#requestQueue = ram.allocate(1);
    this.#reset(BigInt(messageAddress), firstMessage);
    this.ownQueues = hardwareQueues ? new GuestCommandQueues(port, ram, base) : null;
  }

  /** Linux's order (§6.3): each step waits until the acknowledge register says exactly what was written. */
  #reset(messageAddress: bigint, firstMessage: number): void {
    const { ATS, MSI, PRI } = this.features;
    if ((this.read32(REG.CR0) & CR0_SMMUEN) !== 0) this.#setGbpa(GBPA_ABORT);
    this.#enable(0);
    this.write32(REG.CR1, CR1_WRITE_BACK);
    this.write32(REG.CR2, CR2_PTM | CR2_RECINVSID);
    this.write64(REG.STRTAB_BASE, this.streams.base | RA_WA);
    this.write32(REG.STRTAB_BASE_CFG, this.streams.configuration);
    this.write64(REG.CMDQ_BASE, this.#commandQueue | RA_WA | BigInt(COMMANDS_LOG2));
    this.write32(REG.CMDQ_PROD, 0);
    this.write32(REG.CMDQ_CONS, 0);
    this.#enable(CR0_CMDQEN);
    this.command("CFGI_STE_RANGE", { Range: RANGE_ALL });
    this.fence();
    this.command("TLBI_NSNH_ALL");
    this.fence();
    this.write64(REG.EVENTQ_BASE, this.#eventQueue | RA_WA | BigInt(EVENTS_LOG2));
    this.write32(REG.EVENTQ_PROD, 0);
    this.write32(REG.EVENTQ_CONS, 0);
    this.#enable(this.#cr0 | CR0_EVENTQEN);
    if (PRI) {
      this.write64(REG.PRIQ_BASE, this.#requestQueue | RA_WA | BigInt(REQUESTS_LOG2));
      this.write32(REG.PRIQ_PROD, 0);
      this.write32(REG.PRIQ_CONS, 0);
      this.#enable(this.#cr0 | CR0_PRIQEN);
    }
    if (ATS) this.#enable(this.#cr0 | CR0_ATSCHK);
    this.write32(REG.IRQ_CTRL, 0);
    this.#acknowledged(REG.IRQ_CTRLACK, 0);
    const configure = (register: number, message: number): void => {
      this.write64(register, MSI ? messageAddress : 0n);
      if (!MSI) return;
      this.write32(register + 8, message);
      this.write32(register + 12, MESSAGE_ATTRIBUTES);
    };
    configure(REG.EVENTQ_IRQ_CFG0, firstMessage);
    if (PRI) configure(REG.PRIQ_IRQ_CFG0, firstMessage + 1);
    configure(REG.GERROR_IRQ_CFG0, firstMessage + 3);
    const interrupts = IRQ_EVENTQ | IRQ_GERROR | (PRI ? IRQ_PRIQ : 0);
    this.write32(REG.IRQ_CTRL, interrupts);
    this.#acknowledged(REG.IRQ_CTRLACK, interrupts);
    this.#enable(this.#cr0 | CR0_SMMUEN);
  }

  #enable(cr0: number): void {
    this.#cr0 = cr0;
    this.write32(REG.CR0, cr0);
    this.#acknowledged(REG.CR0ACK, cr0);
  }

  #acknowledged(register: number, value: number): void {
    for (let i = 0; i < PATIENCE; i++) if (this.read32(register) === value) return;
    const shown = this.read32(register).toString(16);
    throw new Error(
      `the vIOMMU does not acknowledge: register 0x${register.toString(16)} is 0x${shown}, not 0x${value.toString(16)}`,
    );
  }

  #setGbpa(value: number): void {
    this.write32(REG.GBPA, (value | GBPA_UPDATE) >>> 0);
    for (let i = 0; i < PATIENCE; i++) if (this.read32(REG.GBPA) >>> 31 === 0) return;
    throw new Error("the vIOMMU does not take GBPA: Update stays 1");
  }

  read32(register: number): number {
    return this.#port.load(this.#base + register, 4);
  }

  read64(register: number): bigint {
    const low = this.#port.load(this.#base + register, 8);
    return (BigInt(this.#port.high) << 32n) | BigInt(low);
  }

  write32(register: number, value: number): void {
    this.#port.store(this.#base + register, 4, value >>> 0, 0);
  }

  write64(register: number, value: bigint): void {
    this.#port.store(this.#base + register, 8, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }

  /** Stores a command into the queue; nothing happens until `ringDoorbell`. Address is in units of 4 KiB, MSIAddress of 4 bytes. */
  command(name: CommandName, fields: Readonly<Record<string, bigint | number>> = {}): void {
    const words = encodeCommand(name, fields);
    if (this.ownQueues != null && isForOwnQueue(words[0])) this.ownQueues.push(...words);
    else this.writeCommand(...words);
  }

  writeCommand(word0: bigint, word1: bigint): void {
    if (this.#commandsWaiting() === 1 << COMMANDS_LOG2) {
      this.ringDoorbell();
      if (this.#commandsWaiting() === 1 << COMMANDS_LOG2)
        throw new Error("the command queue is full and does not move");
    }
    const at = this.#commandQueue + BigInt((this.#prod % (1 << COMMANDS_LOG2)) * 16);
    this.#ram.write64(at, word0);
    this.#ram.write64(at + 8n, word1);
    this.#prod = (this.#prod + 1) % (2 << COMMANDS_LOG2);
  }

  #commandsWaiting(): number {
    return (this.#prod - this.#consumed() + (2 << COMMANDS_LOG2)) % (2 << COMMANDS_LOG2);
  }

  #consumed(): number {
    return this.read32(REG.CMDQ_CONS) % (2 << COMMANDS_LOG2);
  }

  ringDoorbell(): void {
    this.write32(REG.CMDQ_PROD, this.#prod);
    this.ownQueues?.ringDoorbell();
  }

  /** CMD_SYNC, doorbell, and waits until CONS has passed it, of both queues where there are two. Throws if a queue stopped with an error. */
  fence(): void {
    this.ownQueues?.fence();
    this.command("SYNC", { CS: CS_SEV });
    this.write32(REG.CMDQ_PROD, this.#prod);
    for (let i = 0; i < PATIENCE; i++) {
      if (this.#consumed() === this.#prod) return;
      const complaint = this.commandError;
      if (complaint !== null) throw new Error(`the command queue stopped: ${complaint}`);
    }
    throw new Error(`the command queue stands at ${this.#consumed()}, PROD is ${this.#prod}`);
  }

  /** "CERROR_ILL at CMD_…" while the command queue stands still because of an error; null otherwise. */
  get commandError(): string | null {
    if (((this.read32(REG.GERROR) ^ this.read32(REG.GERRORN)) & 1) === 0) return null;
    const cons = this.read32(REG.CMDQ_CONS);
    const at = this.#commandQueue + BigInt((cons % (1 << COMMANDS_LOG2)) * 16);
    const error = Number(CMDQ_CONS.get([BigInt(cons >>> 0)], "ERR"));
    const name = CMDQ_CONS.fields.ERR.values![error] ?? `error ${error}`;
    return `${name} at ${describeCommand(this.#ram.read64(at), this.#ram.read64(at + 8n))}`;
  }

  /** As Linux does after CERROR_ILL: the command that stopped the queue becomes a CMD_SYNC, and the error is acknowledged. */
  skipCommand(): void {
    const at = this.#commandQueue + BigInt((this.read32(REG.CMDQ_CONS) % (1 << COMMANDS_LOG2)) * 16);
    const [word0, word1] = encodeCommand("SYNC");
    this.#ram.write64(at, word0);
    this.#ram.write64(at + 8n, word1);
    this.write32(REG.GERRORN, this.read32(REG.GERROR));
  }

  /** CMD_TLBI_NH_*: of one page, one stage 1 (or ASID), or everything. Caches of endpoints are `invalidateDevice`'s. */
  invalidate(scope: InvalidationScope & { readonly asid?: number } = {}): void {
    const asid = scope.asid ?? scope.stage1?.tag;
    const address = scope.iova === undefined ? null : { Address: scope.iova >> 12n };
    if (asid !== undefined && address !== null) this.command("TLBI_NH_VA", { ASID: asid, ...address });
    else if (asid !== undefined) this.command("TLBI_NH_ASID", { ASID: asid });
    else if (address !== null) this.command("TLBI_NH_VAA", address);
    else this.command("TLBI_NSNH_ALL");
  }

  /** CMD_ATC_INV: all addresses that a device holds, of one PASID or of requests without. */
  invalidateDevice(deviceId: number, pasid?: number): void {
    const substream = pasid === undefined ? {} : { SSV: 1, SSID: pasid };
    this.command("ATC_INV", { SID: deviceId, ...substream, Size: ATC_SIZE_ALL });
  }

  /** What this SMMU offers, as its guest reads it. */
  get offer(): TranslationOffer {
    const { ATS, PRI, SSIDSIZE, STALL_MODEL } = this.features;
    return { ats: ATS, pageRequests: PRI, pasidBits: SSIDSIZE, stalls: STALL_MODEL !== 1 };
  }

  /** Guest-physical address of a stream's entry; the table grows as needed. */
  contextAddress(deviceId: number): bigint {
    return this.streams.place(deviceId);
  }

  /** Stores a stream table entry, V = 1 unless it says otherwise; no command. */
  writeContext(deviceId: number, fields: StreamFields): void {
    this.streams.write(deviceId, fields);
  }

  /** Stores a stream table entry, CFGI_STE, TLBI_NSNH_ALL, SYNC. */
  installContext(deviceId: number, fields: StreamFields): void {
    this.writeContext(deviceId, fields);
    this.#changed(deviceId);
  }

  #changed(deviceId: number): void {
    this.command("CFGI_STE", { SID: deviceId, Leaf: 1 });
    this.command("TLBI_NSNH_ALL");
    this.fence();
  }

  /**
   * Stores what a device's requests go through, and the commands that make it so. With PASIDs requests without one are descriptor 0 (S1DSS), or bypass
   * stage 1, or end. A PASID's own bypass is a thing SMMUs do not have: throws.
   */
  installTranslation(deviceId: number, translation: DeviceTranslation<Stage1>, extra: TranslationExtra = {}): void {
    const { whole, pasids, ats, stalls = false } = translation;
    const common: StreamFields = { EATS: ats || translation.pageRequests ? 1 : 0, ...extra.stream };
    if (!(whole instanceof Stage1) && pasids.size === 0) {
      // What stage 1 would be told is IGNORED, and Linux leaves it 0 (§5.2).
      this.installContext(deviceId, { Config: whole === "bypass" ? 4 : 0, ...extra.stream });
      return;
    }
    const { OAS, STALL_MODEL } = this.features;
    const table = this.#contextTable(deviceId, pasids.size === 0 ? 0 : Math.max(...pasids.keys()), extra);
    const write = (ssid: number, stage: Parameters<typeof descriptorOf>[0]): void =>
      table.write(ssid, { ...descriptorOf(stage, OAS, stalls), ...(stage === "blocked" ? {} : extra.descriptor) });
    if (whole instanceof Stage1) write(0, whole);
    for (const [pasid, stage] of pasids) write(pasid, stage);
    this.writeContext(deviceId, {
      Config: 5,
      S1Fmt: CONTEXT_FORMATS[table.format],
      S1ContextPtr: table.root >> 6n,
      S1CDMax: table.cdMax,
      S1DSS: whole instanceof Stage1 ? S1DSS_SSID0 : whole === "bypass" ? S1DSS_BYPASS : 0,
      ...{ S1CIR: 1, S1COR: 1, S1CSH: 3 },
      S1STALLD: !stalls && STALL_MODEL === 0 ? 1 : 0,
      ...common,
    });
    this.#changed(deviceId);
    if (common.EATS === 0) return;
    for (const pasid of [undefined, ...pasids.keys()]) this.invalidateDevice(deviceId, pasid);
    this.fence();
  }

  /** The device's descriptors, anew where another PASID needs a larger table, or another shape is asked for. */
  #contextTable(deviceId: number, largest: number, { contexts }: TranslationExtra): ContextTable {
    const { CD2L, SSIDSIZE } = this.features;
    let table = this.#contextTables.get(deviceId);
    const fits = table !== undefined && largest < 2 ** table.cdMax;
    const asked = contexts === undefined || (table?.format === contexts.format && table.cdMax === contexts.cdMax);
    if (fits && asked) return table!;
    const [format, cdMax] =
      contexts !== undefined
        ? [contexts.format, contexts.cdMax]
        : largest === 0
          ? (["linear", 0] as const)
          : largest < 2 ** Math.min(LINEAR_CD_MAX, SSIDSIZE)
            ? (["linear", Math.min(LINEAR_CD_MAX, SSIDSIZE)] as const)
            : ([CD2L ? "64K" : "linear", SSIDSIZE] as const);
    if (cdMax > SSIDSIZE) throw new Error(`the vIOMMU has SubstreamIDs of ${SSIDSIZE} bits, not of ${cdMax}`);
    table = new ContextTable(this.#ram, format, cdMax);
    this.#contextTables.set(deviceId, table);
    return table;
  }

  /** Takes the events that wait, oldest first, those of stalled transactions left out; acknowledges an overflow. */
  takeFaults(): GuestEvent[] {
    this.#takeEvents();
    return this.#faults.splice(0);
  }

  /** Takes stalled transactions, then page requests, oldest first, in every kind's words. */
  takeRequests(): PageRequest[] {
    this.#takeEvents();
    const stalled = this.#stalls.splice(0).map(
      (event): PageRequest => ({
        deviceId: event.streamId,
        pasid: event.substreamId < 0 ? null : event.substreamId,
        address: event.inputAddress & ~0xfffn,
        read: event.read,
        write: !event.read,
        execute: event.instruction,
        last: true,
        answer: (answer) => this.resume(event, answer === "success" ? "retry" : "abort"),
      }),
    );
    const requests = this.takePageRequests().map(
      (request): PageRequest => ({ ...request, answer: (answer) => this.respond(request, ANSWERS[answer]) }),
    );
    return [...stalled, ...requests];
  }

  /** CMD_RESUME (§4.7.1): the transaction of a stall event is tried again, or ends. */
  resume(event: GuestEvent, how: "retry" | "abort"): void {
    this.command("RESUME", { SID: event.streamId, STAG: event.stag, ...(how === "retry" ? { Ac: 1 } : { Ab: 1 }) });
    this.fence();
  }

  /** CMD_PRI_RESP: answers a page-request group. */
  respond(request: ReceivedPageRequest, response: number): void {
    const substream = request.pasid === null ? {} : { SSV: 1, SSID: request.pasid };
    this.command("PRI_RESP", { SID: request.deviceId, ...substream, PRGIndex: request.group, Resp: response });
    this.fence();
  }

  /** Takes what waits in the queue of page requests, oldest first. */
  takePageRequests(): ReceivedPageRequest[] {
    if (!this.features.PRI) return [];
    return this.#take(REG.PRIQ_PROD, REG.PRIQ_CONS, this.#requestQueue, REQUESTS_LOG2, 2).map(decodePageRequest);
  }

  #takeEvents(): void {
    for (const words of this.#take(REG.EVENTQ_PROD, REG.EVENTQ_CONS, this.#eventQueue, EVENTS_LOG2, 4)) {
      const event = guestEvent(words);
      (event.stall ? this.#stalls : this.#faults).push(event);
    }
  }

  /** Pops a queue's records, each of `size` doublewords; CONS repeats the overflow flag (§7.4). */
  #take(prodRegister: number, consRegister: number, queue: bigint, log2: number, size: number): bigint[][] {
    const records: bigint[][] = [];
    const mask = (2 << log2) - 1;
    const prod = this.read32(prodRegister);
    const before = this.read32(consRegister);
    let cons = before & mask;
    while (cons !== (prod & mask) && records.length < 1 << log2) {
      const at = queue + BigInt((cons % (1 << log2)) * 8 * size);
      records.push(Array.from({ length: size }, (_, i) => this.#ram.read64(at + BigInt(8 * i))));
      cons = (cons + 1) & mask;
    }
    const after = (cons | (prod & 0x8000_0000)) >>> 0;
    if (after !== before >>> 0) this.write32(consRegister, after);
    return records;
  }
}

/** What Linux's driver refuses (arm_smmu_device_hw_probe). */
function checkProbe({ S1P, S2P, TTENDIAN, CMDQS, ...rest }: SmmuFeatures): void {
  const { TTF } = rest as unknown as { readonly TTF: number };
  const complaint = !(S1P || S2P)
    ? "it has no stage"
    : (TTF & 2) === 0
      ? "it has no VMSAv8-64 tables"
      : TTENDIAN === 1 || TTENDIAN === 3
        ? "its tables are not little-endian"
        : CMDQS <= 6
          ? "its command queue is too short"
          : null;
  if (complaint !== null) throw new Error(`this is no SMMUv3 that a driver takes: ${complaint}`);
}
