import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Requesters } from "../../../host/base/caches/requesters.ts";
import { Stamps } from "../../../host/base/caches/stamps.ts";
import {
  StructureCache,
  type StructureSlot,
  SubstructureCache,
  type SubstructureSlot,
} from "../../../host/base/caches/structure-cache.ts";
import type { StateReader } from "../../../host/base/state.ts";
import { restoreTree, type Stateful, saveTree } from "../../../host/base/state.ts";

class Device implements StructureSlot {
  id = -1;
  stamp = 0;
  saveState() {
    return { id: this.id, stamp: this.stamp };
  }
  restoreState(state: StateReader): void {
    this.id = state.number("id");
    this.stamp = state.number("stamp");
  }
}

class Process implements SubstructureSlot {
  id = -1;
  ownerStamp = 0;
  saveState() {
    return { id: this.id, ownerStamp: this.ownerStamp };
  }
  restoreState(state: StateReader): void {
    this.id = state.number("id");
    this.ownerStamp = state.number("ownerStamp");
  }
}

/** Both caches of an IOMMU. A requester goes through what the structures of its device and process make: here the process's slot itself. */
class Caches implements Stateful {
  readonly requesters = new Requesters<Device, Process>();
  readonly #stamps = new Stamps();
  readonly devices = new StructureCache(4, this.#stamps, this.requesters, () => new Device());
  readonly processes = new SubstructureCache(4, this.requesters, () => new Process());

  saveState() {
    return {};
  }
  restoreState(): void {}
  stateParts(): [string, Stateful][] {
    return [
      ["stamps", this.#stamps],
      ["devices", this.devices],
      ["processes", this.processes],
    ];
  }

  /** As a translation goes the long way. */
  request(id: number, pasid: number, privileged: boolean): void {
    const device = this.devices.find(id) ?? this.devices.place(id);
    const process = this.processes.find(device.stamp, pasid) ?? this.processes.place(device.stamp, pasid);
    this.requesters.remember(id, pasid, privileged, device, process, privileged ? 3 : 0);
  }

  /** What the structure caches say of each that is remembered, and what is remembered. */
  check(): void {
    for (let id = 0; id < 8; id++) {
      for (let pasid = 0; pasid < 4; pasid++) {
        const known = this.requesters.placeOf(id, pasid);
        if (known.id !== id || known.pasid !== pasid) continue;
        const device = this.devices.find(id);
        expect(device).not.toBeNull();
        expect(known.structure).toBe(device);
        expect(known.space).toBe(this.processes.find(device!.stamp, pasid));
      }
    }
  }
}

const id = fc.nat(7);
const pasid = fc.nat(3);
const step = fc.oneof(
  fc.tuple(fc.constant("request"), id, pasid),
  fc.tuple(fc.constantFrom("load device", "load process", "device", "process", "processes"), id, pasid),
  fc.tuple(fc.constantFrom("drop", "all", "clear devices", "clear processes", "restore"), id, pasid),
);

function take(caches: Caches, what: string, id: number, pasid: number): void {
  const { devices, processes } = caches;
  const stamp = devices.find(id)?.stamp ?? 0;
  if (what === "request") caches.request(id, pasid, pasid % 2 === 0);
  else if (what === "load device") devices.place(id);
  else if (what === "load process") processes.place(stamp, pasid);
  else if (what === "device") devices.invalidate(id);
  else if (what === "process") processes.invalidate(stamp, pasid);
  else if (what === "processes") processes.invalidateOf(stamp);
  else if (what === "drop") for (const slot of devices.slots) if (slot.id % 2 === id % 2) devices.drop(slot);
  if (what === "all") devices.invalidateAll();
  if (what === "clear devices") devices.clear();
  if (what === "clear processes") processes.clear();
  if (what === "restore") restoreTree(caches, saveTree(new Caches()));
}

describe("a requester that is remembered", () => {
  it("goes through what its structures say, whatever was loaded or forgotten since", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const caches = new Caches();
        for (const [what, id, pasid] of steps) {
          take(caches, what, id, pasid);
          caches.check();
        }
      }),
      { numRuns: 500 },
    );
  });

  it("is known after a request, with the rights of that kind alone", () => {
    const caches = new Caches();
    caches.request(5, 1, false);
    const known = caches.requesters.placeOf(5, 1);
    expect([known.id, known.pasid, known.rightsAt, known.privilegedRightsAt]).toEqual([5, 1, 0, -1]);
    caches.request(5, 1, true);
    expect([known.rightsAt, known.privilegedRightsAt]).toEqual([0, 3]);
    // Another in its place takes over nothing.
    caches.request(5 ^ 8, 1, true);
    expect(caches.requesters.placeOf(5 ^ 8, 1)).toBe(known);
    expect([known.id, known.rightsAt, known.privilegedRightsAt]).toEqual([13, -1, 3]);
  });
});
