// A host put together from a description: memory, IOMMUs, root complexes, devices, and the kernel on top. The only place that knows all
// of them. What is above (a VMM, a scenario, the command line) makes processes here and otherwise uses system calls.
//
// Host-physical map (nothing is identity with anything a guest sees):
//   0x0_2800_0000   interrupt files, one page each
//   0x1_0000_0000   BARs, 32-bit window translated up; 0x40_0000_0000 64-bit window
//   0x8_0000_0000   the kernel's RAM; buffers that processes lend (guest RAM) go above

import type { HpaPfn } from "./base/address.ts";
import type { Clock } from "./base/clock.ts";
import { PhysicalMemory } from "./base/memory.ts";
import type { Trace } from "./base/trace.ts";
import type { BlockStore } from "./devices/nvme/block-store.ts";
import type { DeviceDescription, HostDescription } from "./description.ts";
import { Edu } from "./devices/edu/edu.ts";
import type { DmaPort, PciFunction } from "./devices/ports.ts";
import { InterruptFiles } from "./hw/interrupt-files.ts";
import type { HardwareIommu } from "./hw/iommu/port.ts";
import { RiscvIommu } from "./hw/iommu/riscv/iommu.ts";
import type { RiscvIommuOptions } from "./hw/iommu/riscv/options.ts";
import { BarWindow } from "./hw/pci/bar-window.ts";
import { type PciSlot, RootComplex } from "./hw/pci/root-complex.ts";
import type { Injector } from "./kernel/inject.ts";
import { addIommufd } from "./kernel/iommufd/in-kernel.ts";
import { Kernel } from "./kernel/kernel.ts";
import type { Process } from "./kernel/process.ts";

const INTERRUPT_FILES_PFN = 0x28000;
const RAM_PFN = 0x800000;
const WINDOW32 = { base: 0x4000_0000, size: 0x4000_0000 };
const WINDOW64 = { base: 0x40_0000_0000, size: 0x40_0000_0000 };

export interface HostParts {
  readonly clock: Clock;
  readonly trace: Trace;
  /** Opens the file behind an NVMe drive; absent: drives with files cannot be made (a browser). */
  readonly openBlockFile?: (file: string, blockBytes: number) => BlockStore;
}

export interface DmaCounters {
  readonly transfers: number;
  readonly bytes: number;
  readonly aborted: number;
  readonly messages: number;
}
