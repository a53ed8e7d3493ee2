// Tags of cached translations (§3.8): which address space an entry belongs to, and how invalidation is O(1).
//
// Every address space that caches know of - (GSCID, PSCID) of a first stage, a GSCID's global mappings, a GSCID's second stage
// alone - has an AddressTag with a stamp, a number never used twice. Cached entries carry the stamp. Invalidating a space gives
// its tag a new stamp: the old entries can never match again, and nothing is scanned. Invalidating one page probes the few sets
// in which that page can be.

import type { Stamps } from "../../../base/caches/stamps.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";

/** GSCID of "no second stage": the host's own address spaces. */
export const HOST = -1;
/** PSCID of "first stage Bare": second-stage translations of a guest-physical address. */
export const SECOND_STAGE_ONLY = -1;
/** PSCID under which mappings with G = 1 are kept, per GSCID. */
export const GLOBAL = -2;

/** Tags kept; when there would be more, all are dropped at once, and with them every context that holds one. */
const TAG_LIMIT = 4096;
/** Tags that loading one context can make. */
const TAGS_PER_CONTEXT = 4;

// Not state: AddressTags writes its tags down.
export class AddressTag {
  readonly gscid: number;
  readonly pscid: number;
  /** Tells apart spaces of one GSCID whose devices have different MSI recognition (§3.1.3.7). */
  readonly variant: number;
  /** The same GSCID's global mappings; null on a tag that is global or has no first stage. */
  readonly global: AddressTag | null;
  /** What entries of this space carry now. */
  stamp: number;
  /** Page-size classes that entries of this space may have (bits; see translation-cache.ts). */
  sizes = 0;
  /** Size classes of first-stage leaves that were cached in smaller pieces. */
  split = 0;
  /** Next tag of the same GSCID and PSCID. */
  next: AddressTag | null = null;

  constructor(gscid: number, pscid: number, variant: number, global: AddressTag | null, stamp: number) {
    this.gscid = gscid;
    this.pscid = pscid;
    this.variant = variant;
    this.global = global;
    this.stamp = stamp;
  }
}

/** The tags of one GSCID. Two small keys instead of one large one: a map of doubles costs twice as much on every command. */
interface MachineTags {
  readonly all: AddressTag[];
  /** First tag of each PSCID; the others hang on `next`. */
  readonly byPscid: Map<number, AddressTag>;
}

export class AddressTags implements Stateful {
  readonly #stamps: Stamps;
  readonly #machines = new Map<number, MachineTags>();
  #count = 0; // not state: the tags, counted

  constructor(stamps: Stamps) {
    this.#stamps = stamps;
  }

  /** True if loading a context could exceed the table: the caches must then be cleared first. */
  get full(): boolean {
    return this.#count > TAG_LIMIT - TAGS_PER_CONTEXT;
  }

  /** The tag of an address space; makes it if there is none yet. */
  tagFor(gscid: number, pscid: number, variant: number): AddressTag {
    const known = this.find(gscid, pscid, variant);
    if (known !== null) return known;
    const global = pscid >= 0 ? this.tagFor(gscid, GLOBAL, variant) : null;
    const tag = new AddressTag(gscid, pscid, variant, global, this.#stamps.next());
    tag.next = this.first(gscid, pscid);
    this.#add(tag);
    return tag;
  }

  #add(tag: AddressTag): void {
    const { gscid, pscid } = tag;
    let machine = this.#machines.get(gscid);
    if (machine === undefined) {
      machine = { all: [], byPscid: new Map() };
      this.#machines.set(gscid, machine);
    }
    machine.all.push(tag);
    machine.byPscid.set(pscid, tag);
    this.#count++;
  }

  find(gscid: number, pscid: number, variant: number): AddressTag | null {
    for (let tag = this.first(gscid, pscid); tag !== null; tag = tag.next) {
      if (tag.variant === variant) return tag;
    }
    return null;
  }

  /** First tag of (gscid, pscid); the others hang on `next`. */
  first(gscid: number, pscid: number): AddressTag | null {
    return this.#machines.get(gscid)?.byPscid.get(pscid) ?? null;
  }

  /** All tags of a GSCID (or HOST). */
  of(gscid: number): readonly AddressTag[] {
    return this.#machines.get(gscid)?.all ?? NO_TAGS;
  }

  /** Makes every entry of this space stale. */
  invalidate(tag: AddressTag): void {
    tag.stamp = this.#stamps.next();
    tag.sizes = 0;
    tag.split = 0;
  }

  /** Every space of every GSCID, and of the host's those that MSI tables take part in. */
  invalidateMachines(): void {
    for (const { all } of this.#machines.values()) {
      for (const tag of all) if (tag.gscid !== HOST || tag.variant !== 0) this.invalidate(tag);
    }
  }

  /** Forgets every tag. A request under way may still hold one: its stamp is new, and nobody else will find it. */
  dropAll(): void {
    for (const { all } of this.#machines.values()) for (const tag of all) this.invalidate(tag);
    this.#machines.clear();
    this.#count = 0;
  }

  /** Each machine's tags in the order in which they were made: a global one before those that lead to it. */
  saveState(): StateRecord {
    const tags = [...this.#machines.values()].flatMap(({ all }) =>
      all.map(({ gscid, pscid, variant, stamp, sizes, split }) => ({ gscid, pscid, variant, stamp, sizes, split })),
    );
    return { tags };
  }

  restoreState(state: StateReader): void {
    this.#machines.clear();
    this.#count = 0;
    for (const saved of state.records("tags")) {
      const gscid = saved.number("gscid");
      const pscid = saved.number("pscid");
      const variant = saved.number("variant");
      const stamp = saved.number("stamp");
      // Stamp 0 is that of empty entries.
      if (!(stamp > 0)) saved.fail("stamp", "was never given out");
      const global = pscid >= 0 ? this.find(gscid, GLOBAL, variant) : null;
      if (pscid >= 0 && global === null) saved.fail("pscid", `${pscid} stands before its GSCID's global mappings`);
      const tag = new AddressTag(gscid, pscid, variant, global, stamp);
      tag.sizes = saved.number("sizes");
      tag.split = saved.number("split");
      tag.next = this.first(gscid, pscid);
      this.#add(tag);
    }
  }
}

const NO_TAGS: readonly AddressTag[] = [];
