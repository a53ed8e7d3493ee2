// Caches of structures that say what becomes of a requester's traffic: by the requester's id (StructureCache), and below such a structure by an
// id of its own (SubstructureCache): device and process contexts, stream table entries and context descriptors.
//
// A structure has a stamp of its own, given when it is loaded; what hangs below it is found by that stamp and its id. So forgetting the structure
// forgets all that hangs below (a new load has a new stamp), and forgetting everything raises one floor. With no cache configured one scratch
// slot is refilled every time. Whatever changes, requesters that are let through at once are forgotten (requesters.ts).

import type { Stateful, StateReader, StateRecord } from "../state.ts";
import type { Requesters } from "./requesters.ts";
import type { Stamps } from "./stamps.ts";

const WAYS = 4;

export interface StructureSlot extends Stateful {
  id: number;
  /** 0: empty. */
  stamp: number;
}

export interface SubstructureSlot extends Stateful {
  id: number;
  /** Stamp of the structure it hangs on; 0: empty. */
  ownerStamp: number;
}

/** Slots in sets of up to four. */
abstract class SlotSets<Slot extends Stateful> implements Stateful {
  readonly slots: readonly Slot[];
  /** Structures are found again. */
  readonly enabled: boolean;
  protected readonly ways: number;
  protected readonly requesters: Requesters<unknown, unknown>;
  readonly #setMask: number;
  #victim = 0;

  constructor(entries: number, requesters: Requesters<unknown, unknown>, make: () => Slot) {
    const rounded = 2 ** Math.ceil(Math.log2(Math.max(1, entries)));
    this.enabled = entries > 0;
    this.requesters = requesters;
    this.ways = Math.min(WAYS, rounded);
    this.#setMask = rounded / this.ways - 1;
    this.slots = Array.from({ length: rounded }, make);
  }

  protected setOf(hash: number): number {
    return (hash & this.#setMask) * this.ways;
  }

  /** The next to go of the set that starts at `start`. */
  protected victimIn(start: number): Slot {
    this.#victim = (this.#victim + 1) & (this.ways - 1);
    return this.slots[start + this.#victim]!;
  }

  protected abstract isLive(slot: Slot): boolean;
  protected abstract empty(slot: Slot): void;

  /** The slots that can be found, by place: of the others nothing is ever read. */
  saveState(): StateRecord {
    const slots = this.slots.map((slot) => (this.isLive(slot) ? slot.saveState() : null));
    return { slots, victim: this.#victim };
  }

  restoreState(state: StateReader): void {
    this.requesters.forget();
    this.#victim = state.number("victim") & (this.ways - 1);
    const saved = state.places("slots");
    if (saved.length !== this.slots.length) state.fail("slots", `are ${saved.length}, not ${this.slots.length}`);
    saved.forEach((record, index) => {
      const slot = this.slots[index]!;
      this.empty(slot);
      if (record !== null) slot.restoreState(record);
    });
  }
}

export class StructureCache<Slot extends StructureSlot> extends SlotSets<Slot> {
  readonly #stamps: Stamps;
  /** Structures with stamps up to here are invalid. */
  #floor = 0;

  constructor(entries: number, stamps: Stamps, requesters: Requesters<unknown, unknown>, make: () => Slot) {
    super(entries, requesters, make);
    this.#stamps = stamps;
  }

  find(id: number): Slot | null {
    if (!this.enabled) return null;
    const start = this.setOf(id ^ (id >>> 6));
    for (let i = start; i < start + this.ways; i++) {
      const slot = this.slots[i]!;
      if (slot.id === id && slot.stamp > this.#floor) return slot;
    }
    return null;
  }

  /** A slot to load the structure of `id` into, under the stamp that it carries now. */
  place(id: number): Slot {
    const start = this.setOf(id ^ (id >>> 6));
    let chosen: Slot | null = null;
    for (let i = start; i < start + this.ways && chosen === null; i++) {
      const slot = this.slots[i]!;
      if (slot.id === id || slot.stamp <= this.#floor) chosen = slot;
    }
    chosen ??= this.victimIn(start);
    this.requesters.forget();
    chosen.id = id;
    chosen.stamp = this.#stamps.next();
    return chosen;
  }

  invalidate(id: number): void {
    const start = this.setOf(id ^ (id >>> 6));
    for (let i = start; i < start + this.ways; i++) {
      const slot = this.slots[i]!;
      if (slot.id === id) this.drop(slot);
    }
  }

  drop(slot: Slot): void {
    this.requesters.forget();
    slot.stamp = 0;
  }

  invalidateAll(): void {
    this.requesters.forget();
    this.#floor = this.#stamps.next();
  }

  /** When stamps start again, too. */
  clear(): void {
    this.requesters.forget();
    this.#floor = 0;
    for (const slot of this.slots) slot.stamp = 0;
  }

  protected isLive(slot: Slot): boolean {
    return slot.stamp > this.#floor;
  }

  protected empty(slot: Slot): void {
    slot.id = -1;
    slot.stamp = 0;
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), floor: this.#floor };
  }

  override restoreState(state: StateReader): void {
    this.#floor = state.number("floor");
    super.restoreState(state);
  }
}

export class SubstructureCache<Slot extends SubstructureSlot> extends SlotSets<Slot> {
  #start(ownerStamp: number, id: number): number {
    return this.setOf(id ^ (id >>> 8) ^ Math.imul(ownerStamp, 0x9e3779b1));
  }

  find(ownerStamp: number, id: number): Slot | null {
    if (!this.enabled) return null;
    const start = this.#start(ownerStamp, id);
    for (let i = start; i < start + this.ways; i++) {
      const slot = this.slots[i]!;
      if (slot.id === id && slot.ownerStamp === ownerStamp) return slot;
    }
    return null;
  }

  /** A slot to load the structure of `id` into. */
  place(ownerStamp: number, id: number): Slot {
    const start = this.#start(ownerStamp, id);
    let chosen: Slot | null = null;
    for (let i = start; i < start + this.ways && chosen === null; i++) {
      const slot = this.slots[i]!;
      if (slot.ownerStamp === 0 || (slot.id === id && slot.ownerStamp === ownerStamp)) chosen = slot;
    }
    chosen ??= this.victimIn(start);
    this.drop(chosen);
    chosen.id = id;
    chosen.ownerStamp = ownerStamp;
    return chosen;
  }

  invalidate(ownerStamp: number, id: number): void {
    const slot = this.find(ownerStamp, id);
    if (slot !== null) this.drop(slot);
  }

  /** All that hang on one structure. */
  invalidateOf(ownerStamp: number): void {
    for (const slot of this.slots) if (slot.ownerStamp === ownerStamp) this.drop(slot);
  }

  drop(slot: Slot): void {
    this.requesters.forget();
    slot.ownerStamp = 0;
  }

  clear(): void {
    for (const slot of this.slots) this.drop(slot);
  }

  protected isLive(slot: Slot): boolean {
    return slot.ownerStamp !== 0;
  }

  protected empty(slot: Slot): void {
    slot.ownerStamp = 0;
    slot.id = -1;
  }
}
