// Driver of an Intel VT-d unit in scalable mode (specification Rev 4.1; section numbers are its own), brought up as Linux brings it up: root and context
// tables, a PASID directory and table a device, the invalidation queue with waits that write their status, fault recording registers with their message.
// Requests without a PASID go by PASID 0's entry. `Iommu` says how it is used.

import { check, fail, hex } from "./console";
import { ACCESS_READ, ACCESS_WRITE, Fault, Iommu } from "./iommu";
import { LongModeTable } from "./long-mode";
import {
  gpaOf,
  mmioLoad32,
  mmioLoad64,
  mmioStore32,
  mmioStore64,
  pointerTo,
  regionBase,
  MSI_PAGE,
  VTD,
} from "./machine";
import { PageTable } from "./page-table";
import { allocatePages } from "./pages";

// Registers (§11.4).
const CAP: u64 = 0x08;
const ECAP: u64 = 0x10;
const GCMD: u64 = 0x18;
const GSTS: u64 = 0x1c;
const RTADDR: u64 = 0x20;
const FSTS: u64 = 0x34;
const FECTL: u64 = 0x38;
const FEDATA: u64 = 0x3c;
const FEADDR: u64 = 0x40;
const FEUADDR: u64 = 0x44;
const IQH: u64 = 0x80;
const IQT: u64 = 0x88;
const IQA: u64 = 0x90;

// CAP, ECAP (§11.4.2, §11.4.3).
const CAP_CM: u64 = 1 << 7;
const ECAP_QI: u64 = 1 << 1;
const ECAP_SMTS: u64 = (<u64>1) << 43;
const ECAP_FSTS: u64 = (<u64>1) << 47;
const ECAP_SMPWCS: u64 = (<u64>1) << 48;

const QIE: u32 = 1 << 26;
const SRTP: u32 = 1 << 30;
const TE: u32 = 1 << 31;
/** What is written back of GSTS: all but the one-shot bits. */
const LEVELS: u32 = 0x96ffffff;
const TTM_SCALABLE: u64 = 1 << 10;
const PFO: u32 = 1 << 0;
const QUEUE_ERRORS: u32 = 7 << 4;

// Descriptors (§6.5.2): types and granularities.
const CONTEXT_GLOBAL: u64 = 1 | (1 << 4);
const CONTEXT_DEVICE: u64 = 1 | (3 << 4);
const IOTLB_GLOBAL: u64 = 2 | (1 << 4);
const IOTLB_DOMAIN: u64 = 2 | (2 << 4);
const WAIT_STATUS: u64 = 5 | (1 << 5);
const PASID_IOTLB_ALL: u64 = 6 | (2 << 4);
const PASID_IOTLB_PAGE: u64 = 6 | (3 << 4);
const PASID_CACHE_PASID: u64 = 7 | (1 << 4);
const PASID_CACHE_GLOBAL: u64 = 7 | (3 << 4);
/** IH: no entry above the leaf has changed. */
const LEAF_ONLY: u64 = 1 << 6;

// PASID entries (§9.6).
const PRESENT: u64 = 1;
const PGTT_FIRST: u64 = 1 << 6;
const PGTT_PASS_THROUGH: u64 = 4 << 6;
const PWSNP: u64 = 1 << 23;
/** Domain id of pass-through entries; a device's tag never is that. */
const PASS_THROUGH_DOMAIN: u64 = 0xffff;

/** IQA.QS 1: 256 descriptors of 32 bytes (DW) in two pages. */
const QUEUE_SIZE: u64 = (1 << 11) | 1;
const QUEUE_ENTRIES: u32 = 256;
const DONE: u32 = 2;
/** Register reads before a wait gives up: 100 ns each, so 10 ms. */
const PATIENCE: i32 = 100000;

export class Vtd extends Iommu {
  readonly registers: u64;
  readonly cap: u64;
  readonly ecap: u64;
  private root: usize = 0;
  private queue: usize = 0;
  private status: usize = allocatePages();
  private tail: u32 = 0;
  private nextRecord: u32 = 0;
  /** The domain id of each device's entry, and that of its first stage. */
  private domains: Map<u32, u64> = new Map<u32, u64>();
  private tags: Map<u32, u32> = new Map<u32, u32>();

  constructor(readonly index: u32 = 0) {
    super();
    this.registers = regionBase(VTD, index);
    this.cap = mmioLoad64(this.base + CAP);
    this.ecap = mmioLoad64(this.base + ECAP);
    check((this.ecap & ECAP_QI) != 0 && (this.ecap & ECAP_SMTS) != 0, "the unit has no queue or no scalable mode");
    check((this.ecap & ECAP_FSTS) != 0, "the unit has no first stage");
  }

  get base(): u64 {
    return this.registers;
  }
  get invalidationName(): string {
    return "a PASID-based IOTLB invalidation";
  }
  get fenceName(): string {
    return "a wait";
  }
  get codeName(): string {
    return "reason";
  }

  describe(): string {
    return (
      "CAP " + hex(this.cap) + ", ECAP " + hex(this.ecap) + ", scalable mode, first stage of four levels, invalidation queue on" +
      ((this.cap & CAP_CM) != 0 ? ", caching mode" : "")
    );
  }

  newTable(): PageTable {
    return new LongModeTable();
  }

  /** Linux's order: the queue, the root table, what may be cached, the message of faults, translation. */
  enable(_commandInterrupt: u32, faultInterrupt: u32): u32 {
    const base = this.base;
    this.queue = allocatePages(2, 8192);
    this.tail = 0;
    mmioStore64(base + IQT, 0);
    mmioStore64(base + IQA, gpaOf(this.queue) | QUEUE_SIZE);
    this.turnOn(QIE);
    this.newRoot();
    mmioStore32(base + FEDATA, faultInterrupt);
    mmioStore32(base + FEADDR, <u32>regionBase(MSI_PAGE));
    mmioStore32(base + FEUADDR, <u32>(regionBase(MSI_PAGE) >> 32));
    mmioStore32(base + FECTL, 0);
    this.turnOn(TE);
    return faultInterrupt;
  }

  /** A root table of nothing: without TE everything would pass (§11.4.4.1). */
  disable(): void {
    this.newRoot();
  }

  passThrough(): void {
    mmioStore32(this.base + GCMD, mmioLoad32(this.base + GSTS) & LEVELS & ~TE);
    this.awaitStatus(TE, 0);
  }

  /** Scalable mode alone: legacy mode has no first stage. */
  get shapes(): i32 {
    return 1;
  }
  reaches(_shape: i32, deviceId: u32): bool {
    return deviceId < 0x10000;
  }
  shapeName(_shape: i32): string {
    return "scalable-mode";
  }
  describeShapes(names: string): string {
    return names + " root table";
  }
  useShape(_shape: i32): void {
    this.newRoot();
  }

  private newRoot(): void {
    this.root = allocatePages();
    this.domains.clear();
    mmioStore64(this.base + RTADDR, gpaOf(this.root) | TTM_SCALABLE);
    this.turnOn(SRTP);
    this.descriptor(CONTEXT_GLOBAL, 0);
    this.descriptor(PASID_CACHE_GLOBAL, 0);
    this.descriptor(IOTLB_GLOBAL, 0);
    this.fence();
  }

  /** Pointer to a device's PASID entry 0, by way of a context entry of its own (§9.3 to §9.6): half a root entry covers 128 devices of a bus. */
  private entry(deviceId: u32): usize {
    const half = this.root + (<usize>(deviceId >> 8) << 4) + ((deviceId & 0x80) != 0 ? 8 : 0);
    const context = this.table(half) + (<usize>(deviceId & 0x7f) << 5);
    const isNew = (load<u64>(context) & PRESENT) == 0;
    // PDTS 0: a directory of 128 entries.
    const directory = this.table(context);
    if (isNew) {
      // With caching mode absence may be cached, under domain id 0 (§6.1).
      this.descriptor(CONTEXT_DEVICE | ((<u64>deviceId) << 32), 0);
      this.descriptor(IOTLB_DOMAIN, 0);
    }
    return this.table(directory);
  }

  /** The page that an entry leads to; made if there is none. */
  private table(at: usize): usize {
    const value = load<u64>(at);
    if ((value & PRESENT) != 0) return pointerTo(value & ~(<u64>0xfff));
    const page = allocatePages();
    store<u64>(at, gpaOf(page) | PRESENT);
    return page;
  }

  setFirstStage(deviceId: u32, tag: u32, table: PageTable): void {
    this.tags.set(deviceId, tag);
    this.setEntry(deviceId, PGTT_FIRST, tag, gpaOf(table.root));
  }

  switchFirstStage(deviceId: u32, table: PageTable | null): void {
    if (table == null) this.setEntry(deviceId, PGTT_PASS_THROUGH, PASS_THROUGH_DOMAIN, 0);
    else this.setEntry(deviceId, PGTT_FIRST, this.tags.get(deviceId), gpaOf(table.root));
  }

  /** A present entry is not rewritten but taken away first (§6.5.3.3), so that DMA in between is refused. */
  get switchesBlock(): bool {
    return true;
  }

  breakContext(deviceId: u32): void {
    const entry = this.entry(deviceId);
    store<u64>(entry, load<u64>(entry) & ~PRESENT);
    if (this.domains.has(deviceId)) this.forget(this.domains.get(deviceId));
  }

  private setEntry(deviceId: u32, type: u64, domain: u64, root: u64): void {
    this.breakContext(deviceId);
    const entry = this.entry(deviceId);
    store<u64>(entry + 16, root);
    store<u64>(entry + 8, domain | ((this.ecap & ECAP_SMPWCS) != 0 ? PWSNP : 0));
    store<u64>(entry, type | PRESENT);
    this.domains.set(deviceId, domain);
    this.forget(domain);
  }

  /** PASID entry and translations of PASID 0 in a domain; in effect at once, for what is written next may depend on it. */
  private forget(domain: u64): void {
    this.descriptor(PASID_CACHE_PASID | (domain << 16), 0);
    this.descriptor(PASID_IOTLB_ALL | (domain << 16), 0);
    this.fence();
  }

  invalidatePage(tag: u32, iova: u64): void {
    this.descriptor(PASID_IOTLB_PAGE | ((<u64>tag) << 16), (iova & ~(<u64>0xfff)) | LEAF_ONLY);
  }

  invalidateAddressSpace(tag: u32): void {
    this.descriptor(PASID_IOTLB_ALL | ((<u64>tag) << 16), 0);
  }

  /** Puts a descriptor into the queue and rings the doorbell. */
  private descriptor(first: u64, second: u64): void {
    const next = (this.tail + 1) % QUEUE_ENTRIES;
    for (let i = 0; mmioLoad32(this.base + IQH) >> 5 == next; i++) if (i == PATIENCE) fail("the queue stays full");
    const at = this.queue + (<usize>this.tail << 5);
    store<u64>(at, first);
    store<u64>(at + 8, second);
    store<u64>(at + 16, 0);
    store<u64>(at + 24, 0);
    this.tail = next;
    this.commandsSent++;
    mmioStore64(this.base + IQT, (<u64>next) << 5);
  }

  /** A wait that writes its status: returns when every earlier descriptor has taken effect. */
  fence(): void {
    store<u32>(this.status, 0);
    this.descriptor(WAIT_STATUS | ((<u64>DONE) << 32), gpaOf(this.status));
    for (let i = 0; i < PATIENCE; i++) {
      if (load<u32>(this.status) == DONE) return;
      const errors = mmioLoad32(this.base + FSTS) & QUEUE_ERRORS;
      if (errors != 0) fail("the queue stopped: FSTS " + hex(errors) + " at " + hex(mmioLoad32(this.base + IQH)));
    }
    fail("a wait does not complete");
  }

  takeFault(): Fault | null {
    const status = mmioLoad32(this.base + FSTS);
    check((status & PFO) == 0, "fault recording registers overflowed");
    const records = <u32>((this.cap >> 40) & 0xff) + 1;
    const at = this.base + (((this.cap >> 24) & 0x3ff) << 4) + ((<u64>this.nextRecord) << 4);
    const high = mmioLoad64(at + 8);
    if (high >> 63 == 0) return null;
    const low = mmioLoad64(at);
    mmioStore32(at + 12, <u32>1 << 31);
    this.nextRecord = (this.nextRecord + 1) % records;
    return decodeRecord(low, high);
  }

  /** Nothing: the interrupt is for the first record of several, and records are cleared as they are taken (§7.3). */
  acknowledgeFaults(): void {}

  /**
   * Nothing is heard of what its first stage refuses an assigned device: those faults are the host's unit's, and a host like Linux has no event queue for
   * them. Nor of entries that are not present.
   */
  codeOf(_what: i32, _write: bool): i32 {
    return -1;
  }

  private turnOn(bit: u32): void {
    mmioStore32(this.base + GCMD, (mmioLoad32(this.base + GSTS) & LEVELS) | bit);
    this.awaitStatus(bit, bit);
  }

  private awaitStatus(bit: u32, value: u32): void {
    for (let i = 0; i < PATIENCE; i++) if ((mmioLoad32(this.base + GSTS) & bit) == value) return;
    fail("GSTS is " + hex(mmioLoad32(this.base + GSTS)) + ", bit " + hex(bit) + " is to be " + hex(value));
  }
}

/** A fault recording register's quadwords (§11.4.7.6). {T1, T2} = 0 is a write. */
function decodeRecord(low: u64, high: u64): Fault {
  const reason = <u32>(high >> 32) & 0xff;
  const source = <u32>(high & 0xffff);
  const write = ((high >> 62) & 1) == 0 && ((high >> 28) & 1) == 0;
  const address = low & ~(<u64>0xfff);
  const text = "reason " + hex(reason) + ", source " + hex(source) + (write ? ", write, address " : ", read, address ") + hex(address);
  return new Fault(reason, source, write ? ACCESS_WRITE : ACCESS_READ, address, true, 0, text);
}
