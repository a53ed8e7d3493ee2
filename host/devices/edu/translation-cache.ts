// A device's own cache of translations (ATC, PCIe 6.0 §10.1): filled by ATS translation requests, emptied by invalidation requests.
// A few dozen entries in flat arrays, replaced round robin; an entry covers a naturally aligned power-of-two run of pages.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import { type AtsTranslation, NO_PASID } from "../ports.ts";

const ENTRIES = 32;
/** First page of an entry that holds nothing. */
const EMPTY = -1;

// Flags of an entry.
const READ = 1;
const WRITE = 2;
const GLOBAL = 4;
const UNTRANSLATED_ONLY = 8;

export class TranslationCache implements Stateful {
  /** Page-frame number that the last successful `lookup` found. */
  resultPfn = 0; // not state: of the last lookup
  /** The translation found says that untranslated requests must be used. */
  untranslatedOnly = false; // not state: of the last lookup
  readonly #first = new Float64Array(ENTRIES).fill(EMPTY);
  readonly #pages = new Float64Array(ENTRIES);
  readonly #result = new Float64Array(ENTRIES);
  readonly #pasid = new Int32Array(ENTRIES);
  readonly #flags = new Uint8Array(ENTRIES);
  #next = 0;

  clear(): void {
    this.#first.fill(EMPTY);
  }

  /** True if a cached translation lets the device read (or write) page `pfn`. */
  lookup(pfn: number, pasid: number, write: boolean): boolean {
    const needed = write ? WRITE : READ;
    for (let i = 0; i < ENTRIES; i++) {
      const within = pfn - this.#first[i]!;
      if (this.#first[i] === EMPTY || within < 0 || within >= this.#pages[i]!) continue;
      const flags = this.#flags[i]!;
      if (this.#pasid[i] !== pasid && !((flags & GLOBAL) !== 0 && pasid !== NO_PASID)) continue;
      if ((flags & needed) === 0) continue;
      this.resultPfn = this.#result[i]! + within;
      this.untranslatedOnly = (flags & UNTRANSLATED_ONLY) !== 0;
      return true;
    }
    return false;
  }

  /** Keeps the answer to a translation request for `pfn`, unless it permits nothing (§10.2.3: such answers are not cached). */
  fill(pfn: number, pasid: number, translation: AtsTranslation): void {
    if (!translation.read && !translation.write) return;
    const pages = 2 ** Math.min(Math.max(translation.sizeLog2 - 12, 0), 52);
    const i = this.#next;
    this.#next = (i + 1) % ENTRIES;
    this.#first[i] = pfn - (pfn % pages);
    this.#pages[i] = pages;
    this.#result[i] = translation.pfn - (translation.pfn % pages);
    this.#pasid[i] = pasid;
    this.#flags[i] =
      (translation.read ? READ : 0) |
      (translation.write ? WRITE : 0) |
      (translation.global && pasid !== NO_PASID ? GLOBAL : 0) |
      (translation.untranslatedOnly ? UNTRANSLATED_ONLY : 0);
  }

  /** Drops what an invalidation request names; arguments as AtsTarget.invalidate. */
  invalidate(pfn: number, pages: number, pasid: number, everyPasid: boolean): void {
    for (let i = 0; i < ENTRIES; i++) {
      if (this.#first[i] === EMPTY) continue;
      const overlaps =
        pages === Number.POSITIVE_INFINITY ||
        (this.#first[i]! < pfn + pages && pfn < this.#first[i]! + this.#pages[i]!);
      const samePasid = everyPasid ? this.#pasid[i] !== NO_PASID : this.#pasid[i] === pasid;
      // A global entry may have been found through any PASID, so an invalidation of any PASID drops it.
      const global = pasid !== NO_PASID && (this.#flags[i]! & GLOBAL) !== 0;
      if (overlaps && (samePasid || global)) this.#first[i] = EMPTY;
    }
  }

  saveState(): StateRecord {
    return {
      first: bytesOf(this.#first),
      pages: bytesOf(this.#pages),
      result: bytesOf(this.#result),
      pasid: bytesOf(this.#pasid),
      flags: bytesOf(this.#flags),
      next: this.#next,
    };
  }

  restoreState(state: StateReader): void {
    state.memory("first", this.#first);
    state.memory("pages", this.#pages);
    state.memory("result", this.#result);
    state.memory("pasid", this.#pasid);
    state.memory("flags", this.#flags);
    this.#next = state.number("next");
    if (!(this.#next >= 0 && this.#next < ENTRIES)) state.fail("next", "is no entry");
  }
}
