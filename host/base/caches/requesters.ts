// The requesters met last, each with what its requests go through: translation's short way, before any structure cache is asked.
//
// What stands here was let through by the long way, and holds until a structure is loaded or forgotten: then all of it goes at once. So nobody has
// to know which of them a structure had a part in.

/** A power of two. */
const SLOTS = 8;
const NOBODY = -1;

// Not state: what the structure caches would answer
export class Requester<Structure, Space> {
  /** Device id, StreamID, source id. */
  id = NOBODY;
  /** process_id, SubstreamID, PASID; -1: none. */
  pasid = -1;
  structure: Structure | null = null;
  space: Space | null = null;
  /** At which bit of a cached translation's flags the rights of its requests stand, and of its privileged ones; -1: not known. */
  rightsAt = -1;
  privilegedRightsAt = -1;
}

// Not state: what the structure caches would answer
export class Requesters<Structure, Space> {
  readonly #slots: readonly Requester<Structure, Space>[] = Array.from({ length: SLOTS }, () => new Requester());
  #empty = true;

  /** Where a requester stands if it is remembered: whether it is, its `id` and `pasid` say. */
  placeOf(id: number, pasid: number): Requester<Structure, Space> {
    return this.#slots[(id ^ pasid) & (SLOTS - 1)]!;
  }

  /** A request was let through to `space`. */
  remember(id: number, pasid: number, privileged: boolean, structure: Structure, space: Space, rightsAt: number): void {
    const slot = this.#slots[(id ^ pasid) & (SLOTS - 1)]!;
    if (slot.id !== id || slot.pasid !== pasid) {
      slot.id = id;
      slot.pasid = pasid;
      slot.rightsAt = slot.privilegedRightsAt = -1;
    }
    slot.structure = structure;
    slot.space = space;
    if (privileged) slot.privilegedRightsAt = rightsAt;
    else slot.rightsAt = rightsAt;
    this.#empty = false;
  }

  /** A structure was loaded or forgotten, or which structures count has changed. */
  forget(): void {
    if (this.#empty) return;
    for (const slot of this.#slots) slot.id = NOBODY;
    this.#empty = true;
  }
}
