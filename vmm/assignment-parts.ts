// What a VM's IOMMU world (assignment.ts) is put together from, by whoever makes the machine.

import type { GpaPfn } from "../host/base/address.ts";
import type { PhysicalMemory } from "../host/base/memory.ts";
import type { SystemCalls } from "../host/uapi/system-calls.ts";
import type { Machine } from "./machine.ts";
import type { PciHostBridge } from "./pci/host-bridge.ts";
import type { CommonConfiguration, ViommuKind } from "./viommu/kind.ts";

/** Wires of the machine that vIOMMUs and devices drive. */
export interface AssignmentWires {
  viommu(index: number, vector: number, asserted: boolean): void;
  /** INTx of a function; `pin` 1 to 4. */
  intx(routingId: number, pin: number, asserted: boolean): void;
  /** Wire of a platform device, 0 to PLATFORM_WIRES - 1; absent: the machine has none for them. */
  platform?(wire: number, asserted: boolean): void;
}

export interface AssignmentParts {
  readonly machine: Machine;
  readonly memory: PhysicalMemory<GpaPfn>;
  readonly pci: PciHostBridge;
  readonly wires: AssignmentWires;
  /** Kind of the guest-visible IOMMUs, and what the machine says about them. */
  readonly kind: ViommuKind;
  readonly configuration: CommonConfiguration;
  /** The host process; null: no assigned devices, only emulated ones. */
  readonly calls: SystemCalls | null;
  /** False: no vIOMMU; devices do DMA with guest-physical addresses, through stage 2 only. Default true. */
  readonly viommu?: boolean;
  /** Takes devices that share an iommu group, as one stream with one context. Default: they are refused. */
  readonly allowSharedGroup?: boolean;
  /** Guest RAM as a window of the VMM's memory. */
  readonly ram: { readonly buffer: ArrayBufferLike; readonly offset: number; readonly length: number };
  /** One line each, for the person who runs the VM. */
  readonly report: (message: string) => void;
}
