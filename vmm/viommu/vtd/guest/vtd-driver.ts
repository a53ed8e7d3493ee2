// The guest's VT-d driver, as a scenario plays it: programs the unit's registers by traps (so that every access costs what a guest's would), keeps root
// table, context tables, PASID directories and tables and the invalidation queue in guest RAM (VT-d §6.5.2, §9, §11.4), in Linux's order.

import { decodeCapabilities, type VtdFeatures } from "../../../../host/arch/vtd/capabilities.ts";
import { decodeFaultRecord, type FaultRecord } from "../../../../host/arch/vtd/fault-records.ts";
import { IRTE, IRTE_BYTES, remappableMessage } from "../../../../host/arch/vtd/interrupt-remapping.ts";
import {
  type DescriptorName,
  describeDescriptor,
  encodeDescriptor,
  PASID_CACHE_GLOBAL,
  PASID_CACHE_PASID,
  PASID_IOTLB_ALL,
  PASID_IOTLB_PAGE,
} from "../../../../host/arch/vtd/invalidation-descriptors.ts";
import {
  decodePageRequest,
  PAGE_REQUEST_BYTES,
  RESPONSE_FAILURE,
  RESPONSE_INVALID,
  RESPONSE_SUCCESS,
  type PageRequest as Request,
} from "../../../../host/arch/vtd/page-requests.ts";
import { PASID_ENTRY, PGTT_FIRST, PGTT_PASS_THROUGH } from "../../../../host/arch/vtd/pasid-entries.ts";
import {
  FSTS_ICE,
  FSTS_IQE,
  FSTS_ITE,
  FSTS_PFO,
  faultRecordingRegister,
  GCMD_CFI,
  GCMD_IRE,
  GCMD_QIE,
  GCMD_SIRTP,
  GCMD_SRTP,
  GCMD_TE,
  GRANULARITY_DEVICE,
  GRANULARITY_DOMAIN,
  GRANULARITY_GLOBAL,
  GSTS_LEVELS,
  IQA_DW,
  IRTA_EIME,
  REG,
  TTM_SCALABLE,
} from "../../../../host/arch/vtd/registers.ts";
import type { VcpuPort } from "../../../vcpu/port.ts";
import type {
  DeviceTranslation,
  DriverSurroundings,
  FirstStage,
  GuestDriver,
  GuestMemory,
  InvalidationScope,
  PageAnswer,
  PageRequest,
  TranslationOffer,
} from "../../guest-driver.ts";
import type { Stage1 } from "./stage1.ts";

/** IQA.QS 1: two pages, 256 descriptors of 32 bytes. */
const QUEUE_PAGES = 2;
const QUEUE_ENTRIES = 256;
const DESCRIPTOR_BYTES = 32;
const DONE = 2;
/** PQA.PQS 0: 128 requests. */
const REQUEST_BYTES = 4096;
/** Bits of a context entry's first quadword (§9.4). */
const CONTEXT_DTE = 1n << 2n;
const CONTEXT_PASIDE = 1n << 3n;
const CONTEXT_PRE = 1n << 4n;
/** ADDR that with S = 1 means everything. */
const EVERY_PAGE = (1n << 51n) - 1n;
const ANSWERS: Readonly<Record<PageAnswer, number>> = {
  success: RESPONSE_SUCCESS,
  invalid: RESPONSE_INVALID,
  failure: RESPONSE_FAILURE,
};
/** Domain id of pass-through entries. */
const PASS_THROUGH_DOMAIN = 1;
/** Reads of a register before a wait is given up; each costs a trap's time. */
const PATIENCE = 1000;

/** A fault recording register as it was taken, with its words. */
export interface GuestFaultRecord extends FaultRecord {
  readonly words: readonly bigint[];
}

type PasidFields = Partial<Record<keyof typeof PASID_ENTRY.fields, bigint | number>>;

/** What a guest writes for a device: fields of its PASID entry 0 (§9.6), P = 1 unless it says otherwise. */
export interface VtdContext {
  readonly pasid: PasidFields;
  /** Bits beside P of the first quadword of the context entry (§9.4). */
  readonly context?: bigint;
}

/** What only this kind's translations have. */
export interface VtdTranslationExtra {
  /** Further fields of the PASID entry. */
  readonly pasid?: PasidFields;
}

function entryOf(fields: PasidFields): bigint[] {
  const entry = new Array<bigint>(8).fill(0n);
  for (const [field, value] of Object.entries({ P: 1, ...fields })) {
    PASID_ENTRY.set(entry, field as keyof typeof PASID_ENTRY.fields, BigInt(value));
  }
  return entry;
}

/** Not state: a scenario plays the guest, and what it knows is its own. */
export class GuestVtd implements GuestDriver {
  readonly features: VtdFeatures;
  readonly #port: VcpuPort;
  readonly #ram: GuestMemory;
  readonly #base: number;
  readonly #root: bigint;
  readonly #queue: bigint;
  readonly #status: bigint;
  readonly #requests: bigint;
  /** Domain ids that a device's entries have, by PASID: what was cached under them is dropped when they change. */
  readonly #domains = new Map<number, Map<number, number>>();
  /** Devices that have ATS on: their TLBs are told, too. */
  readonly #ats = new Set<number>();
  #tail = 0;
  #requestHead = 0;

  /** Finds the unit at guest-physical `base` and brings it up. Throws for one that Linux's driver would not take, or that does not answer. */
  constructor({ port, ram, base, messageAddress, firstMessage }: DriverSurroundings) {
    this.#port = port;
    this.#ram = ram;
    this.#base = base;
    this.features = decodeCapabilities(this.read64(REG.CAP), this.read64(REG.ECAP));
    const { QI, SMTS, FSTS, CM } = this.features;
    if (!QI || !SMTS || !FSTS) throw new Error("the unit has no queue, no scalable mode or no first stage");
    if (!CM) throw new Error("the unit has no caching mode: nobody would learn of entries that appear");
    this.#root = ram.allocate();
    this.#queue = ram.allocate(QUEUE_PAGES, BigInt(QUEUE_PAGES * 4096));
    this.#status = ram.allocate();
    const { PRS } = this.features;
    this.#requests = PRS ? ram.allocate() : 0n;
    this.write64(REG.IQT, 0n);
    this.write64(REG.IQA, this.#queue | BigInt(IQA_DW | 1));
    this.#command(GCMD_QIE);
    this.write64(REG.RTADDR, this.#root | BigInt(TTM_SCALABLE << 10));
    this.#command(GCMD_SRTP);
    this.descriptor("context", { G: GRANULARITY_GLOBAL });
    this.descriptor("pasidCache", { G: PASID_CACHE_GLOBAL });
    this.descriptor("iotlb", { G: GRANULARITY_GLOBAL });
    this.fence();
    this.write32(REG.FEDATA, firstMessage);
    this.write32(REG.FEADDR, messageAddress);
    this.write32(REG.FEUADDR, 0);
    this.write32(REG.FECTL, 0);
    if (PRS) {
      this.write64(REG.PQH, 0n);
      this.write64(REG.PQT, 0n);
      this.write64(REG.PQA, this.#requests);
      this.write32(REG.PRS, 3);
      this.write32(REG.PEDATA, firstMessage + 1);
      this.write32(REG.PEADDR, messageAddress);
      this.write32(REG.PEUADDR, 0);
      this.write32(REG.PECTL, 0);
    }
    this.#command(GCMD_TE);
  }

  /** One bit of GCMD beside what is on, until GSTS shows it. */
  #command(bit: number): void {
    const on = this.read32(REG.GSTS) & GSTS_LEVELS;
    this.write32(REG.GCMD, (on | bit) >>> 0);
    for (let i = 0; i < PATIENCE; i++) if ((this.read32(REG.GSTS) & bit) !== 0) return;
    throw new Error(`the unit does not take GCMD 0x${bit.toString(16)}`);
  }

  read32(register: number): number {
    return this.#port.load(this.#base + register, 4);
  }

  read64(register: number): bigint {
    const low = this.#port.load(this.#base + register, 8);
    return (BigInt(this.#port.high >>> 0) << 32n) | BigInt(low >>> 0);
  }

  write32(register: number, value: number): void {
    this.#port.store(this.#base + register, 4, value >>> 0, 0);
  }

  write64(register: number, value: bigint): void {
    this.#port.store(this.#base + register, 8, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }

  /** Stores a descriptor into the queue; nothing happens until `ringDoorbell`. */
  descriptor(name: DescriptorName, fields: Readonly<Record<string, bigint | number>> = {}): void {
    const [first, second] = encodeDescriptor(name, fields);
    this.writeDescriptor(first, second);
  }

  writeDescriptor(first: bigint, second: bigint): void {
    const next = (this.#tail + 1) % QUEUE_ENTRIES;
    if (next * DESCRIPTOR_BYTES === this.read32(REG.IQH)) {
      this.ringDoorbell();
      if (next * DESCRIPTOR_BYTES === this.read32(REG.IQH)) throw new Error("the queue is full and does not move");
    }
    const at = this.#queue + BigInt(this.#tail * DESCRIPTOR_BYTES);
    for (const [word, value] of [first, second, 0n, 0n].entries()) this.#ram.write64(at + BigInt(8 * word), value);
    this.#tail = next;
  }

  ringDoorbell(): void {
    this.write64(REG.IQT, BigInt(this.#tail * DESCRIPTOR_BYTES));
  }

  /** A wait that writes its status, and the doorbell. Throws if the queue stopped with an error. */
  fence(): void {
    this.#ram.write64(this.#status, 0n);
    this.descriptor("wait", { SW: 1, STDATA: DONE, STADDR: this.#status >> 2n });
    this.ringDoorbell();
    if (this.#ram.read64(this.#status) === BigInt(DONE)) return;
    throw new Error(`the queue stands: ${this.queueError ?? "no error"}`);
  }

  /** "IQE at …" while the queue stands still because of an error; null otherwise. */
  get queueError(): string | null {
    const status = this.read32(REG.FSTS) & (FSTS_IQE | FSTS_ICE | FSTS_ITE);
    if (status === 0) return null;
    const at = this.#queue + BigInt(this.read32(REG.IQH));
    const what = describeDescriptor([this.#ram.read64(at), this.#ram.read64(at + 8n)]);
    return `${(status & FSTS_IQE) !== 0 ? "IQE" : "ITE"} at ${what}`;
  }

  /** PASID-based IOTLB invalidations, and those of device TLBs behind them: of one page, of one stage 1 (or domain), or everything. */
  invalidate(scope: InvalidationScope & { readonly domain?: number } = {}): void {
    const domain = scope.domain ?? scope.stage1?.tag;
    if (domain === undefined) {
      this.descriptor("iotlb", { G: GRANULARITY_GLOBAL });
      for (const deviceId of this.#ats) this.#forgetInDevice(deviceId, 0, undefined, true);
      return;
    }
    const users = [...this.#domains].flatMap(([deviceId, pasids]) =>
      [...pasids].filter(([, of]) => of === domain).map(([pasid]) => ({ deviceId, pasid })),
    );
    for (const pasid of users.length === 0 ? [0] : new Set(users.map((user) => user.pasid))) {
      if (scope.iova === undefined) {
        this.descriptor("pasidIotlb", { G: PASID_IOTLB_ALL, DID: domain, PASID: pasid });
      } else {
        const page = { G: PASID_IOTLB_PAGE, DID: domain, PASID: pasid, AM: 0, IH: 1, ADDR: scope.iova >> 12n };
        this.descriptor("pasidIotlb", page);
      }
    }
    for (const { deviceId, pasid } of users) {
      if (this.#ats.has(deviceId)) this.#forgetInDevice(deviceId, pasid, scope.iova);
    }
  }

  /** Without `iova`: everything. */
  #forgetInDevice(deviceId: number, pasid: number, iova?: bigint, all = false): void {
    const SID = deviceId & 0xffff;
    const range = iova === undefined ? { S: 1, ADDR: EVERY_PAGE } : { ADDR: iova >> 12n };
    // Those without a PASID are told by themselves.
    if (pasid === 0) this.descriptor("deviceTlb", { SID, ...range });
    if (pasid !== 0 || (all && this.offer.pasidBits > 0)) {
      this.descriptor("pasidDeviceTlb", { SID, PASID: pasid, G: all ? 1 : 0, ...range });
    }
  }

  /** Guest-physical address of a device's context entry (§9.4); tables grow as needed. */
  contextAddress(deviceId: number): bigint {
    const half = this.#root + BigInt((deviceId >> 8) * 16 + ((deviceId & 0x80) === 0 ? 0 : 8));
    return this.#table(half) + BigInt((deviceId & 0x7f) * 32);
  }

  /** Guest-physical address of a device's PASID entry; its directory is that of its context entry. */
  pasidAddress(deviceId: number, pasid = 0): bigint {
    const context = this.contextAddress(deviceId);
    if ((this.#ram.read64(context) & 1n) === 0n) {
      for (const word of [24n, 16n, 8n]) this.#ram.write64(context + word, 0n);
      this.#ram.write64(context, this.#ram.allocate() | 1n);
    }
    const directory = this.#ram.read64(context) & ~0xfffn;
    return this.#table(directory + BigInt((pasid >> 6) * 8)) + BigInt((pasid & 63) * 64);
  }

  /** The page that an entry with P and an address leads to; made if there is none. */
  #table(at: bigint): bigint {
    let entry = this.#ram.read64(at);
    if ((entry & 1n) === 0n) {
      entry = this.#ram.allocate() | 1n;
      this.#ram.write64(at, entry);
    }
    return entry & ~0xfffn;
  }

  /** Clears a PASID entry of a device's, P first, and drops what is cached of it. */
  clear(deviceId: number, pasid = 0): void {
    const at = this.pasidAddress(deviceId, pasid);
    const before = this.#domains.get(deviceId)?.get(pasid);
    this.#ram.write64(at, this.#ram.read64(at) & ~1n);
    if (before !== undefined) this.#forget(deviceId, before, pasid);
    for (let word = 0n; word < 64n; word += 8n) this.#ram.write64(at + word, 0n);
    this.#domains.get(deviceId)?.delete(pasid);
  }

  #forget(deviceId: number, domain: number, pasid: number): void {
    this.descriptor("pasidCache", { G: PASID_CACHE_PASID, DID: domain, PASID: pasid });
    this.descriptor("pasidIotlb", { G: PASID_IOTLB_ALL, DID: domain, PASID: pasid });
    if (this.#ats.has(deviceId)) this.#forgetInDevice(deviceId, pasid);
    this.fence();
  }

  /** Writes a device's PASID entry 0 as it is, after what was there has gone (§6.5.3.3), and tells of it. */
  installContext(deviceId: number, { pasid, context = 0n }: VtdContext): void {
    for (const other of this.#pasidsOf(deviceId)) if (other !== 0) this.clear(deviceId, other);
    this.clear(deviceId);
    this.#setContext(deviceId, context);
    this.#writeEntry(deviceId, 0, entryOf(pasid));
  }

  #pasidsOf(deviceId: number): number[] {
    return [...(this.#domains.get(deviceId)?.keys() ?? [])];
  }

  /** Bits beside P and the directory of a device's context entry (§9.4). */
  #setContext(deviceId: number, bits: bigint): void {
    this.pasidAddress(deviceId);
    const at = this.contextAddress(deviceId);
    const first = this.#ram.read64(at);
    this.#ram.write64(at, (first & ~0xffen) | bits);
    if ((bits & CONTEXT_DTE) === 0n) this.#ats.delete(deviceId);
    else this.#ats.add(deviceId);
    // With caching mode the context entry may be cached as absent, under domain id 0.
    this.descriptor("context", { G: GRANULARITY_DEVICE, SID: deviceId & 0xffff });
    this.descriptor("iotlb", { G: GRANULARITY_DOMAIN, DID: 0 });
  }

  #writeEntry(deviceId: number, pasid: number, entry: readonly bigint[]): void {
    const at = this.pasidAddress(deviceId, pasid);
    for (let word = 7; word >= 0; word--) this.#ram.write64(at + BigInt(8 * word), entry[word]!);
    const domain = Number(PASID_ENTRY.get(entry, "DID"));
    const domains = this.#domains.get(deviceId) ?? new Map<number, number>();
    this.#domains.set(deviceId, domains.set(pasid, domain));
    this.#forget(deviceId, domain, pasid);
  }

  get offer(): TranslationOffer {
    const { DT, PRS, PASID, PSS } = this.features;
    return { ats: DT, pageRequests: PRS, pasidBits: PASID ? PSS + 1 : 0 };
  }

  /** Entries that stay as they are are left alone; where all do, they are told of anew. */
  installTranslation(
    deviceId: number,
    { whole, pasids, ats, pageRequests }: DeviceTranslation<Stage1>,
    { pasid = {} }: VtdTranslationExtra = {},
  ): void {
    const entries = new Map<number, readonly bigint[]>();
    for (const [of, stage] of [[0, whole ?? "blocked"] as const, ...pasids]) {
      const fields = this.#entryFields(stage);
      if (fields !== null) entries.set(of, entryOf(of === 0 ? { ...fields, ...pasid } : fields));
    }
    for (const known of this.#pasidsOf(deviceId)) if (!entries.has(known)) this.clear(deviceId, known);
    if (!entries.has(0)) this.clear(deviceId);
    const bits =
      (ats || pageRequests ? CONTEXT_DTE : 0n) |
      (pasids.size > 0 ? CONTEXT_PASIDE : 0n) |
      (pageRequests ? CONTEXT_PRE : 0n);
    const at = this.contextAddress(deviceId);
    const changes = (this.#ram.read64(at) & 0xffen) !== bits;
    if (changes || entries.size > 0) this.#setContext(deviceId, bits);
    const others = [...entries].filter(([of, entry]) => {
      const place = this.pasidAddress(deviceId, of);
      return changes || entry.some((word, i) => this.#ram.read64(place + BigInt(8 * i)) !== word);
    });
    for (const [of, entry] of others.length > 0 ? others : entries) {
      this.clear(deviceId, of);
      this.#writeEntry(deviceId, of, entry);
    }
  }

  #entryFields(stage: FirstStage<Stage1>): PasidFields | null {
    const walks = { PWSNP: this.features.SMPWCS ? 1 : 0 };
    if (stage === "blocked") return null;
    if (stage === "bypass") return { PGTT: PGTT_PASS_THROUGH, DID: PASS_THROUGH_DOMAIN, ...walks };
    return { PGTT: PGTT_FIRST, DID: stage.domain, FSPM: stage.pagingMode, FSPTPTR: stage.root >> 12n, ...walks };
  }

  /** Takes the page requests that wait, oldest first (prq.c: PQH to PQT, then PPR is cleared). */
  takeRequests(): PageRequest[] {
    if (!this.features.PRS) return [];
    const found: PageRequest[] = [];
    const tail = this.read32(REG.PQT);
    while (this.#requestHead !== tail && found.length < REQUEST_BYTES / PAGE_REQUEST_BYTES) {
      const at = this.#requests + BigInt(this.#requestHead);
      const request = decodePageRequest([0n, 8n, 16n, 24n].map((word) => this.#ram.read64(at + word)));
      this.#requestHead = (this.#requestHead + PAGE_REQUEST_BYTES) % REQUEST_BYTES;
      const { requesterId: deviceId, pasid, address, read, write, execute, last } = request;
      found.push({
        ...{ deviceId, pasid: pasid < 0 ? null : pasid, address, read, write, execute, last },
        answer: (answer) => this.#answer(request, answer),
      });
    }
    this.write64(REG.PQH, BigInt(this.#requestHead));
    this.write32(REG.PRS, 3);
    return found;
  }

  #answer({ requesterId, pasid, group }: Request, answer: PageAnswer): void {
    this.descriptor("pageGroupResponse", {
      ...{ RID: requesterId, PP: pasid < 0 ? 0 : 1, PASID: Math.max(pasid, 0), PRGI: group, code: ANSWERS[answer] },
    });
    this.fence();
  }

  /**
   * Has interrupts remapped: a table of 2^(log2) entries, 2 to 65,536 of them, all absent. `extended`: destinations of 32 bits; `compatibility`: messages
   * that name none of its entries pass. Guest-physical address of the table.
   */
  remapInterrupts(log2 = 8, options: { readonly extended?: boolean; readonly compatibility?: boolean } = {}): bigint {
    const table = this.#ram.allocate(Math.max((IRTE_BYTES * 2 ** log2) / 4096, 1));
    this.write64(REG.IRTA, table | BigInt((options.extended === true ? IRTA_EIME : 0) | (log2 - 1)));
    this.#command(GCMD_SIRTP);
    this.descriptor("interruptEntry", {});
    this.fence();
    if (options.compatibility === true) this.#command(GCMD_CFI);
    this.#command(GCMD_IRE);
    return table;
  }

  /** Writes entry `index` of a table that `remapInterrupts` made, and tells of it; returns what an MSI is programmed to for it. */
  writeInterruptEntry(
    table: bigint,
    index: number,
    fields: Partial<Record<keyof typeof IRTE.fields, bigint | number>>,
  ): { readonly address: number; readonly data: number } {
    const words = [0n, 0n];
    for (const [field, value] of Object.entries({ P: 1, ...fields })) {
      IRTE.set(words, field as keyof typeof IRTE.fields, BigInt(value));
    }
    const at = table + BigInt(IRTE_BYTES * index);
    this.#ram.write64(at + 8n, words[1]!);
    this.#ram.write64(at, words[0]!);
    this.descriptor("interruptEntry", { G: 1, IIDX: index });
    this.fence();
    return remappableMessage(index);
  }

  /** Takes the fault records that wait, from FRI on (dmar_fault), and clears overflow. */
  takeFaults(): GuestFaultRecord[] {
    const records: GuestFaultRecord[] = [];
    const count = this.features.NFR + 1;
    let index = (this.read32(REG.FSTS) >>> 8) & 0xff;
    for (let taken = 0; taken < count; taken++, index = (index + 1) % count) {
      const at = faultRecordingRegister(this.features, index);
      const words = [this.read64(at), this.read64(at + 8)];
      const record = decodeFaultRecord(words);
      if (!record.valid) break;
      records.push({ ...record, words });
      this.write32(at + 12, 0x80000000);
    }
    this.write32(REG.FSTS, FSTS_PFO);
    return records;
  }
}
