// Assigned platform devices of a VM: where their registers stand on its bus, which of its wires are theirs, and the vIOMMU that each is behind
// under an id of its own. PCI functions are assignment.ts's, which also keeps the vIOMMUs.
//
//   assign ─▶ opened (vfio/assigned-platform-device.ts) ─▶ behind its vIOMMU ─▶ regions claimed from PLATFORM_BASE on, wires from 0 on
//
// Nothing of this can be discovered: a machine tells its guest, in a device tree or by the component guests' `platform` interface.

import type { Stateful, StateReader, StateRecord } from "../host/base/state.ts";
import { ENODEV, ENOSPC } from "../host/uapi/errno.ts";
import { formatDeviceId, nameInGroup, type PlatformRequest } from "./assignment-request.ts";
import type { Machine } from "./machine.ts";
import { PLATFORM_BASE, PLATFORM_SIZE } from "./memory-map.ts";
import { sameRecords } from "./same-records.ts";
import { AssignedPlatformDevice } from "./vfio/assigned-platform-device.ts";
import type { GuestAddressSpace } from "./vfio/guest-address-space.ts";
import { HostRefusal } from "./vfio/host-refusal.ts";
import type { GuestVisibleIommu } from "./viommu/kind.ts";

/** Wires that a machine has for platform devices. */
export const PLATFORM_WIRES = 32;

/** What a guest is told of one. */
export interface PlatformDeviceEntry {
  readonly device: AssignedPlatformDevice;
  readonly request: PlatformRequest;
  readonly regions: readonly { readonly base: number; readonly size: number }[];
  /** Wires of the machine's, 0 to PLATFORM_WIRES - 1, by the device's index. */
  readonly wires: readonly number[];
  /** Index of the vIOMMU that it is behind; -1: none. */
  readonly viommu: number;
}

/** The vIOMMU of a device, as whoever keeps the vIOMMUs gives it. */
export interface PlatformViommu {
  readonly index: number;
  readonly name: string;
  readonly viommu: GuestVisibleIommu;
  /** The device is not behind it any more; `unused`: it never was, and if nothing else is the vIOMMU goes too. */
  leave(unused: boolean): void;
}

export interface PlatformSurroundings {
  readonly machine: Machine;
  readonly space: GuestAddressSpace | null;
  /** Level of a wire of the machine's; null: it has none for such devices. */
  readonly wire: ((wire: number, asserted: boolean) => void) | null;
  readonly nextHandle: () => number;
  /** The vIOMMU that a device goes behind, made if it is new; null: the VM has none. Throws HostRefusal. */
  readonly viommuFor: (device: AssignedPlatformDevice, request: PlatformRequest) => PlatformViommu | null;
}

interface Entry extends PlatformDeviceEntry {
  readonly behind: PlatformViommu | null;
}

export class PlatformDevices implements Stateful {
  readonly #surroundings: PlatformSurroundings;
  readonly #entries: Entry[] = [];

  constructor(surroundings: PlatformSurroundings) {
    this.#surroundings = surroundings;
  }

  get entries(): readonly PlatformDeviceEntry[] {
    return this.#entries;
  }

  /** Opens a host device and gives it to the guest. Throws HostRefusal, in one line, if it cannot be; nothing is left then. */
  assign(request: PlatformRequest): PlatformDeviceEntry {
    const { machine, space, wire, nextHandle, viommuFor } = this.#surroundings;
    const guestName = formatDeviceId(request.guestId);
    const who = `guest device ${guestName} (host ${nameInGroup(request)})`;
    if (space === null) throw new HostRefusal(`assigning host ${request.hostName}: there is no host process`, -ENODEV);
    if (wire === null) throw new HostRefusal(`${who}: this machine has no wires for platform devices`, 0);
    const { path, hostName } = request;
    const device = new AssignedPlatformDevice({
      ...{ addressSpace: space, path, handle: nextHandle(), guestName, hostName, trace: machine.trace },
    });
    let behind: PlatformViommu | null = null;
    try {
      const regions = this.#placeRegions(device, who);
      const wires = this.#takeWires(device, who);
      behind = viommuFor(device, request);
      const plugged = this.#plugIn(device, request, behind, space);
      if (plugged < 0) {
        const where = behind === null ? "on the second stage" : `behind ${behind.name}`;
        throw new HostRefusal(`putting ${who} ${where}`, plugged);
      }
      const entry: Entry = { device, request, regions, wires, viommu: behind?.index ?? -1, behind };
      this.#entries.push(entry);
      regions.forEach(({ base, size }, index) => {
        const name = index === 0 ? hostName : `${hostName} region ${index}`;
        machine.bus.claim({ name, base, size, port: device.regions[index]!.registers });
      });
      device.wires.onLevel = (index, asserted) => wire(wires[index]!, asserted);
      machine.addService(device);
      return entry;
    } catch (error) {
      behind?.leave(true);
      device[Symbol.dispose]();
      throw error;
    }
  }

  /** Takes a device from the guest: off its bus, blocked, closed. */
  unassign(entry: PlatformDeviceEntry): void {
    const index = this.#entries.indexOf(entry as Entry);
    if (index < 0) return;
    const [{ device, request, regions, behind }] = this.#entries.splice(index, 1) as [Entry];
    const { machine, space } = this.#surroundings;
    machine.removeService(device);
    for (const { base } of regions) machine.bus.release(base);
    if (behind === null) {
      space?.detach(device.fd);
    } else {
      behind.viommu.unplug(request.guestId);
      behind.leave(false);
    }
    device[Symbol.dispose]();
  }

  #plugIn(
    device: AssignedPlatformDevice,
    request: PlatformRequest,
    behind: PlatformViommu | null,
    space: GuestAddressSpace,
  ): number {
    if (behind === null) return space.attach(device.fd);
    return behind.viommu.plug({
      handle: device.handle,
      guestId: request.guestId,
      name: device.name,
      hostName: device.hostName,
      ...{ ats: false, pri: false, emulated: false, canStall: request.canStall },
    });
  }

  /** Naturally aligned, first fit: what a device had that went is used again. */
  #placeRegions(device: AssignedPlatformDevice, who: string): { base: number; size: number }[] {
    const taken = this.#entries.flatMap(({ regions }) => regions);
    const placed: { base: number; size: number }[] = [];
    for (const { size } of device.regions) {
      const step = Math.max(4096, 2 ** Math.ceil(Math.log2(size)));
      let base = PLATFORM_BASE;
      const overlaps = (other: { base: number; size: number }) =>
        base < other.base + other.size && other.base < base + size;
      while ([...taken, ...placed].some(overlaps)) base += step;
      if (base + size > PLATFORM_BASE + PLATFORM_SIZE) {
        throw new HostRefusal(`${who}: there is no room for its registers on the machine's bus`, -ENOSPC);
      }
      placed.push({ base, size });
    }
    return placed;
  }

  #takeWires(device: AssignedPlatformDevice, who: string): number[] {
    const taken = new Set(this.#entries.flatMap(({ wires }) => wires));
    const free = Array.from({ length: PLATFORM_WIRES }, (_, wire) => wire).filter((wire) => !taken.has(wire));
    if (free.length < device.wires.count) {
      throw new HostRefusal(`${who}: its ${device.wires.count} interrupts find no free wires`, -ENOSPC);
    }
    return free.slice(0, device.wires.count);
  }

  [Symbol.dispose](): void {
    for (const entry of this.#entries.slice()) this.unassign(entry);
  }

  /** Who is assigned to where, by name: a document finds those it names, or is refused. */
  saveState(): StateRecord {
    return { devices: this.#entries.map(savedEntry) };
  }

  restoreState(state: StateReader): void {
    sameRecords(state, "devices", this.#entries.map(savedEntry));
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const { device } of this.#entries) yield [`platform device ${device.name}`, device];
  }
}

function savedEntry({ device, request }: PlatformDeviceEntry) {
  return { guest: formatDeviceId(request.guestId), host: request.hostName, handle: device.handle };
}
