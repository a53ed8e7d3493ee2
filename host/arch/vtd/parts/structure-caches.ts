// Caches of context entries and PASID entries, decoded (§6.2.2). They are apart: forgetting a context does not forget the PASID entries that were found through
// it, software has to ask for both (§6.5.2.1). Only present entries without faults are cached, no root and no PASID directory entries.

import type { AddressTags } from "../../../base/caches/address-tags.ts";
import { UNNUMBERED } from "../../../base/caches/address-tags.ts";
import type { Requesters } from "../../../base/caches/requesters.ts";
import type { Stamps } from "../../../base/caches/stamps.ts";
import {
  StructureCache,
  type StructureSlot,
  SubstructureCache,
  type SubstructureSlot,
} from "../../../base/caches/structure-cache.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { FPD, pasidLimit, TT_ALL } from "../root-and-context.ts";
import type { StructureRules } from "../structure-rules.ts";
import { frameIn } from "../structure-walk.ts";
import { TranslationSpace } from "../translation-space.ts";

export class CachedContext implements StructureSlot {
  /** The source id. */
  id = -1;
  stamp = 0;
  /** 4 halves in legacy mode, 8 in scalable mode. */
  readonly words = new Int32Array(8);
  scalable = false;
  // not state, to the blank line: what the words say.
  fpd = false;
  /** ATS is allowed (TT, DTE); PASIDs (PASIDE); page requests (PRE). */
  ats = false;
  pasids = false;
  pageRequests = false;
  pasidLimit = 0;
  directoryPfn = -0;
  ridPasid = 0;
  ridPrivileged = false;
  domain = 0;
  /** Legacy mode: what requests go through. */
  readonly space = new TranslationSpace();

  readonly #tags: AddressTags;
  readonly #rules: StructureRules;

  constructor(tags: AddressTags, rules: StructureRules) {
    this.#tags = tags;
    this.#rules = rules;
  }

  /** Takes a sound entry. */
  load(source: Int32Array, scalable: boolean): void {
    this.words.set(source);
    this.scalable = scalable;
    const w0 = source[0]!;
    this.fpd = (w0 & FPD) !== 0;
    if (scalable) {
      this.ats = (w0 & 4) !== 0;
      this.pasids = (w0 & 8) !== 0;
      this.pageRequests = (w0 & 16) !== 0;
      this.pasidLimit = pasidLimit((w0 >>> 9) & 7);
      this.directoryPfn = frameIn(w0, source[1]!);
      this.ridPasid = source[2]! & 0xfffff;
      this.ridPrivileged = (source[2]! & (1 << 20)) !== 0;
      this.domain = -1;
      return;
    }
    this.ats = ((w0 >>> 2) & 3) === TT_ALL;
    this.pasids = false;
    this.pageRequests = false;
    this.ridPrivileged = false;
    const { space } = this;
    space.loadContext(source, this.#rules);
    space.secondTag = space.tag = this.#tags.tagFor(space.domain, UNNUMBERED, 0);
    this.domain = space.domain;
  }

  saveState(): StateRecord {
    return { id: this.id, stamp: this.stamp, words: [...this.words], scalable: this.scalable };
  }

  restoreState(state: StateReader): void {
    this.id = state.number("id");
    this.stamp = state.number("stamp");
    state.numbers("words", this.words);
    this.load(this.words, state.boolean("scalable"));
  }
}

export class CachedPasid implements SubstructureSlot {
  /** The PASID. */
  id = -1;
  /** The source id plus 1; 0: empty. */
  ownerStamp = 0;
  readonly words = new Int32Array(16);
  /** The entry, or the directory entry that led to it, has FPD. */
  fpd = false;
  readonly space = new TranslationSpace(); // not state: what the words say
  readonly #tags: AddressTags;
  readonly #rules: StructureRules;

  constructor(tags: AddressTags, rules: StructureRules) {
    this.#tags = tags;
    this.#rules = rules;
  }

  /** Takes a sound entry. */
  load(source: Int32Array, fpd: boolean): void {
    this.words.set(source);
    this.fpd = fpd;
    const { space } = this;
    space.loadPasid(source, this.#rules);
    space.secondTag = this.#tags.tagFor(space.domain, UNNUMBERED, 0);
    space.tag = space.firstLevels === 0 ? space.secondTag : this.#tags.tagFor(space.domain, this.id, 0);
  }

  saveState(): StateRecord {
    return { id: this.id, ownerStamp: this.ownerStamp, words: [...this.words], fpd: this.fpd };
  }

  restoreState(state: StateReader): void {
    this.id = state.number("id");
    this.ownerStamp = state.number("ownerStamp");
    state.numbers("words", this.words);
    this.load(this.words, state.boolean("fpd"));
  }
}

export class StructureCaches implements Stateful {
  readonly contexts: StructureCache<CachedContext>;
  readonly pasids: SubstructureCache<CachedPasid>;

  constructor(
    contexts: number,
    pasids: number,
    stamps: Stamps,
    requesters: Requesters<unknown, unknown>,
    tags: AddressTags,
    rules: StructureRules,
  ) {
    this.contexts = new StructureCache(contexts, stamps, requesters, () => new CachedContext(tags, rules));
    this.pasids = new SubstructureCache(pasids, requesters, () => new CachedPasid(tags, rules));
  }

  loadContext(sourceId: number, words: Int32Array, scalable: boolean): CachedContext {
    const context = this.contexts.place(sourceId);
    context.load(words, scalable);
    return context;
  }

  loadPasid(sourceId: number, pasid: number, words: Int32Array, fpd: boolean): CachedPasid {
    const entry = this.pasids.place(sourceId + 1, pasid);
    entry.load(words, fpd);
    return entry;
  }

  findPasid(sourceId: number, pasid: number): CachedPasid | null {
    return this.pasids.find(sourceId + 1, pasid);
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  stateParts(): Iterable<readonly [string, Stateful]> {
    return [
      ["contexts", this.contexts],
      ["pasids", this.pasids],
    ];
  }

  clear(): void {
    this.contexts.clear();
    this.pasids.clear();
  }
}
