// The object table of one iommufd context: ids and lifetimes (Linux: iommufd/main.c; rules in the room's README).
//
// An id is reserved while its object is being created (invisible), visible after `finalize`, gone after destruction - or, for a
// vDEVICE whose device was unbound, a tombstone: nothing is found there and the number is not used again in this context.
// `users` counts references, 1 of them the table's own; DESTROY works only when that is the last.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { EBUSY, ENOENT } from "../../uapi/errno.ts";
import type { LiveObjects } from "../live-objects.ts";
import { numbersOf } from "../same-objects.ts";

export type ObjectType =
  | "device"
  | "ioas"
  | "hwpt-paging"
  | "hwpt-nested"
  | "fault-queue"
  | "viommu"
  | "vdevice"
  | "veventq"
  | "hw-queue"
  | "access"
  | "selftest";

export abstract class IommufdObject implements Stateful {
  abstract readonly type: ObjectType;
  /** 0 until the table gave it one. */
  id = 0; // not state: part of its name
  users = 1;

  /** Drops what the object refers to and frees what it holds. Called once. */
  abstract destroy(): void;

  /** Its creation has failed; `destroy` follows. Gives back references to the object itself, such as its file's. */
  beforeAbort(): void {}

  // --- state; an object that has more than this adds to it ---

  saveState(): StateRecord {
    return { users: this.users };
  }

  restoreState(state: StateReader): void {
    this.users = state.number("users");
  }

  stateParts(): Iterable<readonly [name: string, part: Stateful]> {
    return [];
  }
}

/** "hwpt-paging 7": what state documents call an object. */
export function nameOfObject(object: IommufdObject | null): string {
  return object === null ? "none" : `${object.type} ${object.id}`;
}

/** More than any context comes to: a state that has a higher id is refused, for the table has a place for each below. */
const MAX_ID = 2 ** 20;

type Slot = { state: "reserved" | "visible" | "tombstone"; object: IommufdObject | null };

export class ObjectTable implements Stateful {
  /** By id; ids are small, the lowest free one is taken. */
  readonly #slots: (Slot | undefined)[] = [undefined];
  readonly #live: LiveObjects;
  /** No id below is free. */
  #lowest = 1;

  constructor(live: LiveObjects) {
    this.#live = live;
  }

  /** True if any object, reserved id or tombstone exists. */
  get occupied(): boolean {
    return this.#slots.some((slot) => slot !== undefined);
  }

  /** Visible objects in id order. */
  *[Symbol.iterator](): IterableIterator<IommufdObject> {
    const ids = this.#slots.length;
    for (let id = 0; id < ids; id++) {
      const object = this.find(id);
      if (object !== null) yield object;
    }
  }

  /** Gives the object the lowest free id, not visible yet. */
  reserve(object: IommufdObject): void {
    let id = this.#lowest;
    while (this.#slots[id] !== undefined) id++;
    this.#lowest = id + 1;
    object.id = id;
    this.#put(id, { state: "reserved", object });
    this.#live.created(object.type);
  }

  /** Without holes: an array with holes is asked its prototype about them. */
  #put(id: number, slot: Slot | undefined): void {
    while (this.#slots.length < id) this.#slots.push(undefined);
    this.#slots[id] = slot;
  }

  /** Makes a reserved object visible; its creation can no longer fail. */
  finalize(object: IommufdObject): void {
    const slot = this.#slots[object.id];
    if (slot === undefined || slot.state !== "reserved")
      throw new Error(`${object.type} ${object.id} was not reserved`);
    slot.state = "visible";
  }

  /** Gives a reserved id back without destroying anything: the object never held anything. */
  abort(object: IommufdObject): void {
    if (object.users !== 1) throw new Error(`${object.type} ${object.id} is aborted with ${object.users} users`);
    object.users = 0;
    this.#free(object);
  }

  /** Undoes a creation that got as far as holding things. */
  abortAndDestroy(object: IommufdObject): void {
    object.beforeAbort();
    object.destroy();
    this.abort(object);
  }

  /** The visible object with this id, or null. */
  find(id: number): IommufdObject | null {
    const slot = id < this.#slots.length ? this.#slots[id] : undefined;
    return slot?.state === "visible" ? slot.object : null;
  }

  /** DESTROY: -ENOENT, or -EBUSY while somebody else refers to it. */
  destroy(id: number): number {
    const object = this.find(id);
    if (object === null) return -ENOENT;
    if (object.users !== 1) return -EBUSY;
    this.#destroyNow(object, false);
    return 0;
  }

  /** Drops the caller's reference and destroys the object if only the table's is left. */
  putAndTryDestroy(object: IommufdObject): void {
    object.users--;
    if (object.users === 1) this.#destroyNow(object, false);
  }

  /** The holder of the one other reference destroys the object; its id stays a tombstone if `tombstone`. */
  destroyByUser(object: IommufdObject, tombstone = false): void {
    object.users--;
    if (object.users !== 1) throw new Error(`${object.type} ${object.id} still has ${object.users} users`);
    this.#destroyNow(object, tombstone);
  }

  /** Destroys everything, leaves first, when the context goes. */
  release(): void {
    for (;;) {
      let destroyed = 0;
      let left = 0;
      for (let id = 0; id < this.#slots.length; id++) {
        const object = this.find(id);
        if (object === null) continue;
        left++;
        if (object.users !== 1) continue;
        destroyed++;
        this.#destroyNow(object, false);
      }
      if (left === 0) break;
      if (destroyed === 0) {
        const names = [...this].map((object) => `${object.type} ${object.id} (${object.users} users)`);
        throw new Error(`a context was released with references left: ${names.join(", ")}`);
      }
    }
    this.#slots.length = 1;
  }

  #destroyNow(object: IommufdObject, tombstone: boolean): void {
    object.users = 0;
    if (tombstone) {
      this.#put(object.id, { state: "tombstone", object: null });
      this.#live.destroyed(object.type);
    } else {
      this.#free(object);
    }
    object.destroy();
  }

  #free(object: IommufdObject): void {
    this.#put(object.id, undefined);
    if (object.id < this.#lowest) this.#lowest = object.id;
    this.#live.destroyed(object.type);
  }

  /** Objects must be the same. */
  saveState(): StateRecord {
    const tombstones = [...this.#slots.keys()].filter((id) => this.#slots[id]?.state === "tombstone");
    return { tombstones, lowest: this.#lowest };
  }

  restoreState(state: StateReader): void {
    this.#slots.forEach((slot, id) => {
      if (slot?.state === "tombstone") this.#slots[id] = undefined;
    });
    for (const id of numbersOf(state, "tombstones")) {
      if (!Number.isInteger(id) || id < 1 || id > MAX_ID) state.fail("tombstones", `have ${id}, which is no id`);
      if (this.#slots[id] === undefined) this.#put(id, { state: "tombstone", object: null });
    }
    const lowest = state.number("lowest");
    if (!Number.isInteger(lowest) || lowest < 1 || lowest > this.#slots.length)
      state.fail("lowest", "is no id that could be free");
    this.#lowest = lowest;
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const object of this) yield [nameOfObject(object), object];
  }
}
