// All caches of one SMMU: structures, translations, and the tags that those carry.

import { AddressTags } from "../../../base/caches/address-tags.ts";
import { Stamps } from "../../../base/caches/stamps.ts";
import { TranslationCache } from "../../../base/caches/translation-cache.ts";
import type { Stateful, StateRecord } from "../../../base/state.ts";
import type { SmmuFeatures } from "../identification.ts";
import { ConfigurationCache } from "./configuration-cache.ts";

export interface CacheSizes {
  /** Stream table entries, context descriptors, translations; 0: none. */
  readonly streams: number;
  readonly contexts: number;
  readonly translations: number;
}

export class SmmuCaches implements Stateful {
  readonly tags: AddressTags;
  readonly configurations: ConfigurationCache;
  readonly translations: TranslationCache;
  readonly #stamps = new Stamps();

  /** `e2h`: CR2.E2H as it is. */
  constructor(sizes: CacheSizes, features: SmmuFeatures, e2h: () => boolean) {
    this.tags = new AddressTags(this.#stamps);
    this.configurations = new ConfigurationCache(sizes.streams, sizes.contexts, this.#stamps, this.tags, features, e2h);
    this.translations = new TranslationCache(sizes.translations, this.tags);
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
    ];
  }
}
