// Domain ids (VT-d §6.2): the tags of what a unit caches. A domain has one on each unit that it is used on, from its first attachment there to its last
// (Linux: domain_attach_iommu, domain_detach_iommu); a nested one has its own, not its parent's.

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { Attachment } from "../attachments.ts";
import type { VtdUnit } from "./unit.ts";

export class DomainIds implements Stateful {
  readonly #ids = new Map<VtdUnit, number>();
  #version = 0; // not state: only compared with what somebody made of the ids

  /** Another number when the ids are others. */
  get version(): number {
    return this.#version;
  }

  /** The id on a unit, a new one if it is used there for the first time; -ENOSPC. */
  take(unit: VtdUnit): number {
    const known = this.#ids.get(unit);
    if (known !== undefined) return known;
    const id = unit.takeDomainId();
    if (id >= 0) this.#ids.set(unit, id);
    this.#version++;
    return id;
  }

  /** The id on a unit; undefined: the domain is not used there. */
  on(unit: VtdUnit): number | undefined {
    return this.#ids.get(unit);
  }

  /** Gives an id back when nothing of `attachments` but `except` is behind the unit: nothing is cached under it any more. */
  release(unit: VtdUnit, attachments: readonly Attachment[], except: Attachment | null = null): void {
    const id = this.#ids.get(unit);
    if (id === undefined || attachments.some((other) => other !== except && other.instance === unit)) return;
    this.#ids.delete(unit);
    this.#version++;
    unit.giveBackDomainId(id);
  }

  /** Units must be the same; ids are the document's. */
  saveState(): StateRecord {
    return { units: [...this.#ids.keys()].map(({ name }) => name), ids: [...this.#ids.values()] };
  }

  restoreState(state: StateReader): void {
    const units = state.list("units");
    const ids = state.list("ids");
    if (units.length !== this.#ids.size || ids.length !== units.length) state.fail("units", "are not those here");
    const restored: [VtdUnit, number][] = units.map((name, index) => {
      const unit = [...this.#ids.keys()].find((known) => known.name === name);
      const id = ids[index];
      if (unit === undefined || typeof id !== "number")
        return state.fail("units", `has ${String(name)}, which is not here`);
      return [unit, id];
    });
    this.#ids.clear();
    this.#version++;
    for (const [unit, id] of restored) this.#ids.set(unit, id);
  }
}
