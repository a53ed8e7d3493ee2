// All caches of one SMMU: structures, translations, and the tags that those carry.

import { AddressTags } from "../../../base/caches/address-tags.ts";
import { Requesters } from "../../../base/caches/requesters.ts";
import { Stamps } from "../../../base/caches/stamps.ts";
import { TableCache } from "../../../base/caches/table-cache.ts";
import { TranslationCache } from "../../../base/caches/translation-cache.ts";
import type { Stateful, StateRecord } from "../../../base/state.ts";
import type { SmmuFeatures } from "../identification.ts";
import type { CachedSpace } from "./cached-space.ts";
import { type CachedStream, ConfigurationCache } from "./configuration-cache.ts";

export interface CacheSizes {
  /** Stream table entries, context descriptors, translations; 0: none. */
  readonly streams: number;
  readonly contexts: number;
  readonly translations: number;
  /** Pointers to translation tables of both stages kept, so that a walk begins at the deepest table known; 0: every walk begins at the root. */
  readonly tables: number;
}

export class SmmuCaches implements Stateful {
  readonly tags: AddressTags;
  readonly requesters = new Requesters<CachedStream, CachedSpace>();
  readonly configurations: ConfigurationCache;
  readonly translations: TranslationCache;
  /** Null: none are kept. */
  readonly tables: TableCache | null;
  readonly #stamps = new Stamps();

  /** `e2h`: CR2.E2H as it is. */
  constructor(sizes: CacheSizes, features: SmmuFeatures, e2h: () => boolean) {
    this.tags = new AddressTags(this.#stamps);
    this.configurations = new ConfigurationCache(
      sizes.streams,
      sizes.contexts,
      this.#stamps,
      this.requesters,
      this.tags,
      features,
      e2h,
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
    this.configurations.clear();
    this.translations.clear();
    this.tables?.clear();
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
      ["configurations", this.configurations],
      ["translations", this.translations],
      ...(this.tables === null ? [] : [["tables", this.tables] as const]),
    ];
  }
}
