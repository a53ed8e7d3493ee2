// A machine for component guests, and for scenarios that play the guest themselves: RAM that is a WebAssembly memory, an interrupt
// controller with wires and an MSI page, PCI, vIOMMUs and devices behind them.

import type { GpaPfn } from "../host/base/address.ts";
import type { Clock } from "../host/base/clock.ts";
import type { PhysicalMemory } from "../host/base/memory.ts";
import type { Stateful, StateRecord } from "../host/base/state.ts";
import type { Trace } from "../host/base/trace.ts";
import { EDU_COMPATIBLE } from "../host/devices/edu/registers.ts";
import type { SystemCalls } from "../host/uapi/system-calls.ts";
import type { Assignment } from "./assignment.ts";
import { ComponentInterrupts, INTERRUPT_COUNT } from "./component-interrupts.ts";
import type { Machine } from "./machine.ts";
import { MachineFrame } from "./machine-frame.ts";
import {
  ECAM_BASE,
  ECAM_BUSES,
  MSI_BASE,
  PCI_MEMORY32_BASE,
  PCI_MEMORY32_SIZE,
  PCI_MEMORY64_BASE,
  PCI_MEMORY64_SIZE,
  RAM_BASE,
  SW_MSI_BASE,
  SW_MSI_SIZE,
} from "./memory-map.ts";
import type { PciHostBridge } from "./pci/host-bridge.ts";
import { PLATFORM_WIRES, type PlatformDeviceEntry } from "./platform-devices.ts";
import type { ComponentPlatform } from "./vcpu/component/platform.ts";
import type { CommonConfiguration, ViommuKind } from "./viommu/kind.ts";
import { DEFAULT_KIND, VIOMMU_KINDS } from "./viommu/kinds.ts";

export interface ComponentMachineOptions {
  readonly clock: Clock;
  readonly trace: Trace;
  /** The host process that holds the VM's devices; null for a VM with emulated devices only. */
  readonly calls: SystemCalls | null;
  /** Multiple of 64 KiB, up to 2 GiB. */
  readonly memoryBytes: number;
  /** Kind of its vIOMMUs; default DEFAULT_KIND. And what the machine says about them, in that kind's words. */
  readonly kind?: ViommuKind;
  readonly configuration?: CommonConfiguration;
  /** False: no vIOMMU; devices do DMA with guest-physical addresses. Default true. */
  readonly viommu?: boolean;
  /** See AssignmentParts. */
  readonly allowSharedGroup?: boolean;
  readonly report: (message: string) => void;
}

/** Interrupt wires: 16 vectors a vIOMMU from 32 on, four for PCI INTx from 16 on; platform devices' are the last 32. */
const INTX_WIRES = 16;
const VIOMMU_WIRES = 32;
const FIRST_PLATFORM_WIRE = INTERRUPT_COUNT - PLATFORM_WIRES;

export class ComponentMachine implements Stateful {
  readonly ram: WebAssembly.Memory;
  readonly memoryBytes: number;
  readonly interrupts: ComponentInterrupts;
  readonly assignment: Assignment;
  readonly machine: Machine;
  readonly memory: PhysicalMemory<GpaPfn>;
  readonly pci: PciHostBridge;
  readonly #kind: ViommuKind;
  readonly #frame: MachineFrame;

  /** Throws HostRefusal if the host does not take guest RAM. */
  constructor(options: ComponentMachineOptions) {
    const { clock, trace, memoryBytes } = options;
    this.#kind = options.kind ?? VIOMMU_KINDS[DEFAULT_KIND];
    const pages = memoryBytes / 65536;
    this.ram = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.memoryBytes = memoryBytes;
    this.interrupts = new ComponentInterrupts(clock, trace);
    const frame = new MachineFrame({
      clock,
      trace,
      ram: { buffer: this.ram.buffer, offset: 0, length: memoryBytes },
      interrupts: this.interrupts,
      namesRegisters: false,
    });
    this.#frame = frame;
    this.machine = frame.machine;
    this.memory = frame.memory;
    this.pci = frame.pci;
    this.memory.addStoreTarget((MSI_BASE / 4096) as GpaPfn, this.interrupts);
    this.machine.bus.claim({ name: "msi-page", base: MSI_BASE, size: 4096, port: this.interrupts });
    this.assignment = frame.iommuWorld(
      {
        viommu: (index, vector, asserted) => {
          const wire = VIOMMU_WIRES + 16 * index + vector;
          if (this.#kind.node.edges !== true) this.interrupts.setWire(wire, asserted);
          else if (asserted) this.interrupts.raise(wire);
        },
        intx: (routingId, pin, asserted) => this.interrupts.setWire(intxWire(routingId, pin), asserted),
        platform: (wire, asserted) => this.interrupts.setWire(FIRST_PLATFORM_WIRE + wire, asserted),
      },
      {
        calls: options.calls,
        kind: this.#kind,
        configuration: options.configuration ?? {},
        viommu: options.viommu !== false,
        allowSharedGroup: options.allowSharedGroup === true,
        report: options.report,
      },
    );
  }

  /** Number at the interrupt controller of a platform device's wire; -1 for none. */
  platformLine(wire: number): number {
    return wire < 0 ? -1 : FIRST_PLATFORM_WIRE + wire;
  }

  /** What the machine tells a component guest about itself. */
  get platform(): ComponentPlatform {
    const { clock } = this.machine;
    return {
      regions: {
        ram: [{ base: RAM_BASE, size: this.memoryBytes }],
        [this.#kind.node.region]: this.assignment.viommus.map(({ base }) => ({ base, size: this.#kind.registerBytes })),
        "pci-config": [{ base: ECAM_BASE, size: ECAM_BUSES * 0x100000 }],
        "pci-memory32": [{ base: PCI_MEMORY32_BASE, size: PCI_MEMORY32_SIZE }],
        "pci-memory64": [{ base: PCI_MEMORY64_BASE, size: PCI_MEMORY64_SIZE }],
        "msi-page": [{ base: MSI_BASE, size: 4096 }],
        identity: [{ base: SW_MSI_BASE, size: SW_MSI_SIZE }],
        "platform-edu": this.#edus.map(({ regions }) => regions[0]!),
      },
      iommuLine: (index, vector) =>
        index < this.assignment.viommus.length && vector < this.#kind.node.wires
          ? VIOMMU_WIRES + 16 * index + vector
          : -1,
      iommuOf: (requesterId) =>
        this.assignment.devices.find((entry) => entry.routingId === requesterId)?.viommu?.index ?? -1,
      pciLine: (requesterId, pin) => (pin >= 1 && pin <= 4 ? intxWire(requesterId, pin) : -1),
      device: (kind, index) => {
        const entry = kind === "platform-edu" ? this.#edus[index] : undefined;
        if (entry === undefined) return null;
        const { request, viommu, wires } = entry;
        return { id: request.guestId, iommu: viommu, line: this.platformLine(wires[0] ?? -1) };
      },
      now: () => clock.now,
      alarm: (delay, number) => this.interrupts.setAlarm(delay, number),
    };
  }

  /** Platform devices that a component guest can be told of. */
  get #edus(): PlatformDeviceEntry[] {
    return this.assignment.platform.entries.filter(({ request }) => request.compatible === EDU_COMPATIBLE);
  }

  [Symbol.dispose](): void {
    this.assignment[Symbol.dispose]();
  }

  /** As it stands at a trap; the guest's own stack is not part of it (vcpu/component/component-vcpu.ts). */
  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["frame", this.#frame];
    yield ["interrupts", this.interrupts];
  }
}

function intxWire(routingId: number, pin: number): number {
  return INTX_WIRES + ((((routingId >> 3) & 3) + pin - 1) % 4);
}
