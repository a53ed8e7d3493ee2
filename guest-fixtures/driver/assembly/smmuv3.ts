// Driver of an Arm SMMUv3 (IHI 0070; section numbers are its own): brought up as Linux brings it up, a stream table that is linear or of two levels, one
// context descriptor a device, command queue, event queue, message-signalled or wired interrupts. `Iommu` says how it is used.

import { check, checkEqual, fail, hex } from "./console";
import {
  ACCESS_READ,
  ACCESS_UNKNOWN,
  ACCESS_WRITE,
  CONTEXT_NOT_VALID,
  Fault,
  Iommu,
  NO_PERMISSION,
  NOT_MAPPED,
} from "./iommu";
import {
  gpaOf,
  iommuLine,
  mmioLoad32,
  mmioStore32,
  mmioStore64,
  pointerTo,
  regionBase,
  MSI_PAGE,
  SMMUV3,
} from "./machine";
import { PageTable } from "./page-table";
import { allocatePages } from "./pages";
import { VMSA_T0SZ, VmsaTable } from "./vmsa";

// Registers (§6.2); the event queue's indexes stand on page 1.
const IDR0: u64 = 0x00;
const IDR1: u64 = 0x04;
const IDR5: u64 = 0x14;
const CR0: u64 = 0x20;
const CR0ACK: u64 = 0x24;
const CR1: u64 = 0x28;
const CR2: u64 = 0x2c;
const GBPA: u64 = 0x44;
const IRQ_CTRL: u64 = 0x50;
const IRQ_CTRLACK: u64 = 0x54;
const GERROR: u64 = 0x60;
const GERRORN: u64 = 0x64;
const GERROR_IRQ_CFG0: u64 = 0x68;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_BASE: u64 = 0xa0;
const EVENTQ_IRQ_CFG0: u64 = 0xb0;
const EVENTQ_PROD: u64 = 0x100a8;
const EVENTQ_CONS: u64 = 0x100ac;

// IDR0, IDR1, IDR5 (§6.3.1, §6.3.2, §6.3.6).
const IDR0_S1P: u32 = 1 << 1;
const IDR0_VMSA64: u32 = 1 << 3;
const IDR0_ATS: u32 = 1 << 10;
const IDR0_MSI: u32 = 1 << 13;
const IDR0_TWO_LEVELS: u32 = 1 << 27;
const IDR5_GRAN4K: u32 = 1 << 4;

const SMMUEN: u32 = 1 << 0;
const EVENTQEN: u32 = 1 << 2;
const CMDQEN: u32 = 1 << 3;
const ATSCHK: u32 = 1 << 4;
/** Tables and queues inner shareable, write-back (§6.3.11). */
const CR1_WRITE_BACK: u32 = 0xd75;
const CR2_RECINVSID_PTM: u32 = 6;
const GBPA_ABORT: u32 = 1 << 20;
const GBPA_UPDATE: u32 = 1 << 31;
const IRQ_GERROR: u32 = 1 << 0;
const IRQ_EVENTQ: u32 = 1 << 2;
const OVERFLOW: u32 = 1 << 31;
const RA_WA: u64 = (<u64>1) << 62;

// Commands (§4).
const CFGI_STE: u64 = 0x03;
const CFGI_ALL: u64 = 0x04;
const CFGI_CD: u64 = 0x05;
const TLBI_NH_ASID: u64 = 0x11;
const TLBI_NH_VA: u64 = 0x12;
const TLBI_NSNH_ALL: u64 = 0x30;
const RESUME: u64 = 0x44;
const RESUME_RETRY: u64 = 1 << 12;
const RESUME_ABORT: u64 = 1 << 13;
const SYNC: u64 = 0x46;
const SYNC_SEV: u64 = 2 << 12;

// Stream table entries, first doubleword (§5.2).
const STE_V: u64 = 1;
const STE_BYPASS: u64 = STE_V | (4 << 1);
const STE_S1: u64 = STE_V | (5 << 1);
const STE_POINTER: u64 = 0xffffffffffffc0;
/** Second doubleword: context descriptors are write-back, inner shareable. */
const STE_WRITE_BACK: u64 = (1 << 2) | (1 << 4) | (3 << 6);
const STE_S1STALLD: u64 = 1 << 27;

// Events (§7.3).
export const C_BAD_CD: u32 = 0x0a;
export const F_WALK_EABT: u32 = 0x0b;
export const F_TRANSLATION: u32 = 0x10;
export const F_PERMISSION: u32 = 0x13;

/** Both queues are a page or two: 256 commands of 16 bytes, 256 events of 32. */
const QUEUE_LOG2: u32 = 8;
const QUEUE_ENTRIES: u32 = 1 << QUEUE_LOG2;
const QUEUE_WRAP: u32 = 2 * QUEUE_ENTRIES - 1;
/** A linear stream table is four pages; two levels are split at 8 bits, and their leaves are as large. */
const STREAMS_LOG2: u32 = 8;
const STREAM_PAGES: u32 = 4;
/** Register reads before a wait gives up: 100 ns each, so 10 ms. */
const PATIENCE: i32 = 100000;

export class Smmuv3 extends Iommu {
  readonly registers: u64;
  readonly idr0: u32;
  readonly idr1: u32;
  readonly oas: u64;
  private cr0: u32 = 0;
  private streams: usize = 0;
  private twoLevels: bool = false;
  private commands: usize = 0;
  private events: usize = 0;
  private prod: u32 = 0;
  private cons: u32 = 0;
  /** Each device's context descriptor. */
  private descriptors: Map<u32, usize> = new Map<u32, usize>();

  constructor(readonly index: u32 = 0) {
    super();
    this.registers = regionBase(SMMUV3, index);
    this.idr0 = mmioLoad32(this.base + IDR0);
    this.idr1 = mmioLoad32(this.base + IDR1);
    const idr5 = mmioLoad32(this.base + IDR5);
    this.oas = idr5 & 7;
    check((this.idr0 & IDR0_S1P) != 0 && (this.idr0 & IDR0_VMSA64) != 0, "the SMMU has no VMSAv8-64 stage 1");
    check((idr5 & IDR5_GRAN4K) != 0, "the SMMU has no 4K granule");
  }

  get base(): u64 {
    return this.registers;
  }
  get invalidationName(): string {
    return "TLBI_NH_VA";
  }
  get fenceName(): string {
    return "CMD_SYNC";
  }
  get codeName(): string {
    return "event";
  }

  describe(): string {
    return (
      "IDR0 " + hex(this.idr0) + ", IDR1 " + hex(this.idr1) + ", " + this.shapeName(this.shapes - 1) + " stream table, StreamIDs of " +
      (this.idr1 & 63).toString() + " bits, VMSAv8-64 with 4K pages, command and event queue on"
    );
  }

  newTable(): PageTable {
    return new VmsaTable();
  }

  /** The reset sequence of Linux's driver (§6.3): every step waits for the acknowledge register to say what was written. */
  enable(commandInterrupt: u32, faultInterrupt: u32): u32 {
    const base = this.base;
    if ((mmioLoad32(base + CR0) & SMMUEN) != 0) this.setGbpa(GBPA_ABORT);
    this.setCr0(0);
    mmioStore32(base + CR1, CR1_WRITE_BACK);
    mmioStore32(base + CR2, CR2_RECINVSID_PTM);
    this.newStreamTable(this.shapes - 1);

    this.commands = allocatePages();
    mmioStore64(base + CMDQ_BASE, gpaOf(this.commands) | RA_WA | QUEUE_LOG2);
    mmioStore32(base + CMDQ_PROD, 0);
    mmioStore32(base + CMDQ_CONS, 0);
    this.prod = 0;
    this.setCr0(CMDQEN);
    this.forgetAll();

    this.events = allocatePages(2, 8192);
    mmioStore64(base + EVENTQ_BASE, gpaOf(this.events) | RA_WA | QUEUE_LOG2);
    mmioStore32(base + EVENTQ_PROD, 0);
    mmioStore32(base + EVENTQ_CONS, 0);
    this.cons = 0;
    this.setCr0(this.cr0 | EVENTQEN);
    if ((this.idr0 & IDR0_ATS) != 0) this.setCr0(this.cr0 | ATSCHK);

    mmioStore32(base + IRQ_CTRL, 0);
    this.await(IRQ_CTRLACK, 0, "IRQ_CTRLACK");
    const messages = (this.idr0 & IDR0_MSI) != 0;
    this.setMessage(GERROR_IRQ_CFG0, messages, commandInterrupt);
    this.setMessage(EVENTQ_IRQ_CFG0, messages, faultInterrupt);
    mmioStore32(base + IRQ_CTRL, IRQ_EVENTQ | IRQ_GERROR);
    this.await(IRQ_CTRLACK, IRQ_EVENTQ | IRQ_GERROR, "IRQ_CTRLACK");
    this.setCr0(this.cr0 | SMMUEN);
    return messages ? faultInterrupt : iommuLine(this.index, 0);
  }

  /** SMMUEN = 0 with GBPA.ABORT = 1: nothing passes, and nothing is recorded (§6.3.14). */
  disable(): void {
    this.setGbpa(GBPA_ABORT);
    this.setCr0(this.cr0 & ~SMMUEN);
  }

  /** SMMUEN = 0 with GBPA.ABORT = 0. */
  passThrough(): void {
    this.setGbpa(0);
    this.setCr0(this.cr0 & ~SMMUEN);
  }

  /** A linear stream table, and one of two levels where there are. */
  get shapes(): i32 {
    return (this.idr0 & IDR0_TWO_LEVELS) != 0 ? 2 : 1;
  }
  reaches(shape: i32, deviceId: u32): bool {
    const bits: u32 = shape == 0 ? STREAMS_LOG2 : this.idr1 & 63;
    return (<u64>deviceId) >> bits == 0;
  }
  shapeName(shape: i32): string {
    return shape == 0 ? "linear" : "two-level";
  }
  describeShapes(names: string): string {
    return "stream tables: " + names;
  }
  useShape(shape: i32): void {
    this.disable();
    this.newStreamTable(shape);
    this.forgetAll();
    this.setCr0(this.cr0 | SMMUEN);
  }

  private newStreamTable(shape: i32): void {
    this.twoLevels = shape != 0;
    let log2 = STREAMS_LOG2;
    if (this.twoLevels) {
      log2 = this.idr1 & 63;
      if (log2 < STREAMS_LOG2) log2 = STREAMS_LOG2;
      if (log2 > 16) log2 = 16;
      this.streams = allocatePages();
    } else {
      this.streams = this.newStreams();
    }
    mmioStore64(this.base + STRTAB_BASE, gpaOf(this.streams) | RA_WA);
    mmioStore32(this.base + STRTAB_BASE_CFG, log2 | (STREAMS_LOG2 << 6) | (this.twoLevels ? 1 << 16 : 0));
  }

  /** 256 entries, all valid and aborting, in memory aligned to its size. */
  private newStreams(): usize {
    const streams = allocatePages(STREAM_PAGES, <usize>STREAM_PAGES << 12);
    for (let i: usize = 0; i < 1 << STREAMS_LOG2; i++) store<u64>(streams + (i << 6), STE_V);
    return streams;
  }

  /** Pointer to a stream's entry (§5.1). A new leaf is linked by one store: Span 9, 2^8 entries. */
  private stream(id: u32): usize {
    const within = <usize>(id & ((1 << STREAMS_LOG2) - 1)) << 6;
    if (!this.twoLevels) return this.streams + within;
    const descriptor = this.streams + (<usize>(id >> STREAMS_LOG2) << 3);
    const value = load<u64>(descriptor);
    if (value != 0) return pointerTo(value & STE_POINTER) + within;
    const leaves = this.newStreams();
    store<u64>(descriptor, gpaOf(leaves) | (STREAMS_LOG2 + 1));
    return leaves + within;
  }

  setFirstStage(deviceId: u32, tag: u32, table: PageTable): void {
    this.setStream(deviceId, tag, table, false);
  }

  /** STALL_MODEL 0: streams may stall (§3.12.2). */
  get canStall(): bool {
    return ((this.idr0 >> 24) & 3) == 0;
  }

  setStallingFirstStage(deviceId: u32, tag: u32, table: PageTable): void {
    this.setStream(deviceId, tag, table, true);
  }

  /** CMD_RESUME (§4.7.1). */
  resume(fault: Fault, retry: bool): void {
    this.command(RESUME | (retry ? RESUME_RETRY : RESUME_ABORT) | ((<u64>fault.deviceId) << 32), <u64>fault.waits);
  }

  private setStream(deviceId: u32, tag: u32, table: PageTable, stalls: bool): void {
    if (!this.descriptors.has(deviceId)) this.descriptors.set(deviceId, allocatePages());
    const descriptor = this.descriptors.get(deviceId);
    // §5.4: TTB0 alone, write-back and inner shareable, faults recorded and aborted, or stalled (S).
    const word0 =
      VMSA_T0SZ | (1 << 8) | (1 << 10) | (3 << 12) | (1 << 30) | ((<u64>1) << 31) | (this.oas << 32) |
      ((<u64>1) << 41) | (stalls ? (<u64>1) << 44 : 0) | ((<u64>1) << 45) | ((<u64>1) << 46) | ((<u64>1) << 47) | ((<u64>tag) << 48);
    store<u64>(descriptor, 0);
    store<u64>(descriptor + 8, gpaOf(table.root));
    store<u64>(descriptor + 24, 0xf404ff44);
    store<u64>(descriptor, word0);
    const stream = this.stream(deviceId);
    store<u64>(stream + 8, STE_WRITE_BACK | (this.canStall && !stalls ? STE_S1STALLD : 0));
    store<u64>(stream, STE_S1 | gpaOf(descriptor));
    this.invalidateStream(deviceId);
  }

  /** Config, in the entry's first doubleword: all else stands. */
  switchFirstStage(deviceId: u32, table: PageTable | null): void {
    const descriptor = this.descriptors.get(deviceId);
    if (table != null) checkEqual(load<u64>(descriptor + 8), gpaOf(table.root), "the first stage switched to");
    store<u64>(this.stream(deviceId), table == null ? STE_BYPASS : STE_S1 | gpaOf(descriptor));
    this.invalidateStream(deviceId);
  }

  /** The descriptor's V = 0. */
  breakContext(deviceId: u32): void {
    store<u64>(this.descriptors.get(deviceId), 0);
    this.command(CFGI_CD | ((<u64>deviceId) << 32), 1);
  }

  /** Its context descriptors go with it (§4.3.1). */
  private invalidateStream(deviceId: u32): void {
    this.command(CFGI_STE | ((<u64>deviceId) << 32), 1);
  }

  private forgetAll(): void {
    this.command(CFGI_ALL, 31);
    this.fence();
    this.command(TLBI_NSNH_ALL, 0);
    this.fence();
  }

  invalidatePage(tag: u32, iova: u64): void {
    this.command(TLBI_NH_VA | ((<u64>tag) << 48), iova | 1);
  }

  invalidateAddressSpace(tag: u32): void {
    this.command(TLBI_NH_ASID | ((<u64>tag) << 48), 0);
  }

  /** Puts a command into the queue and rings the doorbell. */
  command(word0: u64, word1: u64): void {
    const next = (this.prod + 1) & QUEUE_WRAP;
    for (let i = 0; ((this.prod - this.consumed()) & QUEUE_WRAP) == QUEUE_ENTRIES; i++) {
      if (i == PATIENCE) fail("command queue stays full");
    }
    const at = this.commands + (<usize>(this.prod & (QUEUE_ENTRIES - 1)) << 4);
    store<u64>(at, word0);
    store<u64>(at + 8, word1);
    this.prod = next;
    this.commandsSent++;
    mmioStore32(this.base + CMDQ_PROD, next);
  }

  private consumed(): u32 {
    return mmioLoad32(this.base + CMDQ_CONS) & QUEUE_WRAP;
  }

  /** CMD_SYNC: returns when every earlier command has taken effect. */
  fence(): void {
    this.command(SYNC | SYNC_SEV, 0);
    for (let i = 0; i < PATIENCE; i++) {
      if (this.consumed() == this.prod) return;
      const errors = mmioLoad32(this.base + GERROR) ^ mmioLoad32(this.base + GERRORN);
      if ((errors & 1) != 0) fail("command queue stopped: CMDQ_CONS " + hex(mmioLoad32(this.base + CMDQ_CONS)));
    }
    fail("CMD_SYNC does not complete");
  }

  takeFault(): Fault | null {
    const prod = mmioLoad32(this.base + EVENTQ_PROD);
    check((prod & OVERFLOW) == 0, "the event queue lost records");
    if ((prod & QUEUE_WRAP) == this.cons) return null;
    const record = this.events + (<usize>(this.cons & (QUEUE_ENTRIES - 1)) << 5);
    const fault = decodeEvent(load<u64>(record), load<u64>(record + 8), load<u64>(record + 16), load<u64>(record + 24));
    this.cons = (this.cons + 1) & QUEUE_WRAP;
    mmioStore32(this.base + EVENTQ_CONS, this.cons);
    return fault;
  }

  /** Nothing: the queue's interrupt is an edge (§3.18). */
  acknowledgeFaults(): void {}

  codeOf(what: i32, _write: bool): i32 {
    if (what == NOT_MAPPED) return F_TRANSLATION;
    if (what == NO_PERMISSION) return F_PERMISSION;
    if (what == CONTEXT_NOT_VALID) return C_BAD_CD;
    // Memory that is not there, and an SMMU that is off, end a transaction without a record (§7.3, §6.3.14).
    return -1;
  }

  private setCr0(value: u32): void {
    this.cr0 = value;
    mmioStore32(this.base + CR0, value);
    this.await(CR0ACK, value, "CR0ACK");
  }

  private await(register: u64, value: u32, name: string): void {
    for (let i = 0; i < PATIENCE; i++) if (mmioLoad32(this.base + register) == value) return;
    fail(name + " is " + hex(mmioLoad32(this.base + register)) + ", not " + hex(value));
  }

  private setGbpa(value: u32): void {
    mmioStore32(this.base + GBPA, value | GBPA_UPDATE);
    for (let i = 0; i < PATIENCE; i++) if ((mmioLoad32(this.base + GBPA) & GBPA_UPDATE) == 0) return;
    fail("GBPA.Update stays 1");
  }

  private setMessage(register: u64, messages: bool, number: u32): void {
    mmioStore64(this.base + register, messages ? regionBase(MSI_PAGE) : 0);
    if (!messages) return;
    mmioStore32(this.base + register + 8, number);
    mmioStore32(this.base + register + 12, 1);
  }
}

/** An event record's four doublewords (§7.3): number and SID; RnW; InputAddr; IPA or FetchAddr. */
function decodeEvent(word0: u64, word1: u64, input: u64, other: u64): Fault {
  const number = <u32>(word0 & 0xff);
  const streamId = <u32>(word0 >> 32);
  const hasAddress = number >= F_WALK_EABT;
  const write = ((word1 >> 35) & 1) == 0;
  let text = nameOf(number) + ", stream " + hex(streamId);
  if (hasAddress) text += (write ? ", write, address " : ", read, address ") + hex(input);
  // Stall and STAG (§7.3): the transaction waits.
  const waits = ((word1 >> 31) & 1) == 0 ? -1 : <i32>(word1 & 0xffff);
  if (waits >= 0) text += ", stalled";
  const access = !hasAddress ? ACCESS_UNKNOWN : write ? ACCESS_WRITE : ACCESS_READ;
  return new Fault(number, streamId, access, hasAddress ? input : 0, hasAddress, other, text, waits);
}

function nameOf(number: u32): string {
  if (number == 0x02) return "C_BAD_STREAMID";
  if (number == 0x04) return "C_BAD_STE";
  if (number == C_BAD_CD) return "C_BAD_CD";
  if (number == F_WALK_EABT) return "F_WALK_EABT";
  if (number == F_TRANSLATION) return "F_TRANSLATION";
  if (number == 0x11) return "F_ADDR_SIZE";
  if (number == 0x12) return "F_ACCESS";
  if (number == F_PERMISSION) return "F_PERMISSION";
  return "event " + hex(number);
}
