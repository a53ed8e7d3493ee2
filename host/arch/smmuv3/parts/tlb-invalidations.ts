// What each TLB invalidation command drops (§4.4, §3.17).

import type { AddressTag, AddressTags } from "../../../base/caches/address-tags.ts";
import { GLOBAL } from "../../../base/caches/address-tags.ts";
import type { TableCache } from "../../../base/caches/table-cache.ts";
import type { TranslationCache } from "../../../base/caches/translation-cache.ts";
import {
  CMD_TLBI_EL2_ALL,
  CMD_TLBI_EL2_ASID,
  CMD_TLBI_EL2_VA,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
  CMD_TLBI_S2_IPA,
  CMD_TLBI_S12_VMALL,
} from "../commands.ts";
import { CR2_E2H, REG } from "../registers.ts";
import {
  machineOf,
  ORIGIN_GRANULE,
  ORIGIN_LEVEL,
  originOf,
  TAGGED_EL1,
  TAGGED_EL2,
  TAGGED_IPA,
} from "./cached-space.ts";
import type { SmmuCaches } from "./caches.ts";
import type { SmmuState } from "./smmu-state.ts";

/** Not an ASID: every address space. */
const ANY = -1;
/** Addresses in the upper half have bit 55 set; what is above counts as its copies, for it may be ignored (TBI). */
const HALF = 2 ** 43;
const WHOLE = 2 ** 44;
const ALL_FRAMES = 2 ** 52;

export class TlbInvalidations {
  readonly #state: Pick<SmmuState<number>, "features" | "reg">;
  readonly #tags: AddressTags;
  readonly #translations: TranslationCache;
  readonly #tables: TableCache | null;
  // not state, to the blank line: the command under way
  #vmid = 0;
  /** CR0.VMW: bits of the VMID that are compared (§6.3.9). */
  #vmidMask = 0xffff;
  /** Without the Leaf hint pointers to tables on the way to an address go too. */
  #leaf = false;

  constructor(state: Pick<SmmuState<number>, "features" | "reg">, caches: SmmuCaches) {
    this.#state = state;
    this.#tags = caches.tags;
    this.#translations = caches.translations;
    this.#tables = caches.tables;
  }

  /** Executes a TLBI command by its words; false: it is illegal here. */
  execute(opcode: number, w0: number, w1: number, w2: number, w3: number): boolean {
    const { features } = this.#state;
    const asid = w1 >>> 16;
    // Without stage 2 VMIDs are no tags, and their field is reserved (§4.4.1).
    this.#vmid = features.S2P ? w1 & 0xffff : 0;
    this.#vmidMask = 0xffff & (-1 << ((this.#state.reg(REG.CR0) >>> 6) & 7));
    switch (opcode) {
      case CMD_TLBI_NH_ALL:
        if (features.S1P) this.#machines(TAGGED_EL1);
        return features.S1P;
      case CMD_TLBI_NH_ASID:
        if (features.S1P) this.#space(TAGGED_EL1, asid);
        return features.S1P;
      case CMD_TLBI_NH_VA:
        return features.S1P && this.#addressed(TAGGED_EL1, asid, w0, w2, w3);
      case CMD_TLBI_NH_VAA:
        return features.S1P && this.#addressed(TAGGED_EL1, ANY, w0, w2, w3);
      case CMD_TLBI_S12_VMALL:
        if (!features.S2P) return false;
        this.#machines(TAGGED_EL1);
        this.#machines(TAGGED_IPA);
        return true;
      case CMD_TLBI_S2_IPA:
        // Of stage 2 alone: what combines both stages is NH_ALL's.
        return features.S2P && this.#addressed(TAGGED_IPA, ANY, w0, w2, w3);
      case CMD_TLBI_NSNH_ALL:
        this.#vmidMask = 0;
        this.#machines(TAGGED_EL1);
        this.#machines(TAGGED_IPA);
        return true;
      default:
        return this.#el2(opcode, asid, w0, w2, w3);
    }
  }

  /** NS-EL2 and NS-EL2-E2H, whichever CR2.E2H says there is. */
  #el2(opcode: number, asid: number, w0: number, w2: number, w3: number): boolean {
    const { features } = this.#state;
    if (!features.Hyp || !features.S1P) return false;
    this.#vmid = 0;
    this.#vmidMask = 0xffff;
    const tagged = (this.#state.reg(REG.CR2) & CR2_E2H) !== 0;
    if (opcode === CMD_TLBI_EL2_ALL || (opcode === CMD_TLBI_EL2_ASID && !tagged)) this.#machines(TAGGED_EL2);
    else if (opcode === CMD_TLBI_EL2_ASID) this.#space(TAGGED_EL2, asid);
    else return this.#addressed(TAGGED_EL2, opcode === CMD_TLBI_EL2_VA && tagged ? asid : ANY, w0, w2, w3);
    return true;
  }

  /** Drops all of the machines that are meant. */
  #machines(tagged: number): void {
    const tags = this.#tags;
    if (this.#vmidMask === 0xffff) {
      tags.invalidateMachine(machineOf(tagged, this.#vmid));
      return;
    }
    for (let machine = tags.firstMachine; machine !== null; machine = machine.next)
      if (this.#means(tagged, machine.machine)) tags.invalidateAll(machine);
  }

  #means(tagged: number, machine: number): boolean {
    return machine >>> 16 === tagged && ((machine ^ this.#vmid) & this.#vmidMask) === 0;
  }

  /** Drops what is not global of an address space. */
  #space(tagged: number, asid: number): void {
    const tags = this.#tags;
    if (this.#vmidMask === 0xffff) this.#drop(tags.first(machineOf(tagged, this.#vmid), asid));
    else
      for (let each = tags.firstMachine; each !== null; each = each.next)
        if (this.#means(tagged, each.machine)) this.#drop(tags.first(each.machine, asid));
  }

  #drop(first: AddressTag | null): void {
    for (let tag = first; tag !== null; tag = tag.next) this.#tags.invalidate(tag);
  }

  /** By the address and, with RIL, range of a command (§4.4.1); false for the combination that is Reserved. */
  #addressed(tagged: number, asid: number, w0: number, w2: number, w3: number): boolean {
    const pfn = (w3 >>> 0) * 0x100000 + (w2 >>> 12);
    this.#leaf = (w2 & 1) !== 0;
    const tg = this.#state.features.RIL ? (w2 >>> 10) & 3 : 0;
    if (tg === 0) {
      this.#range(tagged, asid, pfn, 1, 0, 0);
      return true;
    }
    const num = (w0 >>> 12) & 0x1f;
    const scale = (w0 >>> 20) & 0x1f;
    const ttl = (w2 >>> 8) & 3;
    if (num === 0 && scale === 0 && ttl === 0) return false;
    const granule = 10 + 2 * tg;
    const unit = 2 ** (granule - 12);
    // There are no level-1 blocks of 16K.
    const level = ttl === 1 && granule === 14 ? 0 : ttl;
    const mask = level === 0 ? ORIGIN_GRANULE : ORIGIN_GRANULE | ORIGIN_LEVEL;
    this.#range(tagged, asid, pfn - (pfn % unit), (num + 1) * 2 ** scale * unit, mask, originOf(granule, level));
    return true;
  }

  /** Drops what was made from leaves that cover some of the pages [pfn, pfn + pages) and whose origin is the one given, as far as `mask` goes. */
  #range(tagged: number, asid: number, pfn: number, pages: number, mask: number, origin: number): void {
    if (this.#vmidMask === 0xffff) {
      this.#rangeOf(machineOf(tagged, this.#vmid), asid, pfn, pages, mask, origin);
      return;
    }
    for (let each = this.#tags.firstMachine; each !== null; each = each.next)
      if (this.#means(tagged, each.machine)) this.#rangeOf(each.machine, asid, pfn, pages, mask, origin);
  }

  #rangeOf(machine: number, asid: number, pfn: number, pages: number, mask: number, origin: number): void {
    const tags = this.#tags;
    if (asid === ANY) {
      for (let tag = tags.firstLive(machine); tag !== null; tag = tag.nextLive)
        this.#pages(tag, pfn, pages, mask, origin);
      return;
    }
    for (let tag = tags.first(machine, asid); tag !== null; tag = tag.next) this.#pages(tag, pfn, pages, mask, origin);
    for (let tag = tags.first(machine, GLOBAL); tag !== null; tag = tag.next)
      this.#pages(tag, pfn, pages, mask, origin);
  }

  #pages(tag: AddressTag, pfn: number, pages: number, mask: number, origin: number): void {
    const start = pfn % WHOLE;
    const end = Math.min(start + pages, WHOLE);
    const split = Math.min(Math.max(start, HALF), end);
    if (start < split) this.#half(tag, start, split - start, mask, origin);
    if (split < end) this.#half(tag, split + ALL_FRAMES - WHOLE, end - split, mask, origin);
  }

  /** Pointers go whatever their granule and level. */
  #half(tag: AddressTag, pfn: number, pages: number, mask: number, origin: number): void {
    this.#translations.invalidatePages(tag, pfn, pages, mask, origin);
    if (!this.#leaf) this.#tables?.invalidatePages(tag, pfn, pages);
  }
}
