// Tags of cached translations: which address space an entry belongs to, and how forgetting a space is O(1).
//
// A machine (a virtual machine's tag, in whatever world: GSCID, VMID) has address spaces (PSCID, ASID), one more for what is global in it, and one for what
// its second stage alone translates. Each has an AddressTag with a stamp, a number never used twice. Cached entries carry the stamp. Invalidating a
// space gives its tag a new stamp: the old entries can never match again, and nothing is scanned. Invalidating a machine does so with
// those of its spaces that have had entries since the last time: what it costs was paid for when they were made.

import type { Stateful, StateReader, StateRecord } from "../state.ts";
import type { Stamps } from "./stamps.ts";

/** A space without a number of its own: what the second stage alone translates, or all there is in a world without such numbers. */
export const UNNUMBERED = -1;
/** Space under which global mappings are kept, per machine. */
export const GLOBAL = -2;

/** No machine's number. */
const NO_MACHINE = -2;

/** Tags kept; when there would be more, all are dropped at once, and with them everything that holds one. */
const TAG_LIMIT = 4096;
/** Tags that loading one context can make. */
const TAGS_PER_CONTEXT = 4;

// Not state: AddressTags writes its tags down.
export class AddressTag {
  readonly machine: number;
  readonly space: number;
  /** Tells apart spaces of one machine and number that must not share translations. */
  readonly variant: number;
  /** The same machine's global mappings; null on a tag that is global or has none. */
  readonly global: AddressTag | null = null;
  /** What entries of this space carry now. */
  stamp = 0;
  /** Page-size classes that entries of this space may have (bits; see translation-cache.ts). */
  sizes = 0;
  /** Classes of leaves that were cached in smaller pieces. */
  split = 0;
  /** Classes of tables that pointers of this space may lead to (table-cache.ts). */
  tables = 0;
  /** Stands in its machine's list of those that may have entries; the next one there. */
  live = false;
  nextLive: AddressTag | null = null;
  /** Next tag of the same machine and space. */
  next: AddressTag | null = null;
  readonly owner: MachineTags;

  constructor(owner: MachineTags, space: number, variant: number, global: AddressTag | null, stamp: number) {
    this.owner = owner;
    this.machine = owner.machine;
    this.space = space;
    this.variant = variant;
    this.global = global;
    this.stamp = stamp;
  }
}

// Not state: AddressTags writes its tags down.
/** The tags of one machine. Two small keys instead of one large one: a map of doubles costs twice as much on every command. */
export class MachineTags {
  readonly machine: number;
  readonly all: AddressTag[] = [];
  /** First tag of each space; the others hang on `next`. */
  readonly bySpace = new Map<number, AddressTag>();
  /** First of those that may have entries; the others hang on `nextLive`. */
  firstLive: AddressTag | null = null;
  /** Neighbours among machines that have such. */
  previous: MachineTags | null = null;
  next: MachineTags | null = null;

  constructor(machine: number) {
    this.machine = machine;
  }
}

/** Stands where no context has been loaded yet; holds nothing. */
export const NO_TAG = new AddressTag(new MachineTags(-1), UNNUMBERED, 0, null, -1);

export class AddressTags implements Stateful {
  readonly #stamps: Stamps;
  readonly #machines = new Map<number, MachineTags>();
  /** First of the machines with spaces that may have entries; the others hang on `next`. */
  firstMachine: MachineTags | null = null; // not state: of those with live tags
  #count = 0; // not state: the tags, counted
  /** What `first` was asked last, while no tag is made or dropped: commands name one space over and over. */
  #askedMachine = NO_MACHINE; // not state: asked again
  #askedSpace = 0; // not state: asked again
  #answer: AddressTag | null = null; // not state: asked again

  constructor(stamps: Stamps) {
    this.#stamps = stamps;
  }

  /** True if loading a context could exceed the table: the caches must then be cleared first. */
  get full(): boolean {
    return this.#count > TAG_LIMIT - TAGS_PER_CONTEXT;
  }

  /** The tag of an address space; makes it if there is none yet. */
  tagFor(machine: number, space: number, variant: number): AddressTag {
    const known = this.find(machine, space, variant);
    if (known !== null) return known;
    const global = space >= 0 ? this.tagFor(machine, GLOBAL, variant) : null;
    return this.#add(machine, space, variant, global, this.#stamps.next());
  }

  #add(machine: number, space: number, variant: number, global: AddressTag | null, stamp: number): AddressTag {
    let owner = this.#machines.get(machine);
    if (owner === undefined) {
      owner = new MachineTags(machine);
      this.#machines.set(machine, owner);
    }
    const tag = new AddressTag(owner, space, variant, global, stamp);
    tag.next = owner.bySpace.get(space) ?? null;
    owner.all.push(tag);
    owner.bySpace.set(space, tag);
    this.#forgetAnswer();
    this.#count++;
    return tag;
  }

  #forgetAnswer(): void {
    this.#askedMachine = NO_MACHINE;
    this.#answer = null;
  }

  find(machine: number, space: number, variant: number): AddressTag | null {
    for (let tag = this.first(machine, space); tag !== null; tag = tag.next) {
      if (tag.variant === variant) return tag;
    }
    return null;
  }

  /** First tag of (machine, space); the others hang on `next`. */
  first(machine: number, space: number): AddressTag | null {
    if (machine !== this.#askedMachine || space !== this.#askedSpace) {
      this.#answer = this.#machines.get(machine)?.bySpace.get(space) ?? null;
      this.#askedMachine = machine;
      this.#askedSpace = space;
    }
    return this.#answer;
  }

  /** First of a machine's tags that may have entries; the others hang on `nextLive`. */
  firstLive(machine: number): AddressTag | null {
    return this.#machines.get(machine)?.firstLive ?? null;
  }

  /** Before an entry is made under a tag that is not live. */
  enliven(tag: AddressTag): void {
    const { owner } = tag;
    if (owner.firstLive === null) {
      const first = this.firstMachine;
      owner.next = first;
      if (first !== null) first.previous = owner;
      this.firstMachine = owner;
    }
    tag.live = true;
    tag.nextLive = owner.firstLive;
    owner.firstLive = tag;
  }

  /** Makes every entry of this space stale. */
  invalidate(tag: AddressTag): void {
    if ((tag.sizes | tag.tables) !== 0) this.#restamp(tag);
  }

  #restamp(tag: AddressTag): void {
    tag.stamp = this.#stamps.next();
    tag.sizes = 0;
    tag.split = 0;
    tag.tables = 0;
  }

  /** Makes every entry of every space of a machine stale. */
  invalidateMachine(machine: number): void {
    const owner = this.#machines.get(machine);
    if (owner !== undefined && owner.firstLive !== null) this.invalidateAll(owner);
  }

  /** The same for one that stands among the live machines: it leaves them. Its `next` stays what it was. */
  invalidateAll(owner: MachineTags): void {
    for (let tag = owner.firstLive; tag !== null; ) {
      this.#restamp(tag);
      tag.live = false;
      const next: AddressTag | null = tag.nextLive;
      tag.nextLive = null;
      tag = next;
    }
    owner.firstLive = null;
    const { previous, next } = owner;
    if (previous === null) this.firstMachine = next;
    else previous.next = next;
    if (next !== null) next.previous = previous;
    owner.previous = null;
  }

  /** Forgets every tag. A request under way may still hold one: its stamp is new, and nobody else will find it. */
  dropAll(): void {
    for (const { all } of this.#machines.values()) {
      for (const tag of all) {
        this.#restamp(tag);
        // It is in no list any more, and must not come into one.
        tag.live = true;
      }
    }
    this.#machines.clear();
    this.#forgetAnswer();
    this.firstMachine = null;
    this.#count = 0;
  }

  /** Each machine's tags in the order in which they were made: a global one before those that lead to it. `live` are places among them. */
  saveState(): StateRecord {
    const all = [...this.#machines.values()].flatMap((owner) => owner.all);
    const tags = all.map(({ machine, space, variant, stamp, sizes, split, tables }) => ({
      machine,
      space,
      variant,
      stamp,
      sizes,
      split,
      tables,
    }));
    const places = new Map(all.map((tag, place) => [tag, place]));
    const live: number[] = [];
    for (let owner = this.firstMachine; owner !== null; owner = owner.next)
      for (let tag = owner.firstLive; tag !== null; tag = tag.nextLive) live.push(places.get(tag)!);
    return { tags, live };
  }

  restoreState(state: StateReader): void {
    this.#machines.clear();
    this.#forgetAnswer();
    this.firstMachine = null;
    this.#count = 0;
    const tags = state.records("tags").map((saved) => {
      const machine = saved.number("machine");
      const space = saved.number("space");
      const variant = saved.number("variant");
      const stamp = saved.number("stamp");
      // Stamp 0 is that of empty entries.
      if (!(stamp > 0)) saved.fail("stamp", "was never given out");
      const global = space >= 0 ? this.find(machine, GLOBAL, variant) : null;
      if (space >= 0 && global === null) saved.fail("space", `${space} stands before its machine's global mappings`);
      const tag = this.#add(machine, space, variant, global, stamp);
      tag.sizes = saved.number("sizes");
      tag.split = saved.number("split");
      tag.tables = saved.number("tables");
      return tag;
    });
    // The order matters, stamps are given out in it; and the last one comes to stand first.
    for (const place of state.numberList("live").toReversed()) {
      const tag = tags[place];
      if (tag === undefined || tag.live) state.fail("live", `has no tag ${place} to name`);
      this.enliven(tag);
    }
    for (const { sizes, tables, live } of tags)
      if (!live && (sizes | tables) !== 0) state.fail("live", "leaves out a tag with entries");
  }
}
