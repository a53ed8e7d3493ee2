// Driver of a RISC-V IOMMU (specification 1.0, section numbers of version 20260222): device directory of one to three levels in either
// context format, command queue, fault queue, message-signalled or wired interrupts.
//
// `Iommu` says how it is used; contexts can also be written word by word: `setContext`, then `invalidateDevice`.

import { check, checkEqual, fail, hex } from "./console";
import {
  ACCESS_READ,
  ACCESS_UNKNOWN,
  ACCESS_WRITE,
  CONTEXT_NOT_VALID,
  Fault,
  Iommu,
  OUTSIDE_MEMORY,
  SWITCHED_OFF,
} from "./iommu";
import {
  gpaOf,
  iommuLine,
  mmioLoad32,
  mmioLoad64,
  mmioStore32,
  mmioStore64,
  pointerTo,
  regionBase,
  IOMMU,
  MSI_PAGE,
} from "./machine";
import { PageTable } from "./page-table";
import { allocatePages } from "./pages";
import { Sv39Table } from "./sv39";

// Registers (§6.1).
const CAPABILITIES: u64 = 0;
const FCTL: u64 = 8;
const DDTP: u64 = 16;
const CQB: u64 = 24;
const CQH: u64 = 32;
const CQT: u64 = 36;
const FQB: u64 = 40;
const FQH: u64 = 48;
const FQT: u64 = 52;
const CQCSR: u64 = 72;
const FQCSR: u64 = 76;
const IPSR: u64 = 84;
const ICVEC: u64 = 760;
const MSI_CFG_TBL: u64 = 768;

// capabilities (§6.3).
export const CAP_SV39: u64 = 1 << 9;
export const CAP_MSI_FLAT: u64 = 1 << 22;
const IGS_SHIFT: u64 = 28;
const IGS_WSI: u64 = 1;

const FCTL_WSI: u32 = 2;
const DDTP_BUSY: u64 = 1 << 4;
const QUEUE_ENABLE: u32 = 1;
const QUEUE_INTERRUPT: u32 = 2;
const QUEUE_ON: u32 = 1 << 16;
/** cqmf, cmd_to, cmd_ill. */
const COMMAND_ERRORS: u32 = 0x700;
/** fqmf, fqof. */
const FAULT_ERRORS: u32 = 0x300;

// Device context (§3.1.3).
export const TC_V: u64 = 1;
export const TC_DTF: u64 = 1 << 4;

// Causes (§4.2).
export const CAUSE_READ_ACCESS_FAULT: u32 = 5;
export const CAUSE_WRITE_ACCESS_FAULT: u32 = 7;
export const CAUSE_READ_PAGE_FAULT: u32 = 13;
export const CAUSE_WRITE_PAGE_FAULT: u32 = 15;
export const CAUSE_ALL_DISALLOWED: u32 = 256;
export const CAUSE_CONTEXT_NOT_VALID: u32 = 258;
/** Transaction types: untranslated read and write. */
export const TTYP_READ: u32 = 2;
export const TTYP_WRITE: u32 = 3;

/** Both queues have one page: 256 commands of 16 bytes, 128 records of 32. */
const COMMANDS: u32 = 256;
const RECORDS: u32 = 128;
/** Register reads before a wait gives up: 100 ns each, so 10 ms. */
const PATIENCE: i32 = 100000;

export class RiscvIommu extends Iommu {
  readonly registers: u64;
  readonly capabilities: u64;
  /** Extended format: device contexts of 64 bytes (§3.1.3). */
  readonly extended: bool;
  levels: i32 = 0;
  private directory: usize = 0;
  private commands: usize = 0;
  private records: usize = 0;
  private tail: u32 = 0;

  constructor(readonly index: u32 = 0) {
    super();
    this.registers = regionBase(IOMMU, index);
    this.capabilities = mmioLoad64(this.base + CAPABILITIES);
    this.extended = (this.capabilities & CAP_MSI_FLAT) != 0;
    checkEqual(this.capabilities & 0xff, 0x10, "version of the IOMMU");
    check((this.capabilities & CAP_SV39) != 0, "the IOMMU has no Sv39");
  }

  get base(): u64 {
    return this.registers;
  }
  get invalidationName(): string {
    return "IOTINVAL";
  }
  get fenceName(): string {
    return "IOFENCE";
  }
  get codeName(): string {
    return "cause";
  }

  describe(): string {
    return (
      "capabilities " + hex(this.capabilities) + ", three-level directory, contexts of " +
      (this.extended ? "64" : "32") + " bytes, Sv39, command and fault queue on"
    );
  }

  newTable(): PageTable {
    return new Sv39Table();
  }

  /** With an empty directory of three levels; without messages the fault queue has the wire of its vector. */
  enable(commandInterrupt: u32, faultInterrupt: u32): u32 {
    const base = this.base;
    this.disable();
    // civ = 0, fiv = 1 (§6.28); icvec is WARL: with a single vector fiv stays 0.
    mmioStore64(base + ICVEC, 0x10);
    const vector: u32 = (mmioLoad32(base + ICVEC) >> 4) & 15;
    if (((this.capabilities >> IGS_SHIFT) & 3) == IGS_WSI) {
      mmioStore32(base + FCTL, mmioLoad32(base + FCTL) | FCTL_WSI);
      faultInterrupt = iommuLine(this.index, vector);
    } else {
      mmioStore32(base + FCTL, mmioLoad32(base + FCTL) & ~FCTL_WSI);
      this.setMessage(0, vector == 0 ? faultInterrupt : commandInterrupt);
      if (vector != 0) this.setMessage(vector, faultInterrupt);
    }

    this.commands = allocatePages();
    this.records = allocatePages();
    this.enableQueue(CQB, CQCSR, this.commands, 7, "command queue");
    mmioStore32(base + CQT, 0);
    this.tail = 0;
    mmioStore32(base + FQH, 0);
    this.enableQueue(FQB, FQCSR, this.records, 6, "fault queue");

    this.useDirectory(3);
    return faultInterrupt;
  }

  /** Directories of one, two, three levels. */
  get shapes(): i32 {
    return 3;
  }
  useShape(shape: i32): void {
    this.useDirectory(shape + 1);
  }
  shapeName(shape: i32): string {
    return (shape + 1).toString();
  }
  describeShapes(names: string): string {
    return "directories of " + names + " levels";
  }

  /**
   * Starts with a new, empty directory of `levels` levels, by way of Off (§6.5 leaves other changes open). The caller fills in contexts
   * with `setContext`.
   */
  useDirectory(levels: i32): void {
    this.disable();
    this.directory = allocatePages();
    this.levels = levels;
    // iommu_mode 2, 3, 4 is one, two, three levels (§6.5).
    mmioStore64(this.base + DDTP, ((gpaOf(this.directory) >> 12) << 10) | <u64>(levels + 1));
    this.waitWhile64(DDTP, DDTP_BUSY, "ddtp stays busy");
    checkEqual(mmioLoad64(this.base + DDTP) & 15, levels + 1, "ddtp.iommu_mode");
    // §7.3.1: whatever was cached of an older directory.
    this.command(3, 0);
    this.command(1, 0);
    this.fence();
  }

  /** Bare: every device's addresses are guest-physical (§6.5: by way of Off). */
  passThrough(): void {
    this.disable();
    mmioStore64(this.base + DDTP, 1);
    this.waitWhile64(DDTP, DDTP_BUSY, "ddtp stays busy");
    checkEqual(mmioLoad64(this.base + DDTP) & 15, 1, "ddtp.iommu_mode");
  }

  /** True if a directory of `shape` + 1 levels has a place for this device id (§3). */
  reaches(shape: i32, deviceId: u32): bool {
    return deviceId >> ((this.extended ? 6 : 7) + 9 * <u32>shape) == 0;
  }

  /** Off: all DMA is refused with cause 256. */
  disable(): void {
    mmioStore64(this.base + DDTP, 0);
    this.waitWhile64(DDTP, DDTP_BUSY, "ddtp stays busy");
  }

  private setMessage(vector: u32, number: u32): void {
    const entry = this.base + MSI_CFG_TBL + (vector << 4);
    mmioStore64(entry, regionBase(MSI_PAGE));
    mmioStore32(entry + 8, number);
    mmioStore32(entry + 12, 0);
  }

  /** LOG2SZ − 1 in the base register's low bits (§6.6). */
  private enableQueue(baseRegister: u64, csr: u64, queue: usize, log2Size: u64, name: string): void {
    mmioStore64(this.base + baseRegister, ((gpaOf(queue) >> 12) << 10) | log2Size);
    mmioStore32(this.base + csr, QUEUE_ENABLE | QUEUE_INTERRUPT);
    for (let i = 0; i < PATIENCE; i++) if ((mmioLoad32(this.base + csr) & QUEUE_ON) != 0) return;
    fail(name + " does not come on");
  }

  private waitWhile64(register: u64, bits: u64, complaint: string): void {
    for (let i = 0; i < PATIENCE; i++) if ((mmioLoad64(this.base + register) & bits) == 0) return;
    fail(complaint);
  }

  /** Pointer to a device's context; makes the directories on the way (§3.1). */
  context(deviceId: u32): usize {
    // Index bits: base format 7, 9, 8; extended format 6, 9, 9 (§3).
    const leafBits: u32 = this.extended ? 6 : 7;
    let table = this.directory;
    for (let level = this.levels - 1; level > 0; level--) {
      const index = (deviceId >> (leafBits + 9 * <u32>(level - 1))) & 511;
      const entry = table + <usize>(index << 3);
      const value = load<u64>(entry);
      if ((value & 1) != 0) {
        table = pointerTo(((value >> 10) & 0xfffffffffff) << 12);
      } else {
        table = allocatePages();
        store<u64>(entry, ((gpaOf(table) >> 12) << 10) | 1);
      }
    }
    const index = deviceId & ((1 << leafBits) - 1);
    return table + <usize>(index << (this.extended ? 6 : 5));
  }

  /** Writes a device's context, tc last, so that no half of it is ever valid. */
  setContext(deviceId: u32, tc: u64, pscid: u32, fsc: u64): void {
    const context = this.context(deviceId);
    store<u64>(context, 0);
    store<u64>(context + 8, 0);
    store<u64>(context + 16, (<u64>pscid) << 12);
    store<u64>(context + 24, fsc);
    store<u64>(context, tc);
  }

  setFirstStage(deviceId: u32, tag: u32, table: PageTable): void {
    this.setContext(deviceId, TC_V, tag, (<Sv39Table>table).fsc);
    this.invalidateDevice(deviceId);
  }

  /** fsc, one doubleword: V stays 1. 0 is bypass. */
  switchFirstStage(deviceId: u32, table: PageTable | null): void {
    store<u64>(this.context(deviceId) + 24, table == null ? 0 : (<Sv39Table>table).fsc);
    this.invalidateDevice(deviceId);
  }

  /** V = 0. */
  breakContext(deviceId: u32): void {
    this.setContext(deviceId, 0, 0, 0);
    this.invalidateDevice(deviceId);
  }

  /** Puts a command into the queue and rings the doorbell. */
  command(word0: u64, word1: u64): void {
    const next = (this.tail + 1) & (COMMANDS - 1);
    for (let i = 0; mmioLoad32(this.base + CQH) == next; i++) if (i == PATIENCE) fail("command queue stays full");
    store<u64>(this.commands + <usize>(this.tail << 4), word0);
    store<u64>(this.commands + <usize>(this.tail << 4) + 8, word1);
    this.tail = next;
    this.commandsSent++;
    mmioStore32(this.base + CQT, next);
  }

  /** IODIR.INVAL_DDT of one device (§4.1). */
  invalidateDevice(deviceId: u32): void {
    this.command(3 | ((<u64>1) << 33) | ((<u64>deviceId) << 40), 0);
  }

  /** IOTINVAL.VMA of one page of an address space. */
  invalidatePage(pscid: u32, iova: u64): void {
    this.command(1 | (1 << 10) | ((<u64>pscid) << 12) | ((<u64>1) << 32), (iova >> 12) << 10);
  }

  /** IOTINVAL.VMA of a whole address space. */
  invalidateAddressSpace(pscid: u32): void {
    this.command(1 | ((<u64>pscid) << 12) | ((<u64>1) << 32), 0);
  }

  /** IOFENCE.C with PR and PW: returns when every earlier command has taken effect. */
  fence(): void {
    this.command(2 | (1 << 12) | (1 << 13), 0);
    for (let i = 0; i < PATIENCE; i++) {
      if (mmioLoad32(this.base + CQH) == this.tail) return;
      const status = mmioLoad32(this.base + CQCSR);
      if ((status & COMMAND_ERRORS) != 0) fail("command queue stopped: cqcsr " + hex(status));
    }
    fail("IOFENCE.C does not complete");
  }

  /** Takes the oldest fault record; null if there is none. */
  takeFault(): Fault | null {
    const head = mmioLoad32(this.base + FQH);
    if (head == mmioLoad32(this.base + FQT)) return null;
    check((mmioLoad32(this.base + FQCSR) & FAULT_ERRORS) == 0, "the fault queue lost records");
    const record = this.records + <usize>(head << 5);
    const fault = decodeFault(load<u64>(record), load<u64>(record + 16), load<u64>(record + 24));
    mmioStore32(this.base + FQH, (head + 1) & (RECORDS - 1));
    return fault;
  }

  /** Clears ipsr's fault-queue bit, so that the next record interrupts again (§6.18). */
  acknowledgeFaults(): void {
    mmioStore32(this.base + IPSR, 2);
  }

  codeOf(what: i32, write: bool): i32 {
    if (what == OUTSIDE_MEMORY) return write ? CAUSE_WRITE_ACCESS_FAULT : CAUSE_READ_ACCESS_FAULT;
    if (what == CONTEXT_NOT_VALID) return CAUSE_CONTEXT_NOT_VALID;
    if (what == SWITCHED_OFF) return CAUSE_ALL_DISALLOWED;
    return write ? CAUSE_WRITE_PAGE_FAULT : CAUSE_READ_PAGE_FAULT;
  }
}

/** A fault record's first, third and fourth doubleword (§4.2). */
function decodeFault(word: u64, iotval: u64, iotval2: u64): Fault {
  const cause = <u32>(word & 0xfff);
  const deviceId = <u32>(word >> 40);
  const transaction = <u32>((word >> 34) & 63);
  const access = transaction == TTYP_READ ? ACCESS_READ : transaction == TTYP_WRITE ? ACCESS_WRITE : ACCESS_UNKNOWN;
  const said = access == ACCESS_READ ? ", read" : access == ACCESS_WRITE ? ", write" : "";
  const text = "cause " + cause.toString() + ", device " + hex(deviceId) + said + ", IOVA " + hex(iotval);
  return new Fault(cause, deviceId, access, iotval, true, iotval2, text);
}
