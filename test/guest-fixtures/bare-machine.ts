// A component machine without a host under it: device models behind the guest's own IOMMU, be it a HardwareIommu or the guest-visible
// one with emulated devices. Guest-physical memory is the machine's only memory.

import type { GpaPfn, HpaPfn } from "../../host/base/address.ts";
import { Clock } from "../../host/base/clock.ts";
import { PhysicalMemory } from "../../host/base/memory.ts";
import type { MmioPort } from "../../host/base/mmio.ts";
import { Trace } from "../../host/base/trace.ts";
import type { DmaPort, PciFunction } from "../../host/devices/ports.ts";
import type { HardwareIommu, IommuParts } from "../../host/hw/iommu/port.ts";
import { FunctionDma } from "../../host/hw/pci/function-dma.ts";
import { ComponentInterrupts } from "../../vmm/component-interrupts.ts";
import { Machine } from "../../vmm/machine.ts";
import {
  ECAM_BASE,
  MSI_BASE,
  PCI_MEMORY32_BASE,
  PCI_MEMORY32_SIZE,
  RAM_BASE,
  SW_MSI_BASE,
  SW_MSI_SIZE,
  VIOMMU_BASE,
} from "../../vmm/memory-map.ts";
import { PciHostBridge } from "../../vmm/pci/host-bridge.ts";
import { ComponentVcpu, type GuestOutcome } from "../../vmm/vcpu/component/component-vcpu.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import type { RegionKind } from "../../vmm/vcpu/component/world.ts";
import type { PlatformNode } from "../../vmm/viommu/platform-node.ts";
import type { RiscvConfiguration } from "../../vmm/viommu/riscv/capabilities.ts";
import { RiscvViommu, VIOMMU_REGISTER_BYTES } from "../../vmm/viommu/riscv/viommu.ts";

const ECAM_SIZE = 0x10_0000;
const RAM_SIZE = 16 * 2 ** 20;
const FIRST_IOMMU_WIRE = 8;

/** An IOMMU as the guest sees it, and the DMA ways of what is behind it. */
export interface BareIommu {
  readonly registers: MmioPort;
  readonly registerBytes: number;
  /** Its region in the component world. */
  readonly region: RegionKind;
  dmaOf(pciFunction: PciFunction, deviceId: number): DmaPort;
}

export interface BareIommuParts extends IommuParts {
  readonly interrupts: ComponentInterrupts;
}

/** Hardware, as the host has it. Wires are levels, or edges (the kind's `PlatformNode` says which). */
export function hardwareIommu(
  make: (parts: IommuParts) => HardwareIommu,
  { region, edges }: Pick<PlatformNode, "region" | "edges"> = { region: "iommu" },
): (parts: BareIommuParts) => BareIommu {
  return (parts) => {
    const iommu = make(parts);
    const { memory, trace, interrupts } = parts;
    iommu.onWire = (vector, asserted) => {
      if (edges !== true) interrupts.setWire(FIRST_IOMMU_WIRE + vector, asserted);
      else if (asserted) interrupts.raise(FIRST_IOMMU_WIRE + vector);
    };
    return {
      registers: iommu.registers,
      registerBytes: iommu.registerBytes,
      region,
      dmaOf: (pciFunction, deviceId) =>
        new FunctionDma({ function: pciFunction, name: pciFunction.name, deviceId, iommu, memory, trace }),
    };
  };
}

/** The guest-visible IOMMU with emulated devices behind it. */
export function guestVisibleIommu(configuration: RiscvConfiguration): (parts: BareIommuParts) => BareIommu {
  return ({ name, memory: hostMemory, clock, trace, interrupts }) => {
    const memory = hostMemory as unknown as PhysicalMemory<GpaPfn>;
    const viommu = new RiscvViommu({
      ...{ name, memory, clock, trace, configuration, host: null, hardware: null },
      interrupt: {
        wire: (vector, asserted) => interrupts.setWire(FIRST_IOMMU_WIRE + vector, asserted),
        message: (pfn, offset, data) => memory.store32(pfn, offset, data),
      },
    });
    return {
      registers: viommu,
      registerBytes: VIOMMU_REGISTER_BYTES,
      region: "iommu",
      dmaOf(pciFunction, deviceId) {
        const { name } = pciFunction;
        viommu.plug({ handle: deviceId, guestId: deviceId, name, ats: false, pri: false, emulated: true });
        return viommu.emulatedDma(() => deviceId);
      },
    };
  };
}

export class BareMachine {
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly interrupts = new ComponentInterrupts(this.clock, this.trace);
  readonly machine = new Machine(this.clock, this.trace, this.interrupts);
  readonly memory = new PhysicalMemory<HpaPfn>();
  readonly ram = new WebAssembly.Memory({ initial: RAM_SIZE / 65536, maximum: RAM_SIZE / 65536 });
  readonly pci = new PciHostBridge(ECAM_SIZE / 0x10_0000);
  output = "";
  readonly #iommu: BareIommu;

  constructor(makeIommu: (parts: BareIommuParts) => BareIommu) {
    this.memory.addBank((RAM_BASE / 4096) as HpaPfn, this.ram.buffer);
    this.memory.addStoreTarget((MSI_BASE / 4096) as HpaPfn, this.interrupts);
    const { memory, clock, trace, interrupts } = this;
    this.#iommu = makeIommu({ name: "iommu0", memory, clock, trace, interrupts });
    const { bus } = this.machine;
    bus.claim({ name: "iommu0", base: VIOMMU_BASE, size: this.#iommu.registerBytes, port: this.#iommu.registers });
    bus.claim({ name: "msi", base: MSI_BASE, size: 4096, port: this.interrupts });
    bus.claim({ name: "ecam", base: ECAM_BASE, size: ECAM_SIZE, port: this.pci.ecam });
    bus.claim({
      ...{ name: "pci-memory32", base: PCI_MEMORY32_BASE, size: PCI_MEMORY32_SIZE },
      port: this.pci.window(PCI_MEMORY32_BASE),
    });
    this.machine.onConsole = (bytes) => {
      this.output += new TextDecoder().decode(bytes);
    };
  }

  /** Puts a function at `requesterId`; the IOMMU knows it as `deviceId` (the same, unless the machine is miswired on purpose). */
  plug(requesterId: number, pciFunction: PciFunction, deviceId = requesterId): void {
    const dma = this.#iommu.dmaOf(pciFunction, deviceId);
    pciFunction.connect({ dma, clock: this.clock, interrupt: { intx: () => {} } });
    this.pci.plug(requesterId, pciFunction);
  }

  boot(image: PreparedComponent): GuestOutcome {
    const region = (base: number, size: number) => [{ base, size }];
    const vcpu = new ComponentVcpu({
      image,
      memory: this.ram,
      port: this.machine,
      platform: {
        regions: {
          ram: region(RAM_BASE, RAM_SIZE),
          [this.#iommu.region]: region(VIOMMU_BASE, this.#iommu.registerBytes),
          "pci-config": region(ECAM_BASE, ECAM_SIZE),
          "pci-memory32": region(PCI_MEMORY32_BASE, PCI_MEMORY32_SIZE),
          "msi-page": region(MSI_BASE, 4096),
          identity: region(SW_MSI_BASE, SW_MSI_SIZE),
        },
        iommuLine: (index, vector) => (index === 0 && vector < 16 ? FIRST_IOMMU_WIRE + vector : -1),
        iommuOf: (requesterId) => (this.pci.functions.has(requesterId) ? 0 : -1),
        pciLine: () => -1,
        now: () => this.clock.now,
        alarm: (delay, number) => this.interrupts.setAlarm(delay, number),
      },
    });
    return vcpu.run();
  }
}
