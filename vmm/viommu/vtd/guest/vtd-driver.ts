// The guest's VT-d driver, as a scenario plays it: programs the unit's registers by traps (so that every access costs what a guest's would), keeps root
// table, context tables, PASID directories and tables and the invalidation queue in guest RAM (VT-d §6.5.2, §9, §11.4), in Linux's order.

import { decodeCapabilities, type VtdFeatures } from "../../../../host/arch/vtd/capabilities.ts";
import { decodeFaultRecord, type FaultRecord } from "../../../../host/arch/vtd/fault-records.ts";
import {
  type DescriptorName,
  describeDescriptor,
  encodeDescriptor,
  PASID_CACHE_GLOBAL,
  PASID_CACHE_PASID,
  PASID_IOTLB_ALL,
  PASID_IOTLB_PAGE,
} from "../../../../host/arch/vtd/invalidation-descriptors.ts";
import { PASID_ENTRY, PGTT_FIRST, PGTT_PASS_THROUGH } from "../../../../host/arch/vtd/pasid-entries.ts";
import {
  FSTS_ICE,
  FSTS_IQE,
  FSTS_ITE,
  FSTS_PFO,
  faultRecordingRegister,
  GCMD_QIE,
  GCMD_SRTP,
  GCMD_TE,
  GRANULARITY_DEVICE,
  GRANULARITY_DOMAIN,
  GRANULARITY_GLOBAL,
  GSTS_LEVELS,
  IQA_DW,
  REG,
  TTM_SCALABLE,
} from "../../../../host/arch/vtd/registers.ts";
import type { VcpuPort } from "../../../vcpu/port.ts";
import type {
  DeviceTranslation,
  DriverSurroundings,
  GuestDriver,
  GuestMemory,
  InvalidationScope,
  PageRequest,
  TranslationOffer,
} from "../../guest-driver.ts";
import type { Stage1 } from "./stage1.ts";

/** IQA.QS 1: two pages, 256 descriptors of 32 bytes. */
const QUEUE_PAGES = 2;
const QUEUE_ENTRIES = 256;
const DESCRIPTOR_BYTES = 32;
const DONE = 2;
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

/** Not state: a scenario plays the guest, and what it knows is its own. */
export class GuestVtd implements GuestDriver {
  readonly features: VtdFeatures;
  readonly #port: VcpuPort;
  readonly #ram: GuestMemory;
  readonly #base: number;
  readonly #root: bigint;
  readonly #queue: bigint;
  readonly #status: bigint;
  /** Domain ids that a device's entry had: what was cached under them is dropped when it changes. */
  readonly #domains = new Map<number, number>();
  #tail = 0;

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

  /** PASID-based IOTLB invalidations: of one page, of one stage 1 (or domain), or everything. */
  invalidate(scope: InvalidationScope & { readonly domain?: number } = {}): void {
    const domain = scope.domain ?? scope.stage1?.tag;
    if (domain === undefined) {
      this.descriptor("iotlb", { G: GRANULARITY_GLOBAL });
    } else if (scope.iova === undefined) {
      this.descriptor("pasidIotlb", { G: PASID_IOTLB_ALL, DID: domain, PASID: 0 });
    } else {
      const page = { G: PASID_IOTLB_PAGE, DID: domain, PASID: 0, AM: 0, IH: 1, ADDR: scope.iova >> 12n };
      this.descriptor("pasidIotlb", page);
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

  /** Clears a device's PASID entry, P first, and drops what is cached of it. */
  clear(deviceId: number): void {
    const at = this.pasidAddress(deviceId);
    const before = this.#domains.get(deviceId);
    this.#ram.write64(at, this.#ram.read64(at) & ~1n);
    if (before !== undefined) this.#forget(before);
    for (let word = 0n; word < 64n; word += 8n) this.#ram.write64(at + word, 0n);
    this.#domains.delete(deviceId);
  }

  #forget(domain: number): void {
    this.descriptor("pasidCache", { G: PASID_CACHE_PASID, DID: domain, PASID: 0 });
    this.descriptor("pasidIotlb", { G: PASID_IOTLB_ALL, DID: domain, PASID: 0 });
    this.fence();
  }

  /** Writes a device's PASID entry as it is, after what was there has gone (§6.5.3.3), and tells of it. */
  installContext(deviceId: number, { pasid, context }: VtdContext): void {
    this.clear(deviceId);
    const entry = new Array<bigint>(8).fill(0n);
    for (const [field, value] of Object.entries({ P: 1, ...pasid })) {
      PASID_ENTRY.set(entry, field as keyof typeof PASID_ENTRY.fields, BigInt(value));
    }
    const at = this.pasidAddress(deviceId);
    for (let word = 7; word >= 0; word--) this.#ram.write64(at + BigInt(8 * word), entry[word]!);
    const contextAt = this.contextAddress(deviceId);
    const first = this.#ram.read64(contextAt);
    if (context !== undefined) this.#ram.write64(contextAt, (first & ~0xffen) | context);
    const domain = Number(PASID_ENTRY.get(entry, "DID"));
    this.#domains.set(deviceId, domain);
    // With caching mode the context entry may be cached as absent, under domain id 0.
    this.descriptor("context", { G: GRANULARITY_DEVICE, SID: deviceId & 0xffff });
    this.descriptor("iotlb", { G: GRANULARITY_DOMAIN, DID: 0 });
    this.#forget(domain);
  }

  get offer(): TranslationOffer {
    return { ats: false, pageRequests: false, pasidBits: 0 };
  }

  installTranslation(
    deviceId: number,
    { whole, pasids }: DeviceTranslation<Stage1>,
    { pasid = {} }: VtdTranslationExtra = {},
  ): void {
    if (pasids.size > 0) throw new Error("the unit offers no PASIDs");
    const walks = { PWSNP: this.features.SMPWCS ? 1 : 0 };
    if (whole === null || whole === "blocked") {
      this.clear(deviceId);
    } else if (whole === "bypass") {
      this.installContext(deviceId, {
        pasid: { PGTT: PGTT_PASS_THROUGH, DID: PASS_THROUGH_DOMAIN, ...walks, ...pasid },
      });
    } else {
      const stage = { PGTT: PGTT_FIRST, DID: whole.domain, FSPM: whole.pagingMode, FSPTPTR: whole.root >> 12n };
      this.installContext(deviceId, { pasid: { ...stage, ...walks, ...pasid } });
    }
  }

  takeRequests(): PageRequest[] {
    return [];
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
