// What every machine is put together from, whatever executes its guest: guest-physical memory with RAM in it, the bus with its run loop, and
// the PCI host bridge on it; and its IOMMU world (assignment.ts), once it is told what drives wires. Component machines and kernel
// machines add their CPUs, interrupt controllers and firmware.

import type { GpaPfn } from "../host/base/address.ts";
import type { Clock } from "../host/base/clock.ts";
import { PhysicalMemory } from "../host/base/memory.ts";
import { bytesOf, type KeepBytes, type Stateful, type StateReader, type StateRecord } from "../host/base/state.ts";
import type { Trace } from "../host/base/trace.ts";
import type { SystemCalls } from "../host/uapi/system-calls.ts";
import { Assignment } from "./assignment.ts";
import type { AssignmentWires } from "./assignment-parts.ts";
import { type InterruptSource, Machine } from "./machine.ts";
import {
  ECAM_BASE,
  ECAM_BUSES,
  PCI_MEMORY32_BASE,
  PCI_MEMORY32_SIZE,
  PCI_MEMORY64_BASE,
  PCI_MEMORY64_SIZE,
  RAM_BASE,
} from "./memory-map.ts";
import { PciHostBridge } from "./pci/host-bridge.ts";
import { barRegister, ecamRegister } from "./platform/register-names.ts";
import type { CommonConfiguration, ViommuKind } from "./viommu/kind.ts";

export interface FrameParts {
  readonly clock: Clock;
  readonly trace: Trace;
  /** Guest RAM as a window of the memory that the guest executes in. */
  readonly ram: { readonly buffer: ArrayBufferLike; readonly offset: number; readonly length: number };
  readonly interrupts: InterruptSource;
  /** Names of PCI registers in the trace. */
  readonly namesRegisters: boolean;
}

/** A machine's IOMMU world, as whoever makes the machine describes it. */
export interface IommuWorld {
  /** The host process that holds the VM's devices; null for a VM with emulated devices only. */
  readonly calls: SystemCalls | null;
  /** Kind of the vIOMMUs, and what is said about them in that kind's words. */
  readonly kind: ViommuKind;
  readonly configuration: CommonConfiguration;
  /** False: no vIOMMU; devices do DMA with guest-physical addresses. Default true. */
  readonly viommu?: boolean;
  readonly allowSharedGroup?: boolean;
  readonly report: (message: string) => void;
}

export class MachineFrame implements Stateful {
  readonly machine: Machine;
  readonly memory = new PhysicalMemory<GpaPfn>();
  readonly pci = new PciHostBridge(ECAM_BUSES);
  readonly #ram: FrameParts["ram"];
  #assignment: Assignment | null = null;

  constructor({ clock, trace, ram, interrupts, namesRegisters }: FrameParts) {
    this.#ram = ram;
    this.machine = new Machine(clock, trace, interrupts);
    this.memory.addBank((RAM_BASE / 4096) as GpaPfn, ram.buffer, ram.offset, ram.length);
    const { bus } = this.machine;
    const ecam = { name: "ecam", base: ECAM_BASE, size: ECAM_BUSES * 0x100000, port: this.pci.ecam };
    bus.claim(namesRegisters ? { ...ecam, registerName: ecamRegister } : ecam);
    for (const [name, base, size] of [
      ["pci-memory32", PCI_MEMORY32_BASE, PCI_MEMORY32_SIZE],
      ["pci-memory64", PCI_MEMORY64_BASE, PCI_MEMORY64_SIZE],
    ] as const) {
      const window = { name, base, size, port: this.pci.window(base) };
      const registerName = (offset: number) => barRegister(this.pci, base + offset);
      bus.claim(namesRegisters ? { ...window, registerName } : window);
    }
  }

  /** The VM's address space in the host, its vIOMMUs and devices. Throws HostRefusal if the host does not take guest RAM. */
  iommuWorld(wires: AssignmentWires, world: IommuWorld): Assignment {
    const { machine, memory, pci } = this;
    this.#assignment = new Assignment({ machine, memory, pci, wires, ram: this.#ram, ...world });
    return this.#assignment;
  }

  /** Guest RAM is written down here, and nowhere else: the host only maps it. */
  saveState(keep: KeepBytes = bytesOf): StateRecord {
    return { ram: keep(this.#ramBytes) };
  }

  restoreState(state: StateReader): void {
    state.memory("ram", this.#ramBytes);
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["run loop", this.machine];
    yield ["pci", this.pci];
    if (this.#assignment !== null) yield ["iommu world", this.#assignment];
  }

  get #ramBytes(): Uint8Array {
    const { buffer, offset, length } = this.#ram;
    return new Uint8Array(buffer, offset, length);
  }
}
