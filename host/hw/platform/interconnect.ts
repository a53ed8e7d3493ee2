// The machine's interconnect, as far as it carries devices that are on no bus: their registers in the physical address space, their
// interrupt wires, and their DMA, each by a stream id of its own at its IOMMU. Nothing here can be discovered: firmware knows what there is.
//
//     kernel → slot.regions[i].registers → endpoint        endpoint → PlatformDma → IOMMU → memory
//     endpoint → wire → slot.onWire                         IOMMU: a stall has ended → PlatformDma → endpoint

import type { HpaPfn } from "../../base/address.ts";
import type { Clock } from "../../base/clock.ts";
import type { PhysicalMemory } from "../../base/memory.ts";
import { isStateful, StateError, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import type { Trace } from "../../base/trace.ts";
import type { PlatformEndpoint } from "../../devices/ports.ts";
import type { MessageFilter } from "../device-dma.ts";
import type { HardwareIommu } from "../iommu/port.ts";
import type { BarWindow } from "../pci/bar-window.ts";
import { PlatformDma } from "./platform-dma.ts";

export interface InterconnectParts {
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly clock: Clock;
  readonly trace: Trace;
  /** Where registers are placed in the physical address space. */
  readonly window: BarWindow;
  /** Which device may send which message; absent: any device, any message. */
  readonly messages?: MessageFilter;
}

/** How firmware describes a device's place. */
export interface PlatformPlace {
  /** Kernel name: "edu0". */
  readonly name: string;
  readonly iommu: HardwareIommu | null;
  /** What the IOMMU calls it (device tree: the second cell of `iommus`). */
  readonly deviceId: number;
  /** The device and its way to memory can wait (device tree: dma-can-stall). */
  readonly canStall: boolean;
}

/** A device in its place. */
export interface PlatformSlot extends PlatformPlace {
  readonly endpoint: PlatformEndpoint;
  readonly dma: PlatformDma;
  /** Physical address of each region. */
  readonly bases: readonly number[];
  /** Level of each interrupt wire now. */
  readonly wires: readonly boolean[];
  /** Told of every change of a wire. */
  onWire: ((index: number, asserted: boolean) => void) | null;
}

interface Slot extends PlatformSlot {
  readonly wires: boolean[];
}

export class Interconnect implements Stateful {
  /** Told of each device that comes or goes; for the driver core. */
  onPlug: ((slot: PlatformSlot) => void) | null = null; // not state: wiring
  onUnplug: ((slot: PlatformSlot) => void) | null = null; // not state: wiring
  readonly #parts: InterconnectParts;
  readonly #slots = new Map<string, Slot>();
  // not state: the slots by another name
  readonly #byDeviceId = new Map<HardwareIommu, Map<number, Slot>>();

  constructor(parts: InterconnectParts) {
    this.#parts = parts;
  }

  /** In the order in which they were put there. */
  get slots(): readonly PlatformSlot[] {
    return [...this.#slots.values()];
  }

  /** Puts a device in its place. Throws RangeError if that is taken or there is no room for its registers. */
  plug(endpoint: PlatformEndpoint, place: PlatformPlace): PlatformSlot {
    const { name, iommu, deviceId, canStall } = place;
    const { memory, clock, trace, window, messages } = this.#parts;
    if (this.#slots.has(name)) throw new RangeError(`there are two devices ${name}`);
    const streams = iommu === null ? null : this.#streamsOf(iommu);
    if (streams?.has(deviceId)) throw new RangeError(`${name}: ${streams.get(deviceId)!.name} has its device id`);
    const dma = new PlatformDma({
      ...{ name, deviceId, iommu, memory, trace, canStall },
      ...(messages === undefined ? {} : { messages }),
      stallEnded: (tag, end) => endpoint.stallEnded(tag, end),
    });
    const bases = endpoint.regions.map(({ size }) => window.place(endpoint, size));
    if (bases.includes(-1)) {
      window.release(endpoint);
      throw new RangeError(`${name}: no room for its registers`);
    }
    const wires = new Array<boolean>(endpoint.interrupts).fill(false);
    const slot: Slot = { ...place, endpoint, dma, bases, wires, onWire: null };
    this.#slots.set(name, slot);
    streams?.set(deviceId, slot);
    endpoint.connect({ dma, clock, interrupt: (index, asserted) => this.#drive(slot, index, asserted) });
    this.onPlug?.(slot);
    return slot;
  }

  /** Takes a device away: its DMA in flight is given up, its registers read all ones from now on. */
  unplug(name: string): void {
    const slot = this.#slots.get(name);
    if (slot === undefined) return;
    slot.dma.unplug();
    slot.endpoint.reset();
    slot.wires.forEach((_, index) => {
      this.#drive(slot, index, false);
    });
    this.#slots.delete(name);
    if (slot.iommu !== null) this.#streamsOf(slot.iommu).delete(slot.deviceId);
    this.#parts.window.release(slot.endpoint);
    this.onUnplug?.(slot);
  }

  #drive(slot: Slot, index: number, asserted: boolean): void {
    // A device that was taken away has no wires any more.
    if (this.#slots.get(slot.name) !== slot || slot.wires[index] === asserted) return;
    slot.wires[index] = asserted;
    slot.onWire?.(index, asserted);
  }

  /** Devices behind one IOMMU; the first call makes the ends of its stalls arrive here. */
  #streamsOf(iommu: HardwareIommu): Map<number, Slot> {
    const known = this.#byDeviceId.get(iommu);
    if (known !== undefined) return known;
    const streams = new Map<number, Slot>();
    this.#byDeviceId.set(iommu, streams);
    if (iommu.stallTag !== undefined) {
      iommu.onStallEnded = (deviceId, tag, end) => {
        streams.get(deviceId)?.dma.ended(tag, end);
        for (const slot of streams.values()) slot.dma.roomAgain();
      };
    }
    return streams;
  }

  /** Which devices there are, and the levels of their wires. */
  saveState(): StateRecord {
    return { slots: this.slots.map(({ name, wires }) => ({ name, wires: [...wires] })) };
  }

  /** A device that came or went since cannot be made or taken away: that is an error. */
  restoreState(state: StateReader): void {
    const here = new Map(this.#slots);
    for (const record of state.records("slots")) {
      const name = record.text("name");
      const slot = here.get(name) ?? record.fail("name", `${name} is not here`);
      here.delete(name);
      const wires = record.list("wires");
      if (wires.length !== slot.wires.length) record.fail("wires", `are not the ${slot.wires.length} here`);
      for (const [index, level] of wires.entries()) slot.wires[index] = level === true;
    }
    for (const name of here.keys()) state.fail("slots", `lack ${name}, which is here`);
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const { name, endpoint, dma } of this.#slots.values()) {
      if (!isStateful(endpoint)) throw new StateError(`${name}: its model saves no state`);
      yield [name, endpoint];
      yield [`${name} DMA`, dma];
    }
  }
}
