// All caches of one unit, and what each invalidation drops (§6.2, §6.5.2): context entries by source id, PASID entries by source id and PASID, translations
// and pointers to tables by domain id (second stage) or domain id and PASID (first stage, nested).

import { type AddressTag, AddressTags, UNNUMBERED } from "../../../base/caches/address-tags.ts";
import { Requesters } from "../../../base/caches/requesters.ts";
import { Stamps } from "../../../base/caches/stamps.ts";
import { TableCache } from "../../../base/caches/table-cache.ts";
import { TranslationCache } from "../../../base/caches/translation-cache.ts";
import type { Stateful, StateRecord } from "../../../base/state.ts";
import { PASID_CACHE_GLOBAL, PASID_CACHE_PASID } from "../invalidation-descriptors.ts";
import { GRANULARITY_DEVICE, GRANULARITY_DOMAIN, GRANULARITY_GLOBAL } from "../registers.ts";
import type { StructureRules } from "../structure-rules.ts";
import type { TranslationSpace } from "../translation-space.ts";
import { StructureCaches } from "./structure-caches.ts";

export interface CacheSizes {
  /** Context entries, PASID entries, translations; 0: none. */
  readonly contexts: number;
  readonly pasids: number;
  readonly translations: number;
  /** Pointers to tables of both stages, so that a walk begins at the deepest table known; 0: every walk begins at the root. */
  readonly tables: number;
}

/** Bits of a function number that FM ignores (§6.5.2.1): from the top. */
const FUNCTION_MASKS = Uint8Array.of(0, 4, 6, 7);
const ALL_FRAMES = 2 ** 52;

export class VtdCaches implements Stateful {
  readonly tags: AddressTags;
  /** Each with whether its faults are kept out of the records (FPD). */
  readonly requesters = new Requesters<boolean, TranslationSpace>();
  readonly structures: StructureCaches;
  readonly translations: TranslationCache;
  /** Null: none are kept. */
  readonly tables: TableCache | null;
  readonly #stamps = new Stamps();

  constructor(sizes: CacheSizes, rules: StructureRules) {
    this.tags = new AddressTags(this.#stamps);
    this.structures = new StructureCaches(
      sizes.contexts,
      sizes.pasids,
      this.#stamps,
      this.requesters,
      this.tags,
      rules,
    );
    this.translations = new TranslationCache(sizes.translations, this.tags);
    this.tables = sizes.tables === 0 ? null : new TableCache(sizes.tables, this.tags);
    this.#stamps.onExhausted = () => this.clear();
  }

  /** Before a structure is loaded: its tags must fit. */
  makeRoom(): void {
    if (this.tags.full) this.clear();
  }

  /** As after reset. */
  clear(): void {
    this.tags.dropAll();
    this.structures.clear();
    this.translations.clear();
    this.tables?.clear();
  }

  /** Context cache. In scalable mode contexts have no domain: a domain's go all. */
  invalidateContexts(granularity: number, domain: number, sourceId: number, functionMask: number): void {
    const { contexts } = this.structures;
    if (granularity === GRANULARITY_GLOBAL) {
      contexts.invalidateAll();
      return;
    }
    const ignored = FUNCTION_MASKS[functionMask]!;
    for (const slot of contexts.slots) {
      const meant =
        granularity === GRANULARITY_DEVICE
          ? ((slot.id ^ sourceId) & ~ignored) === 0
          : slot.domain < 0 || slot.domain === domain;
      if (meant) contexts.drop(slot);
    }
  }

  /** PASID cache. */
  invalidatePasids(granularity: number, domain: number, pasid: number): void {
    const { pasids } = this.structures;
    for (const slot of pasids.slots) {
      if (slot.ownerStamp === 0) continue;
      if (granularity !== PASID_CACHE_GLOBAL && slot.space.domain !== domain) continue;
      if (granularity === PASID_CACHE_PASID && slot.id !== pasid) continue;
      pasids.drop(slot);
    }
  }

  /** IOTLB by domain: of one page range second-stage translations, and whatever the first stage has a part in (§6.5.2.3). */
  invalidateTranslations(granularity: number, domain: number, pfn: number, mask: number, leavesOnly: boolean): void {
    const { tags } = this;
    if (granularity === GRANULARITY_GLOBAL) {
      for (let machine = tags.firstMachine; machine !== null; ) {
        const { next } = machine;
        tags.invalidateAll(machine);
        machine = next;
      }
      return;
    }
    if (granularity === GRANULARITY_DOMAIN) {
      tags.invalidateMachine(domain);
      return;
    }
    for (let tag = tags.firstLive(domain); tag !== null; tag = tag.nextLive) {
      if (tag.space === UNNUMBERED) this.#invalidatePages(tag, pfn, mask, leavesOnly);
      else tags.invalidate(tag);
    }
  }

  /** PASID-based IOTLB: what the first stage has a part in, of one PASID (§6.5.2.4). */
  invalidatePasidTranslations(
    domain: number,
    pasid: number,
    page: boolean,
    pfn: number,
    mask: number,
    leavesOnly: boolean,
  ): void {
    for (let tag = this.tags.first(domain, pasid); tag !== null; tag = tag.next) {
      if (page) this.#invalidatePages(tag, pfn, mask, leavesOnly);
      else this.tags.invalidate(tag);
    }
  }

  /** The pages around `pfn` of 2^mask, whose low bits do not count. */
  #invalidatePages(tag: AddressTag, pfn: number, mask: number, leavesOnly: boolean): void {
    const pages = mask >= 52 ? ALL_FRAMES : 2 ** mask;
    const first = pfn - (pfn % pages);
    this.translations.invalidatePages(tag, first, pages, 0, 0);
    if (!leavesOnly) this.tables?.invalidatePages(tag, first, pages);
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  /** Tags before the structures that have them. */
  stateParts(): Iterable<readonly [string, Stateful]> {
    return [
      ["stamps", this.#stamps],
      ["tags", this.tags],
      ["structures", this.structures],
      ["translations", this.translations],
      ...(this.tables === null ? [] : [["tables", this.tables] as const]),
    ];
  }
}
