// A PCI Express root complex: one segment of functions by bus, device and function number. It routes configuration accesses and
// memory accesses to functions, gives each one its DMA way (function-dma.ts), collects interrupt pins, and lets functions be
// plugged in and pulled out while the machine runs. Functions sit on the root complex directly, bridges are not modelled;
// BARs are placed when a function is plugged in, as firmware would, and software may move them.
//
//     kernel → configRead/configWrite(rid) → PciFunction          kernel → BAR address → mmioRead/mmioWrite → registers
//     PciFunction → FunctionDma → IOMMU → memory                  INTx → slot.onPin, and wire (device + pin) mod 4

import type { HpaPfn } from "../../base/address.ts";
import type { Clock } from "../../base/clock.ts";
import type { PhysicalMemory } from "../../base/memory.ts";
import type { AccessSize, MmioPort } from "../../base/mmio.ts";
import {
  bytesOf,
  isStateful,
  StateError,
  type Stateful,
  type StateReader,
  type StateRecord,
} from "../../base/state.ts";
import type { Trace } from "../../base/trace.ts";
import type { AtsTarget, BarDescription, PciFunction } from "../../devices/ports.ts";
import type { MessageFilter } from "../device-dma.ts";
import type { HardwareIommu } from "../iommu/port.ts";
import type { BarWindow } from "./bar-window.ts";
import { FunctionDma } from "./function-dma.ts";

const FIRST_BAR = 0x10;
const ALL_ONES = 0xffffffff;
/** INTA# to INTD#, swizzled over the devices. */
export const INTERRUPT_WIRES = 4;

export interface RootComplexParts {
  /** PCI segment (domain). */
  readonly segment: number;
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly clock: Clock;
  readonly trace: Trace;
  /** Where BARs are placed: 32-bit and 64-bit windows of the physical address space. */
  readonly window32: BarWindow;
  readonly window64: BarWindow;
  /** Which function may send which message; absent: any function, any message. */
  readonly messages?: MessageFilter;
}

/** A function in its place. */
export interface PciSlot {
  /** Kernel name: "0000:01:00.0". */
  readonly name: string;
  /** Requester id: bus << 8 | device << 3 | function. */
  readonly requesterId: number;
  /** What the IOMMU calls it. */
  readonly deviceId: number;
  readonly function: PciFunction;
  readonly iommu: HardwareIommu | null;
  /** The function's bus-master port: who holds it can do DMA as the function (scripted scenarios). */
  readonly dma: FunctionDma;
  /** Level of the interrupt pin now. */
  readonly pin: boolean;
  /** Told of every change of the pin. */
  onPin: ((asserted: boolean) => void) | null;
}

interface Slot extends PciSlot {
  pin: boolean;
  /** Where firmware placed each BAR; -1: there is none. */
  readonly barBases: number[];
}

/** "0000:01:00.0" of a requester id. */
export function functionName(segment: number, requesterId: number): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  const device = hex((requesterId >> 3) & 0x1f, 2);
  return `${hex(segment, 4)}:${hex(requesterId >> 8, 2)}:${device}.${requesterId & 7}`;
}

export class RootComplex implements MmioPort, Stateful {
  /** High half of the last 8-byte mmioRead. */
  high = 0;
  readonly segment: number;
  /** Told of each function that comes or goes; for the driver core. */
  onPlug: ((slot: PciSlot) => void) | null = null; // not state: wiring
  onUnplug: ((slot: PciSlot) => void) | null = null; // not state: wiring
  /** Interrupt wires, level, by wire 0 to 3. */
  onWire: ((wire: number, asserted: boolean) => void) | null = null; // not state: wiring
  readonly #parts: RootComplexParts;
  readonly #slots = new Map<number, Slot>();
  // not state: the slots by another name
  readonly #byDeviceId = new Map<HardwareIommu, Map<number, Slot>>();
  readonly #wireLevels = new Int32Array(INTERRUPT_WIRES);

  constructor(parts: RootComplexParts) {
    this.#parts = parts;
    this.segment = parts.segment;
  }

  /** Functions by requester id, ascending. */
  get slots(): readonly PciSlot[] {
    return [...this.#slots.values()].sort((a, b) => a.requesterId - b.requesterId);
  }

  slot(requesterId: number): PciSlot | undefined {
    return this.#slots.get(requesterId);
  }

  /**
   * Plugs a function in at `requesterId` behind `iommu`, places its BARs and tells `onPlug`. Throws RangeError if the place is
   * taken or a BAR fits nowhere (a bug of whoever put the host together).
   */
  plug(
    requesterId: number,
    pciFunction: PciFunction,
    iommu: HardwareIommu | null,
    deviceId: number = requesterId,
  ): PciSlot {
    const name = functionName(this.segment, requesterId);
    if (this.#slots.has(requesterId)) throw new RangeError(`${name} is taken`);
    const { memory, trace, clock, messages } = this.#parts;
    const dma = new FunctionDma({
      ...{ function: pciFunction, name, deviceId, iommu, memory, trace },
      ...(messages === undefined ? {} : { messages }),
    });
    const slot: Slot = {
      name,
      requesterId,
      deviceId,
      function: pciFunction,
      iommu,
      pin: false,
      onPin: null,
      dma,
      barBases: [],
    };
    const intx = (asserted: boolean): void => {
      // A function that was pulled out has no pin any more.
      if (this.#slots.get(requesterId) === slot) this.#drivePin(slot, asserted);
    };
    pciFunction.connect({ dma, clock, interrupt: { intx } });
    this.#slots.set(requesterId, slot);
    if (iommu !== null) this.#targetsOf(iommu).set(deviceId, slot);
    try {
      this.#placeBars(slot);
    } catch (error) {
      this.#takeOut(slot);
      throw error;
    }
    this.onPlug?.(slot);
    return slot;
  }

  /** Pulls a function out: its DMA in flight is given up, accesses to it read all ones from now on. */
  unplug(requesterId: number): void {
    const slot = this.#slots.get(requesterId);
    if (slot === undefined) return;
    this.#takeOut(slot);
    this.onUnplug?.(slot);
  }

  #takeOut(slot: Slot): void {
    slot.dma.unplug();
    slot.function.reset();
    this.#drivePin(slot, false);
    this.#slots.delete(slot.requesterId);
    if (slot.iommu !== null) this.#targetsOf(slot.iommu).delete(slot.deviceId);
    this.#parts.window32.release(slot);
    this.#parts.window64.release(slot);
  }

  /** Functions behind one IOMMU by device id; the first call makes the IOMMU's messages arrive here. */
  #targetsOf(iommu: HardwareIommu): Map<number, Slot> {
    const known = this.#byDeviceId.get(iommu);
    if (known !== undefined) return known;
    const targets = new Map<number, Slot>();
    this.#byDeviceId.set(iommu, targets);
    // Several root complexes may sit behind one IOMMU: what is not here may be there.
    const elsewhere = iommu.findTarget;
    iommu.findTarget = (deviceId): AtsTarget | undefined => {
      const slot = targets.get(deviceId);
      return slot === undefined ? elsewhere(deviceId) : slot.function.atsTarget;
    };
    return targets;
  }

  #placeBars(slot: Slot): void {
    slot.function.bars.forEach((bar, index) => {
      slot.barBases[index] = -1;
      if (bar === null) return;
      const window = bar.kind === "memory64" ? this.#parts.window64 : this.#parts.window32;
      const base = window.place(slot, bar.size);
      if (base < 0) throw new RangeError(`${slot.name}: no room for BAR ${index}`);
      slot.barBases[index] = base;
    });
    this.#writeBars(slot);
  }

  #writeBars({ function: pciFunction, barBases }: Slot): void {
    barBases.forEach((base, index) => {
      if (base < 0) return;
      pciFunction.configWrite(FIRST_BAR + 4 * index, 4, base % 2 ** 32);
      if (pciFunction.bars[index]?.kind === "memory64") {
        pciFunction.configWrite(FIRST_BAR + 4 * index + 4, 4, Math.floor(base / 2 ** 32));
      }
    });
  }

  /** Writes a function's BARs as firmware placed them, for after a reset (Linux: pci_restore_state). */
  restoreBars(requesterId: number): void {
    const slot = this.#slots.get(requesterId);
    if (slot !== undefined) this.#writeBars(slot);
  }

  #drivePin(slot: Slot, asserted: boolean): void {
    if (slot.pin === asserted) return;
    slot.pin = asserted;
    // Device n's INTA# is wire n mod 4 (PCIe 6.0 §2.2.8.1, table 2-20).
    const wire = (slot.requesterId >> 3) & (INTERRUPT_WIRES - 1);
    const before = this.#wireLevels[wire]!;
    this.#wireLevels[wire] = before + (asserted ? 1 : -1);
    slot.onPin?.(asserted);
    if (before > 0 !== this.#wireLevels[wire]! > 0) this.onWire?.(wire, asserted);
  }

  /** Configuration read of 1, 2 or 4 bytes; all ones where there is no function. */
  configRead(requesterId: number, offset: number, size: 1 | 2 | 4): number {
    const slot = this.#slots.get(requesterId);
    return slot === undefined ? 2 ** (8 * size) - 1 : slot.function.configRead(offset, size);
  }

  configWrite(requesterId: number, offset: number, size: 1 | 2 | 4, value: number): void {
    this.#slots.get(requesterId)?.function.configWrite(offset, size, value);
  }

  /** BAR that decodes `address` now, or null; its start is left in `hitBase`. */
  findBar(address: number): BarDescription | null {
    for (const { function: pciFunction } of this.#slots.values()) {
      for (let index = 0; index < pciFunction.bars.length; index++) {
        const bar = pciFunction.bars[index]!;
        if (bar === null) continue;
        const base = pciFunction.barBase(index);
        if (base >= 0 && address >= base && address < base + bar.size) {
          this.hitBase = base;
          return bar;
        }
      }
    }
    return null;
  }
  hitBase = 0; // not state: of the last findBar

  /** Memory read at a physical address; all ones where nothing decodes. */
  mmioRead(address: number, size: AccessSize): number {
    const bar = this.findBar(address);
    if (bar === null || address - this.hitBase + size > bar.size) {
      this.high = ALL_ONES;
      return size >= 4 ? ALL_ONES : 2 ** (8 * size) - 1;
    }
    const low = bar.registers.mmioRead(address - this.hitBase, size);
    this.high = size === 8 ? bar.registers.high : 0;
    return low;
  }

  mmioWrite(address: number, size: AccessSize, lo: number, hi: number): void {
    const bar = this.findBar(address);
    if (bar === null || address - this.hitBase + size > bar.size) return;
    bar.registers.mmioWrite(address - this.hitBase, size, lo, hi);
  }

  /** Which functions there are, where their BARs were placed, and their pins. */
  saveState(): StateRecord {
    return {
      slots: this.slots.map(({ name, requesterId, pin }) => {
        return { name, pin, barBases: [...this.#slots.get(requesterId)!.barBases] };
      }),
      wireLevels: bytesOf(this.#wireLevels),
    };
  }

  /** A function that was plugged in or pulled out since cannot be made or taken away: that is an error. */
  restoreState(state: StateReader): void {
    const here = new Map(this.slots.map(({ name, requesterId }) => [name, this.#slots.get(requesterId)!]));
    const saved = state.records("slots");
    for (const record of saved) {
      const name = record.text("name");
      const slot = here.get(name) ?? record.fail("name", `${name} is not plugged in here`);
      here.delete(name);
      slot.pin = record.boolean("pin");
      record.numbers("barBases", slot.barBases);
    }
    for (const name of here.keys()) state.fail("slots", `lack ${name}, which is plugged in here`);
    state.memory("wireLevels", this.#wireLevels);
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const { name, function: pciFunction, dma } of this.slots) {
      if (!isStateful(pciFunction)) throw new StateError(`${name}: its model saves no state`);
      yield [name, pciFunction];
      yield [`${name} DMA`, dma];
    }
  }
}

/** ECAM: 4 KiB of configuration space a function, 1 MiB a bus (PCIe 6.0 §7.2.2). */
export class EnhancedConfigurationAccess implements MmioPort {
  high = 0;
  readonly #root: RootComplex;

  constructor(root: RootComplex) {
    this.#root = root;
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (size === 8) {
      this.high = this.#root.configRead(offset >>> 12, (offset & 0xfff) + 4, 4);
      return this.#root.configRead(offset >>> 12, offset & 0xfff, 4);
    }
    this.high = 0;
    return this.#root.configRead(offset >>> 12, offset & 0xfff, size);
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    this.#root.configWrite(offset >>> 12, offset & 0xfff, size === 8 ? 4 : size, lo);
    if (size === 8) this.#root.configWrite(offset >>> 12, (offset & 0xfff) + 4, 4, hi);
  }
}
