// What AArch64 brings to a kernel machine (vmm/kernel-machine.ts): the core, a GICv2 with a message frame, PSCI, the device tree.
//
//   wire (UART, INTx, vIOMMU) → GIC → CPU's IRQ       device's MSI → store at the v2m frame → GIC

import type { GpaPfn } from "../../host/base/address.ts";
import type { PhysicalMemory } from "../../host/base/memory.ts";
import type { Stateful, StateRecord } from "../../host/base/state.ts";
import { AArch64Debugged } from "../gdb/aarch64.ts";
import type { DebuggedCpu } from "../gdb/debugged-cpu.ts";
import type { KernelMachineOptions, KernelParts, KernelPartsHost, TreeRequest } from "../kernel-machine.ts";
import type { Machine } from "../machine.ts";
import { GICC_BASE, GICD_BASE, GICV2M_BASE } from "../memory-map.ts";
import { PLATFORM_WIRES } from "../platform-devices.ts";
import { AArch64Core, Exit } from "../vcpu/aarch64/core.ts";
import { arm64DeviceTree } from "./arm64-device-tree.ts";
import { GicV2 } from "./gicv2.ts";
import { GicV2mFrame } from "./gicv2m.ts";
import { Psci } from "./psci.ts";
import { giccRegister, gicdRegister, gicv2mRegister } from "./register-names.ts";

// shared peripheral interrupts, from 0; interrupt ids are 32 more
const UART_SPI = 1;
const INTX_SPI = 4;
const VIOMMU_SPI = 8;
const VIOMMU_WIRES = 8;
const MESSAGE_SPI = 96;
const MESSAGES = 128;
const PLATFORM_SPI = MESSAGE_SPI + MESSAGES;
const INTERRUPTS = 32 + PLATFORM_SPI + PLATFORM_WIRES;
/** vIOMMUs that have wires; further ones would collide with messages. */
const WIRED_VIOMMUS = (MESSAGE_SPI - VIOMMU_SPI) / VIOMMU_WIRES;
const TIMER_HZ = 62_500_000;

export class Arm64Parts implements KernelParts {
  readonly core: AArch64Core;
  readonly exits = { wait: Exit.Wfi, firmware: Exit.Call, debugger: Exit.Break };
  readonly gic: GicV2;
  readonly psci: Psci;
  readonly #options: KernelMachineOptions;

  /** `module`: vmm/vcpu/aarch64/build/cpu.wasm, compiled. */
  constructor(module: WebAssembly.Module, options: KernelMachineOptions, host: KernelPartsHost) {
    this.#options = options;
    this.core = new AArch64Core({
      module,
      ramBytes: options.memoryBytes,
      harts: options.cpus,
      timebaseFrequency: TIMER_HZ,
      mmio: host.bus,
      ...options.engine,
    });
    this.gic = new GicV2(options.cpus, INTERRUPTS, {
      running: () => this.core.running,
      signal: (cpu, irq, timer) => {
        this.core.setInterrupt(cpu, irq, timer);
        if (irq) host.woken(cpu);
      },
      timerLevel: (cpu) => this.core.timerFires(cpu),
    });
    this.psci = new Psci({ core: this.core, started: host.started, reset: host.reset });
  }

  claim({ bus }: Machine, memory: PhysicalMemory<GpaPfn>): void {
    const { distributor, cpuInterface } = this.gic;
    const frame = new GicV2mFrame(32 + MESSAGE_SPI, MESSAGES, (id) => this.gic.pulse(id));
    memory.addStoreTarget((GICV2M_BASE / 4096) as GpaPfn, frame);
    bus.claim({ name: "gicd", base: GICD_BASE, size: 0x1000, port: distributor, registerName: gicdRegister });
    bus.claim({ name: "gicc", base: GICC_BASE, size: 0x2000, port: cpuInterface, registerName: giccRegister });
    bus.claim({ name: "gicv2m", base: GICV2M_BASE, size: 0x1000, port: frame, registerName: gicv2mRegister });
  }

  debugged(load: (address: bigint) => bigint | null): DebuggedCpu {
    return new AArch64Debugged(this.core, load);
  }

  firmwareCall(cpu: number): void {
    this.psci.call(cpu);
  }

  uartWire(asserted: boolean): void {
    this.gic.setWire(32 + UART_SPI, asserted);
  }

  setIntx(routingId: number, pin: number, asserted: boolean): void {
    const slot = (routingId >> 3) & 3;
    this.gic.setWire(32 + INTX_SPI + ((slot + pin - 1) % 4), asserted);
  }

  viommuWire(index: number, vector: number, asserted: boolean): void {
    if (index < WIRED_VIOMMUS && vector < VIOMMU_WIRES) {
      this.gic.setWire(32 + VIOMMU_SPI + index * VIOMMU_WIRES + vector, asserted);
    }
  }

  platformWire(wire: number, asserted: boolean): void {
    this.gic.setWire(32 + PLATFORM_SPI + wire, asserted);
  }

  deviceTree(request: TreeRequest): Uint8Array {
    return arm64DeviceTree({
      cpus: this.#options.cpus,
      memoryBytes: this.#options.memoryBytes,
      uartSpi: UART_SPI,
      intxSpi: INTX_SPI,
      viommuSpi: VIOMMU_SPI,
      viommuWires: VIOMMU_WIRES,
      platformSpi: PLATFORM_SPI,
      ...request,
    });
  }

  /** x0 the tree (Documentation/arch/arm64/booting.rst). */
  start(entry: bigint, tree: bigint): void {
    this.core.start(0, entry, tree);
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["core", this.core];
    yield ["gic", this.gic];
    yield ["psci", this.psci];
  }
}
